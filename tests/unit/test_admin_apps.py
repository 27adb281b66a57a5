"""What may be asked of an app, what becomes of it, and what holds a change back."""

import msgspec
import pytest

from schemas.catalogue import CATALOGUE, OWN_TYPES
from services.admin.apps import (
    DEFAULT_PUBLIC_RATE,
    MAX_MAX_ACTIVE,
    MAX_ORIGINS,
    MAX_OWN_TYPES,
    MAX_PUBLIC_RATE,
    app_json,
    catalogue_json,
    changed_app,
    check_empty,
    check_types_unused,
    differing,
    loosened,
    new_app,
    next_version,
    origin_fault,
    patched_app,
    type_fault,
    wanted_app,
    wanted_type,
    with_type,
    without_type,
)
from services.admin.rules import Refused
from services.ingest.keys import allows_origin
from services.runtime.problems import Problem
from streams.records import AppConfig, DataKey
from tests.admins import make_token
from tests.apps import make_app
from tests.records import make_integration

APP = make_app(
    "shop", tokens=[make_token("tok_1", "admin")], data_keys=[DataKey(id="d", wrapped=b"w", created_at_ms=0)]
)


def refusals(body, before=None):
    with pytest.raises(Refused) as caught:
        wanted_app(body, before)
    return {refusal.field: refusal.detail for refusal in caught.value.refusals}


def problem_of(caught):
    return caught.value.status, caught.value.code


def test_the_least_app_takes_neither_plain_http_nor_pages_and_has_no_keys():
    made = new_app(wanted_app({"id": "shop"}), now_ms=7, who="ops")

    assert app_json(made) == {
        "id": "shop",
        "name": "shop",
        "origins": [],
        "eventTypes": [],
        "allowHttp": False,
        "maxActive": 3,
        "publicRatePerS": 100,
        "version": 1,
        "createdAt": "1970-01-01T00:00:00.007Z",
        "updatedAt": "1970-01-01T00:00:00.007Z",
    }
    assert (made.keys, made.tokens, made.updated_by) == ([], [], "ops")


def test_the_default_rate_is_that_of_records_without_one():
    fields = {field.name: field.default for field in msgspec.structs.fields(AppConfig)}

    assert fields["public_rate_per_s"] == DEFAULT_PUBLIC_RATE


def test_everything_that_is_given_is_kept_once():
    wanted = wanted_app(
        {
            "id": "a-z_0-9",
            "name": "Shop ü",
            "origins": ["https://shop.example", "http://localhost:3000", "https://shop.example"],
            "eventTypes": ["order_paid", "cart.filled", "order_paid"],
            "allowHttp": True,
            "maxActive": 0,
            "publicRatePerS": 1,
        }
    )

    assert (wanted.app, wanted.name) == ("a-z_0-9", "Shop ü")
    assert wanted.origins == ["https://shop.example", "http://localhost:3000"]
    assert wanted.event_types == ["order_paid", "cart.filled"]
    assert (wanted.allow_http, wanted.max_active, wanted.public_rate_per_s) == (True, 0, 1)


@pytest.mark.parametrize("app_id", ["*", "", "A", "shop/1", "shop.1", "ü", "x" * 65, " ", "shop\n", 7, None, ["a"]])
def test_an_id_that_cannot_stand_in_addresses_is_refused(app_id):
    assert "id" in refusals({"id": app_id})


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"name": ""}, "name"),
        ({"name": "x" * 201}, "name"),
        ({"origins": "https://a.example"}, "origins"),
        ({"origins": [1]}, "origins[0]"),
        ({"origins": ["https://a.example", "*"]}, "origins"),
        ({"origins": [f"https://a{n}.example" for n in range(MAX_ORIGINS + 1)]}, "origins"),
        ({"eventTypes": ["ok", "call_ended"]}, "eventTypes[1]"),
        ({"eventTypes": [f"t{n}" for n in range(MAX_OWN_TYPES + 1)]}, "eventTypes"),
        ({"allowHttp": "yes"}, "allowHttp"),
        ({"maxActive": -1}, "maxActive"),
        ({"maxActive": MAX_MAX_ACTIVE + 1}, "maxActive"),
        ({"maxActive": True}, "maxActive"),
        ({"publicRatePerS": 0}, "publicRatePerS"),
        ({"publicRatePerS": MAX_PUBLIC_RATE + 1}, "publicRatePerS"),
        ({"version": 1}, "version"),
        ({"keys": []}, "keys"),
        ({"origin": "*"}, "origin"),
    ],
)
def test_what_cannot_be_is_refused_by_field(changes, field):
    assert list(refusals({"id": "shop"} | changes)) == [field]


