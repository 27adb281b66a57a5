"""
Reads `deliveries` again for the lines that are detached: from where each has got to, as far as it has room.

One consumer without a group. Per partition one line at a time, until it has no more room or its turn is over; the next
is whoever was served longest ago. Every other line that is within what is read takes its records from it too, so close
cursors share a fetch. A line with enough wants nothing, so a slow endpoint is read for seldom, and nobody waits for it.
"""

import asyncio
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final, Protocol

import structlog
from aiokafka import AIOKafkaConsumer, ConsumerRecord, TopicPartition
from aiokafka.errors import KafkaError

from services.dispatcher.line import Line
from services.dispatcher.pacing import Pacing
from services.dispatcher.quiet import let_by
from streams.connection import Connection
from streams.engine.progress import LOOK_S, STUCK_S, Progress, Seen
from streams.features import features_of
from streams.reading import started
from streams.trouble import Trouble

log = structlog.get_logger("dispatcher.catch_up")

#: Bytes of a chunk: enough for a line alone on its partition, little for one among many.
CHUNK_BYTES: Final = 262_144
#: Records of all chunks that are taken from the consumer before it is looked anew who wants what.
AT_ONCE: Final = 500
#: Records of a partition that are read for one line before it is another's turn, whoever they are for. With 60 lines on
#: a partition, those of one stand among 1,000 to 3,000 of others: a line that is left before it has what it has room
#: for comes back soon, and all that is between is read once more for each of its deliveries.
TURN: Final = 4_000
#: Of them, taken in one go: some 1 ms of work, whoever they are for.
TAKEN: Final = 100
#: Of them, given to lines before others have their turn on the loop: some 0.6 ms of work, for which a delivery that has
#: just come would wait at each of its steps through the loop.
HANDED_OUT: Final = 10
#: How long that turn is, and how long while others are in the middle of what has just come: all lines of a worker are
#: given 3,000 records a second even so, as many as it has the CPU to send.
TURN_S: Final = 0.001
TURN_AMIDST_S: Final = 0.002
#: How long reading waits at most for those who are in the middle of something, unless a request waits for a record:
#: before it is looked who wants what, and before more is taken.
LETS_BY_S: Final = 0.05
TAKES_LATER_S: Final = 0.005

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
        """Whether it is to be read for."""

    def takes(self, line: Line) -> bool:
        """Whether reading goes on for one that it was begun for."""

    def may_feed(self, line: Line) -> bool:
        """Whether it takes more, now that its records have been read."""

    def feed(self, line: Line, record: "ConsumerRecord[Any, Any]") -> None:
        """The next of its records."""

    def saw_marker(self, record: "ConsumerRecord[Any, Any]") -> None:
        """A record without a key."""

    def was_fed(self, line: Line) -> None:
        """It got something, or all that the chunk had for it."""


