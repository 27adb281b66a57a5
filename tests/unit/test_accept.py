import json

import pytest

from schemas.catalogue import BOOKING_TYPES, CATALOGUE, WIDGET_TYPES
from services.ingest.accept import MAX_REQUEST_BYTES, accept, answer, read
from services.runtime.problems import Problem
from tests.apps import make_app

NOW_MS = 1_760_000_000_123


def accepted(body, *, key_kind="secret", app=None):
    return accept(
        read(body if isinstance(body, bytes) else json.dumps(body).encode()),
        app=app or make_app(),
        key_kind=key_kind,
        now_ms=NOW_MS,
        record_id="rec_1",
        minted_event_id="evt_minted",
    )


def refused(body, **options) -> Problem:
    with pytest.raises(Problem) as caught:
        accepted(body, **options)
    return caught.value


def test_an_event_of_nothing_but_a_type_has_a_minted_id_a_null_payload_and_the_time_of_now():
    event = accepted({"type": "call_started"})

    assert event.type == "call_started"
    assert event.event_id == "evt_minted"
    assert event.id_supplied is False
    assert event.record_id == "rec_1"
    assert event.payload == b"null"
    assert event.occurred_at_ms == event.accepted_at_ms == NOW_MS
    assert event.ordering_key is None
    assert event.app == "demo"
    assert event.id_space == "secret"


def test_everything_that_a_sender_says_is_kept():
    event = accepted(
        {
            "type": "call_ended",
            "id": "call-7_A",
            "occurredAt": "2026-01-31T13:00:00.25+01:00",
            "orderingKey": "call 7 · ü",
            "payload": [1],
        },
        key_kind="public",
    )

    assert event.event_id == "call-7_A"
    assert event.id_supplied is True
    assert event.id_space == "public"
    assert event.occurred_at_ms == 1_769_860_800_250
    assert event.accepted_at_ms == NOW_MS
    assert event.ordering_key == "call 7 · ü"


@pytest.mark.parametrize(
    "payload",
    [
        b'{ "b" : 1.0,"a":1e2, "a":"\\u00e9\xc3\xa9\\/" }',
        b"[ ]",
        b'"\\ud83d\\ude00"',
        b"-0.0",
        b"null",
        b'{"n":123456789012345678901234567890,"z":1E400}',
    ],
)
def test_the_payload_is_kept_byte_for_byte(payload):
    event = accepted(b'\n{"payload":  ' + payload + b' ,\t"type":"call_started"} ')

    assert event.payload == payload


@pytest.mark.parametrize("field", ["id", "occurredAt", "orderingKey"])
def test_null_counts_as_absent_where_a_field_may_be_absent(field):
    event = accepted({"type": "call_started", field: None})

    assert event == accepted({"type": "call_started"})


@pytest.mark.parametrize(
    ("body", "hint"),
    [
        (b"", "empty"),
        (b"call_started", "invalid character"),
        (b'{"type":"call_started"', "truncated"),
        (b'{"type":"call_started"} {}', "trailing"),
        (b'{"type":"call_started","payload":{"a":1,}}', "trailing comma"),
        (b'{"type":"call_started","payload":NaN}', "invalid character"),
        (b'{"type":"call_started","payload":"\x01"}', "invalid character"),
        (b'{"type":"call_started","payload":"\xff"}', "byte 34 is not UTF-8"),
        (b'{"type":"call_started","payload":"\\ud800"}', ""),  # half a character
        ('{"type":"call_started"}'.encode("utf-16"), "not UTF-8"),
        (b'{"type":"call_started","payload":' + b"[" * 30_000 + b"]" * 30_000 + b"}", "nested too deeply"),
    ],
)
def test_what_is_invalid_json_is_refused_with_the_reason(body, hint):
    problem = refused(body)

    assert (problem.status, problem.code) == (400, "invalid_json")
    assert problem.extensions["field"] == "body"
    assert hint in problem.detail


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ([], "body"),
        ("call_started", "body"),
        (None, "body"),
        ({}, "type"),
        ({"payload": {}}, "type"),
        ({"type": 1}, "type"),
        ({"type": None}, "type"),
        ({"type": ""}, "type"),
        ({"type": "*"}, "type"),
        ({"type": ".call"}, "type"),
        ({"type": "call started"}, "type"),
        ({"type": "call\r\nstarted"}, "type"),
        ({"type": "call_started\n"}, "type"),
        ({"type": "é"}, "type"),
        ({"type": "a" * 129}, "type"),
        ({"type": "call_started", "id": ""}, "id"),
        ({"type": "call_started", "id": 7}, "id"),
        ({"type": "call_started", "id": "a.b"}, "id"),
        ({"type": "call_started", "id": "a\n"}, "id"),
        ({"type": "call_started", "id": "a" * 129}, "id"),
        ({"type": "call_started", "occurredAt": 1_760_000_000}, "occurredAt"),
        ({"type": "call_started", "occurredAt": "yesterday"}, "occurredAt"),
        ({"type": "call_started", "occurredAt": "2026-01-31"}, "occurredAt"),
        ({"type": "call_started", "occurredAt": "2026-01-31T12:00:00"}, "occurredAt"),
        ({"type": "call_started", "occurredAt": "2026-02-30T12:00:00Z"}, "occurredAt"),
        ({"type": "call_started", "occurredAt": "1969-12-31T23:59:59Z"}, "occurredAt"),
        ({"type": "call_started", "occurredAt": "9999-12-31T23:59:59-01:00"}, "occurredAt"),
        ({"type": "call_started", "orderingKey": ""}, "orderingKey"),
        ({"type": "call_started", "orderingKey": 7}, "orderingKey"),
        ({"type": "call_started", "orderingKey": "a\u0000"}, "orderingKey"),
        ({"type": "call_started", "orderingKey": "ü" * 257}, "orderingKey"),
        ({"type": "call_started", "ID": "a"}, "ID"),
        ({"type": "call_started", "event_id": "a"}, "event_id"),
        ({"type": "call_started", "sk_live <b>": "a"}, "body"),
        ({"type": "scheduled.created"}, "payload.scheduled_call"),
        ({"type": "scheduled.created", "payload": []}, "payload.scheduled_call"),
        ({"type": "scheduled.created", "payload": {"call": {}}}, "payload.scheduled_call"),
        ({"type": "scheduled.created", "payload": {"scheduled_call": None}}, "payload.scheduled_call"),
        ({"type": "scheduled.created", "payload": {"scheduled_call": "{"}}, "payload.scheduled_call"),
        ({"type": "scheduled.whatever", "payload": {}}, "payload.scheduled_call"),
    ],
)
def test_a_wrong_shape_is_refused_naming_the_field(body, field):
    problem = refused(body)

    assert (problem.status, problem.code) == (400, "invalid_event")
    assert problem.extensions["field"] == field


