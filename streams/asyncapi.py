"""
The description of the log: AsyncAPI 3, made from the topics and the schemas that the code itself uses.

Pure. `make asyncapi` writes it to `docs/asyncapi.json`, and a test holds it there. A schema's text is the newest
released one; older ones are in `schemas/released`.
"""

import json
import sys
from collections.abc import Collection
from typing import Any, Final

from streams.codec import released, schema_text
from streams.topics import DAY_MS, FILLER_HEADER, MOVED_HEADER, TOPICS, Partitions, Topic, configs, partition_count

#: Of the log: it changes when a topic or a schema does so that readers have to.
VERSION: Final = "1"

#: What the bindings of Kafka say, and which release of them.
_BINDING: Final = "0.5.0"
_REPLICAS: Final = 3
_AVRO: Final = "application/vnd.apache.avro;version=1.9.0"
_JSON_SCHEMA: Final = "application/vnd.aai.asyncapi+json;version=3.0.0"

#: What the keys of `Topic.key` are.
KEYS: Final = {
    "app": "The app's id.",
    "integration": "The integration's id.",
    "integration/generation": "The integration's id, a slash, and the generation of the owner that wrote it.",
    "replay/generation": "The replay's id; where its worker wrote it, a slash and that one's generation behind it.",
    "process": "The process that asked.",
    "slot": "Number of the partition, which is its jitter slot.",
    "constant": "The text `topics`.",
    "schema": "The schema's id in decimal digits.",
}
_PARTITIONED_BY: Final = {
    "app": "Partition count: the setting `partitions.by_app`, chosen once.",
    "integration": "Partition count: the setting `partitions.by_integration`, chosen once.",
    "one": "One partition.",
    "slot": "A partition for each of the five jitter slots.",
}


def described() -> dict[str, Any]:
    """The description of all topics."""
    names = sorted({name for topic in TOPICS for name in topic.values})
    return {
        "asyncapi": "3.0.0",
        "info": {
            "title": "tenterhook: the log",
            "version": VERSION,
            "description": "Every topic of an installation. Values are Avro in the Confluent wire format: a zero byte, "
            "the schema's id in four bytes (big-endian), the body. Ids are those of the schema registry where one is "
            "configured, else those of the committed schemas, from 1073741824 on. Keys are UTF-8. Topics marked as "
            "internal may change with any release.",
            "license": {"name": "Apache-2.0"},
        },
        "defaultContentType": "avro/binary",
        "servers": {
            "kafka": {
                "host": "{broker}",
                "protocol": "kafka",
                "variables": {
                    "broker": {"default": "127.0.0.1:9092", "description": "HOST:PORT; the setting `broker`."}
                },
            }
        },
        "channels": {topic.name: _channel(topic) for topic in TOPICS},
        "operations": {
            f"write-{topic.name}": {
                "action": "send",
                "summary": topic.what,
                "channel": {"$ref": f"#/channels/{_escaped(topic.name)}"},
            }
            for topic in TOPICS
        },
        "components": {
            "schemas": {name: {"schemaFormat": _AVRO, "schema": json.loads(schema_text(name))} for name in names},
            "tags": {"internal": {"name": "internal", "description": "Of no use to others; may change."}},
        },
    }


def as_json(description: dict[str, Any]) -> bytes:
    """As it is committed: the same bytes for the same code."""
    return json.dumps(description, indent=1, ensure_ascii=False).encode() + b"\n"


def _channel(topic: Topic) -> dict[str, Any]:
    partitions = partition_count(topic, Partitions())
    messages = {name: _message(topic, name) for name in topic.values}
    if topic.tombstone is not None:
        messages["tombstone"] = _tombstone(topic)
    if FILLER_HEADER in dict(topic.headers):
        messages["filler"] = _filler(topic)
    found: dict[str, Any] = {
        "address": "{prefix}" + topic.name,
        "title": topic.name,
        "summary": topic.what,
        "description": f"{_PARTITIONED_BY[topic.partitioned_by]} {_kept(topic)}",
        "parameters": {"prefix": {"default": "tenterhook.", "description": "The setting `topic_prefix`."}},
        "servers": [{"$ref": "#/servers/kafka"}],
        "messages": messages,
        "bindings": {
            "kafka": {
                "partitions": partitions,
                "replicas": _REPLICAS,
                "topicConfiguration": _topic_configuration(topic),
                "bindingVersion": _BINDING,
            }
        },
    }
    if topic.is_internal:
        found["tags"] = [{"$ref": "#/components/tags/internal"}]
    return found


