"""
Requests under way: each becomes its result on the log, and what the result asks for.

A run takes one delivery of a line after the other. Order of writes: the result; when that is on the broker, the retry
record, where another attempt goes through a retry topic; then the delivery is finished. What a predecessor left
between two of these steps is found by the takeover and goes on from there.
"""

import asyncio
import time
from asyncio import Task
from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import Any, Final, Protocol

import msgspec
import structlog
from aiokafka import AIOKafkaProducer, ConsumerRecord, TopicPartition
from aiokafka.errors import KafkaError

from schemas.profiles import MAX_TIMEOUT_MS
from services.dispatcher.catch_up import CatchUp
from services.dispatcher.counted import count_result
from services.dispatcher.handed import ALLOWANCE_MS, HandedOver
from services.dispatcher.lane import ENDED, Entry, Found, Pace
from services.dispatcher.line import Line
from services.dispatcher.recorded import found_of
from services.dispatcher.sender import MaySend, Unsent
from services.dispatcher.standing import Standing
from services.dispatcher.traced import attempt_span, attempted
from services.runtime.tracing import TRACING, headers_of
from streams import codec
from streams.engine.processor import ReadAt
from streams.quarantine import Quarantine
from streams.records import Delivery, HandOver, Result
from streams.takeover import Ends
from streams.trace_context import TraceContext

log = structlog.get_logger("dispatcher.runs")

#: How often a worker that was frozen, or has lost its broker, looks whether it may go on.
CONFIRMED_POLL_S: Final = 0.05
#: How often a delivery looks whether the key that its integration's secrets want is there: milliseconds after the
#: configuration, as a rule. More and more seldom where it does not come.
UNLOCKED_POLL_S: Final = 0.05
UNLOCKED_POLL_MOST_S: Final = 2.0


class Deliverer(Protocol):
    """Makes the attempts. See `attempt.py`."""

    async def reach(self, config_offset: int) -> None:
        """Wait until the configuration is known up to this offset."""

    def pace(self, integration: str) -> Pace:
        """Ordering and how many requests at once."""

    def standing(self, integration: str) -> Standing:
        """Whether its deliveries are sent now."""

    def is_locked(self, integration: str) -> bool:
        """Whether its secrets cannot be opened yet, and can be later."""

    async def attempt(
        self, delivery: Delivery, read_at: ReadAt, may_send: MaySend, trace: TraceContext | None = None
    ) -> Result:
        """
        One attempt, or the outcome of a delivery that ends without one; where it was read goes into the result.

        Args:
            trace: told to receivers that are to be told.

        Raises:
            Unsent: no byte went out, and nothing has come of it: whoever asks looks anew whether it is to be made.
        """

    def fallen_out(self, delivery: Delivery, read_at: ReadAt) -> Result:
        """The outcome of a delivery that waited as long as the log keeps it."""


class RetryTopics(Protocol):
    """Takes deliveries that wait for another attempt. See `retries.py`."""

    async def put(self, delivery: Delivery, *, slot: int, now_ms: int, trace: TraceContext | None = None) -> None:
        """Returns when it is on the broker, carrying this trace."""

    async def written_since(self, since_ms: int) -> set[tuple[str, int]]:
        """Delivery and attempt of what came onto the retry topics since then."""


class Owner(Protocol):
    """Whose lines they are. See `lanes.py`."""

    def next_entry(self, line: Line) -> Entry | None:
        """The next that may start, counted as running."""

    async def make_busy(self, line: Line) -> None:
        """Returns when the line's row, if it has one, says that something may be in flight."""

    def has_ended(self, line: Line, entry: Entry) -> None:
        """It needs no more work."""

    def has_failed(self, line: Line, entry: Entry, found: Found) -> None:
        """It keeps its place in the line until its next attempt is due."""

    def has_raised(self, line: Line, error: Exception) -> bool:
        """An attempt failed for a fault of ours; whether the line has to stop, since too many did."""

    def has_passed(self, line: Line) -> None:
        """An attempt did not."""

    def has_stopped(self, line: Line) -> None:
        """A run of the line found nothing more to start."""


