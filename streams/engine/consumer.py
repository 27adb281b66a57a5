"""
Our consumer behind Faust's transport interface: what is acknowledged, and only that, is committed.

It differs from Faust's own (`faust.transport.drivers.aiokafka.Consumer`) in four ways:

* offsets go through a `Ledger`: committed up to the first record not finished, whatever order they finish in;
* a partition is fetched only after it was sought to its committed position and its processor took over, so
  nothing read early can be committed over, not even during a table's recovery;
* what is acknowledged is committed before partitions are given up, and stopping settles what is in flight;
* a topic with a `Processor` is handed over in batches, a Faust message each, in the worker's own event loop.

Faust calls it from its own services; everything here runs in one event loop, without threads.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Iterator, Mapping
from typing import Any, Final, NamedTuple, cast

import aiokafka
import aiokafka.abc
import structlog
from aiokafka import OffsetAndMetadata, TopicPartition
from aiokafka.coordinator.assignors.roundrobin import RoundRobinPartitionAssignor
from aiokafka.errors import (
    CommitFailedError,
    ConsumerStoppedError,
    IllegalGenerationError,
    IllegalStateError,
    KafkaError,
)
from aiokafka.partitioner import DefaultPartitioner
from faust.transport.consumer import Consumer, ensure_TP, ensure_TPset
from faust.types import TP, ConsumerMessage

from streams.answers import ANSWERS
from streams.engine.membership import join_under
from streams.engine.processor import Assignment, Batch, Processor, PutAside, floor_of
from streams.engine.progress import LOOK_S, STUCK_S, Progress, Seen
from streams.engine.shortened import (
    ASK_AGAIN_S,
    LOOK_AGAIN_S,
    LogShortened,
    fallen_out,
    of_compacted,
    shortened,
)
from streams.engine.spacing import Spacing
from streams.engine.standing import ALONE, FATAL, Standing, is_short, noted_short, read, written
from streams.features import Features, features_of
from streams.ledger import Ledger
from streams.reading import committed_offsets, stop_whole
from streams.silence import FetchWaits
from streams.takeover import STEPS, Steps
from streams.trouble import Trouble

log = structlog.get_logger("streams.consumer")

_FALLEN_OUT: Final = "out of retention before it was finished; docs/operating.md says what to do"

#: A fetch waits at most this long on the broker for a first byte; it is what an idle worker does. A partition that
#: resumes after a pause joins the next fetch, so its unfinished records have to last as long: 2,000 do, up to
#: 4,000 a second. (The embedded broker wants shorter waits: `streams.features`.)
FETCH_MAX_WAIT_MS: Final = 500

#: Bytes of one partition in one fetch: a batch is at most this large (or one record).
FETCH_PARTITION_BYTES: Final = 262_144

#: Records of one call; what one batch can hold up the loop with.
FETCH_RECORDS: Final = 1_000

#: Wait before a failed takeover is tried again.
TAKEOVER_RETRY_S: Final = 1.0
#: What a takeover does again after so many failures, one after the other, is no progress.
TAKEOVER_FAILURES: Final = 10
#: A takeover that goes on though it was cancelled is cancelled again after so long.
CANCEL_AGAIN_S: Final = 0.1

#: aiokafka leaves the group for good where nothing was fetched for so long. A worker without a partition fetches
#: nothing for weeks, and has to be there when another dies; who stands still is found by `_watch_progress`.
NEVER_MS: Final = 10**12

#: Wait before a group that has refused this worker is joined again.
JOIN_RETRY_S: Final = 1.0

#: How long the end waits for the broker, twice. What is not committed is found by the next takeover.
LEAVE_S: Final = 3.0

#: The group's clock starts when it reads a heartbeat, ours when we send it; and a request takes a while to begin.
CONFIRMED_MARGIN_S: Final = 1.0

#: How often a partition without news is looked at for its floor alone, and committed where that has moved, so that a
#: takeover of a quiet partition does not read what others appended for days.
FLOOR_REFRESH_S: Final = 30.0

#: A record that two workers died with is alone for so long at most. What kills does it at once.
ALONE_S: Final = 5.0

#: And so many records after it are handed over one by one: it may be one of those that has killed.
ALONE_RECORDS: Final = 1_000

#: What stands for a partition that was never committed.
_NEVER: Final = OffsetAndMetadata(-1, "")


class _Stored(NamedTuple):
    """What this worker has committed last, of a partition: nothing that was refused."""

    offset: int
    floor: str
    #: On the loop's clock: when it was stored, or found to be as it should.
    at: float


class Turn(NamedTuple):
    """A worker's turn with what an assignment has given it. Who starts work for it asks right before if it is over."""

    generation: int
    is_over: Callable[[], bool]


class Behind(NamedTuple):
    """What a worker has of a topic."""

    #: Partitions of it that are being read.
    partitions: int
    #: Records on those that were not taken yet, as of some seconds ago.
    not_taken: int
    #: And that were taken and are not finished.
    unfinished: int


