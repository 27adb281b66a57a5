"""
The lanes agent: deliveries, in line per integration, become attempts and their results.

One line an integration; no line waits for another. A delivery is finished when its result is on the broker, and,
where the ordering keeps a line, only then does the next one start. A line that is paused, behind, or blocked by a
delivery that waits in its place is detached: a row on the log says how far it is, and its deliveries are read again
from there (`line.py`, `detaching.py`, `saving.py`, `catch_up.py`). So neither memory nor the committed position depends
on any one endpoint.
"""

import asyncio
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final

import structlog
from aiokafka import AIOKafkaProducer, ConsumerRecord, TopicPartition
from aiokafka.errors import KafkaError

from services.dispatcher.alarms import Alarms
from services.dispatcher.catch_up import CatchUp
from services.dispatcher.detaching import BLOCKED_MS, Detaching
from services.dispatcher.handed import HandedOver
from services.dispatcher.lane import ONE_AT_A_TIME, Entry, Found, key_of
from services.dispatcher.line import Line
from services.dispatcher.owners import Before
from services.dispatcher.pacing import Pacing
from services.dispatcher.queues import Queue
from services.dispatcher.recorded import Recorded, ResultsEnd
from services.dispatcher.retried import REMEMBER_S, Retried
from services.dispatcher.rows import Rows
from services.dispatcher.runs import Deliverer, RetryTopics, Runs
from services.dispatcher.saving import Saving
from services.runtime.tracing import TRACING
from streams import codec, takeover, topics
from streams.connection import Connection
from streams.engine.app import Bounds
from streams.engine.processor import Assignment, Batch
from streams.quarantine import Quarantine, was_put_back
from streams.records import Delivery, LaneRow, Marker
from streams.takeover import Ends
from streams.topics import Partitions

log = structlog.get_logger("dispatcher.lanes")

#: How often lines are looked at: rows that are behind, lines that are caught up, heads that have waited.
TICK_S: Final = 0.5

#: Retry records are looked for from so long before the attempt that they follow.
CLOCKS_DIFFER_MS: Final = 2_000

#: A takeover reads results of so long back beyond the session timeout: a retry record that a successor of its reader
#: writes again comes back while the first, which has a result, is below all floors. That successor begins when the
#: group has missed the reader for a session, and so long may it take until the record is back.
COMES_AGAIN_MS: Final = 14_000

#: Somebody worked last, as far as a takeover looks, when the first of so many results before its marker was written.
LAST_RESULTS: Final = 50

#: When all are due.
_ALL_DUE_MS: Final = 2**63 - 1


