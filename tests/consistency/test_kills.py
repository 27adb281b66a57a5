"""
Dispatchers as processes, killed with SIGKILL, drained with SIGTERM, replaced.

Claims, on Apache Kafka and real HTTP, for events that the broker has acknowledged:

1. none is lost: each reaches every integration that selected it;
2. none is overtaken: first arrivals of an integration follow the order of the events;
3. a request is repeated only if it was under way when its process was killed; what had its result on the log is not;
4. a process that drains repeats nothing;
5. each delivery has one receipt, one record on `deliveries` and one result, however many processes worked on it.
"""

import asyncio
import os
import signal
from collections import Counter
from pathlib import Path

import pytest
from aiokafka import TopicPartition

from services.cli.reconcile.proof import Span
from services.cli.reconcile.reading import Reconciliation
from streams import topics
from streams.connection import Connection
from tests.dispatching import SLOW, TAKEN_OVER_S, DispatcherProcess, dispatcher_processes
from tests.logs import Log, log_of, make_event
from tests.receiving import Receiver, after, held_until, receiver
from tests.waiting import eventually

pytestmark = pytest.mark.kafka

ONE = topics.Partitions(by_app=1, by_integration=1)


async def test_a_kill_behind_a_hanging_head_repeats_that_one_only(kafka_connection: Connection, tmp_path: Path):
    """The head holds the commit back while 300 behind it finish; all of them are read again after the kill."""
    events = 300
    async with (
        log_of(kafka_connection, ONE) as log,
        receiver() as to,
        dispatcher_processes(kafka_connection, tmp_path, 1, ONE) as [dispatcher],
    ):
        go_on = asyncio.Event()
        to.policies["int_hang"] = held_until(go_on)
        await log.integration(to.integration("int_hang", events=["slow"], timeout_ms=10_000))
        await log.integration(to.integration("int_1"))
        await log.events(make_event(0, type="slow"))
        await to.wait_for("int_hang", 1)
        await log.events(*(make_event(number) for number in range(1, events + 1)))
        await log.results_come(events)
        head = TopicPartition(kafka_connection.topic(topics.DELIVERIES), 0)
        assert (await log.committed())[head].offset < 20, "the head holds it back, behind the markers"
        dispatcher.kill()
        assert to.numbers("int_hang") == [0]

        dispatcher.start()
        await to.wait_for("int_hang", 2, TAKEN_OVER_S)
        go_on.set()
        await log.results_come(events + 1)
        await log.events(make_event(events + 1))
        await log.results_come(events + 2)
        await eventually(log.all_is_committed)

        assert to.numbers("int_hang") == [0, 0]
        assert list(range(1, events + 2)) == to.numbers("int_1")
        assert events + 2 == len(log.results) == len({result.delivery_id for result in log.results})


#: Of the load: events, and how many a second.
EVENTS, PER_SECOND = int(os.environ.get("KILL_EVENTS", "1000")), 100


async def accept(log: Log) -> None:
    """All events, at a steady pace; each is acknowledged by the broker."""
    loop = asyncio.get_running_loop()
    began_s = loop.time()
    for number in range(EVENTS):
        await log.events(make_event(number))
        await asyncio.sleep(began_s + number / PER_SECOND - loop.time())


#: Integrations, and how many requests of each may be under way at once.
PACE = {"int_1": 1, "int_2": 1, "int_3": 1, "int_none": 5}


async def delivers_again(to: Receiver) -> None:
    """Each integration gets something that it did not have yet."""
    before = {name: len(to.seen[name]) for name in PACE}
    await eventually(lambda: all(len(to.seen[name]) > before[name] for name in PACE), TAKEN_OVER_S)


