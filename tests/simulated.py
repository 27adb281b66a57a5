"""
The lanes on a log in memory, on a clock that is moved: for schedules of thousands of steps in a second.

Real are `Lanes` and all that it is made of, but for the sockets below them. A `Broker` keeps partitions, a `Worker` is
one process: it appends only when it is let, and can be killed or frozen between any two records. Time stands still
until somebody waits for nothing else.
"""

import asyncio
from collections import defaultdict
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any, NamedTuple
from unittest import mock

from aiokafka import TopicPartition

from services.dispatcher import catch_up, detaching, handed, lanes, saving
from services.dispatcher.lane import Pace
from services.dispatcher.lanes import Lanes
from services.dispatcher.pacing import Pacing
from services.dispatcher.sender import MaySend, Withheld
from services.dispatcher.standing import Standing
from streams import codec, takeover, topics
from streams.connection import Connection
from streams.engine.app import Bounds
from streams.engine.processor import Assignment, Batch, ReadAt, floor_of
from streams.ledger import Ledger
from streams.records import Delivery, Record, Result
from tests.handing import result_of
from tests.records import make_delivery

ONE = topics.Partitions(by_app=1, by_integration=1)
DEFAULT_BOUNDS = Bounds()
BASE_MS = 1_700_000_000_000
CONNECTION = Connection("nowhere:0", "sim.")
DELIVERIES = TopicPartition(CONNECTION.topic(topics.DELIVERIES), 0)
RESULTS = TopicPartition(CONNECTION.topic(topics.RESULTS), 0)
ROWS = TopicPartition(CONNECTION.topic(topics.LANE_ROWS), 0)
RETRIES = TopicPartition("sim.retries", 0)

_WORKER: ContextVar["Worker | None"] = ContextVar("worker", default=None)


class SimulatedLoop(asyncio.SelectorEventLoop):
    """Jumps to the next timer where nothing else is to be done."""

    def __init__(self) -> None:
        self.now_s = 100.0
        super().__init__()
        select = self._selector.select

        def jump(timeout: float | None = None) -> Any:
            if timeout is not None and timeout > 0:
                self.now_s += timeout
            return select(0)

        self._selector.select = jump
        self.set_task_factory(_counted)

    def time(self) -> float:
        return self.now_s


def _counted(loop: Any, coroutine: Any, **kwargs: Any) -> "asyncio.Task[Any]":
    task: asyncio.Task[Any] = asyncio.Task(coroutine, loop=loop, **kwargs)
    worker = _WORKER.get()
    if worker is not None:
        worker.tasks.add(task)
        task.add_done_callback(worker.tasks.discard)
    return task


class Stored(NamedTuple):
    """A record of the log, as a consumer gives it."""

    topic: str
    partition: int
    offset: int
    timestamp: int
    key: bytes | None
    value: bytes | None
    headers: tuple[()] = ()


class Broker:
    """Partitions, and what a consumer group stored."""

    def __init__(self) -> None:
        self.partitions: dict[TopicPartition, list[Stored]] = defaultdict(list)
        self._read: dict[TopicPartition, list[Record]] = defaultdict(list)
        #: By delivery.
        self.results: dict[str, list[Result]] = defaultdict(list)
        #: What nobody can read any more, by partition.
        self.beginnings: dict[TopicPartition, int] = defaultdict(int)
        #: How many records of each partition consumers were given.
        self.fetched: dict[TopicPartition, int] = defaultdict(int)
        self.committed: tuple[int, str] = (0, "")
        #: Whether consumers are given nothing any more.
        self.is_silent = False
        #: How long each fetch takes.
        self.fetch_s = 0.0
        self.generation = 0

    def append(self, target: TopicPartition, key: bytes | None, value: bytes | None) -> int:
        records = self.partitions[target]
        records.append(Stored(*target, len(records), now_ms(), key, value))
        with suppress(codec.Unreadable):
            record = codec.decode(value)
            self._read[target].append(record)
            if isinstance(record, Result):
                self.results[record.delivery_id].append(record)
        return len(records) - 1

    def read(self, target: TopicPartition) -> list[Record]:
        """What stands there and can be read, from the beginning."""
        return self._read[target]

    def consumer(self, **options: Any) -> "_Consumer":
        return _Consumer(self, is_a_look=options.get("max_partition_fetch_bytes") == 1)


