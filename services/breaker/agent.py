"""
The breaker's agent: batches of results are folded into rows, rows become states that everybody follows.

Order of writes for a batch: a state that has turned (failing, paused) and the event about it, at once; when they are on
the log, the rows, one write an integration; when those are on the changelog, the results are finished. A crash anywhere
in between makes the successor do the same again from the row before, with the same outcome. States of which only the
numbers are new follow within a second or so: a crash loses them, and the next takeover publishes them.

Nothing is written that the group has not lately confirmed to be ours. What is written late all the same (a worker that
froze between the question and the write) is outlived: rows and states say how far they are, at recovery and in every
follower the furthest one counts, a row that is behind the published state is folded again from the results, and a state
that somebody overwrote is published again.
"""

import asyncio
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Final

import structlog
from aiokafka import AIOKafkaProducer, ConsumerRecord, TopicPartition
from aiokafka.errors import KafkaError
from uuid_utils import uuid7

from services.breaker.announce import event_of, turned
from services.breaker.fold import State, fold, has_turned, rules_of, state_of
from services.breaker.traced import pause_span
from services.runtime import metrics
from services.runtime.tracing import TRACING, end_all
from streams import codec, takeover, topics
from streams.connection import Connection
from streams.engine.processor import Assignment, Batch
from streams.engine.rows import RowTable
from streams.follower import Follower
from streams.producer import partition_of
from streams.records import BreakerRow, HandOver, IntegrationState, Marker, Result
from streams.states import States
from streams.topics import Partitions
from streams.trouble import Trouble
from streams.views import Integrations

log = structlog.get_logger("breaker.agent")

#: Numbers of an integration are published at most this often, and those of so many integrations each time.
STATISTICS_S: Final = 1.0
STATISTICS_AT_ONCE: Final = 300

#: Results folded before others have their turn on the loop: some 5 ms of work.
_MAX_AT_ONCE: Final = 100

#: Between two looks at whether the group has confirmed us, and after a write that failed.
_PAUSE_S: Final = 0.05
_RETRY_S: Final = 0.5

_NOT_WRITTEN: Final = "breaker.not_written"
_HINT: Final = "tried again until it is; nothing is lost"


@dataclass(slots=True)
class _Part:
    """What is known of a partition of ours."""

    #: Held by whoever writes something of its integrations.
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    #: As they are on the changelog, by integration.
    rows: dict[str, BreakerRow] = field(default_factory=dict)


