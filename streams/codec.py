"""
Records to bytes and back: Avro in the Confluent wire format (0, 4-byte schema id, body).

Pure. Every schema that was ever released stays in `schemas/released`, named by its id, so that what
was written once stays readable for ever; the newest id of a name is the one that is written. What newer releases have
committed is asked for (`streams.schema_topic`). Where a schema registry is used (`streams.registry`), its ids are
written instead, and any id of it is read beside the committed ones.
fastavro does the work; `tests/unit/test_codec.py` holds its bytes against those of `avro`.
"""

import io
import json
import struct
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import cache, partial
from importlib.resources import files
from typing import Any, Final, TypeVar, cast

import fastavro
import msgspec

from streams import records
from streams.records import Record

#: Ids of committed schemas start here, out of the way of a registry's own, which count from 1.
FIRST_COMMITTED_ID: Final = 2**30

R = TypeVar("R", bound=msgspec.Struct)

_MAGIC: Final = 0
_HEADER: Final = struct.Struct(">bI")
_MIN_INT: Final = -(2**31)
_MAX_INT: Final = 2**31 - 1

#: Whether a value can be written where it was read.
Fits = Callable[[Any], bool]


class Unreadable(ValueError):
    """These bytes are no record of ours. The message says why; it holds no byte of them."""


@dataclass(frozen=True, slots=True)
class WireSchema:
    """One schema: its id on the wire, its name (the file's), its text, its parsed form and its struct."""

    id: int
    name: str
    #: JSON.
    text: str
    parsed: dict[str, Any]
    struct: type[Record]
    #: Whether values of its fields are structs themselves, which costs a deep conversion.
    nested: bool
    #: Fields that are an `int`, or null.
    ints: tuple[str, ...]
    #: Fields with an `int` further inside, and the check of each.
    inner_ints: tuple[tuple[str, Fits], ...]


_STRUCTS: Final[dict[str, type[Record]]] = {
    "event": records.Event,
    "delivery": records.Delivery,
    "result": records.Result,
    "fan_out_receipt": records.FanOutReceipt,
    "won_ids": records.WonIds,
    "installation": records.Installation,
    "integration_config": records.IntegrationConfig,
    "app_config": records.AppConfig,
    "integration_state": records.IntegrationState,
    "breaker_row": records.BreakerRow,
    "audit_record": records.AuditRecord,
    "quarantined": records.Quarantined,
    "put_back": records.PutBack,
    "marker": records.Marker,
    "hand_over": records.HandOver,
    "lane_row": records.LaneRow,
    "command": records.Command,
    "command_reply": records.CommandReply,
    "replay": records.Replay,
    "shared_schema": records.SharedSchema,
}
_BY_FULL_NAME: Final = {f"tenterhook.{kind.__name__}": name for name, kind in _STRUCTS.items()}
_NESTED: Final = {"integration_config", "app_config", "quarantined", "lane_row", "command"}


def schema_text(name: str) -> str:
    """The current schema of that name (`event`, `delivery`, ...) as JSON text."""
    return (files("schemas") / f"{name}.avsc").read_text(encoding="utf-8")


def released() -> dict[int, tuple[str, str]]:
    """Every released schema: id to (name, JSON text)."""
    found = {}
    for entry in (files("schemas") / "released").iterdir():
        number, _, name = entry.name.removesuffix(".avsc").partition("-")
        found[int(number)] = (name, entry.read_text(encoding="utf-8"))
    return found


def _wire_schema(number: int, name: str, text: str) -> WireSchema:
    parsed = cast("dict[str, Any]", fastavro.parse_schema(json.loads(text)))
    types = {field["name"]: field["type"] for field in parsed["fields"]}
    ints = tuple(field for field, kind in types.items() if kind in ("int", ["null", "int"]))
    named: dict[str, Any] = {}
    checks = [(field, _fits(kind, named)) for field, kind in types.items() if field not in ints]
    return WireSchema(
        id=number,
        name=name,
        text=text,
        parsed=parsed,
        struct=_STRUCTS[name],
        nested=name in _NESTED,
        ints=ints,
        inner_ints=tuple((field, fits) for field, fits in checks if fits is not None),
    )


