"""docs/openapi.json: current, true to the code, and whole."""

import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import jsonschema_rs
import msgspec
import pytest

from schemas.profiles import PROFILES
from services.admin import apps, credentials, fields, replays, rules
from services.admin.audit import chained
from services.admin.delivery_commands import filter_of
from services.admin.differences import differences, version_json
from services.admin.documented import DOCUMENTED
from services.admin.named_secrets import secrets_json
from services.admin.openapi import Undocumented, as_json, described, document
from services.admin.replay_commands import dry_run_json
from services.admin.replays import replay_json
from services.admin.rotation import overlap_ms
from services.admin.routes import all_routes
from services.admin.routes.audit import audit_json
from services.admin.routes.route import Route
from services.admin.shown import integration_json
from services.dispatcher.dry_run import DryRun, Shown
from services.history.fold import fold
from services.history.query import Bucket, Told
from services.history.shown import attempt_json, bucket_json, delivery_json, row_json
from services.runtime.problems import Problem
from services.vault.seal import Keyring
from streams.records import IntegrationState, Secret
from tests.admins import make_token
from tests.apps import make_app
from tests.breaking import make_result
from tests.docs.test_errors_documented import documented as documented_errors
from tests.histories import BLOCKED
from tests.records import make_integration, make_replay

ROOT = Path(__file__).parents[2]
DOCUMENT = described()
KEYRING = Keyring(bytes(32))
STATE = IntegrationState(
    integration="int_1",
    app="demo",
    state="failing",
    epoch=1,
    reason="3 in a row failed",
    consecutive_failures=3,
    delivered=1,
    ended=4,
    last_delivery_id="dlv_1",
    last_outcome="exhausted",
    last_event_type="call_ended",
    last_status=503,
    last_attempt=3,
    last_at_ms=900,
    applied_offset=7,
)
ROUTE = Route("GET", "/v1/apps/{app}/audit", None, "viewer", "A route", 200, None, "Audit", ("limit",))


def schema(name: str) -> dict:
    return {"$ref": f"#/components/schemas/{name}", "components": DOCUMENT["components"]}


def properties(name: str) -> set[str]:
    return set(DOCUMENT["components"]["schemas"][name]["properties"])


def faults(value: object, name: str) -> list[str]:
    """What is wrong with the value, by the schema of that name."""
    validator = jsonschema_rs.Draft202012Validator(schema(name), validate_formats=True)
    return [error.message for error in validator.iter_errors(json.loads(json.dumps(value)))]


def operations():
    return [
        (method.upper(), path, operation)
        for path, methods in DOCUMENT["paths"].items()
        for method, operation in methods.items()
    ]


def parts(of: object):
    """Every object in it."""
    if isinstance(of, Mapping):
        yield of
        for inner in of.values():
            yield from parts(inner)
    elif isinstance(of, list):
        for inner in of:
            yield from parts(inner)


def test_the_committed_document_is_current():
    committed = (ROOT / "docs" / "openapi.json").read_bytes()

    assert as_json(DOCUMENT) == committed, "the routes or their schemas have changed: run `make openapi`"


def test_every_route_is_in_it_and_no_other():
    routes = all_routes(Nobody())

    assert sorted((route.method, route.path) for route in routes) == sorted(
        (method, path) for method, path, _ in operations()
    )


class Nobody:
    """What no handler works with: none is called here."""

    def __getattr__(self, name):
        return self


def test_every_operation_has_an_id_of_its_own():
    ids = [operation["operationId"] for _, _, operation in operations()]

    assert sorted(set(ids)) == sorted(ids)


def test_every_reference_leads_somewhere():
    for part in parts(DOCUMENT):
        if isinstance(reference := part.get("$ref"), str):
            at = DOCUMENT
            for step in reference.removeprefix("#/").split("/"):
                assert step in at, reference
                at = at[step]