class Lanes:
    """The processor of topic `deliveries`. See the module's docstring, and `streams.engine.processor.Processor`."""

    def __init__(
        self,
        *,
        connection: Connection,
        partitions: Partitions,
        producer: AIOKafkaProducer,
        deliverer: Deliverer,
        retries: RetryTopics,
        quarantine: Quarantine,
        worker_id: str,
        now_ms: Callable[[], int],
        on_fatal: Callable[[Exception], None],
        may_start: Callable[[], bool],
        session_timeout_ms: int,
        pacing: Pacing,
        bounds: Bounds = Bounds(),  # noqa: B008  # frozen
    ) -> None:
        """
        Args:
            on_fatal: told when nothing can be recorded any more; the process has to end.
            may_start: whether this worker is known to be a member of its group: one that was frozen sends nothing.
            bounds: what the worker holds of a partition at most.
            session_timeout_ms: after how long without a heartbeat a worker of the group counts as dead.
        """
        self._on_fatal = on_fatal
        self._retries = retries
        self._connection = connection
        self._producer = producer
        self._deliverer = deliverer
        self._quarantine = quarantine
        self._worker_id = worker_id
        self._now_ms = now_ms
        self._pacing = pacing
        self._deliveries = connection.topic(topics.DELIVERIES)
        self._results = [
            TopicPartition(connection.topic(topics.RESULTS), number) for number in range(partitions.by_integration)
        ]
        self._ends = Ends()
        self._rows = Rows(connection, producer)
        self._handed = HandedOver(connection)
        self._recorded = Recorded(
            (connection.topic(topics.EVENTS), partitions.by_app),
            {topic.name: connection.topic(topic) for topic in topics.RETRIES},
            connection.topic(topics.REPLAYS),
        )
        self._catch_up = CatchUp(connection, self._deliveries, self, self._pacing, may_start)
        self._saving = Saving(
            self._rows, self._recorded, self._results, self._ends, on_saved=self._has_saved, on_dead=self._is_dead
        )
        self._runs = Runs(
            producer=producer, results=self._results, ends=self._ends, deliverer=deliverer, retries=retries,
            quarantine=quarantine, handed=self._handed, now_ms=now_ms, on_fatal=on_fatal, may_start=may_start,
            owner=self, catch_up=self._catch_up,
        )  # fmt: skip
        self._look_back_ms = session_timeout_ms + COMES_AGAIN_MS
        self._retried = Retried(max(REMEMBER_S, self._look_back_ms / 1_000), self._look_back_ms)
        self._lines: dict[str, Line] = {}
        self._detaching = Detaching(
            self._lines, deliverer=deliverer, recorded=self._recorded, saving=self._saving, catch_up=self._catch_up,
            runs=self._runs, now_ms=now_ms, bounds=bounds, retried=self._retried, pacing=pacing,
        )  # fmt: skip
        self._is_open = False
        #: The takeover under way or done; None after partitions were given up.
        self._taking: object | None = None
        self._generation = 0
        #: By partition: from which offset on deliveries were taken when its results ended where (`Recorded.ends`).
        self._taken: dict[int, deque[tuple[int, ResultsEnd]]] = {}
        self._alarms = Alarms()
        self._timers: dict[str, asyncio.TimerHandle] = {}
        self._ticking: asyncio.Task[None] | None = None

    # -- takeover --------------------------------------------------------------------------------------------

    async def take_over(self, assignment: Assignment) -> None:
        """Mark and read back: the rows, then the results; what has one is not sent again."""
        self._generation = assignment.generation
        taking = self._taking = object()
        markers = {p: self._marker(p) for p in assignment.floors}
        try:
            rows = await self._rows.take_over(markers)
            takeover.say_lost(
                self._connection.topic(topics.LANE_ROWS),
                # Whoever has finished deliveries before has marked the rows before that.
                (p for p in self._rows.unmarked if assignment.starts[p] > 0),
                hint="what lines held is not sent by itself: tenterhook reconcile lists it, replay it",
            )
            targets = {self._results[p]: [marker] for p, marker in markers.items()}
            marked = await takeover.mark(self._producer, targets, self._ends)
            lately = await takeover.since(self._connection, await self._look_back_to(assignment.starts, marked))
            starts = self._recorded.begin(
                assignment.floors,
                rows,
                assignment.generation,
                {target.partition: at for target, at in lately.items()},
                {target.partition: at for target, at in marked.items()},
                assignment.starts,
            )
            spans = {self._results[p]: (start, marked[self._results[p]]) for p, start in starts.items()}
            await takeover.read_back(
                self._connection, spans, lambda record: self._recorded.see(record, assignment.starts)
            )
            since_ms = self._recorded.failed_since_ms
            if since_ms is not None:
                self._recorded.have_retries(await self._retries.written_since(max(since_ms - CLOCKS_DIFFER_MS, 0)))
            if found := self._recorded.hold(assignment.floors):
                log.info("takeover.found", results=found)
            lines = self._lines_of(rows)
            await self._rows.adopt((line.partition, self._saving.row(line, busy=line.is_busy)) for line in lines)
        except KafkaError as error:
            if not error.retriable:
                self._on_fatal(error)
            raise
        if self._taking is not taking:
            return  # given up meanwhile: what would start now, nobody settles
        places = self._recorded.places()
        places |= {
            (line.partition, entry.offset): entry.awaits
            for line in lines
            for entry in line.lane.entries()
            if entry.until_ms is not None
        }
        self._handed.start(places, {target: end + 1 for target, end in marked.items()})
        self._detaching.begin(assignment.starts, lines)
        self._taken.clear()
        self._retried.begin(self._recorded.retried, time.monotonic())
        self._lines.clear()
        self._lines.update((line.integration, line) for line in lines)
        self._is_open = True
        self._runs.open(assignment.generation)
        self._ticking = asyncio.create_task(self._tick(), name="look at lines")
        self._catch_up.start()
        for line in lines:
            self._detaching.look_at(line)
            self._runs.start(line)  # of one that is held, too, what is known to have been begun

    async def _look_back_to(
        self, starts: Mapping[int, int], marked: Mapping[TopicPartition, int]
    ) -> dict[TopicPartition, int]:
        """
        Since when results may be of a copy whose second one is still to be read: see COMES_AGAIN_MS.

        From when that one may have come onto the log, and from when somebody worked last, not from now: for any time
        in between nobody may have.
        """
        unread = {TopicPartition(self._deliveries, number): at for number, at in starts.items()}
        last = {target: max(0, marker - LAST_RESULTS) for target, marker in marked.items()}
        now_ms, first_ms = self._now_ms(), dict[int, int]()
        for target, at_ms in (await takeover.came_at(self._connection, unread | last)).items():
            first_ms[target.partition] = min(at_ms, first_ms.get(target.partition, now_ms))
        return {self._results[p]: first_ms.get(p, now_ms) - self._look_back_ms for p in starts}

    def _marker(self, partition: int) -> Marker:
        return Marker(
            source_topic=self._deliveries,
            source_partition=partition,
            generation=self._generation,
            owner=self._worker_id,
            at_ms=self._now_ms(),
        )

    def _lines_of(self, rows: dict[int, list[LaneRow]]) -> list[Line]:
        lines = []
        for partition, of_partition in rows.items():
            for row in of_partition:
                line = Line.of_row(row, partition, self._generation)
                for opened in row.open:
                    found = self._recorded.find(partition, opened.offset)
                    line.reopen(opened, found, self._recorded.handed(partition, opened.offset))
                line.is_busy = bool(row.open) or row.floor is not None
                lines.append(line)
        return lines

    def floor(self, partition: int) -> str:  # noqa: ARG002  # the protocol's
        """Means nothing here: see `floor_at`."""
        return ""

    def floor_at(self, partition: int, committable: int) -> str:
        """See `Recorded.floor`."""
        taken = self._taken.get(partition)
        while taken is not None and len(taken) > 1 and taken[1][0] <= committable:
            taken.popleft()
        if taken and committable < self._detaching.live.get(partition, 0):
            ends = taken[0][1]
        else:
            ends = self._recorded.ends(partition, self._ends.of(self._results[partition]))
        return self._recorded.floor(partition, ends, committable)

    async def settle(self, timeout_s: float) -> None:
        """
        Give up quickly: requests under way are handed over, not waited for.

        They go on, and their results are written; see `finish_leaving`.
        """
        self._is_open, self._taking = False, None
        for timer in self._timers.values():
            timer.cancel()
        self._timers.clear()
        lines = list(self._lines.values())
        self._lines.clear()
        self._detaching.detached = {}
        self._saving.leave(lines)
        await self._runs.hand_over(timeout_s)
        await self._saving.left(timeout_s)
        if self._ticking is not None:
            self._ticking.cancel()
            await asyncio.gather(self._ticking, return_exceptions=True)
            self._ticking = None
        await self._catch_up.stop()
        await self._handed.stop()

    async def finish_leaving(self, timeout_s: float) -> None:
        """Wait for requests that were handed over; for the end of the process."""
        await self._runs.finish_leaving(timeout_s)

    @property
    def in_flight(self) -> int:
        """Requests under way or about to be."""
        return self._runs.in_flight

    @property
    def stuck(self) -> str | None:
        """For which lines nothing is read again; None where all is well."""
        return self._catch_up.stuck

    @property
    def detached_lines(self) -> int:
        """Integrations whose deliveries wait on the log."""
        return self._detaching.count

    def queues(self) -> Iterator[Queue]:
        """Each line as it stands."""
        for line in self._lines.values():
            yield Queue(
                line.integration,
                line.waiting,
                line.waits_since_ms(),
                self._deliverer.standing(line.integration) == "hold",
                line.reason if line.is_detached else None,
                line.lane.kept,
                line.lane.next_due_ms,
            )

    # -- deliveries as they come -----------------------------------------------------------------------------

    async def process(self, batch: Batch) -> None:
        """Put the batch into its lines; records are finished as their results come onto the broker."""
        # Before what was held for these records is let go: nothing that they cause stands below.
        ends = self._recorded.ends(batch.partition, self._ends.of(self._results[batch.partition]))
        taken = self._taken.setdefault(batch.partition, deque())
        if not taken or taken[-1][1] != ends:
            taken.append((batch.records[0].offset, ends))
        self._recorded.passed(batch.partition, batch.records[-1].offset)
        self._detaching.processing.add(batch.partition)
        try:
            detached = self._detaching.detached.get(batch.partition, {})
            passed: list[tuple[ConsumerRecord[Any, Any], Line]] = []
            due: list[tuple[ConsumerRecord[Any, Any], Delivery]] = []
            for record in batch.unfinished():
                line = detached.get(record.key or b"")
                if line is not None and line.passes(record.offset):
                    passed.append((record, line))
                elif (delivery := await self._delivery(batch, record)) is not None:
                    due.append((record, delivery))
                else:
                    batch.finish(record.offset)
            if due:
                # Paused or not, and in what order, is known when the configuration is that it was made under.
                await self._deliverer.reach(max(delivery.config_offset for _, delivery in due))
            if self._is_open and batch.generation == self._generation:
                self._take(batch, passed, due)
        finally:
            self._detaching.processing.discard(batch.partition)

    def _take(
        self,
        batch: Batch,
        passed: "list[tuple[ConsumerRecord[Any, Any], Line]]",
        due: "list[tuple[ConsumerRecord[Any, Any], Delivery]]",
    ) -> None:
        """Without a pause in it: no line changes its ways between its records."""
        touched: dict[str, Line] = {}
        lines = self._lines
        # In the order of the log: what was passed over counts what it holds by offsets.
        bare = batch.of([])  # passing over keeps no payload in memory
        for record, line in passed:
            self._pass_over(line, bare, record)
        for record, delivery in due:
            line = lines.get(delivery.integration) or Line(
                delivery.integration, batch.partition, delivery.app, self._generation
            )
            if line.passes(record.offset):  # detached meanwhile
                self._pass_over(line, bare, record)
            elif self._put(line, delivery, record, batch.alone(record), None):
                lines[line.integration] = touched[line.integration] = line
            else:
                batch.finish(record.offset)
        self._detaching.live[batch.partition] = batch.records[-1].offset + 1
        for line in touched.values():
            self._detaching.look_at(line)
        self._detaching.came_in(bare)
        for line in {line.integration: line for _, line in passed}.values():
            self._wake_for(line)

    def _pass_over(self, line: Line, batch: Batch, record: "ConsumerRecord[Any, Any]") -> None:
        if line.pass_over(record.offset, record.timestamp):
            line.passing.append((batch, record.offset))
            line.passing_bytes += len(record.value or b"")
        else:
            batch.finish(record.offset)

    async def _delivery(self, batch: Batch, record: "ConsumerRecord[Any, Any]") -> Delivery | None:
        """The delivery that this record is."""
        try:
            found = codec.decode(record.value)
        except codec.Unreadable as error:
            await self._quarantine.put(record, "record.unreadable", str(error))
            return None
        if isinstance(found, Delivery):
            return found
        if isinstance(found, Marker):
            self._recorded.mark(batch.partition, record.offset, found)
        else:
            await self._quarantine.put(record, "record.unexpected", f"a {type(found).__name__} among deliveries")
        return None

    def _put(
        self,
        line: Line,
        delivery: Delivery,
        record: "ConsumerRecord[Any, Any]",
        batch: Batch | None,
        before: Before | None,
    ) -> bool:
        """Into its line, unless there is nothing to do with it. *before*: see `Recorded.is_late`."""
        partition, offset = line.partition, record.offset
        found = self._recorded.find(partition, offset, delivery.delivery_id)
        handed = self._recorded.handed(partition, offset)
        if not was_put_back(record):
            is_new = found is None and handed is None
            if is_new and self._recorded.is_late(partition, offset, delivery, before):
                log.warning("delivery.set_aside", delivery=delivery.delivery_id, why="appended by a frozen predecessor")
                return line.leave_out()
            # Asked of what is not new too: it is the first copy of what may come again.
            is_repeated = self._retried.is_repeated(delivery, offset, record.timestamp, time.monotonic())
            is_repeated |= line.copies.is_repeated(delivery, offset, record.timestamp, self._look_back_ms)
            if is_repeated and is_new:
                return line.leave_out()
        size = len(record.value or b"")
        entry = Entry(offset, record.timestamp, key=key_of(delivery), delivery=delivery, size=size, batch=batch)
        entry.taken_s = time.monotonic()
        entry.trace = TRACING.of_record(record)
        return line.put(entry, found, handed)

    # -- lines -----------------------------------------------------------------------------------------------

    def wake(self, integration: str) -> None:
        """Its configuration or state has changed."""
        line = self._lines.get(integration)
        if line is not None and self._is_open:
            self._detaching.look_at(line)
            self._catch_up.wake(line.partition)

    async def _tick(self) -> None:
        while True:
            await self._detaching.review(TICK_S)
            self._retried.forget(time.monotonic())
            if self._detaching.count:
                # What else changes what a line wants: its share, what came by of others, what is held. All are gone
                # through for that, so not each time that one of them moves.
                self._catch_up.wake()

    def _has_saved(self, line: Line) -> None:
        """Its row is on the broker, or gone from there."""
        if self._lines.get(line.integration) is line:
            self._detaching.save_if_full(line.partition)
            self._runs.start(line)
            self._wake_for(line)

    def _is_dead(self, error: KafkaError) -> None:
        """Nothing can be recorded any more."""
        self._is_open = False
        self._runs.close()
        self._on_fatal(error)

    # -- reading again: see `catch_up.Reading` ---------------------------------------------------------------

    @property
    def detached(self) -> Mapping[int, Mapping[bytes, Line]]:
        """Detached lines, by partition and by the key of their records."""
        return self._detaching.detached

    def live(self, partition: int) -> int:
        """The first offset that has not come by."""
        return self._detaching.live.get(partition, 0)

    def wants(self, line: Line) -> bool:
        """Whether it is to be read for."""
        return line.wants(self.live(line.partition)) and self.may_feed(line) and not self._alarms.stop(line)

    def takes(self, line: Line) -> bool:
        """Whether reading goes on for one that it was begun for."""
        return line.takes(self.live(line.partition)) and self.may_feed(line) and not self._alarms.stop(line)

    def _wake_for(self, line: Line) -> None:
        """Have it read where it has come to want more; others of its partition are asked then, so not otherwise."""
        if self.wants(line):
            self._catch_up.wake(line.partition)

    def may_feed(self, line: Line) -> bool:
        """Whether it takes more, now that its records have been read."""
        if self._deliverer.standing(line.integration) != "hold":
            return True
        # What a takeover found of it is looked at also while it is held: until then its row leads to where that stands.
        return bool(line.expires_before_ms) or self._recorded.left_floor(line.integration) is not None

    def saw_marker(self, record: "ConsumerRecord[Any, Any]") -> None:
        """A record without a key; what else it may be was put aside when it came by."""
        try:
            found = codec.decode(record.value)
        except codec.Unreadable:
            return
        if isinstance(found, Marker):
            self._recorded.mark(record.partition, record.offset, found)

    def feed(self, line: Line, record: "ConsumerRecord[Any, Any]") -> None:
        """The next of its records."""
        try:
            delivery = codec.decode_as(Delivery, record.value)
        except codec.Unreadable:
            line.feed(Entry(record.offset, record.timestamp))  # its run reads it again, and puts it aside
            return
        self._put(line, delivery, record, None, line.before)
        line.fed(record.offset, record.timestamp)

    def was_fed(self, line: Line) -> None:
        """It got something, or all that a chunk had for it."""
        if self._deliverer.standing(line.integration) == "hold" and self.may_feed(line):
            line.make_room()
        self._runs.start(line)
        self._detaching.was_read(line)

    # -- what runs ask: see `runs.Owner` ---------------------------------------------------------------------

    def next_entry(self, line: Line) -> Entry | None:
        """The next that may start, counted as running."""
        if not self._is_open or self._lines.get(line.integration) is not line or self._alarms.stop(line):
            return None
        now_s, standing = time.monotonic(), self._deliverer.standing(line.integration)
        if line.is_detached:
            at_s = self._pacing.may_start_s(line.next_start, now_s, is_single=self._is_single(line))
            if at_s > now_s:
                self._start_at(line, at_s - now_s)
                return None
        # Neither what is about to fall out of the log nor what is discarded waits until it is due.
        entry = line.lane.start_known() if standing == "hold" else None
        entry = entry or line.lane.start_older(line.expires_before_ms)
        if entry is None and standing != "hold":
            now_ms = _ALL_DUE_MS if standing == "discard" else self._now_ms()
            entry = line.lane.start(self._deliverer.pace(line.integration), now_ms)
        if line.is_detached:
            self._wake_for(line)  # also where nothing starts: what was in line may be parked behind a key now
        if entry is not None:
            self._started(line, entry, now_s)
        elif (due_at_ms := line.lane.next_due_ms) is not None and standing != "hold":
            self._start_at(line, (due_at_ms - self._now_ms()) / 1_000)
        return entry

    def _started(self, line: Line, entry: Entry, now_s: float) -> None:
        if not entry.is_known:
            entry.ends = self._ends.of(self._results[line.partition])
        line.active_s = entry.started_s = now_s
        if not line.is_detached:
            self._pacing.saw_live(now_s)
        else:
            line.next_start = self._pacing.after(line.next_start, now_s, is_single=self._is_single(line))

    def _is_single(self, line: Line) -> bool:
        return self._deliverer.pace(line.integration).ordering in ONE_AT_A_TIME

    def _start_at(self, line: Line, after_s: float) -> None:
        """One timer a line."""
        before = self._timers.pop(line.integration, None)
        if before is not None:
            before.cancel()

        def start() -> None:
            self._timers.pop(line.integration, None)
            self._runs.start(line)

        # A little late rather than early: clocks are read in whole milliseconds.
        self._timers[line.integration] = asyncio.get_running_loop().call_later(max(after_s, 0) + 0.001, start)

    async def make_busy(self, line: Line) -> None:
        """Returns when the line's row says that something may be in flight."""
        while self._is_open and line.is_detached and not line.is_busy:
            if not self._saving.is_writing(line):
                self._saving.soon(line, busy=True)
            await self._saving.written(line)

    def has_ended(self, line: Line, entry: Entry) -> None:
        """It needs no more work."""
        line.lane.end(entry)
        self._lets_others_by(line, entry)
        if entry.batch is not None:
            entry.batch.finish(entry.offset)
            return
        line.is_dirty, line.active_s = True, time.monotonic()
        line.ended_since_saved += 1

    def has_failed(self, line: Line, entry: Entry, found: Found) -> None:
        """It keeps its place in the line until its next attempt is due."""
        line.lane.keep(entry, found.attempt, found.due_at_ms)
        self._lets_others_by(line, entry)
        line.is_dirty = True
        is_long = found.due_at_ms - self._now_ms() > BLOCKED_MS
        if self._lines.get(line.integration) is line and not line.is_detached and is_long:
            self._detaching.detach(line, "blocked")

    def _lets_others_by(self, line: Line, entry: Entry) -> None:
        """Before its next request, where this one took long."""
        if line.is_detached:
            now_s = time.monotonic()
            line.next_start = self._pacing.ended(line.next_start, now_s, now_s - entry.started_s)

    def has_raised(self, line: Line, error: Exception) -> bool:
        """
        An attempt failed for a fault of ours; whether the line has to stop, since too many did.

        One integration's stop only its line; those of several stop the partition.
        """
        if not self._alarms.raised(line, error):
            return False
        is_attached = self._lines.get(line.integration) is line and not line.is_detached
        if is_attached and not self._alarms.stop_all_of(line.partition):
            self._detaching.detach(line, "other")
        return True

    def has_passed(self, line: Line) -> None:
        """An attempt did not."""
        self._alarms.passed(line)

    @property
    def stopped(self) -> str | None:
        """Why nothing is sent on some partitions or for some integrations any more; None where all is well."""
        return self._alarms.said(self._lines.values())

    def has_stopped(self, line: Line) -> None:
        """A run of the line found nothing more to start."""
        if line.lane.is_empty and not line.is_detached and self._lines.get(line.integration) is line:
            del self._lines[line.integration]
        elif self._is_open and self._deliverer.standing(line.integration) == "hold":
            self._detaching.hold(line)
