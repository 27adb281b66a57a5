"""docs/asyncapi.json: current, valid by AsyncAPI's own schema, and true to what topics are made with."""

import io
import json
from pathlib import Path

import fastavro
import jsonschema_rs
import pytest

from streams import codec
from streams.asyncapi import as_json, described
from streams.records import Result
from streams.topics import (
    FILLER_HEADER,
    MOVED_HEADER,
    RESULTS,
    RETRIES,
    TOPICS,
    Partitions,
    configs,
    partition_count,
)
from tests.breaking import make_result

ROOT = Path(__file__).parents[2]
SPECIFICATION = ROOT / "tests/receivers/node_modules/@asyncapi/specs/schemas/3.0.0.json"
DOCUMENT = described()


def dereferenced(pointer: str):
    found = DOCUMENT
    for part in pointer.removeprefix("#/").split("/"):
        found = found[part.replace("~1", "/").replace("~0", "~")]
    return found


def references(part) -> list[str]:
    if isinstance(part, dict):
        own = [part["$ref"]] if "$ref" in part else []
        return own + [each for value in part.values() for each in references(value)]
    return [each for value in part for each in references(value)] if isinstance(part, list) else []


def test_it_is_current():
    """`make asyncapi` writes it."""
    assert (ROOT / "docs" / "asyncapi.json").read_bytes() == as_json(DOCUMENT)


@pytest.mark.node
@pytest.mark.skipif(not SPECIFICATION.is_file(), reason="needs Node.js and `make npm`")
def test_it_is_valid_by_asyncapi_s_own_schema():
    validator = jsonschema_rs.validator_for(json.loads(SPECIFICATION.read_text(encoding="utf-8")))
    wrong = json.loads(as_json(DOCUMENT))
    wrong["channels"]["deliveries"]["bindings"]["kafka"]["partitions"] = 0
    worse = json.loads(as_json(DOCUMENT))
    worse["components"]["schemas"]["result"]["schema"]["fields"][0].pop("type")

    assert [error.message for error in validator.iter_errors(DOCUMENT)] == []
    assert not validator.is_valid(wrong)
    assert not validator.is_valid(worse)


def test_every_reference_leads_somewhere():
    found = references(DOCUMENT)

    assert len(found) > len(TOPICS)
    assert all(dereferenced(each) for each in found)


@pytest.mark.parametrize("topic", TOPICS, ids=lambda topic: topic.name)
def test_a_channel_says_what_the_topic_is_made_with(topic):
    channel = DOCUMENT["channels"][topic.name]
    kafka = channel["bindings"]["kafka"]
    said = {
        name: str(value[0] if isinstance(value, list) else value) for name, value in kafka["topicConfiguration"].items()
    }
    keys = {name: message["bindings"]["kafka"].get("key") for name, message in channel["messages"].items()}

    assert kafka["partitions"] == partition_count(topic, Partitions())
    assert said.items() <= configs(topic, kafka["replicas"]).items()
    assert ("retention.ms" in said) is (topic.retention_ms is not None)
    fillers = ["filler"] if FILLER_HEADER in dict(topic.headers) else []
    assert keys.keys() == {*topic.values, *(["tombstone"] if topic.tombstone else []), *fillers}
    assert (keys[topic.values[0]] is None) is (topic.key == "none")


@pytest.mark.parametrize("topic", TOPICS, ids=lambda topic: topic.name)
def test_a_channel_s_messages_have_the_headers_of_the_topic(topic):
    """Those that `tenterhook mend` writes too: each value may be moved, and what fills an offset is no value."""
    messages = DOCUMENT["channels"][topic.name]["messages"]
    said = {name: set(message.get("headers", {}).get("properties", ())) for name, message in messages.items()}
    moved = {MOVED_HEADER} & dict(topic.headers).keys()

    assert set().union(*said.values()) == dict(topic.headers).keys()
    assert all(moved <= said[name] for name in topic.values)
    assert said.get("filler", {FILLER_HEADER}) == {FILLER_HEADER}


def test_a_result_is_read_with_nothing_but_the_document():
    """As a program in another language would: wire format, id, schema."""
    result = make_result()
    data = codec.encode(result)
    message = DOCUMENT["channels"]["delivery-results"]["messages"]["result"]
    schema = dereferenced(message["payload"]["$ref"])["schema"]

    read = fastavro.schemaless_reader(io.BytesIO(data[5:]), fastavro.parse_schema(schema), None)

    assert data[0] == 0
    assert str(int.from_bytes(data[1:5], "big")) in message["description"]
    assert Result(**read) == result
    assert RESULTS.values[0] == "result"
    assert all(topic.values == ("delivery",) for topic in RETRIES)
