"""The committed schemas: what was released stays readable, in both directions, and the structs are the same records."""

import copy
import json
from pathlib import Path

import avro.schema
import msgspec
import pytest
from avro.compatibility import ReaderWriterCompatibilityChecker, SchemaCompatibilityType

import schemas
from streams import codec, records
from streams.codec import FIRST_COMMITTED_ID, released, schema_text

FOLDER = Path(schemas.__file__).parent
NAMES = sorted(path.stem for path in FOLDER.glob("*.avsc"))
STRUCTS = {schema.name: schema.struct for schema in codec._by_id().values()}
NESTED = {
    "Secret": records.Secret,
    "SigningSecret": records.SigningSecret,
    "IngestKey": records.IngestKey,
    "Token": records.Token,
    "DataKey": records.DataKey,
    "Write": records.Write,
    "Header": records.Header,
    "OpenDelivery": records.OpenDelivery,
}


def newest(name: str) -> str:
    """The newest released schema of that name."""
    return max((number, text) for number, (found, text) in released().items() if found == name)[1]


def reads(reader: str, written: str) -> bool:
    """Whether `avro` says that data written under one schema can be read under the other."""
    found = ReaderWriterCompatibilityChecker().get_compatibility(avro.schema.parse(reader), avro.schema.parse(written))
    return found.compatibility is SchemaCompatibilityType.compatible


def records_in(schema, found=None) -> list[dict]:
    """Every record type of a parsed schema, nested ones too."""
    found = [] if found is None else found
    if isinstance(schema, list):
        for branch in schema:
            records_in(branch, found)
    elif isinstance(schema, dict):
        if schema["type"] == "record":
            found.append(schema)
        for inner in [schema.get("items"), schema.get("values"), *schema.get("fields", ())]:
            records_in(inner, found)
        if not isinstance(schema["type"], str):
            records_in(schema["type"], found)
    return found


def test_there_is_a_schema_for_every_kind_of_record():
    assert sorted(STRUCTS) == NAMES
    assert set(STRUCTS.values()) == set(records.Record.__args__)


@pytest.mark.parametrize("name", NAMES)
def test_the_current_schema_is_the_newest_released_one(name):
    """A changed schema is released under a new id beside the old ones; `schemas/released` is never edited."""
    assert json.loads(newest(name)) == json.loads(schema_text(name))


@pytest.mark.parametrize("name", NAMES)
def test_every_release_can_be_read_under_every_other(name):
    """Backward: we read what an older release wrote. Forward: an older reader, not updated yet, reads what we write."""
    texts = [text for found, text in released().values() if found == name]

    assert all(reads(one, other) for one in [*texts, schema_text(name)] for other in [*texts, schema_text(name)])


BREAKING = {
    "a field without default is added": lambda fields: fields.append({"name": "new", "type": "string", "doc": "New."}),
    "a field without default is removed": lambda fields: fields.pop(0),
    "a type is changed": lambda fields: fields[0].update(type="long"),
    "a field is renamed": lambda fields: fields[0].update(name="other"),
    "a symbol is added": lambda fields: fields[3]["type"]["symbols"].append("partner"),
}


@pytest.mark.parametrize("change", BREAKING)
def test_a_change_that_breaks_readers_is_caught(change):
    before = json.loads(schema_text("event"))
    after = copy.deepcopy(before)
    BREAKING[change](after["fields"])

    both = reads(json.dumps(after), json.dumps(before)), reads(json.dumps(before), json.dumps(after))

    assert before != after
    assert not all(both)


def test_a_field_with_a_default_may_be_added():
    before = json.loads(schema_text("event"))
    after = copy.deepcopy(before)
    after["fields"].append({"name": "new", "type": ["null", "string"], "default": None, "doc": "New."})

    assert reads(json.dumps(after), json.dumps(before))
    assert reads(json.dumps(before), json.dumps(after))


def test_released_ids_are_unique_and_out_of_the_way_of_a_registry_s():
    numbers = [int(path.name.partition("-")[0]) for path in (FOLDER / "released").iterdir()]

    assert len(set(numbers)) == len(numbers) == len(released())
    assert min(numbers) >= FIRST_COMMITTED_ID == 2**30
    assert max(numbers) < 2**31  # the header's id is read as a signed number by most clients


@pytest.mark.parametrize("name", NAMES)
def test_every_record_and_field_says_what_it_is(name):
    schema = json.loads(schema_text(name))
    found = records_in(schema)

    assert schema["doc"].strip()
    assert [field["name"] for record in found for field in record["fields"] if not field.get("doc", "").strip()] == []


@pytest.mark.parametrize("name", NAMES)
def test_structs_have_the_schema_s_fields_in_its_order(name):
    """The codec builds one from the other by name; the order is what people compare."""
    for record in records_in(json.loads(schema_text(name))):
        struct = STRUCTS[name] if record["name"] == STRUCTS[name].__name__ else NESTED[record["name"]]

        assert [field["name"] for field in record["fields"]] == list(struct.__struct_fields__)


@pytest.mark.parametrize("name", NAMES)
def test_where_the_schema_has_a_default_the_struct_has_the_same(name):
    """Else a record read from an older release would differ from one that was made without the field."""
    for record in records_in(json.loads(schema_text(name))):
        struct = STRUCTS[name] if record["name"] == STRUCTS[name].__name__ else NESTED[record["name"]]
        defaults = {
            field.name: field.default if field.default_factory is msgspec.NODEFAULT else field.default_factory()
            for field in msgspec.structs.fields(struct)
        }

        assert {f["name"]: f["default"] for f in record["fields"] if "default" in f}.items() <= defaults.items()
