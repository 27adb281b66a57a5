"""The safe Faust app on a real broker: batches, quarantine, bounds, floors, and an end that never hangs."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from typing import Any, cast

import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.consumer.subscription_state import SubscriptionState
from aiokafka.errors import GroupAuthorizationFailedError
from aiokafka.protocol.group import LeaveGroupRequest
from structlog.testing import capture_logs

from services.dispatcher.app import _Health
from services.runtime.serving import application, serve
from streams import takeover
from streams.connection import Connection
from streams.engine.app import Bounds, SafeApp
from streams.engine.consumer import LedgerConsumer
from streams.engine.processor import Assignment, Batch
from streams.engine.shortened import LogShortened
from streams.engine.standing import read
from tests.dispatching import Probe
from tests.waiting import eventually

PARTITIONS = 2


class Working:
    """A processor that a test steers: *work* decides for each value; finished at once unless it says otherwise."""

    def __init__(self, work: Callable[[bytes], Any] | None = None, *, finishes: bool = True) -> None:
        self.work = work or (lambda _: None)
        self.finishes = finishes
        self.seen: list[bytes] = []
        self.open: list[tuple[Batch, int]] = []
        self.batches: list[int] = []
        self.assignments: list[Assignment] = []
        self.settled: list[float] = []
        self.floors = 0

    async def take_over(self, assignment: Assignment) -> None:
        self.assignments.append(assignment)

    async def process(self, batch: Batch) -> None:
        self.batches.append(len(batch.records))
        for record in batch.unfinished():
            result = self.work(record.value)
            if asyncio.iscoroutine(result):
                await result
            self.seen.append(record.value)
            if self.finishes:
                batch.finish(record.offset)
            else:
                self.open.append((batch, record.offset))

    def floor(self, partition: int) -> str:
        return f"floor of {partition}"

    async def settle(self, timeout_s: float) -> None:
        self.settled.append(timeout_s)


class TakingLong(Working):
    """Its takeovers take a while, and each keeps the first cancellation to itself, as a client may that it stops."""

    def __init__(self) -> None:
        super().__init__()
        self.beside = self.most_beside = 0

    async def take_over(self, assignment: Assignment) -> None:
        self.beside += 1
        self.most_beside = max(self.beside, self.most_beside)
        await super().take_over(assignment)
        try:
            with suppress(asyncio.CancelledError):
                await asyncio.sleep(1.5)
            await asyncio.sleep(0.5)
        finally:
            self.beside -= 1


class Steered(Working):
    """Its takeover does the same again and again, until a test has nothing more for it to do."""

    def __init__(self, does: Callable[[], None]) -> None:
        super().__init__()
        self.does: Callable[[], None] | None = does

    async def take_over(self, assignment: Assignment) -> None:
        await super().take_over(assignment)
        while self.does is not None:
            self.does()
            await asyncio.sleep(0.02)


class Later(Working):
    """Keeps its records until they are due, as those that retry do."""

    def waiting(self, partition: int) -> int:
        return sum(batch.partition == partition for batch, _ in self.open)


class Aside:
    """Where records that could not be finished go."""

    def __init__(self) -> None:
        self.records: list[tuple[bytes, str, str]] = []

    async def put(self, record: Any, code: str, reason: str) -> None:
        self.records.append((record.value, code, reason))


@asynccontextmanager
async def running(
    connection: Connection, processor: Any, aside: Aside | None = None, later: Any = None, **settings: Any
) -> AsyncIterator[SafeApp]:
    app = SafeApp("engine", connection, put_aside=(aside or Aside()).put, commit_interval_ms=50, **settings)
    app.add_processor(f"{connection.prefix}work", processor, name="work")
    if later is not None:
        app.add_processor(f"{connection.prefix}later", later, name="later")
    await app.start()
    try:
        await eventually(lambda: app.is_ready, 40)
        yield app
    finally:
        await asyncio.wait_for(app.stop(), 30)


@pytest.fixture
async def topic(connection: Connection) -> str:
    name = f"{connection.prefix}work"
    admin = AIOKafkaAdminClient(bootstrap_servers=connection.bootstrap)
    await admin.start()
    await admin.create_topics([NewTopic(name, PARTITIONS, 1)])
    await admin.close()
    return name


@pytest.fixture
async def produce(connection: Connection, topic: str) -> AsyncIterator[Callable[..., Any]]:
    producer = AIOKafkaProducer(bootstrap_servers=connection.bootstrap, acks="all")
    await producer.start()

    async def put(*values: bytes, partition: int = 0) -> None:
        for future in [await producer.send(topic, value, partition=partition) for value in values]:
            await future

    yield put
    await producer.stop()


async def committed(connection: Connection, topic: str, partition: int = 0) -> Any:
    """Offset and metadata, as the group coordinator has them; (-1, '') where nothing is stored."""
    reader = AIOKafkaConsumer(bootstrap_servers=connection.bootstrap, group_id=f"{connection.prefix}engine")
    await reader.start()
    try:
        found = await reader._coordinator.fetch_committed_offsets([TopicPartition(topic, partition)])
    finally:
        await reader.stop()
    stored = found.get(TopicPartition(topic, partition))
    return (stored.offset, stored.metadata) if stored else (-1, "")


async def test_a_single_record_passes_at_once_and_many_come_in_batches(connection, produce):
    processor = Working()
    async with running(connection, processor):
        await produce(b"one")
        await eventually(lambda: processor.seen == [b"one"])
        await produce(*(b"%d" % number for number in range(500)))
        await eventually(lambda: len(processor.seen) == 501)

    assert processor.seen[1:] == [b"%d" % number for number in range(500)]
    assert max(processor.batches) > 10


async def test_a_takeover_begins_when_the_one_before_has_ended_though_that_went_on(connection, topic, produce):
    first = TakingLong()
    async with running(connection, first):
        for _ in range(2):
            before = len(first.assignments)
            other = SafeApp("engine", connection, put_aside=Aside().put, commit_interval_ms=50)
            other.add_processor(topic, Working(), name="work")
            await other.start()
            await eventually(lambda before=before: len(first.assignments) > before, 40)
            await asyncio.wait_for(other.stop(), 30)  # while that takeover is under way
            await eventually(lambda before=before: len(first.assignments) > before + 1, 40)
        await produce(b"a")
        await eventually(lambda: first.seen == [b"a"])

    assert first.most_beside == 1


@pytest.mark.parametrize("ends", ["stops", "is assigned anew"])
async def test_a_takeover_that_has_not_come_to_its_processor_when_that_is_settled_does_not(
    connection, topic, produce, monkeypatch, ends
):
    """What it would start then nobody settles: it would send what its successor sends too."""

    class Settled(Working):
        def __init__(self) -> None:
            super().__init__()
            self.goes_on = asyncio.Event()

        async def settle(self, timeout_s: float) -> None:
            await super().settle(timeout_s)
            self.goes_on.set()
            await asyncio.sleep(0.2)

    first, generations = Settled(), list[int]()
    others = [SafeApp("engine", connection, put_aside=Aside().put, commit_interval_ms=50) for _ in range(2)]
    for other in others:
        other.add_processor(topic, Working(), name="work")
    async with running(connection, first) as app, AsyncExitStack() as stack:
        consumer = app._consumer
        suspect, is_held = consumer._suspect, asyncio.Event()

        async def hold(name, standing):
            found = await suspect(name, standing)
            if not is_held.is_set():
                generations.append(consumer.generation)
                first.goes_on.clear()
                is_held.set()
                await first.goes_on.wait()
            return found

        monkeypatch.setattr(consumer, "_suspect", hold)
        await others[0].start()
        stack.push_async_callback(others[0].stop)
        await asyncio.wait_for(is_held.wait(), 40)
        if ends == "stops":
            await asyncio.wait_for(app.stop(), 30)
        else:
            await others[1].start()
            stack.push_async_callback(others[1].stop)
            # It may get no partition: there are two for three.
            await eventually(lambda: consumer.generation > generations[0], 40)

    assert generations[0] not in {each.generation for each in first.assignments}


async def test_a_worker_that_was_thrown_out_takes_nothing_back_of_what_others_committed(connection, topic, produce):
    first, second = Working(), Working()
    async with running(connection, first) as app:
        await produce(*[b"done"] * 10)
        await eventually(lambda: is_committed(connection, topic, 10), 20)
        first.finishes = False
        await produce(*[b"in hand"] * 10)
        await eventually(lambda: len(first.open) == 10)
        coordinator = group_of(app)
        thaw = asyncio.Event()
        frozen = standing_still(coordinator, "_do_heartbeat", until=thaw)
        await eventually(frozen.is_set)
        await coordinator._send_req(LeaveGroupRequest(coordinator.group_id, coordinator.member_id))
        async with running(connection, second):
            await eventually(lambda: len(second.seen) == 10)
        assert await is_committed(connection, topic, 20)
        thaw.set()
        await eventually(lambda: len(first.assignments) == 2 and app.is_ready, 20)

        assert first.assignments[1].starts[0] == 20
        assert await is_committed(connection, topic, 20)


async def test_a_worker_that_fetched_nothing_for_long_joins_again(connection, topic, monkeypatch):
    processor = Working()
    async with running(connection, processor) as app:
        monkeypatch.setattr(SubscriptionState, "fetcher_idle_time", 1_001.0)  # as long as brokers were away
        group_of(app).request_rejoin()
        await eventually(lambda: len(processor.assignments) == 2 and app.is_ready)


@pytest.mark.parametrize("refused", ["_do_heartbeat", "_do_rejoin_group", "ensure_coordinator_known"])
async def test_a_worker_that_its_group_has_refused_once_goes_on(connection, topic, produce, refused):
    processor = Working()
    async with running(connection, processor) as app:
        coordinator = group_of(app)
        errors = refusing(coordinator, refused)
        if refused == "_do_rejoin_group":
            coordinator.request_rejoin()
        await eventually(lambda: not errors)
        await produce(b"a")
        await eventually(lambda: processor.seen == [b"a"], 20)


async def test_what_is_finished_is_committed_with_the_floor_and_read_no_more(connection, any_broker, topic, produce):
    # The embedded broker forgets what is stored with a commit; a takeover reads all that it keeps instead.
    floor = "" if any_broker.kind == "embedded" else "floor of 0"
    first = Working()
    async with running(connection, first):
        await produce(b"a", b"b")
        await eventually(lambda: len(first.seen) == 2)
    stored = await committed(connection, topic)
    second = Working()
    async with running(connection, second):
        await produce(b"c")
        await eventually(lambda: second.seen)

    assert stored == (2, floor)
    assert second.seen == [b"c"]
    assert second.assignments[-1].floors[0] == floor
    assert second.assignments[-1].starts[0] == 2


async def test_what_is_not_finished_is_read_again(connection, topic, produce):
    first = Working(finishes=False)
    async with running(connection, first):
        await produce(b"a", b"b", b"c")
        await eventually(lambda: len(first.open) == 3)
        for batch, offset in first.open[1:]:
            batch.finish(offset)
        await asyncio.sleep(0.2)  # several commit intervals
    second = Working()
    async with running(connection, second):
        await eventually(lambda: len(second.seen) == 3)

    assert (await committed(connection, topic))[0] == 3
    assert second.seen == [b"a", b"b", b"c"]


async def test_a_record_that_raises_is_put_aside_and_only_that_one(connection, topic, produce):
    def work(value: bytes) -> None:
        if value == b"bad":
            raise ZeroDivisionError

    processor, aside = Working(work), Aside()
    async with running(connection, processor, aside):
        await produce(b"a", b"bad", b"b", b"bad", b"c")
        await eventually(lambda: len(processor.seen) == 3 and len(aside.records) == 2)

    assert processor.seen == [b"a", b"b", b"c"]
    assert aside.records == [(b"bad", "agent.raised", "agent work raised ZeroDivisionError")] * 2
    assert (await committed(connection, topic))[0] == 5


async def test_a_record_is_kept_while_it_cannot_be_put_aside(connection, topic, produce, monkeypatch):
    monkeypatch.setattr("streams.engine.app.ASIDE_RETRY_S", 0.01)
    tries: list[bytes] = []

    class Away(Aside):
        async def put(self, record: Any, code: str, reason: str) -> None:
            tries.append(record.value)
            if len(tries) < 3:
                raise ConnectionError("the broker is away")
            await super().put(record, code, reason)

    def work(value: bytes) -> None:
        raise ZeroDivisionError

    aside = Away()
    async with running(connection, Working(work), aside):
        await produce(b"bad")
        await eventually(lambda: aside.records)

    assert tries == [b"bad"] * 3


@pytest.mark.parametrize(
    "bounds", [Bounds(unfinished_records=20), Bounds(unfinished_bytes=65_536)], ids=["records", "bytes"]
)
async def test_a_partition_pauses_above_the_bound_and_the_other_goes_on(connection, produce, bounds):
    processor = Working(finishes=False)
    for _ in range(40):  # all there before the first fetch: what one brings is the broker's bound alone
        await produce(*[b"x" * 4_096] * 40)
    async with running(connection, processor, bounds=bounds) as app:
        await eventually(lambda: len(processor.open) >= 16)
        await produce(b"other", partition=1)
        await eventually(lambda: b"other" in processor.seen)
        records, size = app.unfinished
        for batch, offset in processor.open:
            batch.finish(offset)
        processor.finishes = True
        await eventually(lambda: len(processor.seen) == 1_601, 20)

    # One fetch above the bound, at most: a fetch of a partition is 256 KiB.
    assert records < 20 + 1_000
    assert size < 65_536 + 2 * 262_144 + 5
    assert len(processor.seen) == 1_601


async def test_a_takeover_that_fails_is_tried_again_and_nothing_is_read_before(connection, produce, monkeypatch):
    monkeypatch.setattr("streams.engine.consumer.TAKEOVER_RETRY_S", 0.05)

    class Reluctant(Working):
        async def take_over(self, assignment: Assignment) -> None:
            await super().take_over(assignment)
            assert not self.seen
            if len(self.assignments) < 3:
                raise ConnectionError("the broker is away")

    await produce(b"a")
    processor = Reluctant()
    async with running(connection, processor):
        await eventually(lambda: processor.seen)

    assert len(processor.assignments) == 3
    assert processor.seen == [b"a"]


async def test_stopping_lets_a_batch_in_hand_end(connection, topic, produce):
    began, may_end = asyncio.Event(), asyncio.Event()

    async def work(value: bytes) -> None:
        began.set()
        await may_end.wait()

    processor = Working(work)
    async with running(connection, processor):
        await produce(b"a")
        await began.wait()
        asyncio.get_running_loop().call_later(0.2, may_end.set)

    assert processor.seen == [b"a"]
    assert (await committed(connection, topic))[0] == 1


async def test_stopping_never_hangs_on_a_batch_that_does(connection, topic, produce):
    began = asyncio.Event()

    async def work(value: bytes) -> None:
        began.set()
        await asyncio.sleep(3600)

    async with running(connection, Working(work), settle_timeout_s=0.3):
        await produce(b"a")
        await began.wait()

    assert (await committed(connection, topic))[0] in (-1, 0)


async def test_work_that_never_ends_makes_it_not_live_by_the_probe_and_what_has_a_right_to_wait_does_not(
    embedded_connection, monkeypatch
):
    monkeypatch.setattr("streams.engine.consumer.STUCK_S", 1.0)
    monkeypatch.setattr("streams.engine.consumer.LOOK_S", 0.1)
    connection = embedded_connection
    work, waiting = await made(connection), await made(connection, "later")
    processor, later, health = Working(finishes=False), Later(finishes=False), _Health(connection)
    producer = AIOKafkaProducer(bootstrap_servers=connection.bootstrap, acks="all")
    await producer.start()
    server = await serve(application(health.live, health.ready), "127.0.0.1", 0)
    probe = Probe(server.port)

    async def is_live() -> bool:
        return (await probe.get("/health/live"))[0] == 200

    async def is_not_live() -> bool:
        return not await is_live()

    try:
        async with running(connection, processor, later=later) as health.app:
            assert await is_live()
            await producer.send_and_wait(waiting, b"due in an hour", partition=1)
            await eventually(lambda: later.open)
            with capture_logs() as said:
                await producer.send_and_wait(work, b"for ever", partition=1)
                await eventually(is_not_live)
                status, body = await probe.get("/health/live")
                ready = await probe.is_ready()
                for batch, offset in processor.open:
                    batch.finish(offset)
                await eventually(is_live)
    finally:
        await server.stop()
        await producer.stop()

    assert status == 503
    assert body.startswith(f'{{"live":false,"reason":"no progress on partition {work} 1 for ')
    assert waiting not in body
    assert ready, "it reads all that it was assigned: that nothing moves is for the other probe"
    told = [
        (line["event"], line["topic"], line["partition"]) for line in said if line["event"].startswith("partition.")
    ]
    assert told == [("partition.stuck", work, 1), ("partition.moves", work, 1)]


async def test_records_that_are_not_fetched_make_it_not_live(embedded_connection, monkeypatch):
    monkeypatch.setattr("streams.engine.consumer.STUCK_S", 1.0)
    monkeypatch.setattr("streams.engine.consumer.LOOK_S", 0.1)
    topic, processor, may_go = await made(embedded_connection), Working(), asyncio.Event()
    fetch = LedgerConsumer._getmany

    async def hangs(*arguments: Any) -> Any:
        await may_go.wait()
        return await fetch(*arguments)

    producer = AIOKafkaProducer(bootstrap_servers=embedded_connection.bootstrap, acks="all")
    await producer.start()
    try:
        async with running(embedded_connection, processor) as app:
            monkeypatch.setattr(LedgerConsumer, "_getmany", hangs)
            await asyncio.sleep(1.5)  # longer than a fetch that is under way
            with capture_logs():
                await producer.send_and_wait(topic, b"a", partition=1)
                await eventually(lambda: app.stuck)
                told = app.stuck
                may_go.set()
                await eventually(lambda: app.stuck is None)
    finally:
        await producer.stop()
    assert told.startswith(f"no progress on partition {topic} 1 for ")
    assert processor.seen == [b"a"]


def stands_still() -> None:
    """What it has asked for does not come."""


def gets_on() -> None:
    """It has read on, or has marked something."""
    takeover.step()


def fails() -> None:
    """Each time, and each time it has marked something before."""
    takeover.step()
    raise ValueError("a bug")


def finds_less_than_was_read() -> None:
    raise LogShortened([TopicPartition("work", 0)])


@asynccontextmanager
async def taking_over(connection: Connection, monkeypatch: Any, does: Callable[[], None]) -> AsyncIterator[Any]:
    """A worker whose takeover does that; with it what its probes say. Time goes a hundred times as fast."""
    for name, seconds in (("STUCK_S", 1.2), ("LOOK_S", 0.1), ("LOOK_AGAIN_S", 0.05), ("TAKEOVER_RETRY_S", 0.01)):
        monkeypatch.setattr(f"streams.engine.consumer.{name}", seconds)
    processor, health = Steered(does), _Health(connection)
    health.app = SafeApp("engine", connection, put_aside=Aside().put, commit_interval_ms=50)
    health.app.add_processor(await made(connection), processor, name="work")
    await health.app.start()
    try:
        await eventually(lambda: processor.assignments, 40)
        yield processor, health
    finally:
        processor.does = None
        await asyncio.wait_for(health.app.stop(), 30)


async def stays_live(health: Any, seconds: float = 3.0) -> bool:
    """So much longer than what counts as a standstill."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        if health.live() is not None:
            return False
        await asyncio.sleep(0.02)
    return True


