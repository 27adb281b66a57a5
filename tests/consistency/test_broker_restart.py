"""
A broker that is killed and comes back with its data, in the middle of the flow.

Claims, on Apache Kafka (one node, SIGKILL):

1. the dispatcher delivers again within 15 s of the broker being back, by itself or started again as `up` does;
2. nothing that the broker had acknowledged is lost, and nothing is overtaken;
3. a request is repeated only if it was under way when the broker went away;
4. a dispatcher that is asked to stop while the broker is away ends, and what it had under way is done by its successor.
"""

import asyncio
import time
from collections import Counter
from pathlib import Path

import pytest

from services.cli.brokers.kafka import KafkaBroker
from streams import topics
from streams.connection import Connection
from tests.dispatching import SLOW, DispatcherProcess, dispatcher_processes, dispatching
from tests.logs import PARTITIONS, Log, log_of, make_event
from tests.receiving import Receiver, after, held_until, receiver
from tests.waiting import eventually

pytestmark = pytest.mark.kafka

DELIVERS_AGAIN_S = 45.0
NAMES = ("int_1", "int_2", "int_none")


async def configure(log: Log, to: Receiver) -> None:
    for name in NAMES:
        to.policies[name] = after(0.005)
        ordering = "none" if name == "int_none" else "integration"
        await log.integration(to.integration(name, ordering=ordering, max_in_flight=4))


class Accepting:
    """Fifty events a second, until it is stopped; `count` of them are acknowledged."""

    def __init__(self, log: Log) -> None:
        self.count = 0
        self._log = log
        self._is_over = False
        self._task = asyncio.create_task(self._run())

    async def _run(self) -> None:
        while not self._is_over:
            await self._log.events(make_event(self.count))
            self.count += 1
            await asyncio.sleep(0.02)

    async def stop(self) -> int:
        self._is_over = True
        await self._task
        return self.count


def check(log: Log, to: Receiver, accepted: int, under_way: dict[str, int]) -> None:
    repeats = {name: len(to.numbers(name)) - accepted for name in NAMES}
    print(f"{accepted} events, repeats {repeats}, under way {under_way}")  # noqa: T201
    for name in NAMES:
        assert set(range(accepted)) == to.seen[name]
        assert repeats[name] <= under_way[name]
        if name != "int_none":
            assert list(range(accepted)) == to.first_numbers(name)
    each_once = Counter({(event, name): 1 for event in {r.event_id for r in log.receipts} for name in NAMES})
    assert accepted == len(log.receipts)
    assert each_once == Counter((each.event_id, each.integration) for each in log.deliveries)
    assert each_once.keys() == {(each.event_id, each.integration) for each in log.results}
    assert {"delivered"} == {each.outcome for each in log.results}
    assert log.quarantined == []


async def restarted_as_up_does(dispatcher: DispatcherProcess) -> None:
    """Looks after the process until cancelled."""
    while True:
        if not dispatcher.is_running:
            dispatcher.start()
        await asyncio.sleep(0.1)


@pytest.mark.alone  # the bound is in seconds, and beside others everything starts at once when the broker is back
@pytest.mark.parametrize("away_s", [0, pytest.param(20, marks=SLOW), pytest.param(50, marks=SLOW)])
async def test_a_broker_killed_and_started_again_loses_and_repeats_nothing(
    kafka_broker: KafkaBroker, kafka_connection: Connection, tmp_path: Path, away_s: int
):
    """Away for as long as it takes to start; longer than a session; longer than a request may take."""
    async with (
        log_of(kafka_connection) as log,
        receiver() as to,
        dispatcher_processes(kafka_connection, tmp_path) as [dispatcher],
    ):
        await configure(log, to)
        accepting = Accepting(log)
        watching = asyncio.create_task(restarted_as_up_does(dispatcher))
        await to.wait_for("int_1", 50)
        kafka_broker.kill()
        # Longer than a connection takes to be missed; requests that are under way end meanwhile.
        await eventually(lambda: not any(to.open.values()))
        under_way = {"int_1": 1, "int_2": 1, "int_none": 4}
        await asyncio.sleep(away_s)
        await kafka_broker.start()
        back_s, had = time.monotonic(), {name: len(to.seen[name]) for name in NAMES}
        await eventually(lambda: all(len(to.seen[name]) > had[name] for name in NAMES), DELIVERS_AGAIN_S)
        print(f"delivers again {time.monotonic() - back_s:.1f} s after the broker is back")  # noqa: T201
        await to.wait_for("int_1", had["int_1"] + 100)
        accepted = await accepting.stop()
        await eventually(lambda: all(len(to.seen[name]) == accepted for name in NAMES), 60)
        await eventually(log.all_is_committed)
        await eventually(log.is_read_to_the_end)
        watching.cancel()
        await asyncio.gather(watching, return_exceptions=True)
        check(log, to, accepted, under_way)


async def test_a_dispatcher_that_is_stopped_while_the_broker_is_away_ends(
    kafka_broker: KafkaBroker, kafka_connection: Connection
):
    await topics.ensure(kafka_connection, PARTITIONS)
    try:
        async with dispatching(kafka_connection):
            kafka_broker.kill()
            began = time.monotonic()
        assert time.monotonic() - began < 15
    finally:
        await kafka_broker.start()


@SLOW
async def test_a_result_that_has_nowhere_to_go_holds_a_stop_up_for_as_long_as_a_drain_may_take(
    kafka_broker: KafkaBroker, kafka_connection: Connection, tmp_path: Path
):
    async with (
        log_of(kafka_connection) as log,
        receiver() as to,
        dispatcher_processes(kafka_connection, tmp_path) as [dispatcher],
    ):
        await configure(log, to)
        go_on = asyncio.Event()
        to.policies["int_1"] = held_until(go_on, only={19})
        await log.events(*(make_event(number) for number in range(20)))
        for name in NAMES:
            await to.wait_for(name, 20)
        await eventually(lambda: len(log.results) == 59)
        kafka_broker.kill()
        go_on.set()
        try:
            await dispatcher.drain(30)
        finally:
            await kafka_broker.start()
        dispatcher.start()
        await to.wait_for("int_1", 21, 40)
        await eventually(log.all_is_committed)
        await eventually(log.is_read_to_the_end)
        check(log, to, 20, {"int_1": 1, "int_2": 0, "int_none": 0})
