"""
What an installation's topics were when it began, recorded once on a topic of its own, and what differs now.

A topic that was deleted and made again has the right name and shape, and neither its records nor the offsets that other
topics name. One whose partition count was changed together with the settings has moved its keys. Neither may go unseen.
"""

from collections.abc import Mapping
from typing import Any, Final

from aiokafka import AIOKafkaProducer, ConsumerRecord, TopicPartition

from streams import codec, takeover
from streams.connection import Connection
from streams.ends import EndOffset
from streams.records import Installation
from streams.topic_ids import topic_ids

_KEY: Final = b"topics"


async def differences(connection: Connection, record_topic: str, counts: Mapping[str, int]) -> list[str]:
    """
    Record the topics, the first time; else what is not as recorded, a sentence each. [] where the broker has no ids.

    Args:
        record_topic: full name of the topic that holds the record.
        counts: full names of the topics that count, and their partitions now.

    Raises:
        KafkaError: the broker did not answer.
    """
    told = await topic_ids(connection, sorted(counts))
    if set(told) != set(counts):
        return []
    now = Installation(
        topic_ids={name.removeprefix(connection.prefix): told[name] for name in counts},
        partitions={name.removeprefix(connection.prefix): count for name, count in counts.items()},
    )
    recorded = await _recorded(connection, record_topic)
    if recorded is None:
        await _record(connection, record_topic, now)
        return []
    return compared(connection.prefix, recorded, now, record_topic)


def compared(prefix: str, recorded: Installation, now: Installation, record_topic: str) -> list[str]:
    """What differs, a sentence each, with what to do."""
    accept = (
        f"use another TENTERHOOK_TOPIC_PREFIX; or, to go on without what was lost, delete topic {record_topic},"
        " which is made again with what is there"
    )
    found = []
    for name, was in recorded.topic_ids.items():
        count = recorded.partitions.get(name)
        if now.topic_ids.get(name, was) != was:
            found.append(
                f"topic {prefix}{name} was deleted and made again since this installation began: its records are gone,"
                f" and positions that others name mean nothing there. Restore the brokers from a backup; or {accept}"
            )
        elif count is not None and now.partitions.get(name, count) != count:
            found.append(
                f"topic {prefix}{name} has {now.partitions[name]} partitions and began with {count}. The count is"
                f" chosen once, since changing it moves keys: {accept}"
            )
    return found


async def _recorded(connection: Connection, record_topic: str) -> Installation | None:
    """The first record; several processes that begin at once write the same."""
    found: list[Installation] = []

    def see(record: "ConsumerRecord[Any, Any]") -> None:
        try:
            found.append(codec.decode_as(Installation, record.value))
        except codec.Unreadable:
            return

    partition = TopicPartition(record_topic, 0)
    await takeover.read_back(connection, {partition: (0, await _end(connection, partition))}, see)
    return found[0] if found else None


async def _end(connection: Connection, partition: TopicPartition) -> int:
    ends = EndOffset(connection, partition)
    try:
        return await ends.ask()
    finally:
        await ends.stop()


async def _record(connection: Connection, record_topic: str, now: Installation) -> None:
    producer = AIOKafkaProducer(**connection.client_options, acks="all")
    await producer.start()
    try:
        await producer.send_and_wait(record_topic, codec.encode(now), key=_KEY, partition=0)
    finally:
        await producer.stop()
