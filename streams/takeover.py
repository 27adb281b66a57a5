"""
The takeover protocol: what a predecessor has appended is found, and not done again.

A new owner of a source partition writes a marker to each partition that it appends to, then reads those
partitions up to its own marker, from the floor stored with the last commit (`Ledger.floor`). What a frozen
predecessor appends later stands behind the marker with a lower generation, and is set aside by all its readers:
those that work on it, and those that look for what was done already (`Generations`).
"""

from collections.abc import Callable, Hashable, Iterable, Mapping
from contextvars import ContextVar
from typing import Any, Final

import structlog
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, ConsumerRecord, TopicPartition

from streams import codec
from streams.connection import Connection
from streams.features import features_of
from streams.reading import started, stop
from streams.records import Marker

log = structlog.get_logger(__name__)

#: Bytes of one partition in one fetch while reading back: large, nothing else waits for this loop.
_READ_BACK_BYTES: Final = 4_194_304
#: Less than any batch, which comes whole: one of each partition.
_ONE_BATCH_BYTES: Final = 1


class Steps:
    """How often a takeover has got on, for whoever watches it: by a marker, or by a chunk that was read back."""

    def __init__(self) -> None:
        self.taken = 0


#: Of the takeover that runs here. No argument, since whatever it calls to mark, read or write is a step of it.
STEPS: Final[ContextVar[Steps]] = ContextVar("steps of a takeover")


def step() -> None:
    """The takeover that runs here, if one does, has got on."""
    if (steps := STEPS.get(None)) is not None:
        steps.taken += 1


class Ends:
    """Where partitions end, as far as this process has seen; true ends are never lower."""

    def __init__(self) -> None:
        self._ends: dict[TopicPartition, int] = {}

    def saw(self, partition: TopicPartition, offset: int) -> None:
        """A record stands at this offset."""
        if offset >= self._ends.get(partition, 0):
            self._ends[partition] = offset + 1

    def reach(self, ends: Mapping[TopicPartition, int]) -> None:
        """The broker says that they end there."""
        for partition, end in ends.items():
            self._ends[partition] = max(end, self.of(partition))

    def of(self, partition: TopicPartition) -> int:
        """The first offset that nothing is known to stand at; 0 where nothing is known."""
        return self._ends.get(partition, 0)


class Held:
    """
    Floors of predecessors, by source partition, held until the last record with found effects is read again.

    Found effects stand below our own marker. A commit with our own floor, while their records are still unfinished,
    would hide them from the next takeover, which would do that work again.
    """

    def __init__(self) -> None:
        self._held: dict[int, tuple[int, str]] = {}

    def clear(self) -> None:
        """Forget all: another assignment."""
        self._held.clear()

    def hold(self, floors: Mapping[int, str], found: Iterable[tuple[int, int]]) -> None:
        """Keep the floors of partitions for whose records, as (partition, offset), something was found."""
        for partition, offset in found:
            last, _ = self._held.get(partition, (-1, ""))
            self._held[partition] = max(last, offset), floors[partition]

    def passed(self, partition: int, offset: int) -> None:
        """The records up to this offset were taken, and with them the floor that was held then."""
        if partition in self._held and offset >= self._held[partition][0]:
            del self._held[partition]

    def floor(self, partition: int, own: str) -> str:
        """The predecessor's floor as long as it is held, else our own."""
        held = self._held.get(partition)
        return own if held is None else held[1]


class Generations:
    """
    The newest marker of each source partition, seen while reading a partition that its owners append to.

    The newest in log order counts, not the highest: a group that was deleted starts counting anew.
    """

    def __init__(self) -> None:
        self._newest: dict[tuple[Hashable, int], int] = {}

    def clear(self) -> None:
        """Forget all: reading starts elsewhere."""
        self._newest.clear()

    def saw(self, target: Hashable, source_partition: int, generation: int) -> None:
        """A marker of this owner stands here on *target*."""
        self._newest[target, source_partition] = generation

    def is_late(self, target: Hashable, source_partition: int, generation: int, *, before: int = 0) -> bool:
        """
        Whether a record here comes from an owner that had been replaced when it was appended.

        Args:
            generation: of the record's owner.
            before: of the newest marker that stands below where reading began; 0 where that is not known.
        """
        return generation < self._newest.get((target, source_partition), before)

    def least(self, target: Hashable, source_partitions: int, *, before: int = 0) -> int:
        """The lowest of all source partitions; *before* as in `is_late`."""
        return min(self._newest.get((target, source), before) for source in range(source_partitions))