def _fits(schema: Any, named: dict[str, Any]) -> Fits | None:
    """
    Whether every `int` in a value of this schema has 32 bits; None where there is none in it.

    Args:
        named: the records met before, which later places refer to by name.
    """
    found: Fits | None = None
    match schema:
        case "int":
            found = _is_int
        case str():
            found = _fits(named[schema], named) if schema in named else None
        case list():  # null and one other
            for inner in filter(None, (_fits(branch, named) for branch in schema)):
                found = partial(_fits_or_null, inner)
        case {"type": "array", "items": items}:
            found = _of_each(_fits(items, named), iter)
        case {"type": "map", "values": inside}:
            found = _of_each(_fits(inside, named), dict.values)
        case {"type": "record", "name": name, "fields": fields}:
            named[name] = schema
            checks = [(field["name"], _fits(field["type"], named)) for field in fields]
            inner_ints = [(field, fits) for field, fits in checks if fits is not None]
            found = partial(_fields_fit, inner_ints) if inner_ints else None
    return found


def _fits_or_null(fits: Fits, value: Any) -> bool:
    return value is None or fits(value)


def _of_each(fits: Fits | None, parts: Callable[[Any], Iterable[Any]]) -> Fits | None:
    return None if fits is None else lambda value: all(map(fits, parts(value)))


def _fields_fit(fields: list[tuple[str, Fits]], record: Any) -> bool:
    return all(fits(record[name]) for name, fits in fields)


def _is_int(value: int) -> bool:
    return _MIN_INT <= value <= _MAX_INT


@cache
def _by_id() -> dict[int, WireSchema]:
    return {number: _wire_schema(number, name, text) for number, (name, text) in sorted(released().items())}


@cache
def _newest() -> dict[type[Record], WireSchema]:
    return {schema.struct: schema for schema in _by_id().values()}


#: The text of the schema of an id, None where there is none. It may raise LookupError where it cannot tell; the record
#: is unreadable then, and the next one asks again.
Ask = Callable[[int], str | None]


@dataclass(slots=True)
class _Elsewhere:
    """Schemas that are not committed here: those that are known by now, and how to ask for others."""

    #: Where, for people.
    place: str
    ask: Ask
    #: By id. None: that of a record that is none of ours, or of a kind that only newer releases have.
    schemas: dict[int, WireSchema | None]

    def schema(self, number: int) -> WireSchema:
        if number not in self.schemas:
            try:
                text = self.ask(number)
            except LookupError as error:
                raise Unreadable(f"schema id {number} is unknown, and {error}") from error
            if text is None:
                raise Unreadable(f"schema id {number} is unknown: written by a newer release, or not by tenterhook")
            self.schemas[number] = _elsewhere(number, text)
        found = self.schemas[number]
        if found is None:
            raise Unreadable(f"schema id {number} is in {self.place}, and of no record of ours")
        return found


def _elsewhere(number: int, text: str) -> WireSchema | None:
    try:
        return _wire_schema(number, _BY_FULL_NAME[full_name(text)], text)
    except (ValueError, KeyError, TypeError, fastavro.schema.SchemaParseException):
        return None


_registry = _Elsewhere("the registry", lambda _: None, {})
#: The registry's id by the committed one: what is written instead.
_registered: dict[int, int] = {}
_topic = _Elsewhere("the topic of schemas", lambda _: None, {})


def use_registry(ids: Mapping[int, int], ask: Ask) -> None:
    """
    Write with a registry's ids from now on, and read any of its ids.

    Args:
        ids: the registry's id of each released schema, by the committed one.
        ask: for the text of an id that is not among them, once for each that it knows.
    """
    _registered.clear()
    _registered.update(ids)
    _registry.schemas = {number: _by_id()[committed] for committed, number in ids.items()}
    _registry.ask = ask


def use_no_registry() -> None:
    """Write with the committed ids again, as at the beginning."""
    use_registry({}, lambda _: None)


