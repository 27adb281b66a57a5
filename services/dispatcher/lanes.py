"""
The lanes agent: deliveries, in line per integration, become attempts and their results.

One line an integration; no line waits for another. A delivery is finished when its result is on the broker, and,
where the ordering keeps a line, only then does the next one start. A line that is paused, behind, or blocked by a
delivery that waits in its place is detached: a row on the log says how far it is, and its deliveries are read again
from there (`line.py`, `catch_up.py`). So neither memory nor the committed position depends on any one endpoint.
"""

import asyncio
import time
from collections import deque
from collections.abc import Callable, Coroutine, Iterator, Mapping
from collections.abc import Set as AbstractSet
from typing import Any, Final

import structlog
from aiokafka import AIOKafkaProducer, ConsumerRecord, TopicPartition
from aiokafka.errors import KafkaError

from services.dispatcher.catch_up import CatchUp
from services.dispatcher.handed import HandedOver
from services.dispatcher.lane import ONE_AT_A_TIME, Entry, Found, key_of
from services.dispatcher.line import Line, Reason, share_of
from services.dispatcher.pacing import Pacing
from services.dispatcher.queues import Queue
from services.dispatcher.recorded import Recorded
from services.dispatcher.rows import Rows
from services.dispatcher.runs import Deliverer, RetryTopics, Runs
from services.dispatcher.standing import RETENTION_MARGIN_MS
from services.runtime.tracing import TRACING
from streams import codec, takeover, topics
from streams.connection import Connection
from streams.engine.alarm import Alarm
from streams.engine.processor import Assignment, Batch
from streams.quarantine import Quarantine
from streams.records import Delivery, LaneRow, Marker
from streams.takeover import Ends
from streams.topics import Partitions

log = structlog.get_logger("dispatcher.lanes")

#: How often lines are looked at: rows that are behind, lines that are caught up, heads that have waited.
TICK_S: Final = 0.25

#: A row is written at most so often; a large one more seldom, by its open deliveries.
SAVE_EVERY_S: Final = 1.0
SAVE_EVERY_OPEN_S: Final = 0.001

#: A row says that nothing is in flight when that has been so for this long: each way costs a write.
IDLE_S: Final = 2.0

#: A delivery that fails and is due later than this does not hold the committed position back.
BLOCKED_MS: Final = 2_000

#: Nor does one that has waited for its turn for so long.
BEHIND_S: Final = 10.0

#: How often a line is looked through for what is about to fall out of the log: `RETENTION_MARGIN_MS` is far longer.
EXPIRE_EVERY_S: Final = 5.0

#: Retry records are looked for from so long before the attempt that they follow.
CLOCKS_DIFFER_MS: Final = 2_000