def test_every_link_leads_to_an_operation_and_fills_its_path():
    known = {operation["operationId"]: path for _, path, operation in operations()}
    links = [link for part in parts(DOCUMENT["paths"]) for link in part.get("links", {}).values()]

    assert links
    for link in links:
        assert {f"{{{name}}}" for name in link["parameters"]} == {
            step for step in known[link["operationId"]].split("/") if step.startswith("{")
        }


@pytest.mark.parametrize("name", list(DOCUMENTED.schemas))
def test_every_schema_is_one(name):
    jsonschema_rs.meta.validate({"$schema": "https://json-schema.org/draft/2020-12/schema", **DOCUMENTED.schemas[name]})


@pytest.mark.parametrize(
    ("route", "message"),
    [
        (replace(ROUTE, answer="Adit"), "there is no schema 'Adit'; add it to SCHEMAS in services/admin/documented"),
        (replace(ROUTE, body="NewAudit"), "there is no schema 'NewAudit'"),
        (replace(ROUTE, also=((202, "Begun"),)), "there is no schema 'Begun'"),
        (replace(ROUTE, query=("limt",)), "there is no parameter 'limt'; add it to PARAMETERS"),
        (replace(ROUTE, path="/v1/apps/{app}/audit/{record}"), "there is no parameter 'record'"),
        (replace(ROUTE, headers=("If-Mtch",)), "there is no request header 'If-Mtch'"),
        (replace(ROUTE, gives=("Etag",)), "there is no answer header 'Etag'"),
        (replace(ROUTE, errors=("quota_exceded",)), "there is no problem 'quota_exceded'; add it to problems.PROBLEMS"),
    ],
)
def test_a_route_that_names_what_there_is_not_is_told(route, message):
    with pytest.raises(Undocumented) as told:
        document([route])

    assert f"GET {route.path}: {message}" in str(told.value)


def test_all_faults_are_told_at_once():
    with pytest.raises(Undocumented) as told:
        document([replace(ROUTE, answer="A", query=("b",)), ROUTE, ROUTE])

    assert str(told.value).splitlines() == [
        "GET /v1/apps/{app}/audit: there is no schema 'A'; add it to SCHEMAS in services/admin/documented",
        "GET /v1/apps/{app}/audit: there is no parameter 'b'; add it to PARAMETERS in services/admin/documented",
        "GET /v1/apps/{app}/audit: is there twice",
        "GET /v1/apps/{app}/audit: is there twice",
    ]


def test_a_schema_that_refers_to_what_there_is_not_is_told():
    broken = replace(DOCUMENTED, schemas={**DOCUMENTED.schemas, "A": {"$ref": "#/components/schemas/B"}})

    with pytest.raises(Undocumented, match="schema 'A' refers to 'B'"):
        document([ROUTE], broken)


def test_a_parameter_of_an_answer_s_own_comes_before_the_one_that_all_share():
    own = {"description": "Another limit.", "schema": {"type": "boolean"}}
    found = document([ROUTE], replace(DOCUMENTED, parameters={**DOCUMENTED.parameters, "Audit.limit": own}))

    assert found["paths"][ROUTE.path]["get"]["parameters"][1] == {"name": "limit", "in": "query", **own}


def test_a_route_may_have_several_answers():
    found = document([replace(ROUTE, also=((202, "AuditRecord"),))])["paths"][ROUTE.path]["get"]["responses"]

    assert [found[status]["content"]["application/json"]["schema"]["$ref"] for status in ("200", "202")] == [
        "#/components/schemas/Audit",
        "#/components/schemas/AuditRecord",
    ]


def test_every_problem_has_the_status_that_the_page_on_errors_says():
    page = documented_errors()
    wrong = {
        code: page[code]
        for code, kind in DOCUMENTED.problems.items()
        # Codes that are on no page: tests/docs/test_errors_documented.py.
        if code in page and str(kind.status) not in page[code]
    }

    assert wrong == {}


# -- the schemas against the code that they describe -------------------------------------------------------------