@pytest.mark.parametrize("does", [stands_still, fails])
async def test_a_takeover_that_comes_to_no_end_and_gets_no_further_makes_it_not_live_until_it_does(
    embedded_connection, monkeypatch, does
):
    with capture_logs() as said:
        async with taking_over(embedded_connection, monkeypatch, does) as (processor, health):
            await eventually(health.live)
            told, ready = health.live(), health.ready()
            with monkeypatch.context() as patched:
                patched.setattr(LedgerConsumer, "is_confirmed", False)  # the broker goes away
                await eventually(lambda: health.live() is None)
            await eventually(health.live)
            processor.does = None
            await eventually(lambda: health.live() is health.ready() is None)

    assert told.startswith(f"no progress on partition {embedded_connection.prefix}work 0 for 1 s; ")
    assert ready == "partitions are being assigned or taken over"
    doing = {line["doing"] for line in said if line["event"] == "partition.stuck"}
    assert doing == {"takeover"}


@pytest.mark.parametrize("does", [gets_on, finds_less_than_was_read])
async def test_a_takeover_that_gets_on_stays_live_and_so_does_one_that_only_a_person_can_help(
    embedded_connection, monkeypatch, does
):
    with capture_logs():
        async with taking_over(embedded_connection, monkeypatch, does) as (processor, health):
            assert await stays_live(health)
            ready, processor.does = health.ready(), None
            await eventually(lambda: health.live() is health.ready() is None)

    assert ("run tenterhook mend" in ready) == (does is finds_less_than_was_read)
    assert health.app.shortened is None


