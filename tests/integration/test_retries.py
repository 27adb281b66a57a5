"""Retry readers in the engine, on a real broker, by the real clock."""

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
from aiokafka import AIOKafkaProducer
from structlog.testing import capture_logs

from services.dispatcher import app as dispatcher
from services.dispatcher.put_back import IDLE
from services.dispatcher.retries import DeliveryEnds, Retries
from services.dispatcher.retry_reader import RetryReader
from streams import topics
from streams.connection import Connection
from streams.engine.app import Bounds, SafeApp
from streams.engine.consumer import FETCH_PARTITION_BYTES
from streams.engine.standing import read
from streams.producer import open_producer
from streams.quarantine import Quarantine
from tests.dispatching import dispatching
from tests.logs import Log, log_of
from tests.records import make_delivery
from tests.waiting import eventually

ONE = topics.Partitions(by_app=1, by_integration=1)
SECOND_LINES = topics.RETRIES[:2]


def now_ms() -> int:
    return time.time_ns() // 1_000_000


@asynccontextmanager
async def worker(log: Log, bounds: Bounds | None = None) -> AsyncIterator[SafeApp]:
    """A worker with readers of the two shortest lines, and nothing else."""
    connection = log.connection
    producer = await open_producer(connection, client_id="worker")
    quarantine = Quarantine(producer, connection, "test", now_ms)
    app = SafeApp("dispatcher", connection, put_aside=quarantine.put, commit_interval_ms=50)
    ends = DeliveryEnds(connection, log.partitions, app.ends)
    fatal: list[Exception] = []
    for line in SECOND_LINES:
        reader = RetryReader(
            line,
            connection=connection,
            producer=producer,
            retries=Retries(connection, producer),
            ends=ends,
            quarantine=quarantine,
            worker_id="w",
            now_ms=now_ms,
            on_fatal=fatal.append,
            may_start=lambda: app.is_confirmed,
        )
        app.add_processor(connection.topic(line), reader, name=line.name, bounds=bounds)
    await app.start()
    try:
        await eventually(lambda: app.is_ready, 40)
        yield app
    finally:
        await app.stop()
        await producer.stop()
    assert fatal == []


async def test_retries_come_back_when_they_are_due_through_restarts_and_once(connection: Connection, any_broker):
    async with log_of(connection, ONE) as log:
        retries = Retries(connection, log.producer)
        due = {}

        async def put(prefix: str, count: int) -> None:
            for number in range(count):
                name, written_ms = f"{prefix}_{number}", now_ms()
                due[name] = written_ms + 300 + 37 * number
                delivery = make_delivery(delivery_id=name, attempt=2, due_at_ms=due[name])
                await retries.put(delivery, slot=2, now_ms=written_ms)

        async with worker(log):
            await put("dlv_a", 40)
            await eventually(lambda: len(log.deliveries) >= 20)
        await put("dlv_b", 20)
        async with worker(log):
            await eventually(lambda: {each.delivery_id for each in log.deliveries} == due.keys())
        async with worker(log):
            pass
        if any_broker.kind != "embedded":  # whose ends are too low
            await eventually(log.is_read_to_the_end)

        assert Counter(each.delivery_id for each in log.deliveries) == Counter(due.keys())
        for seen in log.seen[topics.DELIVERIES]:
            if seen.record in log.deliveries:
                assert seen.raw.timestamp >= due[seen.record.delivery_id]
        if any_broker.kind != "embedded":  # which forgets floors
            stored = await log.committed()
            lines = {connection.topic(line) for line in SECOND_LINES}
            assert {read(each.metadata)[1] for tp, each in stored.items() if tp.topic in lines} == {IDLE}


#: Retries of one partition, so large that few of them come in one fetch.
RETRIES, BOUND, IN_A_FETCH = 100, 20, 10


async def test_a_put_back_that_hangs_makes_it_not_live_and_waiting_for_the_time_does_not(
    embedded_connection: Connection, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("streams.engine.consumer.STUCK_S", 1.0)
    monkeypatch.setattr("streams.engine.consumer.LOOK_S", 0.1)
    deliveries, send = embedded_connection.topic(topics.DELIVERIES), AIOKafkaProducer.send
    hanging, may_go, names = asyncio.Event(), asyncio.Event(), list[str]()

    async def hangs(self: Any, topic: str, *arguments: Any, **named: Any) -> Any:
        if topic == deliveries:
            hanging.set()
            await may_go.wait()
        return await send(self, topic, *arguments, **named)

    async with log_of(embedded_connection, ONE) as log, worker(log) as app:
        monkeypatch.setattr(AIOKafkaProducer, "send", hangs)
        retries = Retries(embedded_connection, log.producer)

        async def with_one_more(is_so: Callable[[], bool]) -> bool:
            """Others come all the time, to wait in the same place for almost 5 s."""
            names.append(f"dlv_{len(names)}")
            written_ms = now_ms()
            delivery = make_delivery(delivery_id=names[-1], attempt=2, due_at_ms=written_ms + 4_900)
            await retries.put(delivery, slot=2, now_ms=written_ms)
            await asyncio.sleep(0.2)
            return is_so()

        with capture_logs() as said:
            await eventually(lambda: with_one_more(lambda: hanging.is_set() or app.stuck is not None))
            assert app.stuck is None
            await eventually(lambda: with_one_more(lambda: app.stuck is not None))
            told = app.stuck
            may_go.set()
            await eventually(lambda: app.stuck is None)
        await eventually(lambda: sorted(each.delivery_id for each in log.deliveries) == sorted(names))

    assert told == f"no progress on partition {embedded_connection.topic(topics.RETRIES[1])} 2 for 1 s"
    assert [line["event"] for line in said if line["event"].startswith("partition.")] == [
        "partition.stuck",
        "partition.moves",
    ]


@pytest.mark.kafka
async def test_more_than_a_worker_holds_waits_on_the_broker(kafka_connection: Connection):
    payload = b'"%s"' % (b"x" * (FETCH_PARTITION_BYTES // IN_A_FETCH))
    async with log_of(kafka_connection, ONE) as log:
        retries = Retries(kafka_connection, log.producer)
        async with worker(log, Bounds(unfinished_records=BOUND)) as app:
            first_due_ms = now_ms() + 4_000
            for number in range(RETRIES):
                due_ms = first_due_ms + number
                delivery = make_delivery(delivery_id=f"dlv_{number}", attempt=2, due_at_ms=due_ms, payload=payload)
                await retries.put(delivery, slot=2, now_ms=first_due_ms - 4_900)
            await eventually(lambda: app.unfinished[0] >= BOUND)
            held = []
            while len(log.deliveries) < RETRIES:
                assert now_ms() < first_due_ms + 30_000
                held.append(app.unfinished[0])
                await asyncio.sleep(0.01)
        assert [each.delivery_id for each in log.deliveries] == [f"dlv_{number}" for number in range(RETRIES)]
    # What it fetches when it has room for one may be as much as comes in a fetch.
    assert max(held) < BOUND + IN_A_FETCH


async def test_the_dispatcher_bounds_what_it_holds_of_each_retry_topic(connection: Connection, monkeypatch):
    apps = []

    def made(*args: Any, **kwargs: Any) -> SafeApp:
        apps.append(SafeApp(*args, **kwargs))
        return apps[-1]

    monkeypatch.setattr(dispatcher, "SafeApp", made)
    async with dispatching(connection, ONE):
        [app] = apps
        assert app.bounds == {connection.topic(line): dispatcher.RETRY_BOUNDS for line in topics.RETRIES}