class CatchUp:
    """See the module's docstring."""

    def __init__(
        self,
        connection: Connection,
        topic: str,
        reading: Reading,
        pacing: Pacing,
        is_confirmed: Callable[[], bool] = lambda: True,
    ) -> None:
        """
        Args:
            is_confirmed: whether the broker is there, as far as the worker's group tells.
        """
        self._connection = connection
        self._topic = topic
        self._reading = reading
        self._pacing = pacing
        self._wake = asyncio.Event()
        self._trouble = Trouble(log)
        self._task: asyncio.Task[None] | None = None
        #: Where the consumer stands, by partition.
        self._at: dict[int, int] = {}
        #: Where it is to stand, by partition, and whose lines have moved since that was found; None: all may have.
        self._places: dict[int, int] = {}
        self._moved: set[int] | None = None
        #: By partition: for whom it is read, and how many records of that line's turn are left.
        self._reads_for: dict[int, Line] = {}
        self._left: Counter[int] = Counter()
        #: Where each partition began when it was said last that something had fallen out of it.
        self._begins: dict[int, int] = {}
        self._singles: dict[int, dict[int, asyncio.Future[ConsumerRecord[Any, Any] | None]]] = {}
        #: Partitions of which single records were read last: a line is next, if one wants anything.
        self._had_singles: set[int] = set()
        #: By partition and offset: what stood behind the last single record, of the same integrations; a chunk at most.
        #: They are asked for one after the other as a rule, and each on its own costs a seek: half a second.
        self._behind: dict[int, dict[int, ConsumerRecord[Any, Any]]] = {}
        self._is_confirmed = is_confirmed
        #: Given to lines since others had their turn.
        self._given = 0
        #: How often something came of a partition.
        self._turns: Counter[int] = Counter()
        self._watching: asyncio.Task[None] | None = None
        #: By partition: for how long nothing has come of it though something is wanted, in seconds, and for whom.
        self._stuck: dict[int, tuple[float, str]] = {}

    def start(self) -> None:
        """Read whenever anything is wanted."""
        self._task = asyncio.create_task(self._run(), name="catch up")
        self._watching = asyncio.create_task(self._watch(), name="watch catching up")

    async def stop(self) -> None:
        """Read nothing more; who waits in `fetch` is cancelled."""
        tasks = [task for task in (self._task, self._watching) if task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._task = self._watching = None
        self._stuck = {}
        for singles in self._singles.values():
            for future in singles.values():
                future.cancel()
        self._singles.clear()
        self._places.clear()
        self._reads_for.clear()
        self._moved = None
        self._had_singles.clear()
        self._behind.clear()
        self._begins.clear()

    def wake(self, partition: int | None = None) -> None:
        """Something may be wanted, of this partition; None: of any."""
        if partition is None:
            self._moved = None
        elif self._moved is not None:
            self._moved.add(partition)
        self._wake.set()

    async def fetch(self, partition: int, offset: int) -> "ConsumerRecord[Any, Any] | None":
        """The record there; None where it has fallen out of the log."""
        if (record := self._behind.get(partition, {}).pop(offset, None)) is not None:
            return record
        singles = self._singles.setdefault(partition, {})
        if offset not in singles:
            singles[offset] = asyncio.get_running_loop().create_future()
        self.wake(partition)
        return await asyncio.shield(singles[offset])

    @property
    def stuck(self) -> str | None:
        """For whom nothing has been read for too long, and for how long; None while all that is wanted comes."""
        told = "; ".join(
            f"{whom} on {self._topic} {partition} for {seconds:.0f} s"
            for partition, (seconds, whom) in sorted(self._stuck.items())
        )
        return f"nothing is read again for {told}" if told else None

    # -- reading ---------------------------------------------------------------------------------------------

    async def _run(self) -> None:
        while True:
            try:
                await self._read()
            except KafkaError as error:
                self._trouble.met("catch_up.interrupted", error, retry_s=_RETRY_S)
            except Exception as error:  # noqa: BLE001
                # A bug must not leave every detached line without deliveries.
                self._trouble.raised("catch_up.raised", error, retry_s=_RETRY_S)
            await asyncio.sleep(_RETRY_S)

    async def _wanted(self) -> dict[TopicPartition, int]:
        """Waits until something is wanted: where to read, by partition."""
        while True:
            await let_by(self._pacing, LETS_BY_S, is_urgent=self._is_urgent)
            if plan := self._plan():
                return plan
            self._wake.clear()
            await self._wake.wait()

    async def _read(self) -> None:
        await self._wanted()
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
                if not await self._take_all(consumer, plan):
                    await self._pass_gaps(consumer, plan)
                    await asyncio.sleep(0)
                self._trouble.over()

    async def _take_all(self, consumer: "AIOKafkaConsumer[Any, Any]", plan: Mapping[TopicPartition, int]) -> int:
        """What comes, and what is there by then, a little at a time; how many records that were."""
        # Behind a single record stand others that are asked for next: they are kept as far as they are taken with it.
        # Nothing more in that turn: the next is that of a line, which has as many.
        most = AT_ONCE if self._is_urgent() else TAKEN
        fetched = await consumer.getmany(*plan, timeout_ms=_IDLE_MS, max_records=most)
        taken = 0
        while fetched:
            taken += sum(map(len, fetched.values()))
            await self._take(consumer, fetched)
            if taken >= AT_ONCE or most == AT_ONCE:
                break
            await let_by(self._pacing, TAKES_LATER_S, is_urgent=self._is_urgent)
            fetched = await consumer.getmany(*plan, timeout_ms=0, max_records=TAKEN)
        return taken

    def _is_urgent(self) -> bool:
        """Whether a request waits for a single record: it may be one that has just come."""
        return any(self._singles.values())

    async def _take(
        self,
        consumer: "AIOKafkaConsumer[Any, Any]",
        fetched: "Mapping[TopicPartition, list[ConsumerRecord[Any, Any]]]",
    ) -> None:
        # Those at once, whichever partition is the first: a request waits for each.
        for partition, records in fetched.items():
            self._resolve(partition.partition, records)
        for partition, records in fetched.items():
            await self._tell_gap(consumer, partition, records[0].offset)
            await self._hand_out(partition.partition, records)

    async def _pass_gaps(self, consumer: "AIOKafkaConsumer[Any, Any]", plan: Iterable[TopicPartition]) -> None:
        """Where there is nothing any more from where we stand: it has fallen out of the log."""
        for partition in plan:
            number, position = partition.partition, await consumer.position(partition)
            await self._tell_gap(consumer, partition, position)
            start, self._at[number] = self._at[number], position
            if position <= start:
                continue
            self._had_turn(number, start)
            live = self._reading.live(number)
            for line in self._reading.detached.get(number, {}).values():
                if start <= line.read_from < position:
                    line.pass_gap(min(position, live))
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
        # A single record that is gone is said by whoever wanted it.
        lines = [line for line in self._reading.detached.get(number, {}).values() if line.read_from < begins]
        lines = [line for line in lines if line.held]
        if not lines:
            return
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
        """Lines are asked only where something has moved: a thousand take 1.4 ms."""
        partitions = {*self._singles, *self._reading.detached}
        moved, self._moved = partitions if self._moved is None else self._moved, set()
        for partition in moved & partitions:
            position = self._next_position(partition)
            if position is None:
                self._places.pop(partition, None)
            else:
                self._places[partition] = position
        return {TopicPartition(self._topic, each): at for each, at in self._places.items() if each in partitions}

    def _next_position(self, partition: int) -> int | None:
        """Single records and lines take turns: a request waits for each of the first. Of lines, who waited longest."""
        singles = self._singles.get(partition)
        if singles and partition not in self._had_singles:
            return min(singles)
        if (line := self._next_line(partition)) is not None:
            if self._reads_for.get(partition) is not line or self._left[partition] <= 0:
                self._reads_for[partition], self._left[partition] = line, TURN
            return line.read_from
        self._reads_for.pop(partition, None)
        return min(singles) if singles else None

    def _next_line(self, partition: int) -> Line | None:
        """Whom it is read for, for as long as it has its turn; then, of those that want it, who waited longest."""
        lines, line = self._reading.detached.get(partition, {}), self._reads_for.get(partition)
        # No later line of its integration: that one has not had a turn.
        if line is not None and lines.get(line.integration.encode()) is line and self._goes_on(line):
            return line
        wanting = [line for line in lines.values() if self._reading.wants(line)]
        return min(wanting, key=lambda line: (line.served_s, line.read_from), default=None)

    def _goes_on(self, line: Line) -> bool:
        return self._left[line.partition] > 0 and self._reading.takes(line)

    # -- whether it does -------------------------------------------------------------------------------------

    async def _watch(self) -> None:
        """
        Partitions of which something is wanted and nothing comes.

        Of a partition, not of a line: a line among a thousand may wait for its turn for longer than what counts as
        standing still, and has it as soon as the others have had theirs.
        """
        progress: Progress[int] = Progress(STUCK_S)
        while True:
            try:
                # While the broker is away nothing can come, and starting anew would not help.
                wanted = self._wanted_of() if self._is_confirmed() else []
                seen = {partition: Seen(self._turns[partition], 0, 0, has_work=True) for partition in wanted}
                self._tell(progress.look(time.monotonic(), seen))
            except Exception:
                log.exception("catch_up.not_watched", retry_s=LOOK_S)
            await asyncio.sleep(LOOK_S)

    def _wanted_of(self) -> list[int]:
        """Of which partitions something is wanted, whatever has moved."""
        partitions = {*self._singles, *self._reading.detached}
        return [each for each in partitions if self._singles.get(each) or self._next_line(each) is not None]

    def _had_turn(self, partition: int, position: int) -> None:
        """Something came from where it was read. Before that its turn goes on: what is on its way would be lost."""
        self._turns[partition] += 1
        self.wake(partition)
        if position in self._singles.get(partition, ()):
            self._had_singles.add(partition)
        else:
            self._had_singles.discard(partition)

    def _tell(self, stuck: Mapping[int, float]) -> None:
        before, self._stuck = self._stuck, {each: (seconds, self._whom(each)) for each, seconds in stuck.items()}
        for partition, (seconds, whom) in self._stuck.items():
            if partition not in before:
                log.error("catch_up.stuck", partition=partition, waits=whom, seconds=round(seconds))
        for partition in before.keys() - stuck.keys():
            log.warning("catch_up.moves", partition=partition)

    def _whom(self, partition: int) -> str:
        """Who has waited longest."""
        if singles := self._singles.get(partition):
            return f"the delivery at {min(singles)}"
        line = self._next_line(partition)
        return "a line" if line is None else line.integration

    # -- handing out -----------------------------------------------------------------------------------------

    async def _hand_out(self, partition: int, records: "list[ConsumerRecord[Any, Any]]") -> None:
        """In turns: lines move while others have theirs, so who takes what is looked up anew in each."""
        while records:
            records = records[self._distribute(partition, records) :]
            await asyncio.sleep(self._turn_s())

    def _turn_s(self) -> float:
        """How long others have their turn now."""
        if self._given < HANDED_OUT:
            return 0
        self._given = 0
        if self._is_urgent():
            return 0
        return TURN_AMIDST_S if self._pacing.is_amidst(time.monotonic()) else TURN_S

    def _distribute(self, partition: int, records: "list[ConsumerRecord[Any, Any]]") -> int:
        """The first of these records to the lines that they are for; how many of them are done with."""
        reading, now_s = self._reading, time.monotonic()
        start, live, first = self._at[partition], reading.live(partition), records[0]
        takers = self._takers(partition, start, records[-1].offset + 1)
        for line in takers.values():
            line.served_s = now_s
            if first.offset > start:
                line.pass_gap(min(first.offset, live), first.timestamp)
        given: list[Line] = []
        done = len(records)
        for number, record in enumerate(records, start=1):
            if record.offset >= live:
                break
            if record.key is None:
                reading.saw_marker(record)
            elif record.key in takers and self._give(takers, record):
                given.append(takers[record.key])
                self._given += 1
                if self._given == HANDED_OUT:
                    done = number
                    break
        self._at[partition] = end = records[done - 1].offset + 1
        self._left[partition] -= done
        for line in takers.values():
            line.read_from = max(line.read_from, min(end, live))
        for line in dict.fromkeys(given) if done < len(records) else takers.values():
            reading.was_fed(line)
        return done

    def _takers(self, partition: int, start: int, end: int) -> dict[bytes, Line]:
        """Lines that go on from between these offsets, by the key of their records."""
        return {
            key: line
            for key, line in self._reading.detached.get(partition, {}).items()
            if start <= line.read_from < end and line.has_room() and self._reading.may_feed(line)
        }

    def _give(self, takers: dict[bytes, Line], record: "ConsumerRecord[Any, Any]") -> bool:
        """To the line that it is for, as long as that has room; it goes on from there another time."""
        line = takers[record.key]
        if record.offset < line.read_from:
            return False
        if line.has_room() and line.passes(record.offset):
            self._reading.feed(line, record)
            return True
        line.read_from = record.offset
        del takers[record.key]
        self._reading.was_fed(line)
        return False

    def _resolve(self, partition: int, records: "list[ConsumerRecord[Any, Any]]") -> None:
        """Single records that are among these, before anything else moves."""
        singles, start = self._singles.get(partition), self._at[partition]
        self._had_turn(partition, start)
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