@pytest.mark.kafka
async def test_a_worker_without_a_partition_is_there_when_another_ends_however_long_that_takes(kafka_connection):
    """aiokafka leaves the group for good where nothing was fetched for its `max_poll_interval_ms`."""
    topic, workers = await made(kafka_connection, partitions=1), []
    for _ in range(2):
        app = SafeApp("engine", kafka_connection, put_aside=Aside().put, broker_max_poll_interval=1.0)
        app.add_processor(topic, Working(), name="work")
        await app.start()
        workers.append(app)
    try:
        await eventually(lambda: all(app.is_ready for app in workers), 40)
        owner, waiting = sorted(workers, key=lambda app: not app.behind)
        assert (owner.behind.keys(), waiting.behind.keys()) == ({"work"}, set())
        await asyncio.sleep(4)
        assert waiting.is_confirmed
        await asyncio.wait_for(owner.stop(), 30)
        await eventually(lambda: waiting.behind, 40)
    finally:
        for app in workers:
            await asyncio.wait_for(app.stop(), 30)


@pytest.mark.kafka
async def test_a_second_worker_takes_half_and_nothing_is_lost_or_done_twice(kafka_connection):
    connection = kafka_connection
    admin = AIOKafkaAdminClient(bootstrap_servers=connection.bootstrap)
    await admin.start()
    await admin.create_topics([NewTopic(f"{connection.prefix}work", PARTITIONS, 1)])
    await admin.close()
    producer = AIOKafkaProducer(bootstrap_servers=connection.bootstrap, acks="all")
    await producer.start()
    first, second = Working(), Working()
    sent: list[bytes] = []

    async def feed() -> None:
        while len(sent) < 600 or not second.seen:
            sent.append(b"%d" % len(sent))
            await producer.send_and_wait(f"{connection.prefix}work", sent[-1], partition=len(sent) % PARTITIONS)

    async with running(connection, first):
        feeding = asyncio.create_task(feed())
        await eventually(lambda: first.seen)
        async with running(connection, second):
            await eventually(lambda: second.seen, 60)
            await feeding
        await eventually(lambda: len(first.seen) + len(second.seen) >= len(sent), 60)
    await producer.stop()

    assert sorted(first.seen + second.seen) == sorted(sent)