def now_ms() -> int:
    return BASE_MS + round(asyncio.get_event_loop().time() * 1_000)


class _Consumer:
    def __init__(self, broker: Broker, *, is_a_look: bool) -> None:
        """*is_a_look*: at one batch of each partition, whatever is there; not counted as reading."""
        self._broker = broker
        self._is_a_look = is_a_look
        self._at: dict[TopicPartition, int] = {}
        self._paused: set[TopicPartition] = set()
        #: What `streams.reading.stop` looks into for open connections.
        self._client = SimpleNamespace(_conns={})

    async def start(self) -> None: ...

    async def stop(self) -> None: ...

    def assign(self, partitions: list[TopicPartition]) -> None:
        self._at = dict.fromkeys(partitions, 0)

    def assignment(self) -> set[TopicPartition]:
        return set(self._at)

    def seek(self, partition: TopicPartition, offset: int) -> None:
        self._at[partition] = offset

    def pause(self, *partitions: TopicPartition) -> None:
        self._paused |= set(partitions)

    def resume(self, *partitions: TopicPartition) -> None:
        self._paused -= set(partitions)

    async def position(self, partition: TopicPartition) -> int:
        return self._at[partition]

    async def beginning_offsets(self, partitions: list[TopicPartition]) -> dict[TopicPartition, int]:
        return {each: self._broker.beginnings[each] for each in partitions}

    async def end_offsets(self, partitions: list[TopicPartition]) -> dict[TopicPartition, int]:
        return {each: len(self._broker.partitions[each]) for each in partitions}

    async def offsets_for_times(self, times: dict[TopicPartition, int]) -> dict[TopicPartition, Stored | None]:
        return {
            each: next((one for one in self._broker.partitions[each] if one.timestamp >= at_ms), None)
            for each, at_ms in times.items()
        }

    async def getmany(self, *partitions: TopicPartition, timeout_ms: int, max_records: int = 7) -> Any:
        await asyncio.sleep(self._broker.fetch_s)
        found = {}
        for each in () if self._broker.is_silent else partitions or self._at:
            at = max(self._at[each], self._broker.beginnings[each])
            records = [] if each in self._paused else self._broker.partitions[each][at : at + min(max_records, 7)]
            if records:
                found[each] = records
                self._at[each] = records[-1].offset + 1
                self._broker.fetched[each] += 0 if self._is_a_look else len(records)
        if not found:
            await asyncio.sleep(timeout_ms / 1_000)
        return found


@contextmanager
def simulation() -> Iterator[tuple[SimulatedLoop, Broker]]:
    """A loop, and a broker that everything below the lanes is connected to."""
    loop, broker = SimulatedLoop(), Broker()
    asyncio.set_event_loop(loop)
    clock = SimpleNamespace(monotonic=loop.time)

    async def features(_: str) -> Any:
        return SimpleNamespace(fetch_wait_ms=500, fetch_bytes=52_428_800, exact_ends=True)

    with (
        mock.patch.object(catch_up, "AIOKafkaConsumer", broker.consumer),
        mock.patch.object(handed, "AIOKafkaConsumer", broker.consumer),
        mock.patch.object(takeover, "AIOKafkaConsumer", broker.consumer),
        mock.patch.object(takeover, "features_of", features),
        mock.patch.object(catch_up, "features_of", features),
        mock.patch.object(handed, "features_of", features),
        mock.patch.object(catch_up, "time", clock),
        mock.patch.object(lanes, "time", clock),
        mock.patch.object(detaching, "time", clock),
        mock.patch.object(saving, "time", clock),
    ):
        try:
            yield loop, broker
        finally:
            for task in asyncio.all_tasks(loop):
                task.cancel()
            loop.run_until_complete(spin())
            loop.close()
            asyncio.set_event_loop(None)


async def spin(times: int = 40) -> None:
    """Everything goes as far as it can without time passing."""
    for _ in range(times):
        await asyncio.sleep(0)


