"""
Retry readers without the engine: a test hands them records, moves the clock, commits, and lets them die or freeze.

The log is a real one. `Waiters` keeps what a consumer group keeps; `Reading` is one worker of one generation, with a
reader of every retry topic, and does for them what the consumer does, a step at a time.
"""

import asyncio
import heapq
import itertools
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

from aiokafka import AIOKafkaConsumer, ConsumerRecord, TopicPartition

from services.dispatcher.retries import DeliveryEnds, Retries
from services.dispatcher.retry_reader import RetryReader
from streams import topics
from streams.engine.processor import Assignment, Batch
from streams.ledger import Ledger
from streams.quarantine import Quarantine
from streams.records import Delivery, Marker
from streams.takeover import Generations
from tests.handing import MortalProducer, until
from tests.logs import Log
from tests.waiting import eventually

DAY_MS = 86_400_000


class Clock:
    """Time as a test wants it, and timers that go with it. It starts a day ago, as brokers refuse the future."""

    def __init__(self) -> None:
        self.now_ms = time.time_ns() // 1_000_000 - DAY_MS
        self._timers: list[tuple[int, int, _Timer]] = []
        self._order = itertools.count()

    def call_later(self, delay_s: float, call: Callable[[], None]) -> Any:
        timer = _Timer(call)
        heapq.heappush(self._timers, (self.now_ms + round(delay_s * 1_000), next(self._order), timer))
        return timer

    def fire_next(self, until_ms: int) -> bool:
        """Go to the next timer up to that time, and run it; False, and be there, where there is none."""
        while self._timers and self._timers[0][0] <= until_ms:
            at_ms, _, timer = heapq.heappop(self._timers)
            if timer.call is not None:
                self.now_ms = max(self.now_ms, at_ms)
                timer.call()
                return True
        self.now_ms = max(self.now_ms, until_ms)
        return False


class _Timer:
    def __init__(self, call: Callable[[], None]) -> None:
        self.call: Callable[[], None] | None = call

    def cancel(self) -> None:
        self.call = None


class Waiters:
    """What outlives the workers: committed offsets with their floors, the generation, and the clock."""

    def __init__(self, log: Log, reader: "AIOKafkaConsumer[Any, Any]") -> None:
        self.log = log
        self.clock = Clock()
        self.generation = 0
        self.stored: dict[TopicPartition, tuple[int, str]] = {}
        self._reader = reader

    async def next_owner(self) -> "Reading":
        """A worker that takes everything over, in a generation of its own."""
        self.generation += 1
        owner = Reading(self, self.generation)
        await owner.take_over()
        return owner

    async def ends(self, partitions: Any) -> dict[TopicPartition, int]:
        found: dict[TopicPartition, int] = await self._reader.end_offsets(list(partitions))
        return found

    async def read(self, partition: TopicPartition, start: int, end: int) -> list["ConsumerRecord[Any, Any]"]:
        """The records of this range."""
        self._reader.assign([partition])
        self._reader.seek(partition, start)
        found: list[ConsumerRecord[Any, Any]] = []
        while start + len(found) < end:
            found += (await self._reader.getmany(partition, timeout_ms=500)).get(partition, [])
        return found[: end - start]

    async def put(self, *deliveries: Delivery, slot: int = 2) -> None:
        """As the lanes do it."""
        retries = Retries(self.log.connection, self.log.producer)
        for delivery in deliveries:
            await retries.put(delivery, slot=slot, now_ms=self.clock.now_ms)

    async def put_back(self) -> list[Delivery]:
        """What stands on `deliveries`, without what a lane sets aside: records of readers that had been replaced."""
        await eventually(self.log.is_read_to_the_end)
        generations, counting = Generations(), []
        for seen in self.log.seen[topics.DELIVERIES]:
            found, target = seen.record, seen.raw.partition
            if isinstance(found, Marker):
                for source in found.sources:
                    generations.saw((target, found.source_topic), source, found.generation)
            elif isinstance(found, Delivery):
                assert found.retry_line is not None
                assert found.retry_partition is not None
                assert found.retry_generation is not None
                place = target, f"{self.log.connection.prefix}{found.retry_line}"
                if not generations.is_late(place, found.retry_partition, found.retry_generation):
                    counting.append(found)
        return counting

    async def counted(self) -> Counter[tuple[str, int]]:
        """How often each (delivery, attempt) came back."""
        return Counter((each.delivery_id, each.attempt) for each in await self.put_back())