async def mark(
    producer: AIOKafkaProducer,
    targets: Mapping[TopicPartition, Iterable[Marker]],
    ends: Ends,
    *,
    key: bytes | None = None,
) -> dict[TopicPartition, int]:
    """Append the markers to each target partition; the offset of the last one there. *key*: for compacted topics."""
    pending = [
        (target, await producer.send(target.topic, codec.encode(marker), key=key, partition=target.partition))
        for target, markers in targets.items()
        for marker in markers
    ]
    last: dict[TopicPartition, int] = {}
    for target, future in pending:
        offset = (await future).offset
        step()
        ends.saw(target, offset)
        last[target] = max(offset, last.get(target, -1))
    return last


def say_lost(topic: str, partitions: Iterable[int], *, hint: str) -> None:
    """A line where partitions of a topic hold less than owners before have appended. *hint*: what that means."""
    if lost := sorted(partitions):
        log.error("records.lost", topic=topic, partitions=lost, hint=hint)


async def came_at(connection: Connection, starts: Mapping[TopicPartition, int]) -> dict[TopicPartition, int]:
    """
    When the first record from there on came onto the log, of each partition: milliseconds since 1970 UTC.

    Markers do not count. Nothing of partitions that have no record there, and nothing on the embedded broker, which
    cannot look up times either.

    Raises:
        KafkaError: the broker does not answer.
    """
    came: dict[TopicPartition, int] = {}
    if not (await features_of(connection)).exact_ends:
        return came
    reader: AIOKafkaConsumer[Any, Any] = AIOKafkaConsumer(
        **connection.client_options,
        enable_auto_commit=False,
        auto_offset_reset="earliest",
        max_partition_fetch_bytes=_ONE_BATCH_BYTES,
        fetch_max_wait_ms=50,
    )
    async with started(reader):
        ends = await reader.end_offsets(list(starts))
        reader.assign(list(starts))
        for partition, start in starts.items():
            reader.seek(partition, start)
        wanted = {partition for partition, start in starts.items() if start < ends[partition]}
        while wanted:
            for partition, records in (await reader.getmany(*wanted, timeout_ms=200)).items():
                step()
                first = next((record for record in records if record.key is not None), None)
                if first is not None:
                    came[partition] = first.timestamp
            behind = {
                partition for partition in wanted - came.keys() if await reader.position(partition) < ends[partition]
            }
            wanted = behind
    return came


async def since(connection: Connection, times: Mapping[TopicPartition, int]) -> dict[TopicPartition, int]:
    """
    Where what came to each partition since its time begins: milliseconds since 1970 UTC.

    Nothing of partitions to which nothing came, and nothing on the embedded broker, which cannot look up times.

    Raises:
        KafkaError: the broker does not answer.
    """
    if not (await features_of(connection)).exact_ends:
        return {}
    consumer: AIOKafkaConsumer[Any, Any] = AIOKafkaConsumer(**connection.client_options, enable_auto_commit=False)
    async with started(consumer):
        found = await consumer.offsets_for_times({partition: max(at_ms, 0) for partition, at_ms in times.items()})
    return {partition: first.offset for partition, first in found.items() if first is not None}


async def read_back(
    connection: Connection,
    ranges: Mapping[TopicPartition, tuple[int, int]],
    see: "Callable[[ConsumerRecord[Any, Any]], None]",
    *,
    isolation: str = "read_uncommitted",
) -> None:
    """
    Call *see* for every record of each partition from its first offset up to, not including, its second.

    Offsets that have fallen out of retention are passed over.

    Args:
        isolation: `Features.isolation` for topics that are written in transactions.
    """
    wanted = {partition: span for partition, span in ranges.items() if span[0] < span[1]}
    if not wanted:
        return
    reader: AIOKafkaConsumer[Any, Any] = AIOKafkaConsumer(
        **connection.client_options,
        enable_auto_commit=False,
        auto_offset_reset="earliest",
        max_partition_fetch_bytes=_READ_BACK_BYTES,
        fetch_max_wait_ms=50,
        isolation_level=isolation,
    )
    await reader.start()
    try:
        reader.assign(list(wanted))
        beginnings = await reader.beginning_offsets(list(wanted))
        for partition, (start, _) in wanted.items():
            reader.seek(partition, max(start, beginnings[partition]))
        open_ones = set(wanted)
        while open_ones:
            fetched = await reader.getmany(*open_ones, timeout_ms=200)
            for partition, records in fetched.items():
                step()
                for record in records:
                    if record.offset < wanted[partition][1]:
                        see(record)
            for partition in list(open_ones):
                if await reader.position(partition) >= wanted[partition][1]:
                    open_ones.discard(partition)
                    reader.pause(partition)
    finally:
        await stop(reader)