class Breaker:
    """The processor of topic `delivery-results`. See the module's docstring, and `Processor`."""

    def __init__(
        self,
        *,
        connection: Connection,
        partitions: Partitions,
        producer: AIOKafkaProducer,
        table: RowTable,
        config: Follower,
        integrations: Integrations,
        published: Follower,
        states: States,
        now_ms: Callable[[], int],
        may_write: Callable[[], bool],
        turn: Callable[[], int],
    ) -> None:
        """
        Args:
            config: follows `integration-config` into *integrations*, and calls `see_config`.
            published: follows `integration-state` into *states*, and calls `see_state`.
            may_write: whether the group has confirmed this worker lately.
            turn: another number as soon as this worker begins to give up its partitions.
        """
        self._connection = connection
        self._producer = producer
        self._table = table
        self._config = config
        self._integrations = integrations
        self._published = published
        self._states = states
        self._now_ms = now_ms
        self._may_write = may_write
        self._turn = turn
        self._taken_over_in = -1
        self._results = connection.topic(topics.RESULTS)
        self._partitions = list(range(partitions.by_integration))
        self._parts: dict[int, _Part] = {}
        #: What this worker has published last of each integration, and where that stands.
        self._sent: dict[str, tuple[IntegrationState | None, int]] = {}
        #: Whose numbers are to be published, the longest waiting first.
        self._stale: dict[str, None] = {}
        #: To be compared with configuration and state.
        self._touched: dict[str, None] = {}
        self._wake = asyncio.Event()
        self._housekeeping: asyncio.Task[None] | None = None
        self._writing, self._keeping_house = Trouble(log), Trouble(log)
        #: Results folded, and records that no code could read, of this process.
        self.folded = 0
        self.unreadable = 0

    # -- life ------------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Begin to look after what the results do not tell: configuration, numbers, what others wrote."""
        self._housekeeping = asyncio.create_task(self._keep_house(), name="breaker housekeeping")

    async def stop(self) -> None:
        """Publish nothing more."""
        if self._housekeeping is not None:
            self._housekeeping.cancel()
            await asyncio.gather(self._housekeeping, return_exceptions=True)

    @property
    def rows(self) -> int:
        """Integrations that this worker holds a row of."""
        return sum(len(part.rows) for part in self._parts.values())

    def see_config(self, key: bytes | None) -> None:
        """A record of this key was applied to the configuration."""
        self._touch((key or b"").decode(errors="replace"))

    def see_state(self, key: bytes | None, value: bytes | None, offset: int) -> None:
        """A record stands on `integration-state`: where it is not ours and after ours, ours is written again."""
        integration = (key or b"").decode(errors="replace")
        sent = self._sent.get(integration)
        if sent is None or offset <= sent[1]:
            return
        state, _ = sent
        if value != (None if state is None else codec.encode(state)):
            log.warning("state.overwritten", integration=integration, offset=offset, hint="published again")
            del self._sent[integration]
            self._touch(integration)

    def _touch(self, *integrations: str) -> None:
        self._touched.update(dict.fromkeys(integrations))
        self._wake.set()

    # -- takeover --------------------------------------------------------------------------------------------

    async def take_over(self, assignment: Assignment) -> None:
        """Rows are what recovery made of the changelog; those that are behind their state are folded again."""
        turn = self._turn()
        await self._config.catch_up()
        await self._published.catch_up()
        parts = {number: _Part() for number in assignment.starts}
        for key, value in self._table.rows().items():
            part = parts.get(self._partition_of(key))
            row = self._readable_row(key, value)
            if part is not None and row is not None:
                part.rows[row.integration] = row
        await asyncio.gather(*(self._mend(number, part, assignment.starts[number]) for number, part in parts.items()))
        self._sent.clear()
        self._stale.clear()
        self._parts = parts
        self._taken_over_in = turn
        self._touch(*(integration for part in parts.values() for integration in part.rows))
        self._touch(*(state.integration for state in self._states.all() if self._part_of(state.integration)))

    async def _mend(self, number: int, part: _Part, end: int) -> None:
        """Fold results of the partition below *end* again into rows that have lost some."""
        behind = {}
        for state in self._states.all():
            if self._partition_of(state.integration.encode()) != number or not state.applied_offset < end:
                continue
            row = part.rows.get(state.integration)
            applied = -1 if row is None else row.applied_offset
            if applied < state.applied_offset:
                behind[state.integration] = applied
        if not behind:
            return
        log.warning("rows.behind", partition=number, integrations=len(behind), hint="folding their results again")

        def see(record: "ConsumerRecord[bytes | None, bytes | None]") -> None:
            result = self._result(record)
            config = None if result is None else self._integrations.get(result.integration)
            if result is not None and config is not None and result.integration in behind:
                row = part.rows.get(result.integration)
                part.rows[result.integration] = fold(row, result, record.offset, rules_of(config))

        span = min(behind.values()) + 1, end
        await takeover.read_back(self._connection, {TopicPartition(self._results, number): span}, see)
        await self._table.write(number, _encoded(part.rows[each] for each in behind if each in part.rows))

    def _readable_row(self, key: bytes, value: bytes) -> BreakerRow | None:
        try:
            return codec.decode_as(BreakerRow, value)
        except codec.Unreadable as error:
            reason = str(error)
        log.error("row.unreadable", key=key.decode(errors="replace"), reason=reason, hint="folded again from results")
        return None

    # -- results ---------------------------------------------------------------------------------------------

    async def process(self, batch: Batch) -> None:
        """Fold the batch; returns when all of it is on the log, or when the partition is given up."""
        part = self._parts.get(batch.partition)
        if part is None:
            return
        async with part.lock:
            after = dict[str, BreakerRow]()
            turns = list[tuple[State, BreakerRow]]()
            for number, record in enumerate(batch.records):
                result = self._result(record)
                if result is not None and await self._is_configured(result.integration):
                    self._fold(part, after, turns, result, record.offset)
                if number % _MAX_AT_ONCE == _MAX_AT_ONCE - 1:
                    await asyncio.sleep(0)
            if not await self._written(batch, part, after, turns):
                return
        for record in batch.records:
            batch.finish(record.offset)

    def _result(self, record: "ConsumerRecord[bytes | None, bytes | None]") -> Result | None:
        """The result that stands there; None for what is none. One that cannot be read is no customer's fault."""
        try:
            found = codec.decode(record.value)
        except codec.Unreadable as error:
            self._pass_over(record, str(error))
            return None
        if isinstance(found, Result):
            return found
        if not isinstance(found, Marker | HandOver):
            self._pass_over(record, f"is a {type(found).__name__}")
        return None

    def _pass_over(self, record: "ConsumerRecord[bytes | None, bytes | None]", reason: str) -> None:
        """Said once: the metric counts them."""
        if not self.unreadable:
            log.error(
                "result.unreadable", partition=record.partition, offset=record.offset, reason=reason,
                hint="passed over; tenterhook_breaker_unreadable_total counts them",
            )  # fmt: skip
        self.unreadable += 1

    async def _is_configured(self, integration: str) -> bool:
        """Whether it is there. Its configuration was written before its first result, so we may have to catch up."""
        is_unknown = self._integrations.changed_at(integration) < 0 and not self._integrations.is_broken(integration)
        if self._integrations.get(integration) is None and is_unknown:
            await self._config.catch_up()
        return self._integrations.get(integration) is not None

    def _fold(
        self,
        part: _Part,
        after: dict[str, BreakerRow],
        turns: list[tuple[State, BreakerRow]],
        result: Result,
        offset: int,
    ) -> None:
        config = self._integrations.get(result.integration)
        if config is None:
            return
        row = after.get(result.integration) or part.rows.get(result.integration)
        new = fold(row, result, offset, rules_of(config))
        if new is row:
            return
        turns += [(kind, new) for kind in turned(row, new)]
        after[result.integration] = new
        self.folded += 1

    async def _written(
        self, batch: Batch, part: _Part, after: dict[str, BreakerRow], turns: list[tuple[State, BreakerRow]]
    ) -> bool:
        """Write what has turned, then the rows, for as long as that takes; False when the partition is given up."""
        while True:
            while not self._may_write():
                if self._is_lost():
                    return False
                await asyncio.sleep(_PAUSE_S)
            if self._is_lost():
                return False
            try:
                await self._tell(batch, after, turns)
                await self._table.write(batch.partition, _encoded(after.values()))
            except (KafkaError, OSError) as error:
                self._writing.met(_NOT_WRITTEN, error, hint=_HINT)
                await asyncio.sleep(_RETRY_S)
                continue
            self._writing.over()
            part.rows |= after
            self._stale.update(dict.fromkeys(after))
            return True

    def _is_lost(self) -> bool:
        """Whether our partitions are about to be somebody else's: what is not finished, that one does."""
        return self._turn() != self._taken_over_in

    async def _tell(self, batch: Batch, after: dict[str, BreakerRow], turns: list[tuple[State, BreakerRow]]) -> None:
        """States that have turned, and the events about that."""
        states, events = [], []
        for integration, row in after.items():
            config = self._integrations.get(integration)
            if config is None:
                continue
            state = state_of(row, config)
            if has_turned(self._known(integration), state):
                states.append(state)
        for kind, row in turns:
            config = self._integrations.get(row.integration)
            if config is not None and config.epoch <= row.epoch:  # else an activation has ended that epoch meanwhile
                events.append(event_of(kind, row, config, self._now_ms(), f"rec_{uuid7().hex}"))
        spans = [pause_span(TRACING, batch, state) for state in states]
        # States first: lanes wait for nothing else.
        sending = [self._publish(state.integration, state) for state in states]
        topic = self._connection.topic(topics.EVENTS)
        sending += [self._producer.send_and_wait(topic, codec.encode(each), key=each.app.encode()) for each in events]
        if sending:
            await asyncio.gather(*sending)
        end_all(spans)
        for state in states:
            if state.state in metrics.TURN.values:
                metrics.TURNED.inc(state.state)
            _log_turned(state)

    # -- what results do not tell ----------------------------------------------------------------------------

    async def _keep_house(self) -> None:
        while True:
            try:
                await self._look_after(list(self._touched))
                await self._publish_numbers()
            except Exception as error:  # noqa: BLE001  # whatever it is, the next round tries again
                self._keeping_house.met(_NOT_WRITTEN, error, hint=_HINT)
            else:
                if self._may_write() and not self._is_lost():  # else nothing was tried
                    self._keeping_house.over()
            self._wake.clear()
            try:
                await asyncio.wait_for(self._wake.wait(), STATISTICS_S)
            except TimeoutError:
                continue

    async def _look_after(self, integrations: Iterable[str]) -> None:
        """Compare each with its configuration and what is published."""
        for integration in integrations:
            part = self._part_of(integration)
            if part is None:
                self._touched.pop(integration, None)
                continue
            async with part.lock:
                if not self._may_write() or self._is_lost():
                    return
                self._touched.pop(integration, None)
                try:
                    await self._compare(part, integration)
                except BaseException:
                    self._touched[integration] = None
                    raise

    async def _compare(self, part: _Part, integration: str) -> None:
        config, row = self._integrations.get(integration), part.rows.get(integration)
        if self._integrations.is_broken(integration):
            return  # what is known of it counts when it is there again
        if config is None:
            if row is not None:
                key = integration.encode()
                await self._table.write(self._partition_of(key), {key: None})
                del part.rows[integration]
            self._stale.pop(integration, None)
            if self._known(integration) is not None:
                await self._publish(integration, None)
        elif row is not None:
            state, known = state_of(row, config), self._known(integration)
            if has_turned(known, state):
                await self._publish(integration, state)
                _log_turned(state)
            elif state != known:
                self._stale[integration] = None

    async def _publish_numbers(self) -> None:
        """Those that wait the longest, each partition's at once and under its lock, so that none overtakes a turn."""
        chosen: dict[int, list[str]] = {}
        for integration in list(self._stale)[:STATISTICS_AT_ONCE]:
            chosen.setdefault(self._partition_of(integration.encode()), []).append(integration)
        for number, integrations in chosen.items():
            part = self._parts.get(number)
            if part is None:
                continue
            async with part.lock:
                if not self._may_write() or self._is_lost():
                    return
                states = []
                for integration in integrations:
                    self._stale.pop(integration, None)
                    config, row = self._integrations.get(integration), part.rows.get(integration)
                    if config is not None and row is not None:
                        states.append(state_of(row, config))
                try:
                    await asyncio.gather(*(self._publish(state.integration, state) for state in states))
                except BaseException:
                    self._stale.update(dict.fromkeys(integrations))
                    raise

    async def _publish(self, integration: str, state: IntegrationState | None) -> None:
        """Returns when it is on the log."""
        value = None if state is None else codec.encode(state)
        topic = self._connection.topic(topics.INTEGRATION_STATE)
        written = await self._producer.send_and_wait(topic, value, key=integration.encode())
        self._sent[integration] = state, written.offset

    def _known(self, integration: str) -> IntegrationState | None:
        """What is published of it, as far as this worker knows."""
        sent = self._sent.get(integration)
        return self._states.get(integration) if sent is None else sent[0]

    # -- partitions ------------------------------------------------------------------------------------------

    def _partition_of(self, key: bytes) -> int:
        return partition_of(key, self._partitions, self._partitions)

    def _part_of(self, integration: str) -> _Part | None:
        return self._parts.get(self._partition_of(integration.encode()))

    def floor(self, partition: int) -> str:  # noqa: ARG002
        """Nothing is looked for by a takeover: rows say themselves how far they are."""
        return ""

    async def settle(self, timeout_s: float) -> None:  # noqa: ARG002
        """Batches in hand are finished or dropped by now; what is published later is somebody else's business."""
        self._taken_over_in = -1
        self._parts = {}
        self._stale.clear()


def _log_turned(state: IntegrationState) -> None:
    log.info(
        "integration.turned", integration=state.integration, app=state.app, state=state.state, reason=state.reason,
        epoch=state.epoch,
    )  # fmt: skip


def _encoded(rows: Iterable[BreakerRow]) -> dict[bytes, bytes | None]:
    return {row.integration.encode(): codec.encode(row) for row in rows}


def rank(value: bytes) -> int:
    """How far a row is; lowest of all where it cannot be read."""
    try:
        return codec.decode_as(BreakerRow, value).applied_offset
    except codec.Unreadable:
        return -2