def test_a_refusal_does_not_repeat_what_was_sent():
    for body in ({"type": "sk_live secret"}, {"type": "a", "id": "sk_live secret"}, {"type": "a", "sk_live s": 1}):
        assert "sk_live" not in str(refused(body).as_json())


@pytest.mark.parametrize("event_type", sorted(BOOKING_TYPES))
def test_a_secret_key_sends_bookings_and_their_bytes_are_kept(event_type):
    payload = b'{"scheduled_call": { "id":"sc_1","guest":{"name":"\\u00c9"} } }'

    event = accepted(b'{"type":"%b","payload":%b}' % (event_type.encode(), payload))

    assert event.payload == payload


@pytest.mark.parametrize("event_type", [*sorted(BOOKING_TYPES), "scheduled.mine"])
def test_a_public_key_sends_no_bookings(event_type):
    problem = refused(
        {"type": event_type, "payload": {"scheduled_call": {}}},
        key_kind="public",
        app=make_app(event_types=["scheduled.mine"]),
    )

    assert (problem.status, problem.code) == (403, "secret_key_required")


@pytest.mark.parametrize("event_type", [*sorted(WIDGET_TYPES), "cart_filled"])
def test_a_public_key_sends_types_of_the_catalogue_and_of_the_app(event_type):
    event = accepted({"type": event_type}, key_kind="public")

    assert event.type == event_type


def test_a_public_key_sends_no_other_type():
    problem = refused({"type": "cart_emptied"}, key_kind="public")

    assert (problem.status, problem.code) == (422, "unknown_type")
    assert problem.extensions["field"] == "type"


def test_a_secret_key_sends_any_type():
    assert "made.up-Type_1" not in CATALOGUE

    event = accepted({"type": "made.up-Type_1"})

    assert event.type == "made.up-Type_1"


@pytest.mark.parametrize("key_kind", ["public", "secret"])
def test_nobody_sends_the_types_that_tenterhook_emits(key_kind):
    app = make_app(event_types=["tenterhook.integration.paused"])

    problem = refused({"type": "tenterhook.integration.paused"}, key_kind=key_kind, app=app)

    assert (problem.status, problem.code) == (422, "reserved_type")


def test_a_request_may_have_65536_bytes_and_not_one_more():
    body = b'{"type":"call_started"}'

    event = accepted(body.ljust(MAX_REQUEST_BYTES))
    problem = refused(body.ljust(MAX_REQUEST_BYTES + 1))

    assert event.payload == b"null"
    assert (problem.status, problem.code) == (413, "request_too_large")
    assert problem.extensions["maxBytes"] == 65_536


def test_an_event_whose_largest_envelope_would_be_too_large_is_refused():
    def body(payload_bytes: int) -> bytes:
        return b'{"type":"call_started","payload":"%b"}' % (b"x" * (payload_bytes - 2))

    # The largest body that a receiver may get, with the longest times and attempt.
    around = len(
        json.dumps(
            {
                "event": "call_started",
                "id": "evt_minted",
                "appId": "demo",
                "occurredAt": "2026-01-31T12:00:00.000Z",
                "deliveredAt": "2026-01-31T12:00:00.000Z",
                "attempt": 2**31 - 1,
                "payload": 0,
            },
            separators=(",", ":"),
        )
    ) - len("0")

    event = accepted(body(65_536 - around))
    problem = refused(body(65_536 - around + 1))

    assert len(event.payload) == 65_536 - around
    assert (problem.status, problem.code) == (413, "event_too_large")
    assert "65,537 bytes" in problem.detail


def test_the_answer_names_the_id_and_the_time():
    event = accepted({"type": "call_started"})

    told = answer(event.event_id, event.accepted_at_ms)

    assert json.loads(told) == {"id": "evt_minted", "acceptedAt": "2025-10-09T08:53:20.123Z"}


def test_the_answer_to_a_repeat_says_so():
    told = answer("order-1", NOW_MS, duplicate=True)

    assert json.loads(told) == {"id": "order-1", "acceptedAt": "2025-10-09T08:53:20.123Z", "duplicate": True}