@pytest.mark.parametrize("body", [None, [], "shop", 1])
def test_a_body_that_is_no_object_is_refused(body):
    assert list(refusals(body)) == [""]
    with pytest.raises(Refused):
        patched_app(APP, body)


@pytest.mark.parametrize(
    "origin",
    [
        "*",
        "https://shop.example",
        "http://localhost:3000",
        "https://xn--bcher-kva.example",
        "https://[2001:db8::1]:8443",
        "http://10.0.0.1",
        "capacitor://localhost",
        "chrome-extension://abcdefghijklmnop",
        "https://a.example:8080",
    ],
)
def test_origins_that_browsers_send_are_taken_and_ingest_finds_them(origin):
    assert origin_fault(origin) is None
    if origin != "*":
        assert allows_origin(make_app(origins=[origin]), origin)


@pytest.mark.parametrize(
    "origin",
    [
        "",
        "null",
        "shop.example",
        "https://",
        "https://shop.example/",
        "https://shop.example/page",
        "https://Shop.example",
        "HTTPS://shop.example",
        "https://*.shop.example",
        "https://u:p@shop.example",
        "https://b\u00fccher.example",
        "https://shop.example:443",
        "http://shop.example:80",
        "https://shop.example:0",
        "https://shop.example\n",
        "https://" + "x" * 300,
    ],
)
def test_origins_that_no_browser_sends_would_never_match_and_are_refused(origin):
    assert origin_fault(origin) is not None


@pytest.mark.parametrize("event_type", ["order_paid", "a", "9", "Cart.Filled-2", "x" * 128])
def test_types_that_ingest_takes_may_be_an_app_s_own(event_type):
    assert type_fault(event_type) is None
    assert wanted_type({"type": event_type}) == event_type


@pytest.mark.parametrize(
    "event_type",
    ["*", "", "_a", "a b", "a/b", "x" * 129, "call_ended", "scheduled.created", "scheduled.mine", "tenterhook.mine"],
)
def test_types_that_ingest_refuses_or_every_app_has_are_not(event_type):
    assert type_fault(event_type) is not None
    with pytest.raises(Refused):
        wanted_type({"type": event_type})


@pytest.mark.parametrize("body", [{}, {"type": None}, {"type": 1}, {"type": "ok", "sample": {}}, []])
def test_a_type_is_added_by_its_name_alone(body):
    with pytest.raises(Refused):
        wanted_type(body)


def test_a_patch_changes_what_it_names_and_null_gives_the_default():
    app = make_app("shop", max_active=9)
    wanted = patched_app(app, {"name": "New", "maxActive": None, "origins": None})
    after = changed_app(app, wanted)

    assert (after.name, after.max_active, after.origins, after.event_types) == ("New", 3, [], ["cart_filled"])
    assert differing(app, after) == ["maxActive", "name", "origins"]


def test_a_patch_leaves_keys_tokens_and_data_keys_alone():
    after = next_version(changed_app(APP, patched_app(APP, {"name": "New"})), now_ms=9, who="ops")

    assert (after.keys, after.tokens, after.data_keys) == (APP.keys, APP.tokens, APP.data_keys)
    assert (after.version, after.updated_at_ms, after.updated_by, after.created_at_ms) == (2, 9, "ops", 0)


def test_an_empty_patch_changes_nothing():
    assert changed_app(APP, patched_app(APP, {})) == APP
    assert changed_app(APP, patched_app(APP, {"id": "shop", "name": APP.name})) == APP


