"""
The replay agent: past events become deliveries again, paced, in order, with few of them open at a time.

One worker has the one partition of topic `replays`, and with it all replays that run. It is an agent of the
dispatcher's group, so it is replaced as retry readers are: its markers on `deliveries` tell the lanes what a frozen
predecessor appended late, and the group's heartbeat tells it not to append when it may be that one.

Nothing is appended twice: progress says from where on the deliveries of unfinished events stand, and a successor reads
them back before it goes on (`replaying.Course`). What is asked for, and cancelled, is followed (`streams.replays`); the
agent's own batches are only the sign of ownership.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any, Final

import msgspec
import structlog
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.errors import KafkaError

from services.dispatcher.replay_log import (
    CLOCKS_DIFFER_MS,
    PastEvents,
    ReadBack,
    Span,
    Times,
    events_partition,
    looking,
    offset_at,
    span_of,
)
from services.dispatcher.replaying import MAX_AT_ONCE, QUARANTINED, Course, Pace, Past, Places, delivery_of, takes
from services.dispatcher.retries import AskEnds
from services.runtime.tracing import headers_of
from streams import codec, takeover, topics
from streams.connection import Connection
from streams.engine.processor import Assignment, Batch
from streams.features import features_of
from streams.follower import Follower
from streams.producer import partition_of
from streams.reading import started
from streams.records import Delivery, Event, Marker, Quarantined, Replay, ReplayState, Result
from streams.replays import RUNNING, Replays, row_key
from streams.states import States
from streams.takeover import Ends
from streams.topics import Partitions
from streams.trouble import Trouble
from streams.views import Integrations

log = structlog.get_logger("dispatcher.replays")

#: Progress is stored at most so often. What a takeover reads back grows with it.
SAVE_EVERY_S: Final = 1.0

#: One that waits and has nothing open says so often how far the log has come: its successor reads back from there.
REFRESH_S: Final = 60.0

#: The longest that a replay waits before it looks around: for the end of a pause, or of a freeze.
LOOK_S: Final = 0.25

#: Wait before a replay goes on that something has interrupted: the broker was away, or a bug of ours.
AGAIN_S: Final = 1.0

#: One that has not moved for so long, since its integration is paused or answers nothing, lets another have its turn.
STALLED_S: Final = 5.0

#: What has ended is forgotten after so long.
KEEP_ENDED_MS: Final = 30 * topics.DAY_MS

_FETCH_MS: Final = 200


class ReplayAgent:
    """The processor of topic `replays`. See the module's docstring, and `streams.engine.processor.Processor`."""

    def __init__(
        self,
        *,
        connection: Connection,
        partitions: Partitions,
        producer: AIOKafkaProducer,
        follower: Follower,
        replays: Replays,
        config: Follower,
        integrations: Integrations,
        states: States,
        worker_id: str,
        now_ms: Callable[[], int],
        on_fatal: Callable[[Exception], None],
        may_start: Callable[[], bool],
        ask_ends: AskEnds,
    ) -> None:
        """
        Args:
            follower: of topic `replays`, into *replays*; the owner tells us of changes by `changed`.
            on_fatal: told when nothing can be recorded any more; the process has to end.
            may_start: whether this worker is known to be a member of its group: one that was frozen appends nothing.
        """
        self._connection = connection
        self._partitions = partitions
        self._producer = producer
        self._follower = follower
        self._replays = replays
        self._config = config
        self._integrations = integrations
        self._states = states
        self._worker_id = worker_id
        self._now_ms = now_ms
        self._on_fatal = on_fatal
        self._may_start = may_start
        self._ask_ends = ask_ends
        self._topic = connection.topic(topics.REPLAYS)
        self._deliveries = [
            TopicPartition(connection.topic(topics.DELIVERIES), number) for number in range(partitions.by_integration)
        ]
        self._ends = Ends()
        self._generation = 0
        self._is_open = False
        #: The takeover under way or done; None after the partition was given up.
        self._taking: object | None = None
        #: Offsets of our markers, by partition of `deliveries`.
        self._marked: dict[TopicPartition, int] = {}
        self._running: dict[str, asyncio.Task[None]] = {}
        self._wakes: dict[str, asyncio.Event] = {}
        self._slots = asyncio.Semaphore(MAX_AT_ONCE)
        #: How many wait for one.
        self._queued = 0

    # -- takeover --------------------------------------------------------------------------------------------

    async def take_over(self, assignment: Assignment) -> None:
        """Make every replay that runs ours, mark `deliveries`, and go on."""
        self._generation = assignment.generation
        taking = self._taking = object()
        self._slots = asyncio.Semaphore(MAX_AT_ONCE)
        if not assignment.floors:
            return
        await self._follower.catch_up()
        await self._config.catch_up()
        try:
            # Ours first: from then on what a frozen predecessor says of its progress counts for nothing, and what it
            # appends does so only in front of our markers, where we find it.
            for replay in self._replays.all():
                if replay.state == RUNNING:
                    await self._adopt(replay)
                elif replay.updated_at_ms < self._now_ms() - KEEP_ENDED_MS:
                    await self._delete(self._replays.keys(replay.id))
                takeover.step()
            marker = Marker(
                source_topic=self._topic,
                source_partition=0,
                generation=assignment.generation,
                owner=self._worker_id,
                at_ms=self._now_ms(),
            )
            targets = {target: [marker] for target in self._deliveries}
            self._marked = await takeover.mark(self._producer, targets, self._ends)
        except KafkaError as error:
            if not error.retriable:
                self._on_fatal(error)
            raise
        if self._taking is not taking:
            return  # given up meanwhile: what would start now, nobody settles
        self._is_open = True
        for replay in self._replays.all():
            self._start(replay)

    async def _adopt(self, replay: Replay) -> Replay:
        """Its progress, on the log as ours; what there was under other generations deleted."""
        progress = self._replays.progress(replay.id) or await self._first_row(replay)
        own = msgspec.structs.replace(progress, generation=self._generation, updated_by=self._worker_id)
        before = self._replays.keys(replay.id) - {replay.id.encode(), row_key(own)}
        await self._save(own)
        await self._delete(before)
        return own

    async def _first_row(self, asked: Replay) -> Replay:
        """Progress of one that nobody has begun, as far as we know: a predecessor may have, a moment ago."""
        events = events_partition(self._connection, asked.app, self._partitions.by_app)
        since_ms = asked.created_at_ms - CLOCKS_DIFFER_MS
        places = self._places_of(asked.integration)
        async with looking(self._connection, events, *places) as consumer:
            span = await span_of(self._connection, consumer, events, Times(asked.from_ms, asked.until_ms))
            since = [await offset_at(self._connection, consumer, place, since_ms) for place in places]
        deliveries_from, results_from, quarantine_from = since
        return msgspec.structs.replace(
            asked,
            state=RUNNING,
            events_from=span.start,
            events_next=span.start,
            events_until=max(span.until, span.start),
            deliveries_from=deliveries_from,
            results_from=results_from,
            quarantine_from=quarantine_from,
        )

    def _places_of(self, integration: str) -> tuple[TopicPartition, TopicPartition, TopicPartition]:
        """The integration's partition of `deliveries`, that of `delivery-results`, and `quarantine`."""
        number = partition_of(integration.encode(), list(range(self._partitions.by_integration)), [])
        return (
            self._deliveries[number],
            TopicPartition(self._connection.topic(topics.RESULTS), number),
            TopicPartition(self._connection.topic(topics.QUARANTINE), 0),
        )

    async def _save(self, row: Replay) -> None:
        await self._producer.send_and_wait(self._topic, codec.encode(row), key=row_key(row), partition=0)

    async def _delete(self, keys: set[bytes]) -> None:
        for key in keys:
            await self._producer.send_and_wait(self._topic, None, key=key, partition=0)

    def floor(self, partition: int) -> str:  # noqa: ARG002  # the protocol's
        """Nothing: the rows say where to look."""
        return ""

    async def process(self, batch: Batch) -> None:
        """What stands there, `changed` has told or will tell."""
        for record in batch.records:
            batch.finish(record.offset)

    async def settle(self, timeout_s: float) -> None:
        """Append nothing more. What is under way is acknowledged first; it is found by who goes on."""
        self._is_open, self._taking = False, None
        running = list(self._running.values())
        self._running.clear()
        for wake in self._wakes.values():
            wake.set()
        if running:
            _, late = await asyncio.wait(running, timeout=timeout_s)
            for task in late:
                task.cancel()
            await asyncio.gather(*late, return_exceptions=True)

    @property
    def running(self) -> int:
        """Replays under way or waiting for their turn here."""
        return len(self._running)

    def changed(self, key: str) -> None:
        """A row has changed: one was asked for, or cancelled. What is ours changes nothing."""
        replay = self._replays.get(key.partition("/")[0])
        if replay is None or not self._is_open:
            return
        if replay.id in self._wakes:
            self._wakes[replay.id].set()
        self._start(replay)

    def _start(self, replay: Replay) -> None:
        progress = self._replays.progress(replay.id)
        has_ended = replay.state != RUNNING and (progress is None or progress.state != RUNNING)
        if has_ended or replay.id in self._running:
            return
        task = asyncio.create_task(self._run(replay.id, self._generation), name=f"replay {replay.id}")
        self._running[replay.id] = task
        task.add_done_callback(lambda done: self._forget(replay.id, done))

    def _forget(self, replay: str, task: "asyncio.Task[None]") -> None:
        if self._running.get(replay) is task:
            del self._running[replay]

    # -- work ------------------------------------------------------------------------------------------------

    async def _run(self, replay: str, generation: int) -> None:
        """Until it has ended, or is given up; turn by turn, begun again where something interrupts it."""
        wake, trouble = asyncio.Event(), Trouble(log, replay=replay)
        self._wakes[replay] = wake
        try:
            while self._owns(generation):
                async with self._turn():
                    if not self._owns(generation) or await self._has_ended_in_turn(replay, generation, trouble):
                        return
                await _set_within(wake, AGAIN_S)
                while self._owns(generation) and self._waits(replay):
                    wake.clear()
                    await _set_within(wake, LOOK_S)
        finally:
            if self._wakes.get(replay) is wake:
                del self._wakes[replay]

    @asynccontextmanager
    async def _turn(self) -> AsyncIterator[None]:
        slots = self._slots
        self._queued += 1
        try:
            await slots.acquire()
        finally:
            self._queued -= 1
        try:
            yield
        finally:
            slots.release()

    async def _has_ended_in_turn(self, replay: str, generation: int, trouble: Trouble) -> bool:
        try:
            has_ended = await self._carry_out(replay, generation)
        except KafkaError as error:
            if not error.retriable:
                log.exception("replay.unrecordable", replay=replay)
                self._on_fatal(error)
                return True
            trouble.met("replay.interrupted", error, retry_s=AGAIN_S)
        except Exception as error:  # noqa: BLE001  # whatever it is, it is tried again
            trouble.raised("replay.raised", error, retry_s=AGAIN_S)
        else:
            trouble.over()
            return has_ended
        return False

    def _waits(self, replay: str) -> bool:
        """Whether it needs no turn now: its integration is paused, or cannot be read."""
        found = self._replays.get(replay)
        return found is not None and found.state == RUNNING and self._is_paused(found.integration)

    def _is_paused(self, integration: str) -> bool:
        config = self._integrations.get(integration)
        if config is None:
            return self._integrations.is_broken(integration)
        return self._states.is_paused(config)

    def _owns(self, generation: int) -> bool:
        return self._is_open and self._generation == generation

    async def _carry_out(self, replay_id: str, generation: int) -> bool:
        """One turn of it, which lasts as long as it moves or nobody else wants one; whether it has ended."""
        await self._follower.catch_up()
        await self._config.catch_up()  # the integration may be as new as the replay
        replay, row = self._replays.get(replay_id), self._replays.progress(replay_id)
        if replay is None or (row is not None and row.state != RUNNING):
            return True
        if row is None or row.generation != generation:
            row = await self._adopt(replay)
        places = self._places_of(row.integration)
        marker = generation, self._marked[places[0]]
        if row.deliveries_from > marker[1]:
            row = msgspec.structs.replace(row, marked=generation)
        work = _Work(row, *places)
        back = ReadBack(row, self._topic)
        spans = {work.deliveries: (row.deliveries_from, self._ends.of(work.deliveries))}
        await takeover.read_back(self._connection, spans, back.see)
        work.course = Course(row, marker)
        work.course.found(back.appended)
        work.wake = self._wakes[replay_id]
        log.info("replay.began", replay=replay_id, integration=row.integration, found=len(back.appended))
        span = Span(work.course.next, row.events_until)
        partition = events_partition(self._connection, row.app, self._partitions.by_app)
        wants = lambda event: self._takes(row, event)  # noqa: E731  # of the configuration at that moment
        since_ms = max(row.from_ms, row.reached_ms or 0)
        async with (
            self._watching(work),
            PastEvents(self._connection, partition, span, wants=wants, since_ms=since_ms) as past,
        ):
            return await self._append_all(work, past, generation)

    def _takes(self, replay: Replay, event: Event) -> bool:
        config = self._integrations.get(replay.integration)
        return config is not None and takes(replay, config, event)

    async def _append_all(self, work: "_Work", past: PastEvents, generation: int) -> bool:
        """Append what may be appended, when it may; whether the replay has ended, or only its turn."""
        following: Past | None = None
        while self._owns(generation) and self._replays.get(work.row.id) is not None:
            work.wake.clear()
            work.raise_if_blind()
            work.course.pass_to(past.position if following is None else following.offset)
            ended = self._ended(work, is_over=past.is_over and following is None)
            if ended is not None and self._may_start():
                await self._end(work, *ended)
                return True
            # What it would take of the past is not known where its configuration cannot be read.
            is_broken = self._integrations.is_broken(work.row.integration)
            is_stalled = (following is not None or past.is_over or is_broken) and work.stands_still_s > STALLED_S
            if is_stalled and self._queued:
                return False
            await self._checkpoint(work)
            if following is None and not past.is_over and ended is None and not is_broken:
                following = await past.next()
                work.moved_s = time.monotonic()
                if following is not None and following.is_repeat:
                    following = None
            elif (
                following is not None
                and ended is None
                and self._may_append(work)
                and not work.pace.wait_s(time.monotonic())
            ):
                await self._append(work, following, generation)
                following = None
            else:
                await _set_within(work.wake, min(work.pace.wait_s(time.monotonic()) or LOOK_S, LOOK_S))
        return False

    def _ended(self, work: "_Work", *, is_over: bool) -> tuple[ReplayState, str | None] | None:
        """How it ends now, and why; None where it goes on."""
        if self._replays.is_cancelled(work.row.id):
            return "cancelled", None
        integration = work.row.integration
        if self._integrations.get(integration) is None and not self._integrations.is_broken(integration):
            return "failed", "integration_deleted"
        if is_over and work.course.is_over:
            return "done", None
        return None

    def _may_append(self, work: "_Work") -> bool:
        """Few are open, the integration is not paused, and the group has confirmed us."""
        return work.course.has_room and not self._is_paused(work.row.integration) and self._may_start()

    async def _append(self, work: "_Work", past: Past, generation: int) -> None:
        delivery = delivery_of(work.row, past, config_offset=self._config.position, generation=generation)
        work.pace.went(time.monotonic())
        # Before it is sent: its outcome may come before we hear that it is on the log.
        work.course.begin(delivery, self._places(work))
        target, key, headers = work.deliveries, delivery.integration.encode(), headers_of(past.trace)
        appended = await self._producer.send_and_wait(
            target.topic, codec.encode(delivery), key=key, partition=target.partition, headers=headers
        )
        self._ends.saw(target, appended.offset)
        work.has_moved()

    def _places(self, work: "_Work") -> Places:
        return Places(self._ends.of(work.deliveries), work.results_at, work.quarantine_at)

    async def _checkpoint(self, work: "_Work") -> None:
        now_s = time.monotonic()
        has_moved = work.is_dirty or work.course.next != work.saved_next
        is_idle = not work.course.open and now_s - work.saved_s >= REFRESH_S
        if not (has_moved or is_idle) or now_s - work.saved_s < SAVE_EVERY_S:
            return
        if not has_moved:
            self._ends.reach(await self._ask_ends([work.deliveries]))
        if self._may_start():
            work.saved_s, work.is_dirty, work.saved_next = now_s, False, work.course.next
            await self._save(work.course.row(self._places(work), worker=self._worker_id, now_ms=self._now_ms()))

    async def _end(self, work: "_Work", state: ReplayState, reason: str | None) -> None:
        row = work.course.row(
            self._places(work), worker=self._worker_id, now_ms=self._now_ms(), state=state, reason=reason
        )
        await self._save(row)
        log.info("replay.ended", replay=row.id, state=state, reason=reason, **row.outcomes)
        # Not begun again before the follower has seen that.
        await self._follower.catch_up()

    # -- outcomes --------------------------------------------------------------------------------------------

    @asynccontextmanager
    async def _watching(self, work: "_Work") -> AsyncIterator[None]:
        """For the time of the block, outcomes reach the replay's course as they come."""
        features = await features_of(self._connection)
        consumer: AIOKafkaConsumer[Any, Any] = AIOKafkaConsumer(
            **self._connection.client_options,
            enable_auto_commit=False,
            auto_offset_reset="earliest",
            fetch_max_wait_ms=min(_FETCH_MS, features.fetch_wait_ms),
        )
        async with started(consumer):
            consumer.assign([work.results, work.quarantine])
            consumer.seek(work.results, work.results_at)
            consumer.seek(work.quarantine, work.quarantine_at)
            work.watching = asyncio.create_task(self._watch(work, consumer), name=f"outcomes of {work.row.id}")
            try:
                yield
            finally:
                work.watching.cancel()
                await asyncio.gather(work.watching, return_exceptions=True)

    async def _watch(self, work: "_Work", consumer: "AIOKafkaConsumer[Any, Any]") -> None:
        own_key = work.row.integration.encode()
        while True:
            for partition, records in (await consumer.getmany(timeout_ms=_FETCH_MS)).items():
                for record in records:
                    ended = _outcome(record.value) if record.key in (own_key, None) else None
                    if ended is not None and work.course.end(*ended):
                        work.has_moved()
                        work.wake.set()
                if partition == work.results:
                    work.results_at = records[-1].offset + 1
                else:
                    work.quarantine_at = records[-1].offset + 1