class _Listener(aiokafka.abc.ConsumerRebalanceListener):  # type: ignore[misc]
    """Tells the consumer of rebalances. aiokafka swallows what a listener raises, so it stops the worker itself."""

    def __init__(self, consumer: "LedgerConsumer") -> None:
        self._consumer = consumer

    def on_partitions_revoked(self, revoked: Iterable[TopicPartition]) -> Awaitable[None]:
        self._consumer.app.on_rebalance_start()
        return self._guarded(self._consumer.on_partitions_revoked(ensure_TPset(revoked)))

    async def on_partitions_assigned(self, assigned: Iterable[TopicPartition]) -> None:
        consumer = self._consumer
        generation = consumer.generation
        consumer.app.consumer_generation_id = generation
        await self._guarded(consumer.on_partitions_assigned(ensure_TPset(assigned), generation))

    async def _guarded(self, call: Awaitable[None]) -> None:
        try:
            await call
        except Exception as error:
            log.exception("rebalance.failed")
            await self._consumer.app.crash(error)


class LedgerConsumer(Consumer):
    """A Faust consumer over aiokafka, in the worker's loop. See the module's docstring."""

    consumer_stopped_errors = (ConsumerStoppedError,)

    _kafka: "aiokafka.AIOKafkaConsumer[bytes | None, bytes | None] | None" = None

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        app = cast("Any", self.app)
        self._processors: dict[str, Processor] = app.processors
        self._max_unfinished_records: int = app.max_unfinished_records
        self._max_unfinished_bytes: int = app.max_unfinished_bytes
        self._bounds: Mapping[str, Any] = app.bounds
        #: Commits one after another: a floor that was true when it was asked must not be stored over a later one.
        self._committing = asyncio.Lock()
        self._settle_timeout_s: float = app.settle_timeout_s
        self._ledgers: dict[TP, Ledger] = {}
        #: Sought to their committed position and taken over, in this generation.
        self._live: set[TP] = set()
        self._stored: dict[TP, _Stored] = {}
        self._takeovers: set[asyncio.Task[None]] = set()
        #: Of each topic's takeover, in this generation.
        self._steps: dict[str, Steps] = {}
        self._put_aside: PutAside = app.put_aside
        #: Of each partition's first record: see `streams.engine.standing`.
        self._standing: dict[TP, Standing] = {}
        #: Partitions whose first record may have killed workers; nothing else is handed over before they are tried.
        self._suspects: set[TP] = set()
        #: Topics of the assignment whose suspects are not known yet.
        self._unknown: set[str] = set()
        #: Everything in flight has ended, and this worker will hand nothing more over in this generation.
        self._has_settled = False
        self._progress: Progress[TP] = Progress(STUCK_S)
        #: Where partitions end, as of some seconds ago: one that is full is not fetched, so a fetch does not tell.
        self._ends: dict[TP, int] = {}
        self._has_exact_ends = False
        #: Why nothing is read of partitions that have lost their records, by topic.
        self.shortened: dict[str, str] = {}
        #: Partitions that have had work, or were taken over, for too long without moving, and for how long in seconds.
        self.stuck: dict[TP, float] = {}
        self._room = asyncio.Event()
        self._spacing = Spacing(app.linger_s)
        #: Whether the group has answered, and does not assign partitions anew.
        self.has_joined = False
        self._waits: FetchWaits | None = None
        self._session_s: float = app.conf.broker_session_timeout
        self._fetching, self._commits, self._joining = Trouble(log), Trouble(log), Trouble(log)
        #: By topic; beyond a generation, as takeovers that fail go on.
        self._taking_over: dict[str, Trouble] = {}
        #: The assignment that is worked on; another object for each, None once it is given up.
        self._assigned: object | None = None
        #: On the monotonic clock: when we asked what the group last answered with "you are a member".
        self._confirmed_at_s = 0.0

    # -- life ------------------------------------------------------------------------------------------------

    async def on_start(self) -> None:
        features = await features_of(cast("Any", self.app).connection)
        self._has_exact_ends = features.exact_ends
        self._kafka = self._open(features)
        ANSWERS.watch(self._kafka._client)
        await self._kafka.start()
        self._waits = FetchWaits(self._kafka, features)
        if (name := self.app.conf.consumer_group_instance_id) is not None:
            join_under(name, self._kafka._coordinator)
        self._note_heartbeats()
        self._commit_as_member_only()
        self._begin_anew_where_refused()
        self.add_future(self._watch_progress())
        self.add_future(self._watch_ends())

    def _note_heartbeats(self) -> None:
        coordinator = self.kafka._coordinator
        ask = coordinator._do_heartbeat

        async def ask_and_note() -> bool:
            # When it was asked, not when the answer was read: that may have waited in the socket of a frozen worker.
            asked_at_s = time.monotonic()
            is_member = bool(await ask())
            if is_member:
                self._confirmed_at_s = asked_at_s
            return is_member

        coordinator._do_heartbeat = ask_and_note

    def _commit_as_member_only(self) -> None:
        coordinator = self.kafka._coordinator
        commit = coordinator._do_commit_offsets

        async def commit_as_member(assignment: Any, offsets: Any) -> None:
            # Where a worker was thrown out, aiokafka commits in nobody's name, which a group that is empty by now
            # takes: it would be set back to where that worker was. Asked here, since a commit may wait for long.
            if coordinator.generation != self.app.consumer_generation_id:
                raise IllegalGenerationError(coordinator.group_id)
            await commit(assignment, offsets)

        coordinator._do_commit_offsets = commit_as_member

    def _begin_anew_where_refused(self) -> None:
        coordinator = self.kafka._coordinator

        async def begin_anew(error: BaseException) -> None:
            # aiokafka waits until a fetch has raised it, and none is made while partitions are given up; what ended
            # its heartbeats it raises for ever.
            self._joining.met("group.failed", error, level="error")
            if not coordinator._performed_join_prepare:
                coordinator.reset_generation()  # its partitions are given up, and then it joins
            await asyncio.wait((coordinator._closing,), timeout=JOIN_RETRY_S)

        coordinator._push_error_to_user = begin_anew

    async def on_stop(self) -> None:
        """Settle what is in flight, commit it, leave the group; without the last two where the broker is away."""
        self.stop_flow()
        await self._settle()
        self._has_settled = True
        await _at_most(LEAVE_S, "commit", self._commit_the_rest())
        if self._kafka is not None:
            await _at_most(LEAVE_S, "leave", stop_whole(self._kafka))

    async def _commit_the_rest(self) -> None:
        """Commit what is finished by now: a commit under way may have begun before that, and Faust would do with it."""
        while await self.maybe_wait_for_commit_to_finish():
            pass
        await self.commit()

    def close(self) -> None:
        """Faust calls this where a rebalance meets a stopping app; `on_stop` does the work."""

    def _open(self, features: Features) -> "aiokafka.AIOKafkaConsumer[bytes | None, bytes | None]":
        app, conf = cast("Any", self.app), self.app.conf
        tables = bool(app.tables.changelog_topics)
        return aiokafka.AIOKafkaConsumer(
            **app.connection.client_options,
            client_id=conf.broker_client_id,
            group_id=conf.id,
            group_instance_id=conf.consumer_group_instance_id,
            # Recovery of tables asks Faust's assignor who holds which changelog.
            partition_assignment_strategy=[app.assignor if tables else RoundRobinPartitionAssignor],
            enable_auto_commit=False,
            auto_offset_reset="earliest",
            fetch_max_wait_ms=min(FETCH_MAX_WAIT_MS, features.fetch_wait_ms),
            fetch_max_bytes=features.fetch_bytes,
            max_partition_fetch_bytes=FETCH_PARTITION_BYTES,
            session_timeout_ms=int(conf.broker_session_timeout * 1000),
            heartbeat_interval_ms=int(conf.broker_heartbeat_interval * 1000),
            rebalance_timeout_ms=int(conf.broker_rebalance_timeout * 1000),
            request_timeout_ms=int(conf.broker_request_timeout * 1000),
            max_poll_interval_ms=NEVER_MS,
        )

    @property
    def kafka(self) -> "aiokafka.AIOKafkaConsumer[bytes | None, bytes | None]":
        """The aiokafka consumer, once started."""
        if self._kafka is None:
            raise ConsumerStoppedError
        return self._kafka

    @property
    def generation(self) -> int:
        """Generation of the group's current assignment."""
        return int(self.kafka._coordinator.generation)

    @property
    def is_ready(self) -> bool:
        """Whether the group has answered, and every source partition assigned, if any, is being read."""
        return self.has_joined and {tp for tp in self.assignment() if not self._is_changelog_tp(tp)} == self._live

    @property
    def is_confirmed(self) -> bool:
        """
        Whether the group has confirmed this worker lately enough that no other can have its partitions.

        False after a freeze, until a heartbeat has told: what was taken before may be somebody else's by now.
        """
        return time.monotonic() - self._confirmed_at_s < self._session_s - CONFIRMED_MARGIN_S

    @property
    def unfinished(self) -> tuple[int, int]:
        """Records and bytes taken and not finished, over all partitions."""
        ledgers = self._ledgers.values()
        return sum(ledger.unfinished_records for ledger in ledgers), sum(ledger.unfinished_bytes for ledger in ledgers)

    # -- progress --------------------------------------------------------------------------------------------

    @Consumer.task
    async def _commit_livelock_detector(self) -> None:
        """Faust's own look for a standstill, of which its aiokafka driver has the questions: here nothing is asked."""

    async def _watch_progress(self) -> None:
        while not self.should_stop:
            # While the broker is away nothing can move, and starting anew would not help.
            stuck = self._progress.look(time.monotonic(), self._watched() if self.is_confirmed else {})
            for tp in stuck.keys() - self.stuck.keys():
                doing = "work" if tp in self._live else "takeover"
                seconds = round(stuck[tp])
                log.error("partition.stuck", topic=tp.topic, partition=tp.partition, doing=doing, seconds=seconds)
            for tp in self.stuck.keys() - stuck.keys():
                log.warning("partition.moves", topic=tp.topic, partition=tp.partition)
            self.stuck = stuck
            await self.sleep(LOOK_S)

    async def _watch_ends(self) -> None:
        while not self.should_stop:
            live = [TopicPartition(*tp) for tp in self._live]
            try:
                # Only where the broker is there: the question would wait for it.
                found = await self.kafka.end_offsets(live) if live and self.is_confirmed else {}
            except (KafkaError, *self.consumer_stopped_errors) as error:
                log.debug("ends.unknown", reason=repr(error))
            else:
                self._ends = {ensure_TP(tp): end for tp, end in found.items()}
            await self.sleep(LOOK_S)

    @property
    def behind(self) -> dict[str, Behind]:
        """How far this worker is behind the end, by topic."""
        found: dict[str, Behind] = {}
        for tp in self._live:
            ledger, before = self._ledgers[tp], found.get(tp.topic, Behind(0, 0, 0))
            not_taken = self._not_taken(tp)
            unfinished = before.unfinished + ledger.unfinished_records
            found[tp.topic] = Behind(before.partitions + 1, before.not_taken + not_taken, unfinished)
        return found

    def _watched(self) -> dict[TP, Seen]:
        """Partitions that ought to move: not where an alarm has stopped the work, nor where records were lost."""
        found = {}
        changelogs = {tp for tp in self.assignment() if self._is_changelog_tp(tp)}
        recovered = sum(self._read_offset[tp] or 0 for tp in changelogs)
        for tp in self.assignment() - changelogs:
            processor: Any = self._processors.get(tp.topic)
            if tp in self._live:
                if tp.partition not in getattr(processor, "stopped", ()):
                    found[tp] = self._seen(tp, processor)
            elif tp.topic not in self.shortened:
                # It is taken over once tables are read. No position of a live one is below 0.
                taken = self._steps[tp.topic].taken if tp.topic in self._steps else 0
                found[tp] = Seen(taken + recovered, -1 - self.generation, 0, has_work=True)
        return found

    def _seen(self, tp: TP, processor: Any) -> Seen:
        ledger = self._ledgers[tp]
        if getattr(processor, "waits", False):
            # What was finished counts: others come all the time, whatever becomes of those whose time has come.
            finished = ledger.position - ledger.unfinished_records
            return Seen(finished, 0, 0, has_work=ledger.unfinished_records > processor.waiting(tp.partition))
        has_work = bool(ledger.unfinished_records or self._not_taken(tp))
        # Suspects are tried one after the other and nothing beside them, so that the end of one is progress of all.
        return Seen(ledger.committable, ledger.position, ledger.unfinished_records + len(self._suspects), has_work)

    def _not_taken(self, tp: TP) -> int:
        """How many offsets behind the end it is, by what fetches and the broker have told."""
        end = max(self.highwater(tp), self._ends.get(tp, 0))
        # Not the ledger's alone: a transaction's marker at the end is passed over, and never taken.
        return max(0, end - max(self._ledgers[tp].position, self._position(tp)))

    def _position(self, tp: TP) -> int:
        """Where the next fetch begins."""
        assignment = self.kafka._subscription.subscription and self.kafka._subscription.subscription.assignment
        state = assignment.state_value(TopicPartition(*tp)) if assignment else None
        return int(state.position) if state is not None and state.has_valid_position else 0

    # -- rebalances ------------------------------------------------------------------------------------------

    async def subscribe(self, topics: Iterable[str]) -> None:
        self.kafka.subscribe(topics=set(topics), listener=_Listener(self))

    async def on_partitions_revoked(self, revoked: set[TP]) -> None:
        """Nothing more is handed over; what is in flight is settled, then committed, before the group hears of it."""
        self.stop_flow()
        await self._settle()
        self._has_settled = True
        await self._commit_the_rest()
        self.has_joined = False
        self._forget()
        await super().on_partitions_revoked(revoked)

    async def on_partitions_assigned(self, assigned: set[TP], generation_id: int = 0) -> None:
        self._forget()
        self.has_joined = True
        self._confirmed_at_s = time.monotonic()
        self._joining.over()
        await super().on_partitions_assigned(assigned, generation_id)

    def _forget(self) -> None:
        for task in self._takeovers:
            task.cancel()
        self._ledgers.clear()
        self._live.clear()
        self._stored.clear()
        self._standing.clear()
        self._suspects.clear()
        self._unknown.clear()
        self._steps.clear()
        self.shortened.clear()
        self._has_settled = False
        self._room.set()

    async def _settle(self) -> None:
        # A takeover that had not got to its processor would begin there behind this, and what it starts nobody settles.
        self._assigned = None
        await asyncio.gather(*(p.settle(self._settle_timeout_s) for p in self._processors.values()))

    async def perform_seek(self) -> None:
        """
        Go to the committed positions: Faust calls this after an assignment, before anything is to be read.

        Each topic's partitions become live by themselves when their processor took over; until then they are
        not fetched, whatever Faust resumes meanwhile.
        """
        generation = self.generation
        assigned = self._assigned = object()

        def is_over() -> bool:
            return self._assigned is not assigned or self.generation != generation or self.should_stop

        turn = Turn(generation, is_over)
        by_topic: dict[str, list[TP]] = {}
        for tp in self.assignment():
            if not self._is_changelog_tp(tp):
                by_topic.setdefault(tp.topic, []).append(tp)
        self._unknown = set(by_topic)
        before = set(self._takeovers)
        for topic, tps in by_topic.items():
            taking = self._take_over_until_done(topic, tps, turn, before)
            task = asyncio.create_task(taking, name=f"take-over {topic}")
            self._takeovers.add(task)
            task.add_done_callback(self._takeovers.discard)

    async def seek_to_committed(self) -> Mapping[TP, int]:
        """Faust's own path to the same end; `perform_seek` does not take it."""
        await self.perform_seek()
        return {}

    async def _take_over_until_done(
        self, topic: str, tps: list[TP], turn: Turn, before: set[asyncio.Task[None]]
    ) -> None:
        steps = self._steps[topic] = Steps()
        STEPS.set(steps)
        # Two that go on beside each other would take from each other what they find: a processor has one memory of
        # it. One that was cancelled while a client of its own stopped may go on, as the client keeps that to itself.
        while going_on := {task for task in before if not task.done()}:
            for task in going_on:
                task.cancel()
            await asyncio.wait(going_on, timeout=CANCEL_AGAIN_S)
        trouble = self._taking_over.setdefault(topic, Trouble(log, topic=topic))
        failures = 0
        while not turn.is_over():
            try:
                await self._take_over(topic, tps, turn)
            except LogShortened as error:
                if not turn.is_over():
                    if topic not in self.shortened:
                        log.error("log.shortened", topic=topic, reason=str(error))  # noqa: TRY400  # it says it all
                    self.shortened[topic] = str(error)
                    self._unknown.discard(topic)  # nothing of it can kill: the other topics need not wait
                    self._room.set()
                await asyncio.sleep(LOOK_AGAIN_S)
            except Exception as error:  # noqa: BLE001  # whatever it is, it is tried again
                trouble.raised("takeover.failed", error, partitions=len(tps), retry_s=TAKEOVER_RETRY_S)
                # Of a broker that is away they say nothing.
                failures = failures + 1 if self.is_confirmed else 0
                STEPS.set(steps if failures < TAKEOVER_FAILURES else Steps())
                await asyncio.sleep(TAKEOVER_RETRY_S)
            else:
                trouble.over()
                self.shortened.pop(topic, None)
                return

    async def _take_over(self, topic: str, tps: list[TP], turn: Turn) -> None:
        partitions = [TopicPartition(*tp) for tp in tps]
        committed = await committed_offsets(self.kafka, partitions)
        beginnings = await self.kafka.beginning_offsets(partitions)
        stored = {tp: committed.get(TopicPartition(*tp), _NEVER) for tp in tps}
        for each in await self._beginning_anew({each: committed.get(each, _NEVER) for each in partitions}, beginnings):
            stored[ensure_TP(each)] = OffsetAndMetadata(_NEVER.offset, committed[each].metadata)
        unclean = {tp: read(stored[tp].metadata) for tp in tps}
        # Below the beginning: fallen out of retention while nobody read; the log starts later now.
        starts = {tp: max(stored[tp].offset, beginnings[TopicPartition(*tp)]) for tp in tps}
        is_told = not getattr(self._processors.get(topic), "waits", False)
        standing = {
            tp: Standing(starts[tp], unclean[tp][0] if is_told and starts[tp] == stored[tp].offset else 0) for tp in tps
        }
        standing = await self._suspect(topic, standing)
        if turn.is_over():
            return
        processor = self._processors.get(topic)
        if processor is not None:
            floors = {tp.partition: unclean[tp][1] for tp in tps}
            by_partition = {tp.partition: tp for tp in tps}

            async def commit(partition: int) -> bool:
                return self.generation == turn.generation and await self._commit({by_partition[partition]: 0})

            starting = {tp.partition: starts[tp] for tp in tps}
            await processor.take_over(Assignment(turn.generation, floors, starting, commit))
        if turn.is_over() or not set(tps) <= self.assignment():
            return
        for each, (first, last) in fallen_out({TopicPartition(*tp): stored[tp] for tp in tps}, beginnings).items():
            log.error("log.fallen_out", topic=topic, partition=each.partition, first=first, last=last, hint=_FALLEN_OUT)
        for tp in tps:
            self.kafka.seek(TopicPartition(*tp), starts[tp])
            self._ledgers[tp] = Ledger(starts[tp])
            self._read_offset[tp] = starts[tp]
            self._committed_offset[tp] = stored[tp].offset if stored[tp].offset >= 0 else None
            self._standing[tp] = standing[tp]
        # Before anything is handed over; of suspects, when their turn comes.
        if trusted := dict.fromkeys([tp for tp in tps if tp not in self._suspects], 0):
            await self._commit(trusted)
        if turn.is_over():
            return
        self._live.update(tps)
        self._room.set()
        log.info("partitions.live", topic=topic, partitions=len(tps), generation=turn.generation)

    async def _beginning_anew(
        self, stored: Mapping[TopicPartition, OffsetAndMetadata], beginnings: Mapping[TopicPartition, int]
    ) -> set[TopicPartition]:
        """
        Those that have lost their records, and are read from the beginning for that; it is said.

        Raises:
            LogShortened: of others nothing may be read. That is noted with the commit.
        """
        ends = await self.kafka.end_offsets(list(stored)) if self._has_exact_ends else {}
        if not (found := shortened(stored, beginnings, ends)):
            return set()
        await asyncio.sleep(ASK_AGAIN_S)
        ends = await self.kafka.end_offsets(list(stored))
        found &= shortened(stored, beginnings, ends)
        anew = found & of_compacted(cast("Any", self.app).connection, found)
        if refused := found - anew:
            await self._note_shortened({each: stored[each] for each in refused if not is_short(stored[each].metadata)})
            raise LogShortened(refused)
        for topic, number in sorted(anew):
            log.error(
                "log.begun_anew", topic=topic, partition=number, hint="its records were lost; what was in them is gone"
            )
        return anew

    async def _note_shortened(self, stored: Mapping[TopicPartition, OffsetAndMetadata]) -> None:
        if not stored or not self._has_exact_ends:
            return  # of the embedded one, which forgets everything at once, what was committed too
        try:
            await self.kafka.commit(
                {each: OffsetAndMetadata(offset, noted_short(metadata)) for each, (offset, metadata) in stored.items()}
            )
        except KafkaError as error:
            self._commits.met("commit.failed", error)
        else:
            self._commits.over()

    # -- records that workers died with ----------------------------------------------------------------------

    async def _suspect(self, topic: str, standing: dict[TP, Standing]) -> dict[TP, Standing]:
        """Note which of the topic's partitions have to be tried alone. Where nothing stands, nothing has killed."""
        unclean = [TopicPartition(*tp) for tp, each in standing.items() if each.unclean]
        ends = await self.kafka.end_offsets(unclean) if unclean else {}
        found = {
            tp: each if each.offset < ends.get(TopicPartition(*tp), 0) else Standing(each.offset, 0)
            for tp, each in standing.items()
        }
        suspects = {tp for tp, each in found.items() if each.unclean >= ALONE}
        self._suspects |= suspects
        self._unknown.discard(topic)
        # What is stored stays as it was until it is a suspect's turn: it may not be the one that kills this worker too.
        return found | {tp: Standing(found[tp].offset, found[tp].unclean - 1) for tp in suspects}

    async def _try_alone(self, tp: TP, records: list[Any], generation: int) -> list[Any]:
        """
        Hand the records over one by one, each when the one before is finished, for a while; what is left of them.

        Nothing else is fetched meanwhile, on any partition: who dies now, dies of this record.
        """
        ledger, found = self._ledgers[tp], self._standing[tp]
        deaths = found.unclean + 1
        if deaths >= FATAL:
            reason = (
                f"{deaths} workers ended while it was the first of its partition, the last {deaths - ALONE} with it"
                " alone"
            )
            await self._put_aside(records[0], "record.fatal", reason)
            if self._ledgers.get(tp) is not ledger:
                return []  # that took its time: whoever reads the partition now does it again
            first = records.pop(0)
            ledger.take([(first.offset, _size(first))])
            ledger.finish(first.offset)
            deaths, found = ALONE, Standing(ledger.position, ALONE - 1)
        until_s = time.monotonic() + ALONE_S
        for number, record in enumerate(records):
            if self._ledgers.get(tp) is not ledger or self.app.consumer_generation_id != generation:
                return []
            if not self.flow_active:
                return records[number:]  # it is given up: nothing more is begun, or stands there as if it killed
            if number >= ALONE_RECORDS or time.monotonic() > until_s:
                return await self._trust(tp, records[number:])
            self._standing[tp] = Standing(record.offset, ALONE if number else deaths)
            if not await self._commit({tp: record.offset}):
                if self._ledgers.get(tp) is ledger:
                    self._standing[tp] = found  # nobody died of a commit that was refused
                    self.kafka.seek(TopicPartition(*tp), record.offset)
                return []
            found = self._standing[tp]
            log.warning("record.alone", topic=tp.topic, partition=tp.partition, offset=record.offset)
            await self._take(tp, [record], generation)
            while self._is_open(tp, record.offset) and self.flow_active and time.monotonic() < until_s:
                await self._wait_for_room(0.05)
        return await self._trust(tp, [])

    def _is_open(self, tp: TP, offset: int) -> bool:
        ledger = self._ledgers.get(tp)
        return ledger is not None and ledger.is_open(offset)

    async def _trust(self, tp: TP, rest: list[Any]) -> list[Any]:
        """It has killed nobody: go on with the rest as ever."""
        self._suspects.discard(tp)
        if tp in self._ledgers:
            self._standing[tp] = Standing(self._ledgers[tp].committable, 0)
            await self._commit({tp: 0})
        return rest

    # -- fetching --------------------------------------------------------------------------------------------

    async def _drain_messages(self, fetcher: Any) -> None:
        """Fetch and hand over, until Faust stops the fetcher or the consumer. A worker that cannot fetch stops."""
        try:
            await self._fetch_and_hand_over(fetcher)
        except Exception as error:
            log.exception("fetcher.crashed")
            await self.app.crash(error)
            raise

    async def _fetch_and_hand_over(self, fetcher: Any) -> None:
        while not (self.should_stop or fetcher.should_stop):
            if not self.flow_active:
                await self.wait_first(self.can_resume_flow.wait(), fetcher._stopped.wait())
                continue
            wanted, is_any_full = self._fetchable()
            if self._suspects or self._unknown:
                # One at a time, and nothing beside it.
                wanted = {tp for tp in wanted if tp not in self._ledgers} | set(sorted(wanted & self._suspects)[:1])
            if not wanted:
                await self._wait_for_room(0.05 if is_any_full else 1.0)
                continue
            generation = self.app.consumer_generation_id
            try:
                # Not for long where partitions may become live or have room meanwhile: they are not waited for.
                fetched = await self._getmany(wanted, 0.05 if is_any_full or not self.is_ready else 1.0)
            except self.consumer_stopped_errors:
                return
            except KafkaError as error:
                self._fetching.raised("fetch.failed", error)
                await self.sleep(1.0)
                continue
            self._fetching.over()
            for tp, records in fetched.items():
                await self._hand_over(ensure_TP(tp), records, generation)
            if (wait_s := self._spacing.after(sum(map(len, fetched.values())), time.monotonic())) > 0:
                await asyncio.sleep(wait_s)

    def _fetchable(self) -> tuple[set[TP], bool]:
        """Partitions with room, and whether any has none."""
        wanted, is_any_full = set(), False
        for tp in self._get_active_partitions():
            ledger = self._ledgers.get(tp)
            if ledger is None:
                if self._is_changelog_tp(tp):
                    wanted.add(tp)
            elif tp not in self._live:
                continue
            elif self._has_room(tp.topic, ledger):
                wanted.add(tp)
            else:
                is_any_full = True
        return wanted, is_any_full

    def _has_room(self, topic: str, ledger: Ledger) -> bool:
        own = self._bounds.get(topic)
        most_records = own.unfinished_records if own else self._max_unfinished_records
        most_bytes = own.unfinished_bytes if own else self._max_unfinished_bytes
        return ledger.unfinished_records < most_records and ledger.unfinished_bytes < most_bytes

    async def _wait_for_room(self, timeout_s: float) -> None:
        self._room.clear()
        await self.wait_first(self._room.wait(), timeout=timeout_s)

    async def _getmany(self, active_partitions: set[TP] | None, timeout: float) -> Any:  # noqa: ASYNC109  # Faust's signature
        fetched = await self.kafka.getmany(
            *(TopicPartition(*tp) for tp in active_partitions or ()),
            timeout_ms=int(timeout * 1000),
            max_records=FETCH_RECORDS,
        )
        if self._waits is not None:
            self._waits.saw(has_records=bool(fetched))
        return fetched

    async def _hand_over(self, tp: TP, records: list[Any], generation: int) -> None:
        # Where partitions are being assigned anew, they lose their ledgers before the generation changes.
        is_given_up = tp.topic in self._processors and tp not in self._ledgers
        if is_given_up or self.app.consumer_generation_id != generation or not self.flow_active:
            self._give_back(tp, records)
            return
        if tp in self._suspects:
            records = await self._try_alone(tp, records, generation)
            gone = tp not in self._ledgers or self.app.consumer_generation_id != generation or not self.flow_active
            if records and gone:
                self._give_back(tp, records)  # that took its time; the partition was given up meanwhile
                return
        if records:
            await self._take(tp, records, generation)

    def _give_back(self, tp: TP, records: list[Any]) -> None:
        """
        Have these fetched again: nobody takes them now.

        A call for records outlives a rebalance, and then returns what came after it: the new assignment has sought
        already, and without this its first records would be passed over.
        """
        if tp not in self.assignment():
            return
        ledger = self._ledgers.get(tp)
        if ledger is not None:
            self.kafka.seek(TopicPartition(*tp), ledger.position)
        elif self._position(tp) == records[-1].offset + 1:  # not sought since: a changelog, or not taken over yet
            self.kafka.seek(TopicPartition(*tp), records[0].offset)

    async def _take(self, tp: TP, records: list[Any], generation: int) -> None:
        ledger, processor = self._ledgers.get(tp), self._processors.get(tp.topic)
        if ledger is not None:
            if records[0].offset < ledger.position:
                # What it had was lost while it was read, and aiokafka went on at the beginning.
                at = OffsetAndMetadata(ledger.committable, written(self._standing.get(tp), -1, self._floor(tp)))
                del self._ledgers[tp]  # nothing of it is committed any more: that would take the note away
                self._live.discard(tp)
                async with self._committing:
                    await self._note_shortened({TopicPartition(*tp): at})
                raise LogShortened([TopicPartition(*tp)])
            floor = processor.floor(tp.partition) if processor else ""
            ledger.take(((r.offset, _size(r)) for r in records), floor)
        if processor is not None and ledger is not None:
            await self._callback(self._to_batch(tp, records, ledger, generation))
            return
        for record in records:
            self.app.monitor.track_tp_end_offset(tp, self.highwater(tp))
            await self._callback(self._to_message(tp, record))
            self._read_offset[tp] = record.offset

    async def _callback(self, message: ConsumerMessage) -> None:
        # Faust's queue may be full while a rebalance empties it; then this message comes again.
        await self.wait_first(self.callback(message), self.suspend_flow.wait())

    def _to_batch(self, tp: TP, records: list[Any], ledger: Ledger, generation: int) -> ConsumerMessage:
        last = records[-1]
        batch = Batch(tp.partition, generation, records, ledger, self._room.set)
        return ConsumerMessage(
            tp.topic, tp.partition, last.offset, last.timestamp / 1000, last.timestamp_type, [], None,
            cast("bytes", batch), None, None, None, tp, generation_id=generation,
        )  # fmt: skip

    def _to_message(self, tp: TP, record: Any) -> ConsumerMessage:
        return ConsumerMessage(
            record.topic, record.partition, record.offset, record.timestamp / 1000, record.timestamp_type,
            record.headers, record.key, record.value, record.checksum, record.serialized_key_size,
            record.serialized_value_size, tp, generation_id=self.app.consumer_generation_id,
        )  # fmt: skip

    # -- committing ------------------------------------------------------------------------------------------

    @Consumer.task
    async def _commit_handler(self) -> None:
        """
        Faust's timer, four times a second, where there is something to commit.

        Its own is a task and five turns of the loop each time: with the look for a standstill and the monitor's
        (`app.py`), a third of all turns of an idle worker.
        """
        while not self.should_stop:
            await asyncio.sleep(self.commit_interval)
            if any(True for _ in self._filter_tps_with_pending_acks()):
                await self.commit()

    def _filter_tps_with_pending_acks(self, topics: Any = None) -> Iterator[TP]:
        """Faust's first step of a commit: which partitions to look at."""
        for tp, acked in self._acked.items():
            # Agents without a processor acknowledge through Faust, whose Cython code writes these lists itself.
            ledger = self._ledgers.get(tp)
            for offset in acked:
                if ledger is not None:
                    ledger.finish(offset)
            acked.clear()
            self._acked_index[tp].clear()
        wanted = self._ledgers if topics is None else [tp for tp in self._ledgers if tp in topics or tp.topic in topics]
        now = asyncio.get_running_loop().time()
        # Four times a second, of each of 65 partitions, where nothing happens: a tenth of what an idle dispatcher does.
        return iter([tp for tp in wanted if self._has_news(tp, self._ledgers[tp].committable, now)])

    def _new_offset(self, tp: TP) -> int | None:
        """Faust's second step: how far. Here: up to the first record not finished."""
        return self._ledgers[tp].committable

    def _should_commit(self, tp: TP, offset: int) -> bool:
        """Faust's third step: whether it is news."""
        return self._has_news(tp, offset, asyncio.get_running_loop().time())

    def _has_news(self, tp: TP, offset: int, now: float) -> bool:
        """
        Whether there is something to commit: in offset or, after a while, in floor.

        What counts is what the broker has taken. Faust's own `_committed_offset` moves with commits that it refused.
        """
        stored = self._stored.get(tp)
        if stored is None or offset > stored.offset:
            return True
        if self._has_settled and tp in self._standing:
            return True  # without the mark: the successor need not suspect anything
        if now - stored.at <= FLOOR_REFRESH_S:
            return False
        if self._floor(tp) != stored.floor:
            return True
        self._stored[tp] = stored._replace(at=now)  # looking costs as much as storing: not again at the next commit
        return False

    def _floor(self, tp: TP) -> str:
        processor = self._processors.get(tp.topic)
        return floor_of(processor, tp.partition, self._ledgers[tp]) if processor else ""

    async def _commit(self, offsets: Mapping[TP, int]) -> bool:
        """The last step. False: the group has moved on, and the successor starts from what was committed before."""
        async with self._committing:
            return await self._commit_up_to_now(offsets)

    async def _commit_up_to_now(self, partitions: Iterable[TP]) -> bool:
        """As far as each is finished by now: another commit may have been waited for, and must not be taken back."""
        if not all(tp in self._ledgers for tp in partitions):
            return False
        floors = {tp: (self._ledgers[tp].committable, self._floor(tp)) for tp in partitions}
        marks = {} if self._has_settled else self._standing
        stored = {
            TopicPartition(*tp): OffsetAndMetadata(offset, written(marks.get(tp), offset, floor))
            for tp, (offset, floor) in floors.items()
        }
        try:
            await self.kafka.commit(stored)
        except (CommitFailedError, IllegalStateError) as error:
            self._commits.met("commit.refused", error)
            return False
        except KafkaError as error:
            self._commits.met("commit.failed", error)
            return False
        self._commits.over()
        now = asyncio.get_running_loop().time()
        for tp, (offset, floor) in floors.items():
            self._stored[tp] = _Stored(offset, floor, now)
        return True

    # -- what else Faust asks of a consumer ------------------------------------------------------------------

    def assignment(self) -> set[TP]:
        return ensure_TPset(self._kafka.assignment()) if self._kafka is not None else set()

    def _new_topicpartition(self, topic: str, partition: int) -> TP:
        return cast("TP", TopicPartition(topic, partition))

    async def position(self, tp: TP) -> int | None:
        return cast("int | None", await self.kafka.position(TopicPartition(*tp)))

    async def seek_to_beginning(self, *partitions: TP) -> None:
        await self.kafka.seek_to_beginning(*(TopicPartition(*tp) for tp in partitions))

    async def seek_wait(self, partitions: Mapping[TP, int]) -> None:
        for tp, offset in partitions.items():
            await self._seek(tp, offset)
            self._read_offset[tp] = offset if offset > 0 else None

    async def _seek(self, partition: TP, offset: int) -> None:
        self.kafka.seek(TopicPartition(*partition), offset)

    def highwater(self, tp: TP) -> int:
        return cast("int", self.kafka.highwater(TopicPartition(*tp)) or 0)

    async def highwaters(self, *partitions: TP) -> Mapping[TP, int]:
        return await self._offsets(self.kafka.end_offsets, partitions)

    async def earliest_offsets(self, *partitions: TP) -> Mapping[TP, int]:
        return await self._offsets(self.kafka.beginning_offsets, partitions)

    async def _offsets(self, ask: Callable[[Any], Awaitable[Any]], partitions: Iterable[TP]) -> Mapping[TP, int]:
        wanted = [TopicPartition(*tp) for tp in partitions]
        found = await ask(wanted) if wanted else {}
        return {ensure_TP(tp): offset for tp, offset in found.items()}

    def topic_partitions(self, topic: str) -> int | None:
        partitions = self.kafka.partitions_for_topic(topic)
        return len(partitions) if partitions else None

    def key_partition(self, topic: str, key: bytes | None, partition: int | None = None) -> int | None:
        if partition is not None:
            return partition
        partitions = sorted(self.kafka.partitions_for_topic(topic) or ())
        return cast("int", DefaultPartitioner()(key, partitions, partitions)) if partitions else None

    async def create_topic(self, topic: str, partitions: int, replication: int, **_: Any) -> None:
        """Topics are created by `streams.topics` at start, never on the way."""


async def _at_most(timeout_s: float, what: str, work: Coroutine[Any, Any, Any]) -> None:
    """Wait so long for it; aiokafka and Faust wait for a broker that is away for ever, and swallow cancellations."""
    task = asyncio.create_task(work)
    _, late = await asyncio.wait((task,), timeout=timeout_s)
    if late:
        task.cancel()
        log.warning("stop.cut_off", what=what, timeout_s=timeout_s, hint="the broker does not answer")
    else:
        task.result()


def _size(record: Any) -> int:
    return len(record.value or b"") + len(record.key or b"")