async def test_kills_and_restarts_under_load_lose_nothing_and_repeat_only_what_was_under_way(
    kafka_connection: Connection, tmp_path: Path
):
    """Two dispatchers, 100 events a second, three times SIGKILL, twice SIGTERM."""
    async with (
        log_of(kafka_connection) as log,
        receiver() as to,
        dispatcher_processes(kafka_connection, tmp_path, 2) as [first, second],
    ):
        for name, at_once in PACE.items():
            to.policies[name] = after(0.002)
            ordering = "none" if name == "int_none" else "integration"
            await log.integration(to.integration(name, ordering=ordering, max_in_flight=at_once))
        accepting = asyncio.create_task(accept(log))
        await delivers_again(to)

        for killed, drained in (([first], [second]), ([first, second], []), ([], [first])):
            kill(killed)
            await drain(drained)
            await delivers_again(to)
        await accepting
        await eventually(lambda: all(len(to.seen[name]) == EVENTS for name in PACE), 60)
        await eventually(log.all_is_committed, 30)
        await eventually(log.is_read_to_the_end)

    repeats = {name: len(to.numbers(name)) - EVENTS for name in PACE}
    orders = {name: to.first_numbers(name) for name in PACE if name != "int_none"}
    overtaken = sum(order != sorted(order) for order in orders.values())
    print(  # noqa: T201
        f"{EVENTS} events, {len(log.results)} results, {overtaken} integrations out of order, repeats {repeats}"
    )
    assert overtaken == 0
    assert all(0 <= repeats[name] <= 3 * at_once for name, at_once in PACE.items())
    assert EVENTS == len({receipt.record_id for receipt in log.receipts}) == len(log.receipts)
    each_once = Counter({(event, name): 1 for event in {r.event_id for r in log.receipts} for name in PACE})
    assert each_once == Counter((each.event_id, each.integration) for each in log.deliveries)
    assert each_once == Counter((each.event_id, each.integration) for each in log.results)
    assert {"delivered"} == {result.outcome for result in log.results}
    assert log.quarantined == []


def kill(dispatchers: list[DispatcherProcess]) -> None:
    """As the kernel does it; started again at once, as `up` does it."""
    for each in dispatchers:
        each.kill()
    for each in dispatchers:
        each.start()


async def drain(dispatchers: list[DispatcherProcess]) -> None:
    for each in dispatchers:
        assert await each.drain() == 0
        each.start()


@SLOW
async def test_a_worker_that_wakes_from_a_freeze_repeats_only_what_was_under_way(
    kafka_connection: Connection, tmp_path: Path
):
    """It has 300 deliveries in line when it is stopped; another has made them when it wakes."""
    async with (
        log_of(kafka_connection, ONE) as log,
        receiver() as to,
        dispatcher_processes(kafka_connection, tmp_path, 1, ONE) as [frozen],
    ):
        to.policies["int_1"] = after(0.01)
        # One attempt, so that what the frozen one says of it when it wakes, a timeout as a rule, is a second outcome.
        await log.integration(to.integration("int_1", max_attempts=1, delays_ms=[]))
        await log.events(*(make_event(number) for number in range(300)))
        await to.wait_for("int_1", 10)
        frozen.signal(signal.SIGSTOP)
        (tmp_path / "other").mkdir()
        async with dispatcher_processes(kafka_connection, tmp_path / "other", 1, ONE) as [other]:
            await eventually(lambda: len(to.seen["int_1"]) == 300, TAKEN_OVER_S)
            await eventually(lambda: len(log.results) >= 300)
            frozen.signal(signal.SIGCONT)
            await log.events(*(make_event(number) for number in range(300, 400)))
            await eventually(lambda: len(to.seen["int_1"]) == 400, TAKEN_OVER_S)
            await frozen.until_ready()
            await other.until_ready()
        repeats = len(to.numbers("int_1")) - 400
        report = await Reconciliation(kafka_connection, Span(), lambda *_: None).run()
        print(repeats, "repeats,", report.late)  # noqa: T201
        assert repeats <= 1
        assert list(range(400)) == to.first_numbers("int_1")
        assert (report.is_proven, report.outcomes.total() + report.open) == (True, 400)
        assert report.late_outcomes <= repeats
