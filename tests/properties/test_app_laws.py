"""Laws of apps: whatever JSON comes is refused by field or kept as it stands, and what is kept is understood."""

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.admin.apps import (
    app_json,
    changed_app,
    loosened,
    new_app,
    origin_fault,
    patched_app,
    type_fault,
    wanted_app,
    with_type,
)
from services.admin.credentials import RANDOM_BYTES, minted, new_key, with_key, without_key
from services.admin.rules import Refused
from services.ingest import accept
from services.ingest.keys import allows_origin, kind_of_key
from services.runtime.problems import Problem
from streams import codec
from streams.records import AppConfig
from tests.apps import PUBLIC_KEY, make_app

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)
ORIGINS = st.sampled_from(["https://a.example", "http://localhost:3000", "*", "https://A.example", "null"])
TYPES = st.sampled_from(["order_paid", "a.b", "call_ended", "tenterhook.x", "scheduled.x", ""])
FIELDS = st.fixed_dictionaries(
    {},
    optional={
        "id": st.sampled_from(["demo", "shop", "*"]) | JSON,
        "name": st.text(max_size=5) | JSON,
        "origins": st.lists(ORIGINS, max_size=3) | JSON,
        "eventTypes": st.lists(TYPES, max_size=3) | JSON,
        "allowHttp": st.booleans() | JSON,
        "maxActive": st.integers(-1, 1_001) | JSON,
        "publicRatePerS": st.integers(0, 101) | JSON,
        "version": JSON,
    },
)
BODIES = FIELDS | JSON


@given(BODIES)
def test_an_app_is_refused_by_field_or_stored_as_it_is_shown_and_can_be_made_again_from_that(body):
    try:
        made = new_app(wanted_app(body), now_ms=0, who="ops")
    except Refused:
        return
    shown = {name: value for name, value in app_json(made).items() if name not in {"version", "createdAt", "updatedAt"}}

    assert codec.decode_as(AppConfig, codec.encode(made)) == made
    assert new_app(wanted_app(shown), now_ms=0, who="ops") == made


@given(BODIES)
def test_a_patch_changes_what_it_names_and_made_again_changes_nothing(patch):
    app = make_app(max_active=7)
    try:
        after = changed_app(app, patched_app(app, patch))
    except Refused:
        return
    before_json, after_json = app_json(app), app_json(after)

    assert all(after_json[name] == before_json[name] for name in before_json if name not in patch)
    assert changed_app(after, patched_app(after, patch)) == after
    assert (after.keys, after.tokens, after.data_keys, after.version) == (app.keys, app.tokens, app.data_keys, 1)


@given(BODIES, BODIES)
def test_no_row_of_patches_gets_past_a_limit_without_one_that_raises_it(first, second):
    app = make_app(allow_http=False)
    after = app
    for patch in (first, second):
        with contextlib.suppress(Refused):
            wanted = changed_app(after, patched_app(after, patch))
            after = after if loosened(after, wanted) else wanted

    assert (after.allow_http, after.max_active <= 3, after.public_rate_per_s <= 100) == (False, True, True)


@given(st.text(max_size=30) | st.from_regex(r"[a-z]+://[a-z.]+(:[0-9]+)?", fullmatch=True))
def test_an_origin_that_is_taken_is_one_that_ingest_finds_and_no_other_is_found_by_it(origin):
    if origin_fault(origin) is not None or origin == "*":
        return
    app = make_app(origins=[origin])

    assert allows_origin(app, origin)
    assert not allows_origin(app, origin + "x")


@given(st.text(max_size=10) | st.from_regex(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,127}", fullmatch=True))
def test_a_type_that_is_taken_is_one_that_public_keys_may_send_then(event_type):
    if type_fault(event_type) is not None:
        return
    app = with_type(make_app(event_types=[]), event_type)

    accept._check_type(event_type, app, "public")  # raises where it is refused
    with pytest.raises(Problem, match="unknown_type"):
        accept._check_type(event_type, make_app(event_types=[]), "public")


@given(st.binary(min_size=RANDOM_BYTES, max_size=RANDOM_BYTES), st.sampled_from(["public", "secret"]))
def test_a_key_opens_its_app_while_it_is_there_and_changes_nothing_for_others(random, kind):
    plain = minted("pk_", random)
    key = new_key(plain, kind, now_ms=0)
    app = make_app()
    opened = with_key(app, key)

    assert kind_of_key(plain, opened) == kind
    assert kind_of_key(PUBLIC_KEY, opened) == "public"
    assert without_key(opened, key.id) == app
    with pytest.raises(Problem, match="key_unknown"):
        kind_of_key(plain, app)
    assert plain[3:].encode() not in codec.encode(opened)