@pytest.mark.parametrize(("name", "profile"), [("Integration", "integration"), ("Subscription", "booking")])
def test_a_create_and_a_patch_have_the_fields_that_the_rules_ask_for(monkeypatch, name, profile):
    asked, has = set(), fields.Fields.has

    def recorded(self, field):
        asked.add(self.prefix + field)
        return has(self, field)

    monkeypatch.setattr(fields.Fields, "has", recorded)
    rules.wanted({"name": "x", "url": "https://x.example"}, make_app(), PROFILES[profile])

    for of in (f"New{name}", f"{name}Patch"):
        described_fields = DOCUMENT["components"]["schemas"][of]["properties"]
        assert {field for field in asked if "." not in field} == set(described_fields)
        assert {field for field in asked if "." in field} == {
            f"retry.{field}" for field in described_fields["retry"]["properties"]
        }


def test_what_is_shown_is_what_is_described():
    config = make_integration()
    other = msgspec.structs.replace(config, name="Other", version=config.version + 1)
    record = chained(
        id="aud_1",
        app="demo",
        at_ms=1,
        who="up",
        ip=None,
        action="integration.create",
        target=config.id,
        allowed=True,
        details={"version": "1"},
        previous_hash=b"",
    )
    for shown, name in [
        (integration_json(config, KEYRING), "Integration"),
        (integration_json(config, KEYRING, queue_age_ms=5, state=STATE, now_ms=1_000), "Integration"),
        (version_json(config, KEYRING), "Version"),
        (audit_json(record), "AuditRecord"),
        (differences(config, other, KEYRING)[0], "Difference"),
    ]:
        assert faults(shown, name) == []
        assert set(shown) == properties(name) - {"signingSecret"}
    assert faults({"items": [integration_json(config, KEYRING)], "next": None}, "Integrations") == []


def test_what_is_shown_of_apps_and_what_opens_them_is_what_is_described():
    app = make_app(tokens=[make_token("tok_1", "viewer")])
    for shown, name in [
        (apps.app_json(app), "App"),
        (credentials.key_json(app.keys[0]), "Key"),
        (credentials.key_json(app.keys[0]) | {"key": credentials.minted("pk_", bytes(24))}, "CreatedKey"),
        (credentials.token_json(app.tokens[0]), "Token"),
        (credentials.token_json(app.tokens[0]) | {"token": credentials.minted("tok_", bytes(24))}, "CreatedToken"),
    ]:
        assert faults(shown, name) == []
        assert set(shown) == properties(name)
    listed = apps.catalogue_json(app)
    assert faults({"items": listed, "next": None}, "EventTypes") == []
    assert {each["source"] for each in listed} == {"catalogue", "app", "tenterhook"}
    assert all(set(each) == properties("EventType") for each in listed)


def test_what_is_shown_of_secrets_and_replays_is_what_is_described():
    secret = Secret(version=2, sealed=b"", created_at_ms=1, revealed_at_ms=2)
    replay = make_replay(until_ms=1_000, types=["call_ended"], outcomes={"delivered": 2}, reached_ms=500, reason="…")
    sent = Shown(
        "evt_1",
        "call_ended",
        1,
        was_delivered_live=False,
        url="https://a.example",
        headers=(("A", "***"),),
        body=b"\xff",
    )
    refused = Shown("evt_2", "call_ended", 1, was_delivered_live=True, refusal=("template_failed", "…"))
    dry_run = DryRun(by_type=Counter(call_ended=2), sample=[sent, refused])
    for shown, name in [
        (secrets_json(make_integration(secrets={"token": secret}))[0], "Secret"),
        (replay_json(make_replay(until_ms=1_000), 0.0), "Replay"),
        (replay_json(replay, 1.0), "Replay"),
        (dry_run_json(dry_run, replay), "DryRun"),
        (dry_run_json(dry_run, replay)["sample"][1], "DryRunRequest"),
    ]:
        assert faults(shown, name) == []
        assert set(shown) == properties(name)


