"""
The takeover protocol: what a predecessor has appended is found, and not done again.

A new owner of a source partition writes a marker to each partition that it appends to, then reads those
partitions up to its own marker, from the floor stored with the last commit (`Ledger.floor`). What a frozen
predecessor appends later stands behind the marker with a lower generation, and is set aside by its readers.
"""

from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, ConsumerRecord, TopicPartition

from streams import codec
from streams.connection import Connection
from streams.records import Marker

#: Bytes of one partition in one fetch while reading back: large, nothing else waits for this loop.
_READ_BACK_BYTES: Final = 4_194_304


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


async def mark(
    producer: AIOKafkaProducer, targets: Mapping[TopicPartition, Iterable[Marker]], ends: Ends
) -> dict[TopicPartition, int]:
    """Append the markers to each target partition; the offset of the last one there."""
    pending = [
        (target, await producer.send(target.topic, codec.encode(marker), partition=target.partition))
        for target, markers in targets.items()
        for marker in markers
    ]
    last: dict[TopicPartition, int] = {}
    for target, future in pending:
        offset = (await future).offset
        ends.saw(target, offset)
        last[target] = max(offset, last.get(target, -1))
    return last


async def read_back(
    connection: Connection,
    ranges: Mapping[TopicPartition, tuple[int, int]],
    see: "Callable[[ConsumerRecord[Any, Any]], None]",
) -> None:
    """
    Call *see* for every record of each partition from its first offset up to, not including, its second.

    Offsets that have fallen out of retention are passed over.
    """
    wanted = {partition: span for partition, span in ranges.items() if span[0] < span[1]}
    if not wanted:
        return
    reader: AIOKafkaConsumer[Any, Any] = AIOKafkaConsumer(
        bootstrap_servers=connection.bootstrap,
        enable_auto_commit=False,
        auto_offset_reset="earliest",
        max_partition_fetch_bytes=_READ_BACK_BYTES,
        fetch_max_wait_ms=50,
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
                for record in records:
                    if record.offset < wanted[partition][1]:
                        see(record)
            for partition in list(open_ones):
                if await reader.position(partition) >= wanted[partition][1]:
                    open_ones.discard(partition)
                    reader.pause(partition)
    finally:
        await reader.stop()