class Keeping(Working):
    """Decides at each commit what its floor is."""

    floor_now = "first"

    def floor_at(self, partition: int, committable: int) -> str:
        return f"{self.floor_now} at {committable}"


@pytest.mark.kafka
async def test_a_processor_may_decide_its_floor_at_the_commit_and_ask_for_one(kafka_connection):
    connection = kafka_connection
    topic = await made(connection)
    producer = AIOKafkaProducer(bootstrap_servers=connection.bootstrap, acks="all")
    await producer.start()
    processor = Keeping(finishes=False)
    async with running(connection, processor):
        for value in (b"a", b"b", b"c"):
            await producer.send_and_wait(topic, value, partition=0)
        await eventually(lambda: len(processor.open) == 3)
        [batch, offset] = processor.open[0]
        batch.finish(offset)
        processor.floor_now = "second"
        assert await processor.assignments[-1].commit(0)
        assert floor_of(await committed(connection, topic)) == (1, "second at 1")
        # Many at once, Faust's own among them, never store an older floor over a newer one.
        for number in range(50):
            processor.floor_now = f"floor {number}"
            assert all(await asyncio.gather(*(processor.assignments[-1].commit(0) for _ in range(3))))
        assert floor_of(await committed(connection, topic)) == (1, "floor 49 at 1")
        lost = processor.assignments[-1]
    await producer.stop()
    assert not await lost.commit(0)