def test_what_is_shown_of_deliveries_is_what_is_described():
    results = [make_result(1, dns_us=1_500), make_result(1, **BLOCKED)]
    row = fold(fold(None, results[0], 0), results[1], 1)
    for shown, name in [
        (row_json(fold(None, results[0], 0)), "ListedDelivery"),
        (row_json(row), "ListedDelivery"),
        (delivery_json(Told(row, results, [row])), "Delivery"),
        (attempt_json(results[0]), "Attempt"),
        (attempt_json(results[1]), "Attempt"),
        (bucket_json(Bucket(start_ms=0)), "Hour"),
        (bucket_json(Bucket(start_ms=0, delivered=2, exhausted=1)), "Hour"),
    ]:
        assert faults(shown, name) == []
        assert set(shown) == properties(name)


def test_a_problem_is_what_is_described():
    problem = Problem(409, "quota_exceeded", "No place left", "…", limit=3)

    assert faults(problem.as_json(), "Problem") == []
    assert faults({**problem.as_json(), "status": 200}, "Problem") != []


@pytest.mark.parametrize(
    "body",
    [
        {
            "name": "CRM",
            "url": "https://crm.example/{secret.a}",
            "secrets": {"a": "b"},
            "headers": {"X-A": "{secret.a}"},
        },
        {
            "name": "CRM",
            "url": "http://crm.example:81?a=b",
            "retry": {"maxAttempts": 2, "delaysMs": [1]},
            "events": ["*"],
        },
        {"name": "é", "url": "HTTPS://crm.example", "timeoutMs": 5.0, "events": ["cart_filled"], "retry": None},
    ],
)
def test_what_is_taken_is_described_as_such(body):
    rules.wanted(body, make_app(), PROFILES["integration"])

    assert faults(body, "NewIntegration") == []


@pytest.mark.parametrize(
    "change",
    [
        {"name": " "},
        {"name": "a\nb"},
        {"name": "a" * 201},
        {"name": None},
        {"url": "ftp://a.example"},
        {"url": "https://a.example/#b"},
        {"url": "https://a@b.example"},
        {"url": "https://{secret.a}"},
        {"events": "*"},
        {"events": ["a"] * 501},
        {"headers": {"a b": "c"}},
        {"headers": {"a": "é"}},
        {"headers": {"a": None}},
        {"secrets": {"a.b": "c"}},
        {"secrets": {"a": ""}},
        {"timeoutMs": 10_001},
        {"timeoutMs": True},
        {"timeoutMs": 1.5},
        {"retry": {"maxAttempts": 21}},
        {"retry": {"maxAtempts": 2}},
        {"retry": {"delaysMs": [0]}},
        {"ordering": "any"},
        {"profile": "booking"},
        {"status": "active"},
        {"timoutMs": 1},
    ],
)
def test_what_is_refused_for_its_shape_is_described_so(change):
    body = {"name": "CRM", "url": "https://crm.example"} | change
    with pytest.raises(rules.Refused):
        rules.wanted(body, make_app(), PROFILES["integration"])

    assert faults(body, "NewIntegration") != []


def asked_replay(body):
    return replays.asked(body, make_integration(), replay="rpl_1", who="anna", now_ms=1_767_355_200_000)


FROM = {"from": "2026-01-02T00:00:00Z"}
#: What reads the bodies of a schema.
READERS = {
    "NewApp": apps.wanted_app,
    "AppPatch": lambda body: apps.patched_app(make_app(), body),
    "NewEventType": apps.wanted_type,
    "NewKey": credentials.wanted_kind,
    "NewToken": credentials.wanted_token,
    "Rotate": overlap_ms,
    "RetryFilter": lambda body: filter_of("demo", body),
    "NewReplay": asked_replay,
}