class _Run:
    __slots__ = ("_is_ours", "_now_ms", "entry", "is_leaving", "is_sent", "line", "started_ms", "task", "trace")

    def __init__(self, line: Line, entry: Entry, is_ours: Callable[[], bool], now_ms: Callable[[], int]) -> None:
        self._is_ours = is_ours
        self._now_ms = now_ms
        self.line = line
        self.entry = entry
        #: From its first byte, or where it has none, from its outcome, until its result is on the broker; then nobody
        #: else may make the attempt.
        self.is_sent = False
        self.started_ms = 0
        #: The partition is another's: write the result, and nothing else.
        self.is_leaving = False
        self.task: Task[None] | None = None
        #: Of the attempt made last, for what it causes.
        self.trace: TraceContext | None = None

    def may_send(self) -> bool:
        """The last look before its first byte, which is out with it: looking up and connecting may have taken long."""
        if not self._is_ours():
            return False
        self.is_sent, self.started_ms = True, self._now_ms()
        return True


class Runs:
    """All requests of a worker."""

    def __init__(
        self,
        *,
        producer: AIOKafkaProducer,
        results: list[TopicPartition],
        ends: Ends,
        deliverer: Deliverer,
        retries: RetryTopics,
        quarantine: Quarantine,
        handed: HandedOver,
        now_ms: Callable[[], int],
        on_fatal: Callable[[Exception], None],
        may_start: Callable[[], bool],
        owner: Owner,
        catch_up: CatchUp,
    ) -> None:
        self._producer = producer
        self._results = results
        self._ends = ends
        self._deliverer = deliverer
        self._retries = retries
        self._quarantine = quarantine
        self._handed = handed
        self._now_ms = now_ms
        self._on_fatal = on_fatal
        self._may_start = may_start
        self._owner = owner
        self._catch_up = catch_up
        self._runs: set[_Run] = set()
        self._leaving: set[Task[None]] = set()
        self._is_open = False
        self._generation = 0

    def open(self, generation: int) -> None:
        """Partitions were taken over in this generation."""
        self._is_open, self._generation = True, generation

    def close(self) -> None:
        """Start nothing more."""
        self._is_open = False

    @property
    def in_flight(self) -> int:
        """Requests under way or about to be."""
        return len(self._runs) + len(self._leaving)

    def start(self, line: Line) -> None:
        """Start what may start now."""
        while self._is_open and (entry := self._owner.next_entry(line)) is not None:
            run = _Run(line, entry, self._is_ours, self._now_ms)
            self._runs.add(run)
            run.task = asyncio.create_task(self._run(run))

    # -- giving up -------------------------------------------------------------------------------------------

    async def hand_over(self, timeout_s: float) -> None:
        """
        Say on the log which requests are under way, and go on with those alone; the others are dropped.

        Returns when the broker has it, or after the timeout.
        """
        self._is_open = False
        notes = []
        for run in list(self._runs):
            entry = run.entry
            if run.is_sent:
                notes.append(self._note(run, run.started_ms + MAX_TIMEOUT_MS + ALLOWANCE_MS))
            elif entry.until_ms is not None:
                notes.append(self._note(run, entry.until_ms))
            self._leave(run)
        if not notes:
            return
        writing = asyncio.ensure_future(self._write(notes))
        _, late = await asyncio.wait((writing,), timeout=timeout_s)
        if late:
            writing.cancel()
            log.warning("hand_over.cut_off", requests=len(notes), timeout_s=timeout_s)

    def _leave(self, run: _Run) -> None:
        self._runs.discard(run)
        if run.task is None:
            return
        if run.is_sent:
            run.is_leaving = True
            self._leaving.add(run.task)
            run.task.add_done_callback(self._leaving.discard)
        else:
            run.task.cancel()

    def _note(self, run: _Run, until_ms: int) -> HandOver:
        entry, delivery = run.entry, run.entry.delivery
        return HandOver(
            delivery_id=delivery.delivery_id if delivery else "",
            integration=run.line.integration,
            attempt=entry.attempt or (delivery.attempt if delivery else 1),
            source_partition=run.line.partition,
            source_offset=entry.offset,
            source_generation=self._generation if run.is_sent else entry.awaits,
            until_ms=until_ms,
        )

    async def _write(self, notes: Iterable[HandOver]) -> None:
        try:
            pending = []
            for note in notes:
                target = self._results[note.source_partition]
                value, key = codec.encode(note), note.integration.encode()
                pending.append(
                    (target, await self._producer.send(target.topic, value, key=key, partition=target.partition))
                )
            for target, future in pending:
                self._ends.saw(target, (await future).offset)
        except KafkaError as error:
            log.warning("hand_over.failed", reason=repr(error))

    async def finish_leaving(self, timeout_s: float) -> None:
        """Wait for the requests that were handed over, at most so long; then cut them off."""
        if not self._leaving:
            return
        log.info("requests.leaving", requests=len(self._leaving))
        _, late = await asyncio.wait(self._leaving, timeout=timeout_s)
        for task in late:
            task.cancel()
        await asyncio.gather(*late, return_exceptions=True)

    # -- one after the other ---------------------------------------------------------------------------------

    async def _run(self, run: _Run) -> None:
        try:
            while True:
                await self._work_on(run)
                if run.is_leaving or not self._is_open:
                    return
                entry = self._owner.next_entry(run.line)
                if entry is None:
                    break
                run.entry = entry
            self._owner.has_stopped(run.line)
        except Exception as error:
            # The producer has ended for good: what goes through it cannot be recorded any more.
            log.exception("result.unrecordable", integration=run.line.integration)
            self._is_open = False
            self._on_fatal(error)
        finally:
            self._runs.discard(run)

    async def _work_on(self, run: _Run) -> None:
        line, entry = run.line, run.entry
        found = entry.found or await self._found_elsewhere(line, entry)
        if entry.delivery is None and found != ENDED:
            entry.delivery = await self._read_again(line, entry)
        delivery, run.trace = entry.delivery, entry.trace
        if delivery is None:
            return self._owner.has_ended(line, entry)
        if found is None:
            found = await self._attempt(run, delivery)
        if found is None or run.is_leaving:
            return None  # whoever has the partition reads the result, and does the rest
        if found != ENDED and found.slot is None:
            return self._owner.has_failed(line, entry, found)
        if found != ENDED:
            # As before a request: a successor may have made the attempt again meanwhile, with another end.
            if not self._may_start() and not await self._is_confirmed():
                return None
            await self._retry(delivery, found, run.trace)
        return self._owner.has_ended(line, entry)

    async def _found_elsewhere(self, line: Line, entry: Entry) -> Found | None:
        """What became of a request that a predecessor goes on with; None where there is none, or it gave no result."""
        if entry.until_ms is None:
            return None
        timeout_s = (entry.until_ms - self._now_ms()) / 1_000
        result = await self._handed.result((line.partition, entry.offset), timeout_s)
        entry.until_ms = None
        return None if result is None else found_of(result)

    async def _retry(self, delivery: Delivery, found: Found, trace: TraceContext | None) -> None:
        waits = msgspec.structs.replace(delivery, attempt=found.attempt, due_at_ms=found.due_at_ms)
        await self._retries.put(waits, slot=found.slot or 0, now_ms=self._now_ms(), trace=trace)

    async def _read_again(self, line: Line, entry: Entry) -> Delivery | None:
        """The delivery, from the log; None where there is none that can be made."""
        record = await self._catch_up.fetch(line.partition, entry.offset)
        if record is None:
            log.error(
                "delivery.fallen_out", integration=line.integration, partition=line.partition, offset=entry.offset,
                attempt=entry.attempt, hint="it was open and has no outcome; docs/operating.md says what to do",
            )  # fmt: skip
            return None
        entry.at_ms, entry.trace = record.timestamp, TRACING.of_record(record)
        try:
            return codec.decode_as(Delivery, record.value)
        except codec.Unreadable as error:
            await self._quarantine.put(record, "record.unreadable", str(error))
            return None

    async def _attempt(self, run: _Run, delivery: Delivery) -> Found | None:
        """Make it and write its result; None where nothing was sent and nothing is to follow."""
        line, entry = run.line, run.entry
        if entry.attempt is not None and entry.attempt != delivery.attempt:
            delivery = msgspec.structs.replace(delivery, attempt=entry.attempt)
        # It was made under this configuration; until that is known here, a deleted integration cannot be told from
        # one that is yet to come.
        await self._deliverer.reach(delivery.config_offset)
        await self._owner.make_busy(line)
        while True:
            poll_s = UNLOCKED_POLL_S
            while self._is_locked(line, entry) or not self._may_start():
                if not await self._is_confirmed():
                    return None
                if self._is_locked(line, entry):
                    await asyncio.sleep(poll_s)
                    poll_s = min(poll_s * 1.5, UNLOCKED_POLL_MOST_S)
            if not self._is_open:
                return None
            is_expiring, now_ms = line.is_expiring(entry), self._now_ms()
            due_at_ms = max(entry.due_at_ms or 0, now_ms)
            waits = {"send": due_at_ms > now_ms, "hold": True, "discard": False}
            if not is_expiring and waits[self._deliverer.standing(line.integration)]:
                # Paused meanwhile, or started before it is due, for an end that is not to be: it keeps its place.
                return Found(delivery.attempt, due_at_ms, None)
            with suppress(Unsent):
                return await self._make(run, delivery, is_expiring=is_expiring)
            # Nothing of it is anywhere, and it took a while: all of this is looked at again.

    async def _make(self, run: _Run, delivery: Delivery, *, is_expiring: bool) -> Found | None:
        """As `_attempt`, for what may be sent. Raises `Unsent`."""
        line, entry = run.line, run.entry
        run.started_ms = self._now_ms()
        read_at = ReadAt(line.partition, entry.offset, self._generation)
        try:
            if is_expiring:
                result = self._deliverer.fallen_out(delivery, read_at)
            else:
                result = await self._traced_attempt(run, delivery, read_at)
            value = codec.encode(result)
        except Unsent:
            raise
        except Exception as error:
            # Ours, not the endpoint's: it must not count as the integration's failure.
            log.exception("attempt.raised", delivery=delivery.delivery_id)
            run.is_sent = False
            if run.is_leaving:
                return None  # whoever has the partition makes it again
            if self._owner.has_raised(line, error):
                return None  # it is not put aside: a better release will send it
            await self._put_aside(line, entry, f"the attempt raised {type(error).__name__}")
            return ENDED
        run.is_sent = True
        self._owner.has_passed(line)
        target = self._results[line.partition]
        key, headers = delivery.integration.encode(), headers_of(run.trace)
        future = await self._producer.send(target.topic, value, key=key, partition=target.partition, headers=headers)
        self._ends.saw(target, (await future).offset)
        run.is_sent = False
        count_result(result)
        return found_of(result)

    async def _traced_attempt(self, run: _Run, delivery: Delivery, read_at: ReadAt) -> Result:
        """The attempt; where it is traced, with its span around it, and what it causes behind that."""
        span = attempt_span(TRACING, run.trace, delivery)
        if span is None:
            return await self._deliverer.attempt(delivery, read_at, run.may_send, run.trace)
        before, run.trace = run.trace, span.context
        try:
            result = await self._deliverer.attempt(delivery, read_at, run.may_send, run.trace)
        except Unsent:
            run.trace = before  # no attempt, so no span
            raise
        except Exception:
            span.fail("attempt.raised")
            span.end()
            raise
        attempted(span, result, time.time_ns())
        return result

    def _is_locked(self, line: Line, entry: Entry) -> bool:
        """
        Whether the delivery waits for a key that is to come.

        Here, where nothing is sent yet, so that whoever gets the partition meanwhile need not wait for it. One that is
        held, discarded or about to fall out of the log needs no key.
        """
        return (
            self._is_open
            and not line.is_expiring(entry)
            and self._deliverer.standing(line.integration) == "send"
            and self._deliverer.is_locked(line.integration)
        )

    async def _put_aside(self, line: Line, entry: Entry, reason: str) -> None:
        record: ConsumerRecord[Any, Any] | None = (
            entry.batch.records[0] if entry.batch else await self._catch_up.fetch(line.partition, entry.offset)
        )
        if record is not None:
            await self._quarantine.put(record, "attempt.raised", reason)

    def _is_ours(self) -> bool:
        """Whether the partition is ours now, as far as is known."""
        return self._is_open and self._may_start()

    async def _is_confirmed(self) -> bool:
        """Whether the partition is still ours, once that is known; until then its requests wait."""
        while self._is_open and not self._may_start():  # noqa: ASYNC110  # rare, and nobody tells
            await asyncio.sleep(CONFIRMED_POLL_S)
        return self._is_open
