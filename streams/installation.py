"""
What an installation's topics were when it began, recorded on a topic of its own, and what differs now.

A topic that was deleted and made again has the right name and shape, and neither its records nor the offsets that other
topics name. One whose partition count was changed together with the settings has moved its keys. Neither may go unseen.

Of each topic the first record that names it counts. A release that has more topics adds a record that names those too,
and all that were named before. Its key tells how many: so compaction takes none away, whatever else begins beside it.
Releases before that wrote one record, under the key `topics`, and read the first that is there, whichever it is.
"""

import asyncio
from collections.abc import Iterable, Mapping
from typing import Any, Final

from aiokafka import AIOKafkaProducer, ConsumerRecord, TopicPartition

from streams import codec, takeover
from streams.connection import Connection
from streams.ends import EndOffset
from streams.records import Installation
from streams.topic_ids import topic_ids

_LOOKS: Final = 50
_PAUSE_S: Final = 0.1


async def differences(connection: Connection, record_topic: str, counts: Mapping[str, int]) -> list[str]:
    """
    Record those topics that are not recorded yet; what is not as recorded, a sentence each. [] where the broker has no
    ids.

    Args:
        record_topic: full name of the topic that holds the record.
        counts: full names of the topics that count, and their partitions now.

    Raises:
        KafkaError: the broker did not answer.
    """
    told = await _told(connection, sorted(counts))
    if not told:
        return []
    now = Installation(
        topic_ids={name.removeprefix(connection.prefix): told[name] for name in told},
        partitions={name.removeprefix(connection.prefix): counts[name] for name in told},
    )
    records = await _records(connection, record_topic)
    recorded = joined([*records, now])
    found = compared(connection.prefix, recorded, now, record_topic)
    if not found and recorded != joined(records):
        await _record(connection, record_topic, recorded)
    return found


async def _told(connection: Connection, names: list[str]) -> dict[str, str]:
    """As `topic_ids`; a broker that has not heard of all that were just made is given a moment."""
    told = await topic_ids(connection, names)
    for _ in range(_LOOKS):
        if not told or len(told) == len(names):
            break
        await asyncio.sleep(_PAUSE_S)
        told = await topic_ids(connection, names)
    return told


def key_of(record: Installation) -> bytes:
    """Its key on the topic."""
    return f"{len(record.topic_ids)} topics".encode()


def joined(records: Iterable[Installation]) -> Installation:
    """What they say together: of each topic the first that names it counts."""
    topic_ids: dict[str, str] = {}
    partitions: dict[str, int] = {}
    for record in records:
        topic_ids = {**record.topic_ids, **topic_ids}
        partitions = {**record.partitions, **partitions}
    return Installation(topic_ids=topic_ids, partitions=partitions)


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


async def _records(connection: Connection, record_topic: str) -> list[Installation]:
    """In the order of the log; several processes that begin at once write the same."""
    found: list[Installation] = []

    def see(record: "ConsumerRecord[Any, Any]") -> None:
        try:
            found.append(codec.decode_as(Installation, record.value))
        except codec.Unreadable:
            return

    partition = TopicPartition(record_topic, 0)
    await takeover.read_back(connection, {partition: (0, await _end(connection, partition))}, see)
    return found


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
        await producer.send_and_wait(record_topic, codec.encode(now), key=key_of(now), partition=0)
    finally:
        await producer.stop()