@pytest.mark.parametrize(
    ("name", "body"),
    [
        ("NewApp", {"id": "a_b-1"}),
        ("NewApp", {"id": "a", "name": "A", "origins": ["*"], "eventTypes": ["own.type"], "maxActive": 0}),
        ("NewApp", {"id": "a", "origins": ["https://[::1]:81", "app://x"], "publicRatePerS": None, "allowHttp": True}),
        ("AppPatch", {}),
        ("AppPatch", {"id": "demo", "name": None, "maxActive": 5}),
        ("NewEventType", {"type": "a"}),
        ("NewKey", {"kind": "secret"}),
        ("NewToken", {"name": "ada+1@a.example", "role": "operator"}),
        ("Rotate", None),
        ("Rotate", {}),
        ("Rotate", {"overlapMs": 1}),
        ("Rotate", {"now": True}),
        ("RetryFilter", {"outcome": "exhausted"}),
        ("RetryFilter", {"outcome": "blocked", "since": "2026-01-02T03:04:05Z", "limit": 1_000, "type": None}),
        ("RetryFilter", {"outcome": "exhausted", "cursor": "a-_9" * 8}),
        ("NewReplay", FROM),
        ("NewReplay", FROM | {"sample": None, "types": ["a"], "eventIds": None, "rate": 5.0}),
        ("NewReplay", FROM | {"until": "2026-01-02T01:00:00+00:30", "dryRun": False}),
    ],
)
def test_other_bodies_that_are_taken_are_described_as_such(name, body):
    READERS[name](body)

    assert faults(body, name) == []


@pytest.mark.parametrize(
    ("name", "body"),
    [
        ("NewApp", {}),
        ("NewApp", {"id": "A"}),
        ("NewApp", {"id": "a" * 65}),
        ("NewApp", {"id": None}),
        ("NewApp", {"id": "a", "version": 1}),
        ("NewApp", {"id": "a", "origins": ["https://A.example"]}),
        ("NewApp", {"id": "a", "origins": ["https://a.example/"]}),
        ("NewApp", {"id": "a", "origins": "*"}),
        ("NewApp", {"id": "a", "eventTypes": ["call_ended"]}),
        ("NewApp", {"id": "a", "eventTypes": ["scheduled.x"]}),
        ("NewApp", {"id": "a", "eventTypes": ["-a"]}),
        ("NewApp", {"id": "a", "maxActive": -1}),
        ("NewApp", {"id": "a", "publicRatePerS": 0}),
        ("NewApp", {"id": "a", "allowHttp": "yes"}),
        ("AppPatch", {"name": ""}),
        ("AppPatch", []),
        ("AppPatch", {"keys": []}),
        ("NewEventType", {"type": "tenterhook.x"}),
        ("NewEventType", {"type": "a" * 129}),
        ("NewEventType", {"type": "a b"}),
        ("NewKey", {"kind": None}),
        ("NewKey", {"kind": "other"}),
        ("NewToken", {"name": "a"}),
        ("NewToken", {"name": " a", "role": "viewer"}),
        ("Rotate", {"overlapMs": 604_800_001}),
        ("Rotate", {"now": 1}),
        ("Rotate", []),
        ("RetryFilter", {"outcome": None}),
        ("RetryFilter", {"outcome": "open"}),
        ("RetryFilter", {"outcome": "exhausted", "limit": 0}),
        ("RetryFilter", {"outcome": "exhausted", "cursor": "a" * 33}),
        ("RetryFilter", {"outcome": "exhausted", "since": "x"}),
        ("NewReplay", {}),
        ("NewReplay", {"from": "x"}),
        ("NewReplay", FROM | {"rate": 1_001}),
        ("NewReplay", FROM | {"types": [""]}),
        ("NewReplay", FROM | {"sample": 1}),
        ("NewReplay", FROM | {"type": "a"}),
    ],
)
def test_other_bodies_that_are_refused_for_their_shape_are_described_so(name, body):
    with pytest.raises(rules.Refused):
        READERS[name](body)

    assert faults(body, name) != []