class _Producer:
    """Appends as far as it is let, each partition in order."""

    def __init__(self, broker: Broker) -> None:
        self._broker = broker
        #: Everything that is sent is appended and acknowledged at once.
        self.flows = True
        self.is_dead = False
        #: Sent and not appended; appended and not acknowledged.
        self.pending: list[tuple[TopicPartition, bytes | None, bytes | None, asyncio.Future[Any]]] = []
        self.unacknowledged: list[tuple[TopicPartition, int, asyncio.Future[Any]]] = []

    async def send(
        self, topic: str, value: bytes | None, *, key: bytes | None = None, partition: int = 0, **_: Any
    ) -> "asyncio.Future[Any]":
        future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        if not self.is_dead:
            self.pending.append((TopicPartition(topic, partition), key, value, future))
            if self.flows:
                self.flow()
        return future

    def flow(self) -> None:
        while self.pending:
            self.append_one(0)
        while self.unacknowledged:
            self.acknowledge_one(0)

    def append_one(self, choice: int) -> None:
        """The next of one of the partitions that have something."""
        firsts = list({each[0]: each for each in reversed(self.pending)}.values())
        if firsts:
            target, key, value, future = chosen = firsts[choice % len(firsts)]
            self.pending.remove(chosen)
            self.unacknowledged.append((target, self._broker.append(target, key, value), future))

    def acknowledge_one(self, choice: int) -> None:
        firsts = list({each[0]: each for each in reversed(self.unacknowledged)}.values())
        if firsts:
            target, offset, future = chosen = firsts[choice % len(firsts)]
            self.unacknowledged.remove(chosen)
            if not future.done():
                future.set_result(SimpleNamespace(topic=target.topic, partition=target.partition, offset=offset))


@dataclass
class Flying:
    """A request under way."""

    delivery: Delivery
    read_at: ReadAt
    worker: "Worker"
    since_s: float
    answer: "asyncio.Future[dict[str, Any]]"


def _set() -> asyncio.Event:
    event = asyncio.Event()
    event.set()
    return event


@dataclass
class Endpoint:
    """The lanes' `Deliverer`, shared by all workers: requests wait until they are answered."""

    pace_of: dict[str, Pace]
    standings: dict[str, Standing] = field(default_factory=dict)
    #: Integrations whose secrets wait for a key.
    locked: set[str] = field(default_factory=set)
    flying: list[Flying] = field(default_factory=list)
    #: Called when a request starts.
    on_start: Callable[[Flying], None] = lambda _: None
    #: Answers every request at once with this; None: they wait.
    at_once: dict[str, Any] | None = None
    #: While it is not set, no connection comes about; and how many wait for one.
    is_reached: asyncio.Event = field(default_factory=_set)
    connecting: int = 0
    #: What the next attempts raise in place of a connection.
    failures: list[Exception] = field(default_factory=list)

    async def reach(self, config_offset: int) -> None:
        await asyncio.sleep(0)

    def pace(self, integration: str) -> Pace:
        return self.pace_of[integration]

    def is_locked(self, integration: str) -> bool:
        return integration in self.locked

    def standing(self, integration: str) -> Standing:
        return self.standings.get(integration, "send")

    def fallen_out(self, delivery: Delivery, read_at: ReadAt) -> Result:
        return result_of(delivery, read_at, outcome="discarded", reason="retention", attempt=0)

    async def attempt(self, delivery: Delivery, read_at: ReadAt, may_send: MaySend, trace: Any = None) -> Result:
        if self.standing(delivery.integration) == "discard":
            return result_of(delivery, read_at, outcome="discarded", reason="integration_paused", attempt=0)
        worker = _WORKER.get()
        assert worker is not None
        self.connecting += 1
        try:
            await self.is_reached.wait()
        finally:
            self.connecting -= 1
        if self.failures:
            raise self.failures.pop()
        if not may_send():
            raise Withheld
        loop = asyncio.get_running_loop()
        flying = Flying(delivery, read_at, worker, loop.time(), loop.create_future())
        self.flying.append(flying)
        self.on_start(flying)
        try:
            answer = self.at_once if self.at_once is not None else await flying.answer
        finally:
            self.flying.remove(flying)
        return result_of(delivery, read_at, **{"finished_at_ms": now_ms()} | answer)


