"""A batch of events taken apart, and its answer put together."""

import json
import time

import pytest

from services.ingest.batch import MAX_BATCH_BYTES, MAX_EVENTS, answer, split
from services.runtime import kinds
from services.runtime.problems import Problem

EVENT = b'{"type":"call_started"}'


def refusal(body: bytes) -> Problem:
    with pytest.raises(Problem) as caught:
        split(body)
    return caught.value


@pytest.mark.parametrize(
    ("body", "items"),
    [
        (b'[{"a":1},{"b":2}]', [b'{"a":1}', b'{"b":2}']),
        (b' \r\n[ {"a" : 1.0 } ,\n\t2, null ] \n', [b'{"a" : 1.0 }', b"2", b"null"]),
        (b'["\\u00e9\xc3\xa9"]', [b'"\\u00e9\xc3\xa9"']),
        (b"[[]]", [b"[]"]),
    ],
)
def test_the_items_of_an_array_are_its_bytes(body, items):
    assert split(body) == items


@pytest.mark.parametrize(
    ("body", "items"),
    [
        (EVENT, [EVENT]),
        (EVENT + b"\n", [EVENT]),
        (b'{"a":1}\n{"b":2}', [b'{"a":1}', b'{"b":2}']),
        (b'\n \t\n  {"a":1}\r\n\r\n{"b":2} \n\n', [b'{"a":1}\r', b'{"b":2} ']),
        (b'{"a":\nnonsense\n{"b":2}', [b'{"a":', b"nonsense", b'{"b":2}']),
        (b'{"a":"\xff"}\n{"b":2}', [b'{"a":"\xff"}', b'{"b":2}']),
        # What looks like an array is one only where the body begins with it.
        (b"{}\n[1,2]", [b"{}", b"[1,2]"]),
        # Other ends of lines may stand in a JSON string as they are.
        ('{"a":"\u2028\u0085"}'.encode(), ['{"a":"\u2028\u0085"}'.encode()]),
    ],
)
def test_the_lines_of_ndjson_are_not_looked_into(body, items):
    assert split(body) == items


@pytest.mark.parametrize(
    ("body", "hint"),
    [
        (b"[{}", "truncated"),
        (b"[{},]", "trailing comma"),
        (b"[{}] {}", "trailing characters"),
        (b'[{}]\n{"a":1}', "trailing characters"),
        (b"[{},{]", ""),
        (b'["\xff"]', "byte 2 is not UTF-8"),
        (b"[" * 30_000 + b"]" * 30_000, "nested too deeply"),
    ],
)
def test_a_broken_array_is_refused_whole(body, hint):
    problem = refusal(body)

    assert (problem.status, problem.code) == (400, "invalid_json")
    assert hint in problem.detail
    assert "array of events" in problem.detail


@pytest.mark.parametrize("body", [b"", b" \r\n\t\n", b"[]", b" [ \n] "])
def test_a_batch_without_events_is_refused(body):
    problem = refusal(body)

    assert (problem.status, problem.code) == (400, "empty_batch")


@pytest.mark.parametrize("of", [lambda items: b"[" + b",".join(items) + b"]", b"\n".join], ids=["array", "ndjson"])
def test_a_batch_may_have_500_events_and_not_one_more(of):
    problem = refusal(of([EVENT] * (MAX_EVENTS + 1)))

    assert split(of([EVENT] * MAX_EVENTS)) == [EVENT] * 500
    assert (problem.status, problem.code) == (413, "too_many_events")
    assert problem.extensions["maxEvents"] == 500


def test_a_batch_may_have_4_mib_and_not_one_byte_more():
    problem = refusal(EVENT.ljust(MAX_BATCH_BYTES + 1))

    assert split(EVENT.ljust(MAX_BATCH_BYTES))[0].startswith(EVENT)
    assert (problem.status, problem.code) == (413, "request_too_large")
    assert problem.extensions["maxBytes"] == 4 * 1024 * 1024


@pytest.mark.parametrize(
    "body",
    [
        b"[" + b"1," * (MAX_BATCH_BYTES // 2 - 1) + b"1]",
        b"\n" * MAX_BATCH_BYTES,
        b"1\n" * (MAX_BATCH_BYTES // 2),
        b" " * (MAX_BATCH_BYTES - 1) + b"\n",
        b" \n" * (MAX_BATCH_BYTES // 2),
        b"[" * MAX_BATCH_BYTES,
    ],
    ids=["items", "line ends", "lines", "blanks", "blank lines", "brackets"],
)
def test_what_is_made_to_be_dear_is_refused_quickly(body):
    """Decoded before it is counted, the first would take 130 MB and seconds."""
    started = time.thread_time()

    problem = refusal(body)

    assert problem.status in {400, 413}
    assert time.thread_time() - started < 0.5


def test_the_answer_has_each_status_in_order():
    refused = Problem(kinds.INVALID_EVENT, "It is none.", field="type")
    busy = Problem(kinds.OVERLOADED, "Later.", headers={"Retry-After": "7"})

    told = json.loads(answer([b'{"id":"a","acceptedAt":"x"}', refused, busy, b'{"id":"b","duplicate":true}']))

    assert told == {
        "items": [
            {"status": 202, "id": "a", "acceptedAt": "x"},
            {**refused.as_json(), "status": 400, "field": "type"},
            {**busy.as_json(), "status": 503, "retryAfter": 7},
            {"status": 202, "id": "b", "duplicate": True},
        ]
    }
