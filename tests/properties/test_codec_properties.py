"""Laws of the codec, over any record that the schemas allow and any bytes at all."""

import io
import json
import struct

import avro.io
import avro.schema
import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streams import codec
from streams.codec import Unreadable

SCHEMAS = {schema.name: schema for schema in codec._by_id().values()}
TEXTS = {name: codec.schema_text(name) for name in SCHEMAS}

PRIMITIVES = {
    "null": st.none(),
    "boolean": st.booleans(),
    "int": st.integers(-(2**31), 2**31 - 1),
    "long": st.integers(-(2**63), 2**63 - 1),
    "string": st.text(max_size=20),
    "bytes": st.binary(max_size=20),
}


def values(schema) -> st.SearchStrategy:
    """Any value of an Avro schema, nested ones too."""
    match schema:
        case str():
            found = PRIMITIVES[schema]
        case list():
            found = st.one_of([values(branch) for branch in schema])
        case {"type": "record", "fields": fields}:
            found = st.fixed_dictionaries({field["name"]: values(field["type"]) for field in fields})
        case {"type": "enum", "symbols": symbols}:
            found = st.sampled_from(symbols)
        case {"type": "array", "items": items}:
            found = st.lists(values(items), max_size=3)
        case {"type": "map", "values": inner}:
            found = st.dictionaries(st.text(max_size=10), values(inner), max_size=3)
        case _:
            found = values(schema["type"])
    return found


FIELDS = {name: values(json.loads(text)) for name, text in TEXTS.items()}
ORACLES = {name: avro.schema.parse(text) for name, text in TEXTS.items()}
ANY = st.sampled_from(sorted(SCHEMAS)).flatmap(lambda name: st.tuples(st.just(name), FIELDS[name]))


def record_of(name: str, fields: dict):
    return msgspec.convert(fields, SCHEMAS[name].struct, builtin_types=(bytes,))


@pytest.mark.parametrize("name", sorted(SCHEMAS))
@given(data=st.data())
@settings(max_examples=30, deadline=None)
def test_fastavro_writes_the_bytes_that_avro_writes_and_reads_them_back(name, data):
    fields = data.draw(FIELDS[name])
    record = record_of(name, fields)
    body = io.BytesIO()
    avro.io.DatumWriter(ORACLES[name]).write(fields, avro.io.BinaryEncoder(body))

    encoded = codec.encode(record)

    assert encoded == struct.pack(">bI", 0, SCHEMAS[name].id) + body.getvalue()
    assert codec.decode(encoded) == record


@given(data=st.binary(max_size=64))
@settings(max_examples=200)
def test_any_bytes_at_all_are_unreadable_or_a_record(data):
    _decode(data)


@given(schema=st.sampled_from(sorted(SCHEMAS)), body=st.binary(max_size=64))
@settings(max_examples=300)
def test_any_bytes_behind_a_header_of_ours_are_unreadable_or_a_record(schema, body):
    _decode(struct.pack(">bI", 0, SCHEMAS[schema].id) + body)


@given(made=ANY, data=st.data())
@settings(max_examples=150, deadline=None)
def test_a_record_with_bytes_changed_is_unreadable_or_a_record(made, data):
    encoded = bytearray(codec.encode(record_of(*made)))
    for _ in range(data.draw(st.integers(1, 3))):
        encoded[data.draw(st.integers(0, len(encoded) - 1))] = data.draw(st.integers(0, 255))

    _decode(bytes(encoded))


@given(made=ANY, data=st.data())
@settings(max_examples=100, deadline=None)
def test_a_record_cut_short_is_unreadable(made, data):
    encoded = codec.encode(record_of(*made))

    with pytest.raises(Unreadable):
        codec.decode(encoded[: data.draw(st.integers(0, len(encoded) - 1))])


@given(made=ANY, more=st.binary(min_size=1, max_size=8))
@settings(max_examples=100, deadline=None)
def test_a_record_with_more_behind_it_is_unreadable(made, more):
    with pytest.raises(Unreadable):
        codec.decode(codec.encode(record_of(*made)) + more)


def _decode(data: bytes) -> None:
    try:
        record = codec.decode(data)
    except Unreadable:
        return
    assert isinstance(record, tuple(schema.struct for schema in SCHEMAS.values()))
    codec.encode(record)


@pytest.mark.parametrize("name", sorted(SCHEMAS))
@given(data=st.data())
@settings(max_examples=30, deadline=None)
def test_what_is_read_can_be_written(name, data):
    """fastavro reads 64 bits of an `int`, and refuses to write them."""
    text = TEXTS[name].replace('"int"', '"long"')
    wide = data.draw(values(json.loads(text)))
    body = io.BytesIO()
    avro.io.DatumWriter(avro.schema.parse(text)).write(wide, avro.io.BinaryEncoder(body))

    _decode(struct.pack(">bI", 0, SCHEMAS[name].id) + body.getvalue())
