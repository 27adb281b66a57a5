"""Bytes on the wire: what fastavro writes is what `avro` writes, and what does not fit is refused as Unreadable."""

import io
import struct

import avro.io
import avro.schema
import msgspec
import pytest

from streams import codec
from streams.codec import Unreadable
from streams.records import Event, Header, Marker, Quarantined, Secret, SigningSecret
from tests.apps import make_app
from tests.records import make_delivery, make_integration

INTEGRATION = make_integration(
    headers={"X-A": b"\x00\x01", "X-B": b""},
    secrets={"token": Secret(version=2, sealed=b"s", created_at_ms=5, revealed_at_ms=6)},
    signing_secrets=[SigningSecret(version=1, sealed=b"t", created_at_ms=7)],
    status_reason="päused ✋",
)
QUARANTINED = Quarantined(
    topic="events",
    partition=1,
    offset=2**40,
    key=None,
    value=b"\xff\x00",
    headers=[Header(name="a", value=None), Header(name="b", value=b"")],
    code="record.unreadable",
    reason="why",
    agent="fan-out",
    at_ms=-1,
)
EXAMPLES = [make_delivery(), make_delivery(of="dlv_0", due_at_ms=0, payload=b""), INTEGRATION, make_app(), QUARANTINED]


def by_avro(record) -> bytes:
    """The wire format as the reference implementation writes it."""
    schema_id = struct.unpack_from(">I", codec.encode(record), 1)[0]
    _, text = codec.released()[schema_id]
    body = io.BytesIO()
    avro.io.DatumWriter(avro.schema.parse(text)).write(
        msgspec.to_builtins(record, builtin_types=(bytes,)), avro.io.BinaryEncoder(body)
    )
    return struct.pack(">bI", 0, schema_id) + body.getvalue()


@pytest.mark.parametrize("record", EXAMPLES, ids=lambda record: type(record).__name__)
def test_the_bytes_are_those_of_the_reference_implementation(record):
    assert codec.encode(record) == by_avro(record)


@pytest.mark.parametrize("record", EXAMPLES, ids=lambda record: type(record).__name__)
def test_a_record_comes_back_as_it_was_nested_ones_as_structs(record):
    assert codec.decode(codec.encode(record)) == record


def test_the_wire_format_is_zero_then_the_schema_s_id_then_the_body():
    data = codec.encode(Marker(source_topic="e", source_partition=1, generation=2, owner="w", at_ms=3))

    assert data == bytes([0]) + (2**30 + 11).to_bytes(4, "big") + b"\x02e\x02\x04\x02w\x06\x00"


def test_payloads_keep_every_byte():
    payload = bytes(range(256)) * 256

    assert codec.decode(codec.encode(make_delivery(payload=payload))).payload == payload


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (None, "shorter"),
        (b"", "shorter"),
        (b"\x00\x40\x00\x00", "shorter"),
        (b"\x01\x40\x00\x00\x00x", "first byte is 1"),
        (b'{"json": true}', "first byte is 123"),
        (b"\x00\x00\x00\x00\x07x", "schema id 7 is unknown"),
        (b"\x00\x40\x00\x00\x00", "does not fit the schema event"),
        (codec.encode(make_delivery())[:-1], "does not fit the schema delivery"),
        (codec.encode(make_delivery()) + b"\x00", "longer than the schema delivery"),
        # A string of 2^62 bytes: refused, without room being made for it.
        (b"\x00\x40\x00\x00\x00" + b"\xfe" + b"\xff" * 8 + b"\x00", "does not fit the schema event"),
    ],
)
def test_what_is_no_record_is_unreadable_and_says_why(data, why):
    with pytest.raises(Unreadable, match=why):
        codec.decode(data)


def test_the_reason_repeats_no_byte_of_what_was_unreadable():
    data = codec.encode(make_delivery(payload=b"a-secret-of-somebody"))[:-1]

    with pytest.raises(Unreadable) as refused:
        codec.decode(data)

    assert "a-secret" not in str(refused.value)


def test_another_kind_than_expected_is_unreadable():
    with pytest.raises(Unreadable, match="is a Delivery, where a Event was expected"):
        codec.decode_as(Event, codec.encode(make_delivery()))


def test_what_an_older_release_wrote_is_read_with_the_new_fields_defaults(older_release):
    event = older_release(b"\x00\x40\x00\x00\x00")

    assert (event.record_id, event.ordering_key) == ("rec_1", None)


def test_the_newest_release_is_the_one_that_is_written(older_release):
    event = older_release(b"\x00\x40\x00\x00\x00")

    assert codec.encode(event)[:5] == b"\x00\x40\x00\x00\x63"


@pytest.fixture
def older_release(monkeypatch):
    """Reads an event written before `ordering_key` was added; the current schema came later, under id 2^30 + 99."""
    now = codec.released()
    name, text = now.pop(codec.FIRST_COMMITTED_ID)
    older = msgspec.json.decode(text)
    older["fields"] = [field for field in older["fields"] if field["name"] != "ordering_key"]
    releases = {2**30: (name, msgspec.json.encode(older).decode()), 2**30 + 99: (name, text), **now}
    monkeypatch.setattr(codec, "released", lambda: releases)
    codec._by_id.cache_clear()
    codec._newest.cache_clear()
    body = io.BytesIO()
    fields = {
        "record_id": "rec_1",
        "app": "demo",
        "event_id": "evt_1",
        "id_space": "public",
        "id_supplied": True,
        "type": "call_ended",
        "payload": b"{}",
        "occurred_at_ms": 1,
        "accepted_at_ms": 2,
    }
    avro.io.DatumWriter(avro.schema.parse(msgspec.json.encode(older).decode())).write(
        fields, avro.io.BinaryEncoder(body)
    )
    yield lambda header: codec.decode(header + body.getvalue())
    codec._by_id.cache_clear()
    codec._newest.cache_clear()
