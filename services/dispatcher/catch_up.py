"""
Reads `deliveries` again for the lines that are detached: from where each has got to, as far as it has room.

One consumer without a group. Per partition one chunk at a time, of whoever was served longest ago; every other line
that is within that chunk takes its records from it too, so close cursors share a fetch. A line without room wants
nothing, so a slow endpoint costs one chunk for as long as that lasts, and nobody waits for it.
"""

import asyncio
import time
from collections.abc import Iterable, Mapping
from typing import Any, Final, Protocol

import structlog
from aiokafka import AIOKafkaConsumer, ConsumerRecord, TopicPartition
from aiokafka.errors import KafkaError

from services.dispatcher.line import Line
from streams.connection import Connection
from streams.features import features_of
from streams.reading import started

log = structlog.get_logger("dispatcher.catch_up")

#: Bytes of a chunk: enough for a line alone on its partition, little for one among many.
CHUNK_BYTES: Final = 262_144
#: Records of all chunks that are taken from the consumer in one go.
AT_ONCE: Final = 500
#: Of them, handed out before others have their turn on the loop: some 2 ms of work.
HANDED_OUT: Final = 50

#: Integrations that one line of the log names.
NAMED: Final = 20

_RETRY_S: Final = 0.5
_IDLE_MS: Final = 200

Record = "ConsumerRecord[Any, Any]"


class Reading(Protocol):
    """Whose lines they are."""

    @property
    def detached(self) -> Mapping[int, Mapping[bytes, Line]]:
        """Detached lines, by partition and by the key of their records."""

    def live(self, partition: int) -> int:
        """The first offset that has not come by."""

    def wants(self, line: Line) -> bool:
        """Whether more is to be read for it now."""

    def may_feed(self, line: Line) -> bool:
        """Whether it takes more, now that its records have been read."""

    def feed(self, line: Line, record: "ConsumerRecord[Any, Any]") -> None:
        """The next of its records."""

    def saw_marker(self, record: "ConsumerRecord[Any, Any]") -> None:
        """A record without a key."""

    def was_fed(self, line: Line) -> None:
        """It got all that the chunk had for it."""