class _Work:
    """A replay under way."""

    def __init__(
        self, row: Replay, deliveries: TopicPartition, results: TopicPartition, quarantine: TopicPartition
    ) -> None:
        self.row = row
        self.deliveries = deliveries
        self.results = results
        self.quarantine = quarantine
        self.course = Course(row)
        self.pace = Pace(row.rate)
        self.wake = asyncio.Event()
        #: Everything below was looked at for outcomes.
        self.results_at = row.results_from
        self.quarantine_at = row.quarantine_from
        self.watching: asyncio.Task[None] | None = None
        self.is_dirty = False
        self.saved_s = 0.0
        self.saved_next = row.events_next
        self.moved_s = time.monotonic()

    @property
    def stands_still_s(self) -> float:
        """How long nothing has been read, appended or ended."""
        return time.monotonic() - self.moved_s

    def has_moved(self) -> None:
        """Something was appended, or has its outcome."""
        self.is_dirty, self.moved_s = True, time.monotonic()

    def raise_if_blind(self) -> None:
        """
        Raises what ended the watching of outcomes: all is begun again then.

        Without it the replay would wait for ever.
        """
        if self.watching is not None and self.watching.done():
            self.watching.result()


def _outcome(value: bytes | None) -> tuple[str, str] | None:
    """Delivery and outcome, where a record tells of an end: a last result, or a delivery that was put aside."""
    try:
        found = codec.decode(value)
        if isinstance(found, Quarantined) and found.value is not None:
            aside = codec.decode(found.value)
            return (aside.delivery_id, QUARANTINED) if isinstance(aside, Delivery) else None
    except codec.Unreadable:
        return None
    if isinstance(found, Result) and found.outcome is not None:
        return found.delivery_id, found.outcome
    return None


async def _set_within(event: asyncio.Event, seconds: float) -> None:
    """Returns when the event is set, or after so long."""
    try:
        async with asyncio.timeout(seconds):
            await event.wait()
    except TimeoutError:
        return