class Worker:
    """One process, in one generation."""

    def __init__(
        self, broker: Broker, endpoint: Endpoint, *, session_timeout_ms: int = 6_000, bounds: Bounds = DEFAULT_BOUNDS
    ) -> None:
        broker.generation += 1
        self.broker = broker
        self.endpoint = endpoint
        self.generation = broker.generation
        self.tasks: set[asyncio.Task[Any]] = set()
        self.producer = _Producer(broker)
        self.fatal: list[Exception] = []
        self.aside: list[tuple[Stored, str]] = []
        self.is_confirmed = True
        producer: Any = self.producer
        aside: Any = SimpleNamespace(put=self._put_aside)
        retries: Any = SimpleNamespace(put=self._put_retry, written_since=self._retries_written_since)
        self.lanes = Lanes(
            connection=CONNECTION,
            partitions=ONE,
            producer=producer,
            deliverer=endpoint,
            retries=retries,
            quarantine=aside,
            worker_id=f"worker-{self.generation}",
            now_ms=now_ms,
            on_fatal=self.fatal.append,
            may_start=lambda: self.is_confirmed,
            session_timeout_ms=session_timeout_ms,
            pacing=Pacing(),
            bounds=bounds,
        )
        self.ledger = Ledger(broker.committed[0])

    async def _put_aside(self, record: Stored, code: str, _reason: str) -> None:
        self.aside.append((record, code))

    async def _put_retry(self, delivery: Delivery, *, slot: int, now_ms: int, trace: Any = None) -> None:
        await (await self.producer.send(*RETRIES[:1], codec.encode(delivery), partition=0))

    async def _retries_written_since(self, _since_ms: int) -> set[tuple[str, int]]:
        await asyncio.sleep(0)
        waiting = [each for each in self.broker.read(RETRIES) if isinstance(each, Delivery)]
        return {(each.delivery_id, each.attempt) for each in waiting}

    async def as_itself(self, work: Callable[[], Awaitable[Any]]) -> None:
        _WORKER.set(self)
        await work()

    def run(self, work: Callable[[], Awaitable[Any]]) -> None:
        """Do this in the worker, to its end."""
        loop = asyncio.get_event_loop()
        loop.run_until_complete(self.as_itself(work))

    def start(self, work: Callable[[], Awaitable[Any]]) -> None:
        """Begin this in the worker."""
        asyncio.get_event_loop().create_task(self.as_itself(work))  # type: ignore[arg-type]
        self.spin()

    def spin(self) -> None:
        asyncio.get_event_loop().run_until_complete(spin())

    def take_over(self) -> None:
        start, floor = self.broker.committed
        self.run(lambda: self.lanes.take_over(Assignment(self.generation, {0: floor}, {0: start})))

    def process(self, most: int) -> None:
        """The next records of `deliveries`."""
        start = self.ledger.position
        records: Any = self.broker.partitions[DELIVERIES][start : start + most]
        if records:
            self.ledger.take(((each.offset, len(each.value or b"")) for each in records), self.lanes.floor(0))
            batch = Batch(0, self.generation, records, self.ledger)
            self.run(lambda: self.lanes.process(batch))

    def commit(self) -> None:
        self.broker.committed = self.ledger.committable, floor_of(self.lanes, 0, self.ledger)

    def kill(self) -> None:
        """Nothing more comes of it."""
        self.producer.is_dead, self.producer.flows = True, False
        self.producer.pending.clear()
        self.lanes._is_open = False
        self.lanes._runs.close()
        for task in list(self.tasks):
            task.cancel()
        self.spin()

    def leave(self) -> None:
        """Gives its partitions up, as at a rebalance: what is under way goes on."""
        self.run(lambda: self.lanes.settle(3.0))
        self.commit()


def delivery_of(integration: str, number: int, **changes: Any) -> Delivery:
    fields: dict[str, Any] = {
        "delivery_id": f"{integration}-{number}",
        "integration": integration,
        "event_id": f"evt-{number}",
        "payload": b"{}",
        "source_offset": number,
    }
    return make_delivery(**fields | changes)
