"""What the log says of a run, read afterwards with a plain consumer."""

import asyncio
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from typing import Final

from aiokafka import AIOKafkaConsumer, ConsumerRecord, TopicPartition
from aiokafka.errors import KafkaError

from services.cli.bench.wire import stamp_of
from services.cli.errors import Failed
from streams.codec import Unreadable, decode
from streams.connection import Connection
from streams.reading import stop
from streams.records import Event, Record
from streams.topics import Topic

#: A broker on this machine answers within milliseconds.
PATIENCE_S: Final = 15.0
FETCH_MS: Final = 200

Offsets = dict[TopicPartition, int]


@dataclass(frozen=True, slots=True)
class Written:
    """A record that the run has put onto the log, and when its writer did."""

    at_ms: int
    record: Record


def ends_now(connection: Connection, *topics: Topic) -> Offsets:
    """
    Where the topics end.

    Raises:
        Failed: the broker does not answer.
    """

    async def ask() -> Offsets:
        async with consumer_of(connection, *topics) as consumer:
            return await ends_of(consumer)

    return asyncio.run(ask())


def written_since(connection: Connection, starts: Offsets, *topics: Topic) -> list[Written]:
    """
    All that stands on the topics behind *starts*, that of each partition in its order.

    Raises:
        Failed: the broker does not answer.
    """

    async def read() -> list[Written]:
        async with consumer_of(connection, *topics) as consumer:
            return [
                Written(record.timestamp, found)
                async for record in _records(consumer, starts)
                if (found := decoded(record)) is not None
            ]

    return asyncio.run(read())


def order_of(written: Iterable[Written], app: str, since_ns: int) -> list[int]:
    """
    Numbers of the app's events, in the order in which they stand on the topic `events`.

    An app's events are all in one partition, so that this is one line.

    Args:
        since_ns: when the run began. Events of an earlier one may be among what is read, since the end that the
            embedded broker tells is too low, and their numbers are the same.
    """
    events = (each.record for each in written if isinstance(each.record, Event) and each.record.app == app)
    stamps = (stamp_of(event.payload) for event in events)
    return [stamp[0] for stamp in stamps if stamp and stamp[1] >= since_ns]


@asynccontextmanager
async def consumer_of(connection: Connection, *topics: Topic) -> AsyncIterator[AIOKafkaConsumer]:
    """A consumer without a group, of all partitions of these topics, from their ends on."""
    consumer = AIOKafkaConsumer(
        *(connection.topic(topic) for topic in topics),
        **connection.client_options,
        group_id=None,
        auto_offset_reset="latest",
        client_id="tenterhook-bench",
    )
    try:
        async with asyncio.timeout(PATIENCE_S):
            await consumer.start()
    except (KafkaError, OSError) as error:
        await consumer.stop()
        raise Failed(
            f"the broker at {connection.bootstrap} cannot be read ({type(error).__name__}): correct --broker"
        ) from None
    try:
        yield consumer
    finally:
        await stop(consumer)


async def ends_of(consumer: AIOKafkaConsumer) -> Offsets:
    """Where its partitions end now."""
    ends: Offsets = await consumer.end_offsets(consumer.assignment())
    return ends


def decoded(record: ConsumerRecord) -> Record | None:
    """What the record is; None where it is none of ours."""
    with suppress(Unreadable):
        return decode(record.value)
    return None


async def _records(consumer: AIOKafkaConsumer, starts: Offsets) -> AsyncIterator[ConsumerRecord]:
    """Everything from *starts* to the ends as they are now."""
    ends = await ends_of(consumer)
    for at in ends:
        consumer.seek(at, starts.get(at, 0))
    left = {at for at, end in ends.items() if end > starts.get(at, 0)}
    waited_ms = 0
    while left:
        batches = await consumer.getmany(*left, timeout_ms=FETCH_MS)
        waited_ms = 0 if batches else waited_ms + FETCH_MS
        if waited_ms > PATIENCE_S * 1000:
            raise Failed("the broker does not give back what was written: look at its log")
        for records in batches.values():
            for record in records:
                yield record
        left = {at for at in left if await consumer.position(at) < ends[at]}