@asynccontextmanager
async def waiters_of(log: Log) -> AsyncIterator[Waiters]:
    """A group without workers, for the time of the block."""
    reader: AIOKafkaConsumer[Any, Any] = AIOKafkaConsumer(
        bootstrap_servers=log.connection.bootstrap, fetch_max_wait_ms=20
    )
    await reader.start()
    try:
        yield Waiters(log, reader)
    finally:
        await reader.stop()


class Reading:
    """One worker: a reader of every retry topic with one producer, and the ledgers of all partitions."""

    def __init__(self, group: Waiters, generation: int) -> None:
        self.group = group
        self.log = log = group.log
        self.generation = generation
        self.producer = MortalProducer(log.producer)
        self.fatal: list[Exception] = []
        self.is_confirmed = True
        self._ledgers: dict[TopicPartition, Ledger] = {}
        ends = DeliveryEnds(log.connection, log.partitions, group.ends)
        self.readers = {
            log.connection.topic(line): RetryReader(
                line,
                connection=log.connection,
                producer=self.producer,
                retries=Retries(log.connection, self.producer),
                ends=ends,
                quarantine=Quarantine(self.producer, log.connection, "test", lambda: 0),
                worker_id=f"worker-{generation}",
                now_ms=lambda: group.clock.now_ms,
                on_fatal=self.fatal.append,
                may_start=lambda: self.is_confirmed,
                call_later=group.clock.call_later,
            )
            for line in topics.RETRIES
        }

    async def take_over(self) -> None:
        await asyncio.gather(*(self._take_over(topic) for topic in self.readers))

    async def _take_over(self, topic: str) -> None:
        stored = {n: self.group.stored.get(TopicPartition(topic, n), (0, "")) for n in range(len(topics.SLOT_TENTHS))}
        floors = {number: floor for number, (_, floor) in stored.items()}
        starts = {number: start for number, (start, _) in stored.items()}

        async def commit(partition: int) -> bool:
            return self.commit_one(TopicPartition(topic, partition))

        await self.readers[topic].take_over(Assignment(self.generation, floors, starts, commit))
        for number, start in starts.items():
            self._ledgers[TopicPartition(topic, number)] = Ledger(start)

    def commit_one(self, partition: TopicPartition) -> bool:
        """As the broker does it: a member of an older generation is refused."""
        if self.generation != self.group.generation:
            return False
        ledger = self._ledgers[partition]
        floor = self.readers[partition.topic].floor_at(partition.partition, ledger.committable)
        self.group.stored[partition] = ledger.committable, floor
        return True

    def commit(self) -> None:
        """What the consumer would commit now."""
        for partition in self._ledgers:
            self.commit_one(partition)

    async def hand_over(self, at_most: int = 1_000) -> None:
        """The next records of every partition."""
        ends = await self.group.ends(self._ledgers)
        for partition, ledger in self._ledgers.items():
            end = min(ends[partition], ledger.position + at_most)
            if records := await self.group.read(partition, ledger.position, end):
                ledger.take((record.offset, len(record.value or b"")) for record in records)
                batch = Batch(partition.partition, self.generation, records, ledger)
                await self.readers[partition.topic].process(batch)

    async def until_ms(self, at_ms: int) -> None:
        """Let the time pass up to then: timers run, and what they append to retry topics is read, as it would be."""
        while True:
            appended = len(self.producer._appending)
            fired = self.group.clock.fire_next(at_ms)
            await until(lambda: not self.is_releasing or self.producer.stands_still)
            if not fired:
                return
            if len(self.producer._appending) > appended and not self.producer.stands_still:
                await self.hand_over()

    @property
    def is_releasing(self) -> bool:
        return any(
            each.releasing is not None for reader in self.readers.values() for each in reader._partitions.values()
        )

    @property
    def waiting(self) -> int:
        """Records that the readers hold."""
        return sum(len(each.waiting) for reader in self.readers.values() for each in reader._partitions.values())

    @property
    def unfinished(self) -> int:
        return sum(ledger.unfinished_records for ledger in self._ledgers.values())

    @property
    def floors(self) -> set[str]:
        """What is stored for the partitions."""
        return {floor for _, floor in self.group.stored.values()}

    async def die(self) -> None:
        """As by `kill -9`: nothing more is sent, nothing committed."""
        self.producer.left = 0
        await asyncio.gather(*(reader.settle(0) for reader in self.readers.values()))