def retention(topic: Topic) -> str:
    """How long its records stay, in days and seconds: `7 days and 20,480 s`."""
    if topic.retention_ms is None:
        return "for ever"
    days, rest_ms = divmod(topic.retention_ms, DAY_MS)
    counted = f"{days} day{'' if days == 1 else 's'}"
    return f"{counted} and {rest_ms / 1_000:,.10g} s" if rest_ms else counted


def _kept(topic: Topic) -> str:
    if topic.cleanup == "compact":
        return f"Compacted: the newest record of a key stays {retention(topic)}."
    return f"Records are deleted after {retention(topic)}."


def _topic_configuration(topic: Topic) -> dict[str, Any]:
    """Those of its settings that the binding knows; numbers as numbers."""
    own = configs(topic, _REPLICAS)
    found: dict[str, Any] = {"cleanup.policy": [topic.cleanup], "max.message.bytes": int(own["max.message.bytes"])}
    if topic.retention_ms is not None:
        found |= {name: int(own[name]) for name in ("retention.ms", "retention.bytes")}
    return found


def _message(topic: Topic, name: str) -> dict[str, Any]:
    ids = sorted(number for number, (found, _) in released().items() if found == name)
    found: dict[str, Any] = {
        "name": name,
        "title": json.loads(schema_text(name))["name"],
        "description": f"Ids of its committed schemas, the newest last: {', '.join(map(str, ids))}.",
        "contentType": "avro/binary",
        "payload": {"$ref": f"#/components/schemas/{name}"},
        "bindings": _message_bindings(_key(topic, name)),
    }
    # Each value may be moved; the others are about what the topic is for.
    names = (
        {header for header, _ in topic.headers if header != FILLER_HEADER}
        if name == topic.values[0]
        else {MOVED_HEADER}
    )
    if headers := _headers(topic, names):
        found["headers"] = headers
    return found


def _tombstone(topic: Topic) -> dict[str, Any]:
    return {
        "name": "tombstone",
        "description": f"No value: {topic.tombstone}.",
        "payload": {"schemaFormat": _JSON_SCHEMA, "schema": {"type": "null"}},
        "bindings": _message_bindings(_key(topic, topic.values[0])),
    }


def _filler(topic: Topic) -> dict[str, Any]:
    return {
        "name": "filler",
        "description": "Neither key nor value: pass it over.",
        "payload": {"schemaFormat": _JSON_SCHEMA, "schema": {"type": "null"}},
        "headers": _headers(topic, {FILLER_HEADER}),
        "bindings": _message_bindings(None),
    }


def _headers(topic: Topic, names: Collection[str]) -> dict[str, Any] | None:
    """Those of its headers; None where it has none of them."""
    of_these = {name: {"type": "string", "description": meaning} for name, meaning in topic.headers if name in names}
    return {"type": "object", "properties": of_these} if of_these else None


def _key(topic: Topic, name: str) -> dict[str, Any] | None:
    """What the key is; None where there is none."""
    if name == "marker":  # under a key only where compaction would take it away without one
        return {"type": "string", "const": "marker"} if topic.cleanup == "compact" else None
    if topic.key == "none":
        return None
    return {"type": "string", "description": KEYS[topic.key]}


def _message_bindings(key: dict[str, Any] | None) -> dict[str, Any]:
    found = {
        "schemaIdLocation": "payload",
        "schemaIdPayloadEncoding": "confluent",
        "bindingVersion": _BINDING,
    }
    return {"kafka": found if key is None else {"key": key, **found}}


def _escaped(name: str) -> str:
    """As a JSON pointer wants it."""
    return name.replace("~", "~0").replace("/", "~1")


if __name__ == "__main__":
    sys.stdout.buffer.write(as_json(described()))