#: How long (delivery, attempt)s of retries are remembered: a record written twice comes back twice at the same time.
REMEMBER_RETRIES_S: Final = 120.0
REMEMBER_RETRIES: Final = 100_000


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
    ) -> None:
        """
        Args:
            on_fatal: told when nothing can be recorded any more; the process has to end.
            may_start: whether this worker is known to be a member of its group: one that was frozen sends nothing.
        """
        self._on_fatal = on_fatal
        self._retries = retries
        self._connection = connection
        self._producer = producer
        self._deliverer = deliverer
        self._quarantine = quarantine
        self._worker_id = worker_id
        self._now_ms = now_ms
        self._pacing = Pacing()
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
        self._catch_up = CatchUp(connection, self._deliveries, self)
        self._runs = Runs(
            producer=producer, results=self._results, ends=self._ends, deliverer=deliverer, retries=retries,
            quarantine=quarantine, handed=self._handed, now_ms=now_ms, on_fatal=on_fatal, may_start=may_start,
            owner=self, catch_up=self._catch_up,
        )  # fmt: skip
        self._is_open = False
        #: The takeover under way or done; None after partitions were given up.
        self._taking: object | None = None
        self._generation = 0
        self._lines: dict[str, Line] = {}
        self._detached: dict[int, dict[bytes, Line]] = {}
        self._live: dict[int, int] = {}
        #: By partition: from which offset on deliveries were taken when its results ended where (`Recorded.ends`).
        self._taken: dict[int, deque[tuple[int, tuple[int, int]]]] = {}
        #: Partitions of which a batch is in hand; their lines stay as they are, detached or not.
        self._processing: set[int] = set()
        self._retried: dict[tuple[str, int], tuple[int, float]] = {}
        #: By partition: rings when attempts of several integrations fail for faults of ours, until the process ends.
        self._alarms: dict[int, Alarm] = {}
        self._timers: dict[str, asyncio.TimerHandle] = {}
        self._saving: dict[str, asyncio.Task[None]] = {}
        self._ticking: asyncio.Task[None] | None = None

    # -- takeover --------------------------------------------------------------------------------------------

    async def take_over(self, assignment: Assignment) -> None:
        """Mark and read back: the rows, then the results; what has one is not sent again."""
        self._generation = assignment.generation
        taking = self._taking = object()
        markers = {p: self._marker(p) for p in assignment.floors}
        try:
            rows = await self._rows.take_over(markers)
            targets = {self._results[p]: [marker] for p, marker in markers.items()}
            marked = await takeover.mark(self._producer, targets, self._ends)
            starts = self._recorded.begin(assignment.floors, rows, assignment.generation)
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
            await self._rows.adopt((line.partition, self._row(line, busy=line.is_busy)) for line in lines)
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
        self._live = dict(assignment.starts)
        self._taken.clear()
        self._retried = {key: (offset, time.monotonic()) for key, offset in self._recorded.retried.items()}
        self._lines = {line.integration: line for line in lines}
        self._detached = {p: {} for p in assignment.floors}
        for line in lines:
            self._detached[line.partition][line.integration.encode()] = line
        self._is_open = True
        self._runs.open(assignment.generation)
        self._ticking = asyncio.create_task(self._tick(), name="look at lines")
        self._catch_up.start()
        for line in lines:
            self._runs.start(line)

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
        if taken and committable < self._live.get(partition, 0):
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
        lines, self._lines, self._detached = list(self._lines.values()), {}, {}
        saving = [*self._saving.values()]
        saving += [asyncio.create_task(self._last_save(line)) for line in lines if line.is_detached]
        await self._runs.hand_over(timeout_s)
        if saving:
            _, late = await asyncio.wait(saving, timeout=timeout_s)
            for task in (*late, *self._saving.values()):
                task.cancel()
        if self._ticking is not None:
            self._ticking.cancel()
            await asyncio.gather(self._ticking, return_exceptions=True)
            self._ticking = None
        await self._catch_up.stop()
        await self._handed.stop()

    async def _last_save(self, line: Line) -> None:
        if (before := self._saving.get(line.integration)) is not None:
            await asyncio.wait((before,))
        if line.is_dirty or line.is_busy:
            try:
                await self._save(line, busy=False)
            except KafkaError as error:
                log.warning("row.unsaved", integration=line.integration, reason=repr(error))

    async def finish_leaving(self, timeout_s: float) -> None:
        """Wait for requests that were handed over; for the end of the process."""
        await self._runs.finish_leaving(timeout_s)

    @property
    def in_flight(self) -> int:
        """Requests under way or about to be."""
        return self._runs.in_flight

    @property
    def detached_lines(self) -> int:
        """Integrations whose deliveries wait on the log."""
        return sum(map(len, self._detached.values()))

    @property
    def partitions(self) -> AbstractSet[int]:
        """Those that are ours."""
        return self._live.keys() if self._is_open else frozenset()

    def queues(self) -> Iterator[Queue]:
        """Each line as it stands."""
        for line in self._lines.values():
            yield Queue(
                line.integration,
                line.waiting,
                line.waits_since_ms(),
                self._deliverer.standing(line.integration) == "hold",
                line.reason if line.is_detached else None,
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
        self._processing.add(batch.partition)
        try:
            detached = self._detached.get(batch.partition, {})
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
            self._processing.discard(batch.partition)

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
        for record, line in passed:
            self._pass_over(line, batch, record)
        for record, delivery in due:
            line = lines.get(delivery.integration) or Line(
                delivery.integration, batch.partition, delivery.app, self._generation
            )
            if line.passes(record.offset):  # detached meanwhile
                self._pass_over(line, batch, record)
            elif self._put(line, delivery, record, batch.alone(record), None):
                lines[line.integration] = touched[line.integration] = line
            else:
                batch.finish(record.offset)
        self._live[batch.partition] = batch.records[-1].offset + 1
        for line in touched.values():
            self._look_at(line)
        if passed:
            self._catch_up.wake()

    def _pass_over(self, line: Line, batch: Batch, record: "ConsumerRecord[Any, Any]") -> None:
        line.pass_over(record.offset, record.timestamp)
        if line.is_durable:
            batch.finish(record.offset)
        else:
            line.passing.append((batch.alone(record), record.offset))

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
        before: tuple[int, int] | None,
    ) -> bool:
        """Into its line, unless there is nothing to do with it. *before*: see `Recorded.is_late`."""
        partition, offset = line.partition, record.offset
        found = self._recorded.find(partition, offset, delivery.delivery_id)
        handed = self._recorded.handed(partition, offset)
        if found is None and handed is None:
            if self._recorded.is_late(partition, offset, delivery, before):
                log.warning("delivery.set_aside", delivery=delivery.delivery_id, why="appended by a frozen predecessor")
                return False
            if self._is_repeated(delivery, offset):
                return False
        size = len(record.value or b"")
        entry = Entry(offset, record.timestamp, key=key_of(delivery), delivery=delivery, size=size, batch=batch)
        entry.taken_s = time.monotonic()
        entry.trace = TRACING.of_record(record)
        return line.put(entry, found, handed)

    def _is_repeated(self, delivery: Delivery, offset: int) -> bool:
        """Whether this attempt came by already: a retry record that was written again after a crash."""
        if delivery.attempt == 1:
            return False
        key = delivery.delivery_id, delivery.attempt
        at, _ = self._retried.setdefault(key, (offset, time.monotonic()))
        return at != offset

    # -- lines -----------------------------------------------------------------------------------------------

    def wake(self, integration: str) -> None:
        """Its configuration or state has changed."""
        line = self._lines.get(integration)
        if line is not None and self._is_open:
            self._look_at(line)
            self._catch_up.wake()

    def _look_at(self, line: Line) -> None:
        """Start what may start; detach the line where it may not, or has too much."""
        if self._deliverer.standing(line.integration) == "hold":
            self._hold(line)
            return
        self._runs.start(line)
        if line.is_detached:
            if line.until is not None and line.is_over_bound:
                self._detach(line, "behind")
            return
        due_at_ms = line.lane.next_due_ms
        if due_at_ms is not None and due_at_ms - self._now_ms() > BLOCKED_MS:
            self._detach(line, "blocked")
        elif line.is_over_bound:
            self._detach(line, "behind")

    def _hold(self, line: Line) -> None:
        if not line.is_detached:
            if line.lane.queued or line.lane.is_waiting:
                self._detach(line, "paused")
        elif line.until is not None:
            self._detach(line, "paused")
        else:
            line.unload()
            line.is_dirty |= line.reason != "paused"
            line.reason = "paused"

    def _detach(self, line: Line, reason: Reason) -> None:
        line.detach(reason, self._live[line.partition])
        line.marked = self._recorded.marked(line.partition, line.frontier())
        self._detached[line.partition][line.integration.encode()] = line
        log.info("line.detached", integration=line.integration, reason=reason, held=line.held, open=line.lane.opened)
        self._save_soon(line, busy=True)
        self._catch_up.wake()

    async def _tick(self) -> None:
        while True:
            await asyncio.sleep(TICK_S)
            now_s, share = time.monotonic(), share_of(self.detached_lines)
            for line in list(self._lines.values()):
                line.ahead_bytes = share
                try:
                    self._review(line, now_s)
                except Exception:
                    # A bug must not leave every other line without its rows.
                    log.exception("line.review_raised", integration=line.integration)
            self._forget_retries(now_s)

    def _review(self, line: Line, now_s: float) -> None:
        if not line.is_detached:
            self._review_attached(line, now_s)
            return
        if line.integration in self._saving:
            return
        live = self._live[line.partition]
        if self._is_behind_again(line, now_s):
            self._detach(line, "behind")
        elif line.is_done(live):
            self._attach(line)
        elif (
            line.partition not in self._processing
            and line.is_caught_up(live)
            and self._deliverer.standing(line.integration) != "hold"
        ):
            line.attach(live)
            self._save_soon(line, busy=True)
        elif line.is_dirty:
            if now_s - line.saved_s >= max(SAVE_EVERY_S, SAVE_EVERY_OPEN_S * line.lane.opened):
                self._save_soon(line, busy=line.is_busy)
        elif line.is_busy and self._floor(line) is None and now_s - line.active_s > IDLE_S:
            self._save_soon(line, busy=False)
        self._expire(line, now_s)

    def _review_attached(self, line: Line, now_s: float) -> None:
        since_s = line.lane.waits_since_s()
        if line.lane.is_empty:
            self._lines.pop(line.integration, None)
        elif since_s is not None and now_s - since_s > BEHIND_S and line.partition not in self._processing:
            self._detach(line, "behind")

    def _is_behind_again(self, line: Line, now_s: float) -> bool:
        """
        Whether it has fallen behind on its way back.

        What came since would hold the committed position, and with it the room of its partition, for as long as its
        endpoint takes for all that stands before.
        """
        if line.until is None or line.partition in self._processing:
            return False
        since_s = line.lane.tracked_since_s()
        return since_s is not None and now_s - since_s > BEHIND_S

    def _expire(self, line: Line, now_s: float) -> None:
        """What is about to fall out of the log is recorded before it goes, whether or not the line is held."""
        if now_s - line.expired_s < EXPIRE_EVERY_S:
            return
        line.expired_s = now_s
        kept_ms = topics.DELIVERIES.retention_ms or 0
        before_ms = self._now_ms() - kept_ms + RETENTION_MARGIN_MS
        since_ms = line.oldest_at_ms()
        is_expiring = since_ms is not None and since_ms < before_ms
        if is_expiring and not line.expires_before_ms:
            log.error(
                "deliveries.expire",
                integration=line.integration,
                held=line.held,
                since_ms=since_ms,
                hint="they are recorded as discarded; activate the integration, or have more retention",
            )
        line.expires_before_ms = before_ms if is_expiring else 0
        if is_expiring:
            self._catch_up.wake()
            self._runs.start(line)

    def _attach(self, line: Line) -> None:
        """Everything below `until` has ended: the row goes, and the line is as any other."""
        self._detached[line.partition].pop(line.integration.encode(), None)
        line.is_detached = line.is_durable = line.is_busy = False
        line.until = None
        log.info("line.attached", integration=line.integration)
        self._spawn_save(line, self._rows.remove(line.partition, line.integration, line.generation))

    def _forget_retries(self, now_s: float) -> None:
        while self._retried:
            key, (_, at_s) = next(iter(self._retried.items()))
            if now_s - at_s < REMEMBER_RETRIES_S and len(self._retried) <= REMEMBER_RETRIES:
                return
            del self._retried[key]

    # -- rows ------------------------------------------------------------------------------------------------

    def _row(self, line: Line, *, busy: bool) -> LaneRow:
        marked = self._recorded.marked(line.partition, line.frontier(), line.marked)
        floors = [floor for floor in (self._floor(line),) if floor is not None]
        if busy:
            floors.append(self._ends.of(self._results[line.partition]))
        return line.row(marked, min(floors, default=None))

    def _floor(self, line: Line) -> int | None:
        """Where results begin that who takes the line over has to find; None where there are none by now."""
        floors = (line.floor(), self._recorded.left_floor(line.integration))
        return min((floor for floor in floors if floor is not None), default=None)

    async def _save(self, line: Line, *, busy: bool) -> None:
        busy = busy or bool(line.lane.running)
        if not busy:
            line.is_busy = False  # from here on: whatever starts now has to say so first
        line.is_dirty, line.saved_s = False, time.monotonic()
        passing, line.passing = line.passing, []
        detached_times = line.detached_times
        await self._rows.save(line.partition, self._row(line, busy=busy))
        line.is_durable |= line.detached_times == detached_times
        line.is_busy = busy
        for batch, offset in passing:
            batch.finish(offset)

    def _save_soon(self, line: Line, *, busy: bool) -> None:
        self._spawn_save(line, self._save(line, busy=busy))

    def _spawn_save(self, line: Line, saving: Coroutine[Any, Any, None]) -> None:
        async def saved() -> None:
            try:
                if before is not None:
                    await asyncio.wait((before,))
                await saving
            except KafkaError as error:
                log.exception("row.unrecordable", integration=line.integration)
                self._is_open = False
                self._runs.close()
                self._on_fatal(error)
                return
            if self._lines.get(line.integration) is line:
                self._runs.start(line)
                self._catch_up.wake()

        before = self._saving.get(line.integration)
        task = asyncio.create_task(saved(), name=f"save {line.integration}")
        self._saving[line.integration] = task
        task.add_done_callback(
            lambda done: self._saving.pop(line.integration) if self._saving.get(line.integration) is done else None
        )

    # -- reading again: see `catch_up.Reading` ---------------------------------------------------------------

    @property
    def detached(self) -> Mapping[int, Mapping[bytes, Line]]:
        """Detached lines, by partition and by the key of their records."""
        return self._detached

    def live(self, partition: int) -> int:
        """The first offset that has not come by."""
        return self._live.get(partition, 0)

    def wants(self, line: Line) -> bool:
        """Whether more is to be read for it now."""
        return line.wants(self._live.get(line.partition, 0)) and self.may_feed(line) and not self._is_stopped(line)

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
        self._put(line, delivery, record, None, line.marked)
        line.fed(record.offset, record.timestamp)

    def was_fed(self, line: Line) -> None:
        """It got all that a chunk had for it."""
        self._runs.start(line)

    # -- what runs ask: see `runs.Owner` ---------------------------------------------------------------------

    def next_entry(self, line: Line) -> Entry | None:
        """The next that may start, counted as running."""
        if not self._is_open or self._lines.get(line.integration) is not line or self._is_stopped(line):
            return None
        now_s, is_held = time.monotonic(), self._deliverer.standing(line.integration) == "hold"
        if line.is_detached and line.next_start_s > now_s:
            self._start_at(line, line.next_start_s - now_s)
            return None
        if is_held:
            entry = line.lane.start_known() or line.lane.start_older(line.expires_before_ms)
        else:
            entry = line.lane.start(self._deliverer.pace(line.integration), self._now_ms())
        if entry is not None:
            self._started(line, entry, now_s)
        elif (due_at_ms := line.lane.next_due_ms) is not None and not is_held:
            self._start_at(line, (due_at_ms - self._now_ms()) / 1_000)
        return entry

    def _started(self, line: Line, entry: Entry, now_s: float) -> None:
        if not entry.is_known:
            entry.ends = self._ends.of(self._results[line.partition])
        line.active_s = now_s
        if not line.is_detached:
            self._pacing.saw_live(now_s)
        else:
            is_single = self._deliverer.pace(line.integration).ordering in ONE_AT_A_TIME
            line.next_start_s = self._pacing.next_start_s(line.next_start_s, now_s, is_single=is_single)
            if line.wants(self._live[line.partition]):
                self._catch_up.wake()

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
            if line.integration not in self._saving:
                self._save_soon(line, busy=True)
            await asyncio.wait((self._saving[line.integration],))

    def has_ended(self, line: Line, entry: Entry) -> None:
        """It needs no more work."""
        line.lane.end(entry)
        if entry.batch is not None:
            entry.batch.finish(entry.offset)
            return
        line.is_dirty, line.active_s = True, time.monotonic()

    def has_failed(self, line: Line, entry: Entry, found: Found) -> None:
        """It keeps its place in the line until its next attempt is due."""
        line.lane.keep(entry, found.attempt, found.due_at_ms)
        line.is_dirty = True
        is_long = found.due_at_ms - self._now_ms() > BLOCKED_MS
        if self._lines.get(line.integration) is line and not line.is_detached and is_long:
            self._detach(line, "blocked")

    def has_raised(self, line: Line, error: Exception) -> bool:
        """
        An attempt failed for a fault of ours; whether the line has to stop, since too many did.

        One integration's stop only its line; those of several stop the partition.
        """
        alarm = self._alarms.setdefault(line.partition, Alarm(keys=2))
        was_ringing = alarm.rings or line.alarm.rings
        line.alarm.raised()
        alarm.raised(line.integration)
        if not (alarm.rings or line.alarm.rings):
            return False
        if not was_ringing:
            log.critical(
                "partition.stopped" if alarm.rings else "line.stopped",
                partition=line.partition,
                integration=line.integration,
                raised=type(error).__name__,
                hint="too many attempts raise to be at fault themselves: nothing more is sent or put aside here until"
                " this process is started again, with a release that can",
            )
        if not alarm.rings and not line.is_detached and self._lines.get(line.integration) is line:
            self._detach(line, "other")
        return True

    def has_passed(self, line: Line) -> None:
        """An attempt did not."""
        line.alarm.passed()
        if line.partition in self._alarms:
            self._alarms[line.partition].passed()

    def _is_stopped(self, line: Line) -> bool:
        return line.alarm.rings or (line.partition in self._alarms and self._alarms[line.partition].rings)

    @property
    def stopped(self) -> str | None:
        """Why nothing is sent on some partitions or for some integrations any more; None where all is well."""
        partitions = sorted(partition for partition, alarm in self._alarms.items() if alarm.rings)
        lines = sorted(line.integration for line in self._lines.values() if line.alarm.rings)
        if not partitions and not lines:
            return None
        return f"too many attempts raise, so nothing is sent on partitions {partitions}, for integrations {lines}"

    def has_stopped(self, line: Line) -> None:
        """A run of the line found nothing more to start."""
        if line.lane.is_empty and not line.is_detached and self._lines.get(line.integration) is line:
            del self._lines[line.integration]
        elif self._is_open and self._deliverer.standing(line.integration) == "hold":
            self._hold(line)
