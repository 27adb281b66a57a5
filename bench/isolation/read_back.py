"""What the log of a run has, read by a consumer of its own."""

import asyncio
from typing import Any

from aiokafka import AIOKafkaConsumer, TopicPartition

from bench.stage import PARTITIONS, Stage
from streams import codec, topics


async def everything(run: Stage, topic: topics.Topic) -> list[tuple[int, Any]]:
    """All records of the topic, each partition in order, with the broker's time."""
    reader: AIOKafkaConsumer[Any, Any] = AIOKafkaConsumer(
        bootstrap_servers=run.connection.bootstrap, auto_offset_reset="earliest", enable_auto_commit=False
    )
    await reader.start()
    try:
        count = topics.partition_count(topic, PARTITIONS)
        partitions = [TopicPartition(run.connection.topic(topic), number) for number in range(count)]
        reader.assign(partitions)
        ends = await reader.end_offsets(partitions)
        found: list[tuple[int, Any]] = []
        while any([await reader.position(each) < ends[each] for each in partitions]):
            for records in (await reader.getmany(timeout_ms=500)).values():
                found += [(record.timestamp, codec.decode(record.value)) for record in records if record.value]
        return found
    finally:
        await reader.stop()


async def fanned_out(run: Stage) -> None:
    """Until no delivery has come onto its topic for a while: an event for 1,000 integrations takes 0.2 s."""
    reader: AIOKafkaConsumer[Any, Any] = AIOKafkaConsumer(bootstrap_servers=run.connection.bootstrap)
    await reader.start()
    try:
        count = topics.partition_count(topics.DELIVERIES, PARTITIONS)
        partitions = [TopicPartition(run.connection.topic(topics.DELIVERIES), number) for number in range(count)]
        before: dict[TopicPartition, int] = {}
        while (ends := await reader.end_offsets(partitions)) != before:
            before = ends
            await asyncio.sleep(3)
    finally:
        await reader.stop()