def use_topic(ask: Ask) -> None:
    """Ask for the ids that newer releases have committed from now on, once for each that it knows."""
    _topic.ask = ask
    _topic.schemas = {}


def learn(number: int, text: str) -> None:
    """A newer release has committed this schema under that id. What is known of an id, here or from there, stays."""
    if number not in _by_id() and number not in _topic.schemas:
        _topic.schemas[number] = _elsewhere(number, text)


def text_of(number: int) -> str | None:
    """The schema of that id as JSON text, be it a committed id or one that was met before."""
    known = _by_id().get(number) or _registry.schemas.get(number) or _topic.schemas.get(number)
    return None if known is None else known.text


def is_same_schema(one: str, other: str) -> bool:
    """Whether bytes written under one are read in the same way under the other. JSON texts that may be none."""
    try:
        return one == other or _canonical(one) == _canonical(other)
    except (ValueError, KeyError, TypeError, fastavro.schema.SchemaParseException):
        return False


def _canonical(text: str) -> str:
    """Without documentation, defaults and the order of attributes."""
    return fastavro.schema.to_parsing_canonical_form(json.loads(text))


def full_name(text: str) -> str:
    """A schema's name with its namespace: `tenterhook.Result`. *text*: JSON."""
    schema = json.loads(text)
    return cast("str", schema["name"] if "." in schema["name"] else f"{schema['namespace']}.{schema['name']}")


def encode(record: Record) -> bytes:
    """The record in the Confluent wire format, under the newest released schema of its kind."""
    schema = _newest()[type(record)]
    fields: Any = (
        msgspec.to_builtins(record, builtin_types=(bytes,)) if schema.nested else msgspec.structs.asdict(record)
    )
    out = io.BytesIO()
    out.write(_HEADER.pack(_MAGIC, _registered.get(schema.id, schema.id)))
    fastavro.schemaless_writer(out, schema.parsed, fields)
    return out.getvalue()


def decode(data: bytes | None) -> Record:
    """
    The record that these bytes are.

    Raises:
        Unreadable: no wire format, an unknown schema id, or a body that does not fit its schema.
    """
    if data is None or len(data) < _HEADER.size:
        raise Unreadable("shorter than the 5 bytes of the wire format's header")
    magic, schema_id = _HEADER.unpack_from(data)
    if magic != _MAGIC:
        raise Unreadable(f"first byte is {magic}, not 0: not in the Confluent wire format")
    schema = _by_id().get(schema_id) or (_topic if schema_id >= FIRST_COMMITTED_ID else _registry).schema(schema_id)
    body = io.BytesIO(data)
    body.seek(_HEADER.size)
    newest = _newest()[schema.struct]
    try:
        fields: Any = fastavro.schemaless_reader(body, schema.parsed, None if newest is schema else newest.parsed)
        record: Record = (
            msgspec.convert(fields, schema.struct, builtin_types=(bytes,)) if schema.nested else schema.struct(**fields)
        )
    except Exception as error:  # fastavro raises what its C code happens to meet: EOFError, IndexError, ...
        raise Unreadable(f"the body does not fit the schema {schema.name}: {type(error).__name__}") from error
    # fastavro reads 64 bits of any number, and refuses to write more than 32 of an `int`: such a record would be taken
    # and could not be passed on.
    for name in newest.ints:
        if (value := fields[name]) is not None and not _MIN_INT <= value <= _MAX_INT:
            raise Unreadable(f"the field {name} of the schema {schema.name} has more than 32 bits")
    for name, fits in newest.inner_ints:
        if not fits(fields[name]):
            raise Unreadable(f"a number in the field {name} of the schema {schema.name} has more than 32 bits")
    if body.tell() != len(data):
        raise Unreadable(f"the body is longer than the schema {schema.name} says")
    return record


def decode_as(kind: type[R], data: bytes | None) -> R:
    """`decode`, and Unreadable where it is a record of another kind."""
    record = decode(data)
    if not isinstance(record, kind):
        raise Unreadable(f"is a {type(record).__name__}, where a {kind.__name__} was expected")
    return record