def test_what_an_app_has_already_stays_though_a_new_one_could_not_have_it():
    """A type that was built in since, an origin of before: a patch of the name is not refused for those."""
    old = make_app("shop", event_types=["call_ended"], origins=["https://Shop.example"])

    assert patched_app(old, {"name": "New"}).event_types == ["call_ended"]
    with pytest.raises(Refused):
        patched_app(old, {"eventTypes": ["call_ended", "call_started"]})


@pytest.mark.parametrize("app_id", ["other", None, 1])
def test_an_app_keeps_its_id(app_id):
    with pytest.raises(Refused) as caught:
        patched_app(APP, {"id": app_id})

    assert {each.field for each in caught.value.refusals} == {"id"}


@pytest.mark.parametrize(
    ("changes", "names"),
    [
        ({"max_active": 4}, ["maxActive"]),
        ({"max_active": 2}, []),
        ({"allow_http": True}, ["allowHttp"]),
        ({"public_rate_per_s": 101}, ["publicRatePerS"]),
        ({"public_rate_per_s": 1, "name": "x", "origins": ["*"]}, []),
        ({"max_active": 4, "allow_http": True}, ["allowHttp", "maxActive"]),
    ],
)
def test_limits_that_a_change_takes_off_the_app_are_named(changes, names):
    before = make_app("shop", allow_http=False)

    assert loosened(before, msgspec.structs.replace(before, **changes)) == names


def test_tightening_plain_http_is_no_loosening():
    assert loosened(make_app(allow_http=True), make_app(allow_http=False)) == []


def test_a_type_that_an_integration_selects_is_not_taken_away():
    before = make_app(event_types=["a", "b"])
    after = without_type(before, "a")
    check_types_unused(
        before, after, [make_integration("int_1", events=["b"]), make_integration("int_2", events=["*"])]
    )

    with pytest.raises(Problem) as caught:
        check_types_unused(before, after, [make_integration(f"int_{n}", events=["a", "b"]) for n in range(7)])
    assert problem_of(caught) == (409, "type_in_use")
    assert caught.value.extensions == {"integrations": [f"int_{n}" for n in range(7)], "eventTypes": ["a"]}
    assert "a is selected by int_0, int_1, int_2, int_3, int_4 and 2 more" in caught.value.detail


def test_types_come_and_go_by_name():
    assert with_type(APP, "cart_filled") is APP
    assert with_type(APP, "b").event_types == ["cart_filled", "b"]
    assert without_type(APP, "cart_filled").event_types == []
    for unknown in ("b", "call_ended"):
        with pytest.raises(Problem) as caught:
            without_type(APP, unknown)
        assert problem_of(caught) == (404, "no_such_type")
    with pytest.raises(Problem) as full:
        with_type(make_app(event_types=[f"t{n}" for n in range(MAX_OWN_TYPES)]), "one_more")
    assert problem_of(full) == (409, "limit_reached")


def test_an_app_with_integrations_is_not_deleted():
    check_empty(APP, [])
    with pytest.raises(Problem) as caught:
        check_empty(APP, [make_integration("int_1"), make_integration("sub_1", profile="booking")])
    assert problem_of(caught) == (409, "app_in_use")
    assert caught.value.extensions == {"integrations": 2}


def test_the_catalogue_has_every_type_that_can_be_selected_with_where_it_comes_from():
    listed = catalogue_json(make_app(event_types=["mine"]))
    by_source = {
        source: {each["type"] for each in listed if each["source"] == source}
        for source in ("catalogue", "app", "tenterhook")
    }

    assert by_source == {"catalogue": CATALOGUE, "app": {"mine"}, "tenterhook": OWN_TYPES}
    assert len(listed) == len({each["type"] for each in listed})
    assert all(each["description"] and each["sample"] for each in listed if each["source"] != "app")
    assert [each for each in listed if each["type"] == "mine"] == [
        {"type": "mine", "source": "app", "description": None, "sample": None}
    ]


def test_a_type_that_was_built_in_since_is_listed_once():
    assert [each["type"] for each in catalogue_json(make_app(event_types=["call_ended"]))].count("call_ended") == 1
