"""Deliveries and attempts as JSON."""

import base64
import json

import pytest

from services.history import shown
from services.history.fold import fold
from services.history.query import Bucket, Page, Told
from tests.breaking import make_result
from tests.histories import BLOCKED, DELIVERED, delivered

FAILED = make_result(
    1,
    request_headers={"Authorization": "Bearer ***"},
    response_headers={"Content-Type": "text/plain"},
    response_body=b"busy",
    dns_us=1_500,
    wait_us=20_250,
    next_due_at_ms=1_767_355_206_000,
    url="https://crm.example/***",
)
ENDED = make_result(1, **DELIVERED | {"attempt": 2, "finished_at_ms": 1_767_355_206_030})


def told(*results):
    row = None
    for place, result in enumerate(results):
        row = fold(row, result, place)
    return Told(row, list(results), [])


def test_a_delivery_is_shown_with_its_attempts():
    document = shown.delivery_json(told(FAILED, ENDED))

    assert document.pop("attempts") == [shown.attempt_json(FAILED), shown.attempt_json(ENDED)]
    assert document == {
        "id": "dlv_int_1_1",
        "app": "demo",
        "integration": "int_1",
        "event": "call_ended",
        "eventId": "evt_1",
        "recordId": "rec_1",
        "cause": "live",
        "of": None,
        "outcome": "delivered",
        "attempt": 2,
        "repeats": 0,
        "status": 200,
        "reason": "status_200",
        "acceptedAt": "2026-01-02T12:00:00.000Z",
        "beganAt": "2026-01-02T12:00:00.980Z",
        "lastAt": "2026-01-02T12:00:06.030Z",
        "endedAt": "2026-01-02T12:00:06.030Z",
        "nextDueAt": None,
        "repeatedBy": [],
    }


def test_an_attempt_is_shown_with_request_answer_and_timing():
    assert shown.attempt_json(FAILED) == {
        "number": 1,
        "isRepeat": False,
        "outcome": None,
        "reason": "status_503",
        "detail": None,
        "startedAt": "2026-01-02T12:00:00.980Z",
        "finishedAt": "2026-01-02T12:00:01.000Z",
        "url": "https://crm.example/***",
        "requestHeaders": {"Authorization": "Bearer ***"},
        "status": 503,
        "responseHeaders": {"Content-Type": "text/plain"},
        "responseBody": "busy",
        "responseBodyIsBase64": False,
        "truncated": False,
        "timing": {"dnsMs": 1.5, "connectMs": None, "tlsMs": None, "waitMs": 20.25, "readMs": None, "totalMs": 20},
        "nextDueAt": "2026-01-02T12:00:06.000Z",
        "configVersion": 1,
        "epoch": 1,
    }


def test_the_second_result_of_an_attempt_is_a_repeat_and_an_end_without_one_is_none():
    document = shown.delivery_json(told(FAILED, FAILED, make_result(1, **BLOCKED)))

    assert [(each["number"], each["isRepeat"]) for each in document["attempts"]] == [(1, False), (1, True), (0, False)]


@pytest.mark.parametrize(
    ("body", "is_cut", "expected"),
    [
        (b"", False, ("", False)),
        ("grün".encode(), False, ("grün", False)),
        ("grün".encode()[:3], True, ("gr", False)),
        ("grün".encode()[:3], False, (base64.b64encode(b"gr\xc3").decode(), True)),
        (b"\xff\xfe", True, (base64.b64encode(b"\xff\xfe").decode(), True)),
    ],
)
def test_a_body_is_text_where_it_is_utf_8_and_base64_where_it_is_not(body, is_cut, expected):
    assert shown.body_text(body, is_cut=is_cut) == expected


def test_an_open_delivery_says_so_and_a_page_where_it_goes_on():
    row = fold(None, FAILED, 0)
    document = shown.page_json(Page([row], "cursor"))

    assert (document["items"][0]["outcome"], document["next"]) == ("open", "cursor")
    assert json.loads(json.dumps(document)) == document


def test_an_hour_says_the_share_of_delivered_ones_without_the_discarded():
    found = shown.bucket_json(Bucket(start_ms=0, delivered=2, exhausted=1, discarded=5))

    assert (found["startAt"], found["successRate"], found["discarded"]) == ("1970-01-01T00:00:00.000Z", 0.667, 5)
    assert shown.bucket_json(Bucket(start_ms=0, discarded=1))["successRate"] is None


def test_a_delivery_that_repeats_another_names_it():
    assert shown.row_json(fold(None, delivered(2, of="dlv_1", cause="retry"), 0))["of"] == "dlv_1"
