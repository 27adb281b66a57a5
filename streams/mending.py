"""
Mends partitions that have lost their records, so that no offset is used twice: see `streams.engine.shortened`.

What such a partition holds was written after the loss, under offsets that lost records had. It is written again behind
every offset that was ever used, in its order, with what fills the offsets between; then all before it is deleted. Where
that is interrupted, it goes on when it is called again: what was moved says from where.
"""

import asyncio
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Collection, Iterable
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass
from typing import Any, Final

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, ConsumerRecord, OffsetAndMetadata, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, RecordsToDelete
from aiokafka.errors import CommitFailedError, UnknownMemberIdError

from streams import reading
from streams.connection import Connection
from streams.engine.shortened import ASK_AGAIN_S, of_compacted, shortened
from streams.engine.standing import moves_to, noted_short
from streams.features import features_of
from streams.producer import open_producer
from streams.topics import FILLER_HEADER, MOVED_HEADER, TOPICS

#: Rows and receipts may name offsets of what was taken and not committed yet: at most as many as a worker takes.
BEYOND_COMMITTED: Final = 100_000

#: Records of one batch of fillers: 30 bytes each.
_FILLERS: Final = 10_000
#: Records that are moved under way.
_UNDER_WAY: Final = 500
#: Records that are held at once: a partition may have more than fit.
_CHUNK: Final = 10_000
#: aiokafka asks for ever who knows a group's commits, or leads a partition. A broker that has just started loads the
#: commits for some seconds.
_ANSWER_S: Final = 60.0
_FETCH_MS: Final = 200

#: Records that one more step has written.
Say = Callable[[int], None]


class StillRead(Exception):
    """A service reads the partition; it would not notice that its records are moved."""


@dataclass(frozen=True, slots=True)
class Lost:
    """A partition that has lost its records."""

    partition: TopicPartition
    #: Of the consumer group, with the prefix.
    group: str
    #: What was committed, and below which offset all is read.
    committed: OffsetAndMetadata
    begins_at: int
    ends_at: int

    @property
    def moved_to(self) -> int:
        """The first offset that nobody has used; the same one until it is mended."""
        begun = moves_to(self.committed.metadata)
        return max(self.committed.offset + BEYOND_COMMITTED, self.ends_at) if begun is None else begun


async def lost_partitions(connection: Connection, groups: Iterable[str]) -> list[Lost]:
    """
    Those that the groups have read further than they reach, or have noted as such.

    Args:
        groups: names of consumer groups, without prefix.

    Raises:
        KafkaError: the broker does not answer, or refuses.
        TimeoutError: it answers, and has not told all for a minute.
    """
    found: list[Lost] = []
    for group in groups:
        full_name = f"{connection.prefix}{group}"
        async with _answered(f"what group {full_name} has read"), _reader(connection, group_id=full_name) as reader:
            topics = await reader._client.fetch_all_metadata()  # noqa: SLF001
            names = map(connection.topic, TOPICS)
            all_ = [TopicPartition(name, at) for name in names for at in topics.partitions_for_topic(name) or ()]
            # The compacted are not held back, nor would Kafka let them be moved.
            own = sorted(set(all_) - of_compacted(connection, all_))
            reading.look_at(reader, own)
            stored = await reading.committed_offsets(reader, own)
            beginnings, ends = await reader.beginning_offsets(stored), await reader.end_offsets(stored)
            short = shortened(stored, beginnings, ends)
            if short:
                # As a worker does before it stops: a new leader may say less than it has for a moment.
                await asyncio.sleep(ASK_AGAIN_S)
                ends = await reader.end_offsets(stored)
                short &= shortened(stored, beginnings, ends)
        found += [Lost(each, full_name, stored[each], beginnings[each], ends[each]) for each in sorted(short)]
    return found


async def mend(connection: Connection, lost: Lost, say: Say = lambda _: None) -> int:
    """
    Move what the partition holds behind all offsets that were ever used; how many records that were.

    Args:
        say: called with the number of records that were written, fillers too, as it goes on.

    Raises:
        StillRead: a process of the group runs.
        KafkaError, TimeoutError: the broker does not answer, or refuses; call it again.
    """
    async with _answered(f"whether group {lost.group} has members"):
        await _note(connection, lost)
    producer = await open_producer(connection, client_id="tenterhook-mend")
    try:
        await _fill(producer, lost, say)
        before = await _moved(connection, lost)
        moved = len(before) + await _move(connection, producer, lost, before, say)
    finally:
        await producer.stop()
    admin = AIOKafkaAdminClient(**connection.client_options)
    await admin.start()
    try:
        await admin.delete_records({lost.partition: RecordsToDelete(lost.moved_to)})
    finally:
        await admin.close()
    return moved


