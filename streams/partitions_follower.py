"""
Follows all partitions of a topic into memory, over one connection: what is shown to people, and may be late.

`streams.follower.Follower` reads one partition, wakes at once and knows when it has caught up. Sixteen of those are 32
connections, for what its writer itself writes a second late. This one is behind by up to half a second more.
"""

import asyncio
import time
from collections.abc import Callable
from typing import Any, Final

import structlog
from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import OffsetOutOfRangeError

from streams.connection import Connection
from streams.features import features_of
from streams.reading import stop, uncancelled
from streams.silence import FetchWaits
from streams.topics import Topic
from streams.trouble import Trouble

log = structlog.get_logger(__name__)

#: Partition, key, value (None: a tombstone), offset.
ApplyTo = Callable[[int, bytes | None, bytes | None, int], None]

#: How long a fetch waits for records, at least: the embedded broker looks only each half of it. Apache Kafka answers at
#: once, and may wait for longer.
_WAIT_MS: Final = 500
_MAX_AT_ONCE: Final = 500
#: Between checks that what we have read is still there.
_CHECK_S: Final = 5.0
_PAUSES_S: Final = (0.1, 5.0)


class PartitionsFollower:
    """One topic, each partition folded record by record in its own order. `apply` should not raise, as a follower's."""

    def __init__(
        self, connection: Connection, topic: Topic, partitions: int, apply: ApplyTo, *, clear: Callable[[int], None]
    ) -> None:
        """
        Args:
            partitions: how many the topic has.
            clear: forgets a partition, before it is read from its beginning again (its log was replaced).
        """
        self._connection = connection
        self._partitions = [TopicPartition(connection.topic(topic), number) for number in range(partitions)]
        self._apply = apply
        self._clear = clear
        #: By partition, below which offset every record is applied; what is not in it is read from the beginning.
        self._positions: dict[TopicPartition, int] = {}
        self._following: asyncio.Task[None] | None = None
        self._has_begun = asyncio.Event()
        self._trouble = Trouble(log, topic=self._partitions[0].topic)

    async def start(self) -> None:
        """Begin to follow; returns when all that was there is applied. Waits while the broker is away."""
        self._following = asyncio.create_task(self._follow(), name=f"follow {self._partitions[0].topic}")
        try:
            await self._has_begun.wait()
        except BaseException:
            await self.stop()
            raise

    async def stop(self) -> None:
        """Stop following."""
        if self._following is not None:
            self._following.cancel()
            await asyncio.gather(self._following, return_exceptions=True)

    async def _follow(self) -> None:
        pause_s, longest_s = _PAUSES_S
        while True:
            opened_s = time.monotonic()
            try:
                await uncancelled(self._read_on_a_connection())
            except Exception as error:  # noqa: BLE001 - a broker away, a bug in the client: read on all the same
                self._trouble.met("follower.interrupted", error)
            pause_s = _PAUSES_S[0] if time.monotonic() - opened_s > longest_s else min(2 * pause_s, longest_s)
            await asyncio.sleep(pause_s)

    async def _read_on_a_connection(self) -> None:
        features = await features_of(self._connection)
        wait_ms = max(_WAIT_MS, features.fetch_wait_ms)
        consumer: AIOKafkaConsumer[Any, Any] = AIOKafkaConsumer(
            **self._connection.client_options,
            group_id=None,
            enable_auto_commit=False,
            auto_offset_reset="none",
            fetch_max_wait_ms=wait_ms,
        )
        try:
            await consumer.start()
            consumer.assign(self._partitions)
            ends = await self._check(consumer, is_new=True)
            checked_s, waits = time.monotonic(), FetchWaits(consumer, features)
            while True:
                # Before the first fetch, too, which waits where the topic is empty.
                if not self._has_begun.is_set() and await self._has_reached(consumer, ends):
                    self._has_begun.set()
                try:
                    batches = await consumer.getmany(timeout_ms=wait_ms, max_records=_MAX_AT_ONCE)
                except OffsetOutOfRangeError as refused:
                    for partition in refused.args[0] if refused.args else self._partitions:
                        self._forget(partition)
                    checked_s, batches = 0.0, {}
                waits.saw(has_records=bool(batches))
                self._trouble.over()
                for partition, records in batches.items():
                    for record in records:
                        self._apply_one(partition.partition, record.key, record.value, record.offset)
                    self._positions[partition] = records[-1].offset + 1
                if time.monotonic() - checked_s > _CHECK_S:
                    await self._check(consumer, is_new=False)
                    checked_s = time.monotonic()
                await asyncio.sleep(0)
        finally:
            await stop(consumer)

    async def _has_reached(self, consumer: "AIOKafkaConsumer[Any, Any]", ends: dict[TopicPartition, int]) -> bool:
        # The consumer's own positions: compaction may have taken the last records before an end.
        return all([await consumer.position(partition) >= end for partition, end in ends.items()])

    async def _check(self, consumer: "AIOKafkaConsumer[Any, Any]", *, is_new: bool) -> dict[TopicPartition, int]:
        """
        Read a partition from its beginning where its log begins behind our position or ends before it; the ends.

        The embedded broker tells ends that are too low by part of a batch: only an empty log is sure to be another.
        """
        beginnings = await consumer.beginning_offsets(self._partitions)
        ends: dict[TopicPartition, int] = await consumer.end_offsets(self._partitions)
        exact = (await features_of(self._connection)).exact_ends
        for partition in self._partitions:
            position = self._positions.get(partition)
            is_replaced = position is not None and (
                position < beginnings[partition] or (position > ends[partition] and (exact or ends[partition] == 0))
            )
            if is_replaced:
                self._forget(partition)
            if partition not in self._positions:
                self._positions[partition] = beginnings[partition]
                consumer.seek(partition, beginnings[partition])
            elif is_new:
                consumer.seek(partition, self._positions[partition])
        return ends

    def _forget(self, partition: TopicPartition) -> None:
        if partition in self._positions:
            log.error("follower.log_replaced", topic=partition.topic, partition=partition.partition)
            self._clear(partition.partition)
            del self._positions[partition]

    def _apply_one(self, partition: int, key: bytes | None, value: bytes | None, offset: int) -> None:
        try:
            self._apply(partition, key, value, offset)
        except Exception:
            log.exception("follower.apply_raised", partition=partition, offset=offset)
