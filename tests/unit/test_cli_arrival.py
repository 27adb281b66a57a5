"""How a request that arrived is shown."""

import json

import pytest
from multidict import CIMultiDict

from services.cli.arrival import Arrival
from services.cli.verify import Verified


def arrival(**changes):
    given = {
        "number": 7,
        "at": "2026-01-02T03:04:05.678Z",
        "method": "POST",
        "path": "/hook?a=b",
        "headers": CIMultiDict(
            {
                "Host": "127.0.0.1:9000",
                "x-apifycloud-event": "call_ended",
                "X-ApifyCloud-Delivery": "int_1:2",
                "webhook-id": "evt_1",
                "Authorization": "Bearer t",
            }
        ),
        "body": b'{"event": "call_ended", "name": "J\xc3\xbcrgen"}',
        "verified": Verified("yes", "no"),
        "answered": 200,
        "brand": "X-ApifyCloud",
    }
    return Arrival(**given | changes)


def test_people_see_event_delivery_signatures_answer_own_headers_and_body():
    assert arrival().as_text().plain == (
        "#7 call_ended  int_1:2  sha256 ✓ webhook ✗ WRONG   → 200  2026-01-02T03:04:05.678Z\n"
        "  Authorization: Bearer t\n"
        '{\n  "event": "call_ended",\n  "name": "Jürgen"\n}\n'
    )


def test_programs_get_the_same_as_json():
    assert json.loads(json.dumps(arrival().as_json())) == {
        "number": 7,
        "at": "2026-01-02T03:04:05.678Z",
        "method": "POST",
        "path": "/hook?a=b",
        "event": "call_ended",
        "delivery": "int_1:2",
        "webhookId": "evt_1",
        "signature": "yes",
        "standardSignature": "no",
        "answered": 200,
        "headers": dict(arrival().headers),
        "body": {"event": "call_ended", "name": "Jürgen"},
        "text": '{"event": "call_ended", "name": "Jürgen"}',
    }


@pytest.mark.parametrize(
    ("body", "fields"),
    [
        (b'{"a" : 1.50}', {"body": {"a": 1.5}, "text": '{"a" : 1.50}'}),
        (b"plain", {"body": None, "text": "plain"}),
        (b"", {"body": None, "text": ""}),
        (b"\xff\x00", {"body": None, "text": None, "base64": "/wA="}),
        (b"[" * 100_000, {"body": None, "text": "[" * 100_000}),
    ],
)
def test_a_body_is_given_as_json_and_as_it_came_or_in_base64(body, fields):
    assert fields.items() <= arrival(body=body).as_json().items()
    assert arrival(body=body).as_text().plain


def test_a_request_that_is_not_answered_and_not_ours_is_shown_too():
    shown = arrival(headers=CIMultiDict(), answered=None, verified=Verified("unsigned", "unchecked")).as_text().plain

    assert shown.startswith("#7 POST /hook?a=b    sha256 unsigned webhook ? (--secret checks)   → no answer")


def test_long_bodies_are_cut_for_people_and_whole_for_programs():
    long = b'"' + b"x" * 10_000 + b'"'

    assert len(arrival(body=long).as_text().plain) < 4_300
    assert len(arrival(body=long).as_json()["body"]) == 10_000


def test_nothing_that_arrives_can_command_the_terminal():
    evil = CIMultiDict({"X-ApifyCloud-Event": "a\x1b[2J", "X-A": "b\x9b2J", "X-ApifyCloud-Delivery": "c\x1b]0;x\x07"})
    shown = arrival(headers=evil, body="d\x1b[31m\r\n\x9b\u202ee\u2066".encode()).as_text().plain

    assert not set(shown) & {"\x1b", "\x9b", "\x07", "\r", "\u202e", "\u2066"}
