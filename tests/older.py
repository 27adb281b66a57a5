"""Records as older releases wrote them, and what older releases make of today's."""

import io
import json
import struct
from typing import Any

import avro.io
import avro.schema
import msgspec

from streams import codec
from streams.records import Record

RELEASED = codec.released()
NEWEST = {name: number for number, (name, _) in sorted(RELEASED.items())}
#: Ids that are not written any more.
OLDER = sorted(set(RELEASED) - set(NEWEST.values()))


def fields_of(record: Record) -> dict[str, Any]:
    """Nested records as fields too."""
    found: dict[str, Any] = msgspec.to_builtins(record, builtin_types=(bytes,))
    return found


def written_under(number: int, fields: dict[str, Any]) -> bytes:
    """The wire format under a released schema, by the reference implementation; further fields are left out."""
    schema = RELEASED[number][1]
    known = {field["name"]: fields[field["name"]] for field in json.loads(schema)["fields"]}
    body = io.BytesIO()
    avro.io.DatumWriter(avro.schema.parse(schema)).write(known, avro.io.BinaryEncoder(body))
    return struct.pack(">bI", 0, number) + body.getvalue()


def as_written_then(number: int, record: Record) -> bytes:
    """The record as a release wrote it whose newest schema had that id."""
    return written_under(number, fields_of(record))


def as_read_then(number: int, data: bytes) -> dict[str, Any]:
    """What a release that knows the schema of that id makes of these bytes, once it has been given their schema."""
    written = RELEASED[struct.unpack_from(">I", data, 1)[0]][1]
    reader = avro.io.DatumReader(avro.schema.parse(written), avro.schema.parse(RELEASED[number][1]))
    found: dict[str, Any] = reader.read(avro.io.BinaryDecoder(io.BytesIO(data[5:])))
    return found