@pytest.mark.kafka
async def test_a_topic_may_have_bounds_of_its_own(kafka_connection):
    connection = kafka_connection
    topic = await made(connection)
    producer = AIOKafkaProducer(bootstrap_servers=connection.bootstrap, acks="all")
    await producer.start()
    processor = Working(finishes=False)
    app = SafeApp("engine", connection, put_aside=Aside().put)
    app.add_processor(topic, processor, name="work", bounds=Bounds(unfinished_records=10))
    await app.start()
    try:
        await eventually(lambda: app.is_ready, 40)
        for number in range(30):
            await producer.send_and_wait(topic, b"%d" % number, partition=0)
            await eventually(lambda at=number: len(processor.open) >= min(at + 1, 10))
        await asyncio.sleep(0.3)
        assert len(processor.open) == 10
        processor.open[0][0].finish(0)
        await eventually(lambda: len(processor.open) > 10)
    finally:
        await producer.stop()
        await asyncio.wait_for(app.stop(), 30)


async def is_committed(connection: Connection, topic: str, offset: int) -> bool:
    return bool((await committed(connection, topic))[0] == offset)


def group_of(app: SafeApp) -> Any:
    return cast("LedgerConsumer", app.consumer).kafka._coordinator


def standing_still(coordinator: Any, call: str, *, until: asyncio.Event) -> asyncio.Event:
    """Have this call of aiokafka wait, from the next one on; set when it does."""
    do, waits = getattr(coordinator, call), asyncio.Event()

    async def late(*args: Any) -> Any:
        waits.set()
        await until.wait()
        return await do(*args)

    setattr(coordinator, call, late)
    return waits


def refusing(coordinator: Any, call: str) -> list[Exception]:
    """Have this call of aiokafka raise once; empty when it has."""
    do, errors = getattr(coordinator, call), [GroupAuthorizationFailedError("engine")]

    async def refuse_once(*args: Any) -> Any:
        if errors:
            raise errors.pop()
        return await do(*args)

    setattr(coordinator, call, refuse_once)
    return errors


def floor_of(stored: tuple[int, str]) -> tuple[int, str]:
    """Offset and floor, without what the consumer notes for itself."""
    offset, metadata = stored
    return offset, read(metadata)[1]


async def made(connection: Connection, topic: str = "work", partitions: int = PARTITIONS) -> str:
    name = f"{connection.prefix}{topic}"
    admin = AIOKafkaAdminClient(bootstrap_servers=connection.bootstrap)
    await admin.start()
    await admin.create_topics([NewTopic(name, partitions, 1)])
    await admin.close()
    return name
