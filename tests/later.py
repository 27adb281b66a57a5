"""Records as a release writes them that does not exist yet: today's schemas with a field more."""

import io
import json
import struct

import fastavro

from streams import codec
from streams.records import Record
from tests.next_release import FIELD, VALUE
from tests.older import NEWEST, RELEASED, fields_of

#: The next release's ids count from here, in the order of the names: far behind all that are released.
FIRST_ID = codec.FIRST_COMMITTED_ID + 900


def id_of(name: str) -> int:
    """Of the next schema of that name."""
    return FIRST_ID + sorted(NEWEST).index(name)


def text_of(name: str) -> str:
    """The next schema of that name."""
    schema = json.loads(RELEASED[NEWEST[name]][1])
    schema["fields"].append({"name": FIELD, "type": "string", "default": VALUE, "doc": "Of no use."})
    return json.dumps(schema, indent=1)


def written(name: str, record: Record) -> bytes:
    """The record as the next release writes it."""
    body = io.BytesIO()
    schema = fastavro.parse_schema(json.loads(text_of(name)))
    fastavro.schemaless_writer(body, schema, fields_of(record) | {FIELD: "something else"})
    return struct.pack(">bI", 0, id_of(name)) + body.getvalue()
