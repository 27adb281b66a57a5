"""Keys and tokens: made, named, shown without what opens anything, taken away."""

import msgspec
import pytest

from services.admin.bootstrap import KEY_BYTES
from services.admin.credentials import (
    MAX_KEYS,
    MAX_TOKENS,
    RANDOM_BYTES,
    key_json,
    minted,
    new_key,
    new_token,
    token_json,
    wanted_kind,
    wanted_token,
    with_key,
    with_token,
    without_key,
    without_token,
)
from services.admin.rules import Refused
from services.admin.tokens import caller_of, hash_of
from services.ingest.keys import kind_of_key
from services.runtime.problems import Problem
from streams import codec
from tests.admins import make_token
from tests.apps import make_app

PLAIN = minted("pk_", bytes(range(24)))


def problem_of(caught):
    return caught.value.status, caught.value.code


def test_a_key_is_192_random_bits_that_fit_an_address():
    assert PLAIN == "pk_AAECAwQFBgcICQoLDA0ODxAREhMUFRYX"
    assert minted("tok_", b"\xff" * 24) == "tok_" + "_" * 32
    assert RANDOM_BYTES == KEY_BYTES
    with pytest.raises(ValueError, match="24 random bytes"):
        minted("pk_", b"short")


@pytest.mark.parametrize("kind", ["public", "secret"])
def test_ingest_takes_a_key_that_was_added_and_no_record_shows_it(kind):
    key = new_key(PLAIN, kind, now_ms=5)
    app = with_key(make_app(keys=[]), key)

    assert kind_of_key(PLAIN, app) == kind
    assert PLAIN.removeprefix("pk_").encode() not in codec.encode(app)
    assert key_json(key) == {"id": key.id, "kind": kind, "createdAt": "1970-01-01T00:00:00.005Z"}
    assert key.id == f"key_{hash_of(PLAIN).hex()[:16]}"


def test_a_key_that_was_deleted_opens_nothing_and_the_others_stay():
    app = make_app()
    left = without_key(app, "key_public")

    assert [each.id for each in left.keys] == ["key_secret"]
    with pytest.raises(Problem) as caught:
        without_key(left, "key_public")
    assert problem_of(caught) == (404, "no_such_key")


def test_there_is_an_end_to_keys_and_to_tokens():
    keys = [new_key(f"pk_{n}", "public", now_ms=0) for n in range(MAX_KEYS)]
    tokens = [make_token(f"t{n}", "viewer") for n in range(MAX_TOKENS)]
    with pytest.raises(Problem) as too_many_keys:
        with_key(make_app(keys=keys), new_key(PLAIN, "public", now_ms=0))
    with pytest.raises(Problem) as too_many_tokens:
        with_token(make_app("*", tokens=tokens), make_token("one_more", "viewer"))

    assert problem_of(too_many_keys) == problem_of(too_many_tokens) == (409, "limit_reached")
    assert too_many_tokens.value.detail.startswith("The installation has 100 tokens")
    assert too_many_keys.value.extensions == {"limit": MAX_KEYS}


@pytest.mark.parametrize("body", [{}, {"kind": None}, {"kind": "pk"}, {"kind": "public", "name": "x"}, [], None])
def test_a_key_is_asked_for_by_its_kind(body):
    with pytest.raises(Refused):
        wanted_kind(body)


def test_a_token_is_asked_for_by_name_and_role():
    assert wanted_kind({"kind": "secret"}) == "secret"
    assert wanted_token({"name": "ci-deploy", "role": "operator"}) == ("ci-deploy", "operator")
    assert wanted_token({"name": "ada+x@shop.example", "role": "admin"}) == ("ada+x@shop.example", "admin")


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"role": "viewer"}, "name"),
        ({"name": "x"}, "role"),
        ({"name": "x", "role": "root"}, "role"),
        ({"name": "", "role": "viewer"}, "name"),
        ({"name": "..", "role": "viewer"}, "name"),
        ({"name": "a/b", "role": "viewer"}, "name"),
        ({"name": "a b", "role": "viewer"}, "name"),
        ({"name": "x" * 65, "role": "viewer"}, "name"),
        ({"name": "x", "role": "viewer", "app": "other"}, "app"),
        (7, ""),
    ],
)
def test_what_cannot_be_a_token_is_refused_by_field(body, field):
    with pytest.raises(Refused) as caught:
        wanted_token(body)

    assert [each.field for each in caught.value.refusals] == [field]


def test_a_token_that_was_added_is_recognised_and_no_record_shows_it():
    token = new_token("tok_plain", "ada", "viewer", now_ms=5)
    app = with_token(make_app("shop"), token)
    caller = caller_of("tok_plain", [app])

    assert (caller.name, caller.role, caller.app) == ("ada", "viewer", "shop")
    assert b"tok_plain" not in codec.encode(app)
    assert token_json(token) == {"name": "ada", "role": "viewer", "createdAt": "1970-01-01T00:00:00.005Z"}


def test_two_tokens_of_one_scope_do_not_share_a_name():
    app = with_token(make_app(), make_token("tok_1", "viewer", "ada"))
    with pytest.raises(Problem) as caught:
        with_token(app, make_token("tok_2", "admin", "ada"))

    assert problem_of(caught) == (409, "token_exists")


def test_the_installation_keeps_an_admin():
    tokens = [make_token("a", "admin"), make_token("b", "admin"), make_token("v", "viewer")]
    installation = make_app("*", tokens=tokens)
    one_left = without_token(installation, "a")

    assert [each.name for each in one_left.tokens] == ["b", "v"]
    assert [each.name for each in without_token(one_left, "v").tokens] == ["b"]
    with pytest.raises(Problem) as caught:
        without_token(one_left, "b")
    assert problem_of(caught) == (409, "last_admin_token")
    # An app may lose its last one: the installation's admins make another.
    assert without_token(msgspec.structs.replace(one_left, app="shop"), "b").tokens == [make_token("v", "viewer")]
    with pytest.raises(Problem) as unknown:
        without_token(installation, "nobody")
    assert problem_of(unknown) == (404, "no_such_token")
