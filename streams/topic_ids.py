"""
The ids that a broker gives to topics: a topic that was deleted and made again has the same name and another id.

aiokafka asks with an older request, whose answer has no ids, so the newer one is spelt out here.
"""

from collections.abc import Iterable
from typing import Any, Final

from aiokafka.client import AIOKafkaClient
from aiokafka.errors import (
    IncompatibleBrokerVersion,
    NoError,
    TopicAuthorizationFailedError,
    UnknownTopicOrPartitionError,
    for_code,
)
from aiokafka.protocol.api import Request, RequestStruct, Response
from aiokafka.protocol.types import Boolean, CompactArray, CompactString, Int16, Int32, Schema, TaggedFields

from streams.connection import Connection


class _Uuid:
    """16 bytes."""

    @classmethod
    def encode(cls, value: bytes) -> bytes:
        return value

    @classmethod
    def decode(cls, data: Any) -> bytes:
        return bytes(data.read(16))


_UNKNOWN: Final = bytes(16)


class _Response(Response):  # type: ignore[misc]
    API_KEY = 3
    API_VERSION = 12
    SCHEMA = Schema(
        ("throttle_time_ms", Int32),
        (
            "brokers",
            CompactArray(
                ("node_id", Int32),
                ("host", CompactString("utf-8")),
                ("port", Int32),
                ("rack", CompactString("utf-8")),
                ("tags", TaggedFields),
            ),
        ),
        ("cluster_id", CompactString("utf-8")),
        ("controller_id", Int32),
        (
            "topics",
            CompactArray(
                ("error_code", Int16),
                ("topic", CompactString("utf-8")),
                ("topic_id", _Uuid),
                ("is_internal", Boolean),
                (
                    "partitions",
                    CompactArray(
                        ("error_code", Int16),
                        ("partition", Int32),
                        ("leader", Int32),
                        ("leader_epoch", Int32),
                        ("replicas", CompactArray(Int32)),
                        ("isr", CompactArray(Int32)),
                        ("offline_replicas", CompactArray(Int32)),
                        ("tags", TaggedFields),
                    ),
                ),
                ("authorized_operations", Int32),
                ("tags", TaggedFields),
            ),
        ),
        ("tags", TaggedFields),
    )


class _RequestStruct(RequestStruct):  # type: ignore[misc]
    API_KEY = 3
    API_VERSION = 12
    FLEXIBLE_VERSION = True
    RESPONSE_TYPE = _Response
    SCHEMA = Schema(
        ("topics", CompactArray(("topic_id", _Uuid), ("name", CompactString("utf-8")), ("tags", TaggedFields))),
        ("allow_auto_topic_creation", Boolean),
        ("include_topic_authorized_operations", Boolean),
        ("tags", TaggedFields),
    )


class _Request(Request[_RequestStruct]):  # type: ignore[misc]
    API_KEY = 3

    def __init__(self, names: list[str]) -> None:
        self._names = names

    def build(self, request_struct_class: type[_RequestStruct]) -> _RequestStruct:
        return request_struct_class([(_UNKNOWN, name, {}) for name in self._names], False, False, {})


async def topic_ids(connection: Connection, names: list[str]) -> dict[str, str]:
    """
    The ids of those topics that have one, as hex digits. None of them where the broker has no ids, as the embedded one.

    Raises:
        TopicAuthorizationFailedError: we may not know of some of them, which are its argument.
        KafkaError: it did not answer, or does not know now.
    """
    client = AIOKafkaClient(**connection.client_options)
    try:
        await client.bootstrap()
        answer = await client.send(client.get_random_node(), _Request(names))
    except (IncompatibleBrokerVersion, NotImplementedError):  # the second: of another version than ours
        return {}
    finally:
        await client.close()
    return _ids(answer.topics)


def _ids(topics: Iterable[tuple[Any, ...]]) -> dict[str, str]:
    """Of what the broker tells of each: error, name, id. That it does not know one is no error; others are raised."""
    found, denied = {}, set()
    for code, name, topic_id, *_ in topics:
        error = for_code(code)
        if error is TopicAuthorizationFailedError:
            denied.add(name)
        elif error not in {NoError, UnknownTopicOrPartitionError}:
            raise error(name)
        elif error is NoError and topic_id != _UNKNOWN:
            found[name] = topic_id.hex()
    if denied:
        raise TopicAuthorizationFailedError(denied)
    return found