class CatchUp:
    """See the module's docstring."""

    def __init__(self, connection: Connection, topic: str, reading: Reading) -> None:
        self._connection = connection
        self._topic = topic
        self._reading = reading
        self._wake = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        #: Where the consumer stands, by partition.
        self._at: dict[int, int] = {}
        #: Where each partition began when it was said last that something had fallen out of it.
        self._begins: dict[int, int] = {}
        self._singles: dict[int, dict[int, asyncio.Future[ConsumerRecord[Any, Any] | None]]] = {}
        #: By partition and offset: what stood behind the last single record, of the same integrations; a chunk at most.
        #: They are asked for one after the other as a rule, and each on its own costs a seek: half a second.
        self._behind: dict[int, dict[int, ConsumerRecord[Any, Any]]] = {}

    def start(self) -> None:
        """Read whenever anything is wanted."""
        self._task = asyncio.create_task(self._run(), name="catch up")

    async def stop(self) -> None:
        """Read nothing more; who waits in `fetch` is cancelled."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
            self._task = None
        for singles in self._singles.values():
            for future in singles.values():
                future.cancel()
        self._singles.clear()
        self._behind.clear()
        self._begins.clear()

    def wake(self) -> None:
        """Something may be wanted."""
        self._wake.set()

    async def fetch(self, partition: int, offset: int) -> "ConsumerRecord[Any, Any] | None":
        """The record there; None where it has fallen out of the log."""
        if (record := self._behind.get(partition, {}).pop(offset, None)) is not None:
            return record
        singles = self._singles.setdefault(partition, {})
        if offset not in singles:
            singles[offset] = asyncio.get_running_loop().create_future()
        self.wake()
        return await asyncio.shield(singles[offset])

    # -- reading ---------------------------------------------------------------------------------------------

    async def _run(self) -> None:
        while True:
            await self._wanted()
            try:
                await self._read()
            except KafkaError as error:
                log.warning("catch_up.interrupted", reason=repr(error), retry_s=_RETRY_S)
            except Exception:
                # A bug must not leave every detached line without deliveries.
                log.exception("catch_up.raised", retry_s=_RETRY_S)
            await asyncio.sleep(_RETRY_S)

    async def _wanted(self) -> dict[TopicPartition, int]:
        """Waits until something is wanted: where to read, by partition."""
        while not (plan := self._plan()):
            self._wake.clear()
            await self._wake.wait()
        return plan

    async def _read(self) -> None:
        features = await features_of(self._connection)
        consumer: AIOKafkaConsumer[Any, Any] = AIOKafkaConsumer(
            **self._connection.client_options,
            enable_auto_commit=False,
            auto_offset_reset="earliest",
            max_partition_fetch_bytes=CHUNK_BYTES,
            fetch_max_bytes=features.fetch_bytes,
            fetch_max_wait_ms=min(features.fetch_wait_ms, 500),
        )
        self._at = {}
        async with started(consumer):
            consumer.assign([TopicPartition(self._topic, partition) for partition in self._reading.detached])
            while True:
                plan = await self._wanted()
                self._direct(consumer, plan)
                fetched = await consumer.getmany(*plan, timeout_ms=_IDLE_MS, max_records=AT_ONCE)
                for partition, records in fetched.items():
                    await self._tell_gap(consumer, partition, records[0].offset)
                    self._resolve(partition.partition, records)
                    for first in range(0, len(records), HANDED_OUT):
                        self._distribute(partition.partition, records[first : first + HANDED_OUT])
                        await asyncio.sleep(0)
                if not fetched:
                    await self._pass_gaps(consumer, plan)
                    await asyncio.sleep(0)

    async def _pass_gaps(self, consumer: "AIOKafkaConsumer[Any, Any]", plan: Iterable[TopicPartition]) -> None:
        """Where there is nothing any more from where we stand: it has fallen out of the log."""
        for partition in plan:
            number, position = partition.partition, await consumer.position(partition)
            await self._tell_gap(consumer, partition, position)
            start, self._at[number] = self._at[number], position
            if position <= start:
                continue
            live = self._reading.live(number)
            for line in self._reading.detached.get(number, {}).values():
                if start <= line.read_from < position:
                    line.read_from = max(line.read_from, min(position, live))
                    self._reading.was_fed(line)
            for offset in [each for each in self._singles.get(number, {}) if start <= each < position]:
                future = self._singles[number].pop(offset)
                if not future.done():
                    future.set_result(None)

    async def _tell_gap(self, consumer: "AIOKafkaConsumer[Any, Any]", partition: TopicPartition, reached: int) -> None:
        """Say what fell out of the log before it was read again: once, with all lines that had not got beyond it."""
        number, at = partition.partition, self._at[partition.partition]
        if reached <= at:
            return
        begins = (await consumer.beginning_offsets([partition]))[partition]
        if begins <= max(at, self._begins.get(number, 0)):
            return
        self._begins[number] = begins
        lines = [line for line in self._reading.detached.get(number, {}).values() if line.read_from < begins]
        log.error(
            "deliveries.fallen_out",
            topic=self._topic,
            partition=number,
            first=min([at, *(line.read_from for line in lines)]),
            last=begins - 1,
            integrations=sorted(line.integration for line in lines)[:NAMED],
            hint="what of these was open has no outcome; docs/operating.md says what to do",
        )

    def _direct(self, consumer: "AIOKafkaConsumer[Any, Any]", plan: Mapping[TopicPartition, int]) -> None:
        """Let the consumer stand where the plan says, and fetch nothing else."""
        for partition in consumer.assignment():
            if partition not in plan:
                consumer.pause(partition)
        for partition, position in plan.items():
            if self._at.get(partition.partition) != position:
                consumer.seek(partition, position)
                self._at[partition.partition] = position
            consumer.resume(partition)

    def _plan(self) -> dict[TopicPartition, int]:
        plan = {}
        for partition in {*self._singles, *self._reading.detached}:
            position = self._next_position(partition)
            if position is not None:
                plan[TopicPartition(self._topic, partition)] = position
        return plan

    def _next_position(self, partition: int) -> int | None:
        """Single records first: a request waits for each; then whoever was served longest ago."""
        if singles := self._singles.get(partition):
            return min(singles)
        lines = [line for line in self._reading.detached.get(partition, {}).values() if self._reading.wants(line)]
        if not lines:
            return None
        return min(lines, key=lambda line: (line.served_s, line.read_from)).read_from

    # -- handing out -----------------------------------------------------------------------------------------

    def _distribute(self, partition: int, records: "list[ConsumerRecord[Any, Any]]") -> None:
        start, end = self._at[partition], records[-1].offset + 1
        self._at[partition] = end
        reading, now_s = self._reading, time.monotonic()
        live = reading.live(partition)
        takers = {
            key: line
            for key, line in reading.detached.get(partition, {}).items()
            if start <= line.read_from < end and line.has_room() and reading.may_feed(line)
        }
        for line in takers.values():
            line.served_s = now_s
        for record in records:
            if record.offset >= live:
                break
            if record.key is None:
                reading.saw_marker(record)
            elif record.key in takers:
                self._give(takers, record)
        for line in takers.values():
            line.read_from = max(line.read_from, min(end, live))
            reading.was_fed(line)

    def _give(self, takers: dict[bytes, Line], record: "ConsumerRecord[Any, Any]") -> None:
        """To the line that it is for, as long as that has room; it goes on from there another time."""
        line = takers[record.key]
        if record.offset < line.read_from:
            return
        if line.has_room() and line.passes(record.offset):
            self._reading.feed(line, record)
        else:
            line.read_from = record.offset
            del takers[record.key]
            self._reading.was_fed(line)

    def _resolve(self, partition: int, records: "list[ConsumerRecord[Any, Any]]") -> None:
        """Single records that are among these, before anything else moves."""
        singles, start = self._singles.get(partition), self._at[partition]
        if not singles:
            return
        by_offset = {record.offset: record for record in records}
        wanted = [each for each in singles if start <= each < records[-1].offset + 1]
        keys = {by_offset[offset].key for offset in wanted if offset in by_offset}
        for offset in wanted:
            future = singles.pop(offset)
            if not future.done():
                future.set_result(by_offset.get(offset))
        if keys:
            first = min(wanted)
            near = (each for each in records if each.key in keys and each.offset > first and each.offset not in wanted)
            self._behind[partition] = {each.offset: each for each in near}
        if not singles:
            del self._singles[partition]