async def _note(connection: Connection, lost: Lost) -> None:
    """That the partition is not whole: from here on it may be longer than what was committed."""
    noted = OffsetAndMetadata(lost.committed.offset, noted_short(lost.committed.metadata, lost.moved_to))
    async with _reader(connection, group_id=lost.group) as member_of_none:
        member_of_none.assign([lost.partition])
        try:
            await member_of_none.commit({lost.partition: noted})
        except (CommitFailedError, UnknownMemberIdError) as error:
            # Kafka takes it of nobody but members while there are any.
            raise StillRead(f"group {lost.group} has members: stop all services first") from error


async def _fill(producer: AIOKafkaProducer, lost: Lost, say: Say) -> None:
    """Write fillers until the partition reaches `moved_to`."""
    topic, number = lost.partition
    at = lost.ends_at
    while at < lost.moved_to:
        batch = producer.create_batch()
        wanted, count = min(_FILLERS, lost.moved_to - at), 0
        while count < wanted and batch.append(
            key=None, value=None, timestamp=None, headers=[(FILLER_HEADER, b"")]
        ) is not None:  # fmt: skip
            count += 1
        batch.close()
        stored = await (await producer.send_batch(batch, topic, partition=number))
        at = stored.offset + count
        say(count)


async def _moved(connection: Connection, lost: Lost) -> set[int]:
    """Where what was moved stood before."""
    async with _reader(connection) as reader:
        end = (await reader.end_offsets([lost.partition]))[lost.partition]
    return {
        int(value)
        async for chunk in _records(connection, lost.partition, lost.moved_to, end)
        for record in chunk
        for name, value in record.headers
        if name == MOVED_HEADER
    }


async def _move(
    connection: Connection, producer: AIOKafkaProducer, lost: Lost, moved: Collection[int], say: Say
) -> int:
    """Write again, in order, what stands before `moved_to` and was not moved yet; how many records that were."""
    count = 0
    async with aclosing(_records(connection, lost.partition, lost.begins_at, lost.moved_to)) as chunks:
        async for chunk in chunks:
            left = [each for each in chunk if each.offset not in moved and FILLER_HEADER not in dict(each.headers)]
            for start in range(0, len(left), _UNDER_WAY):
                sent = [
                    await producer.send(
                        record.topic,
                        record.value,
                        key=record.key,
                        partition=record.partition,
                        timestamp_ms=record.timestamp,
                        headers=[*record.headers, (MOVED_HEADER, str(record.offset).encode())],
                    )
                    for record in left[start : start + _UNDER_WAY]
                ]
                await asyncio.gather(*sent)
                say(len(sent))
            count += len(left)
    return count


async def _records(
    connection: Connection, partition: TopicPartition, start: int, end: int
) -> AsyncGenerator["list[ConsumerRecord[Any, Any]]", None]:
    """What stands there from the first offset up to the second, some at a time, in order."""
    if start >= end:
        return
    # What was never committed is not moved: it would be, from then on.
    isolation = (await features_of(connection)).isolation
    async with _reader(connection, auto_offset_reset="earliest", isolation_level=isolation) as reader:
        reader.assign([partition])
        reader.seek(partition, start)
        at, moved_s = start, time.monotonic()
        while at < end:
            records = (await reader.getmany(timeout_ms=_FETCH_MS, max_records=_CHUNK)).get(partition, [])
            if wanted := [each for each in records if each.offset < end]:
                yield wanted
            if (before := at) < (at := await reader.position(partition)):
                moved_s = time.monotonic()
            elif time.monotonic() - moved_s > _ANSWER_S:
                topic, number = partition
                raise TimeoutError(
                    f"nothing of {topic} {number} from offset {before} on was told for {_ANSWER_S:.0f} s"
                )


@asynccontextmanager
async def _answered(what: str) -> AsyncIterator[None]:
    """Give up after a minute, and say what was not told."""
    try:
        async with asyncio.timeout(_ANSWER_S):
            yield
    except TimeoutError as error:
        raise TimeoutError(f"{what} was not told for {_ANSWER_S:.0f} s") from error


@asynccontextmanager
async def _reader(connection: Connection, **options: Any) -> AsyncIterator["AIOKafkaConsumer[Any, Any]"]:
    consumer: AIOKafkaConsumer[Any, Any] = AIOKafkaConsumer(
        **connection.client_options, enable_auto_commit=False, **options
    )
    await consumer.start()
    try:
        yield consumer
    finally:
        await reading.stop(consumer)
