import json

import pytest

from services.cli.bench.wire import (
    ORDERING_KEYS,
    RequestParts,
    body_length,
    events_path,
    least_payload_bytes,
    request_parts,
    stamp_of,
)
from services.ingest.accept import accept, read
from tests.apps import make_app

NOW_NS = 1_795_000_000_123_456_789


def parts(**changes: object) -> RequestParts:
    given = {
        "host": "127.0.0.1:1",
        "path": events_path("shop"),
        "key": "sk_1",
        "profile": "integration",
        "payload_bytes": 1_024,
    }
    return request_parts(**{**given, **changes})


@pytest.mark.parametrize("profile", ["integration", "booking"])
@pytest.mark.parametrize("keyed", [False, True])
@pytest.mark.parametrize("number", [0, 7, 123, 9_999_999])
def test_ingest_accepts_a_request_whose_payload_has_exactly_the_size_asked_for(profile, keyed, number):
    request = parts(profile=profile, keyed=keyed).request(number, NOW_NS)
    head, _, body = request.partition(b"\r\n\r\n")

    event = accept(read(body), app=make_app(), key_kind="secret", now_ms=0, record_id="rec_1", minted_event_id="evt_1")

    assert body_length(request, len(head)) == len(body)
    assert len(event.payload) == 1_024
    assert stamp_of(event.payload) == (number, NOW_NS)
    assert event.ordering_key == (f"k{number % ORDERING_KEYS:02}" if keyed else None)
    assert event.type in {"call_ended", "scheduled.created"}


@pytest.mark.parametrize("profile", ["integration", "booking"])
def test_the_least_payload_has_room_for_a_stamp_and_no_more(profile):
    least = least_payload_bytes(profile)

    _, _, body = parts(profile=profile, payload_bytes=least).request(3, NOW_NS).partition(b"\r\n\r\n")

    assert len(json.dumps(json.loads(body)["payload"], separators=(",", ":"))) == least
    with pytest.raises(ValueError, match="no room"):
        parts(profile=profile, payload_bytes=least - 1)


def test_the_key_of_the_app_is_not_shown():
    assert "sk_1" not in repr(parts())


@pytest.mark.parametrize("data", [b"", b'{"payload":null}', b'{"sentNs":', b'{"sentNs":x', b'{"sentNs":1,"n":2}'])
def test_what_has_no_stamp_of_ours_is_told_from_what_has(data):
    assert stamp_of(data) is None


@pytest.mark.parametrize(
    ("head", "length"),
    [
        (b"POST / HTTP/1.1\r\nContent-Length: 12\r\nA: b", 12),
        (b"POST / HTTP/1.1\r\nA: b\r\ncontent-length:7", 7),
        (b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked", None),
        (b"POST / HTTP/1.1\r\nContent-Length: x", None),
    ],
)
def test_the_length_of_a_body_is_read_however_its_header_is_written(head, length):
    assert body_length(head + b"\r\n\r\nContent-Length: 99\r\n\r\n", len(head)) == length
