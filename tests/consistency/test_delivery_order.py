"""
Order and isolation: what each `ordering` promises to a receiver, measured at the receiver.

Claims, on Apache Kafka and real HTTP:

1. default: an integration's events arrive in the order of `events`, and the next request starts only after the answer
   to the one before is on the log;
2. `strict` is the same as long as nothing fails;
3. `key`: the same for each key; other keys go on, up to `maxInFlight`;
4. `none`: up to `maxInFlight` at once, and no more;
5. an integration whose receiver is slow or dead delays no other one.
"""

import asyncio
import time
from collections import defaultdict
from itertools import pairwise

import pytest

from streams import topics
from streams.connection import Connection
from streams.records import Result
from tests.dispatching import dispatching
from tests.logs import Log, log_of, make_event
from tests.receiving import Receiver, after, held_until, receiver
from tests.waiting import eventually

pytestmark = pytest.mark.kafka


def overtaken(log: Log, to: Receiver, integration: str) -> int:
    """Requests that arrived before the result of the one before them was handed to the broker."""
    appended_ms: dict[str, int] = {
        seen.record.event_id: seen.raw.timestamp
        for seen in log.seen[topics.RESULTS]
        if isinstance(seen.record, Result) and seen.record.integration == integration
    }
    arrivals = to.arrivals[integration]
    return sum(appended_ms[before.event_id] > int(arrival.at_s * 1000) for before, arrival in pairwise(arrivals))


async def test_each_integration_gets_its_events_in_order_one_at_a_time(kafka_connection: Connection):
    events = 2_000
    names = ("int_1", "int_2", "int_strict")
    async with log_of(kafka_connection) as log, receiver() as to:
        for name in names:
            to.policies[name] = after(0)
            ordering = "strict" if name == "int_strict" else "integration"
            await log.integration(to.integration(name, ordering=ordering, max_in_flight=7))
        async with dispatching(kafka_connection):
            began = time.monotonic()
            await log.events(*(make_event(number) for number in range(events)))
            await log.results_come(3 * events, 90)
            took_s = time.monotonic() - began
        for name in names:
            assert list(range(events)) == to.numbers(name)
            assert to.most[name] == 1
            assert overtaken(log, to, name) == 0
            assert list(range(events)) == numbers_of_results(log, to, name)
        print(f"{3 * events / took_s:.0f} deliveries/s")  # noqa: T201


def numbers_of_results(log: Log, to: Receiver, integration: str) -> list[int]:
    number = {arrival.event_id: arrival.number for arrival in to.arrivals[integration]}
    return [number[result.event_id] for result in log.results if result.integration == integration]


async def test_ordering_none_has_up_to_max_in_flight_at_once_and_no_more(kafka_connection: Connection):
    async with log_of(kafka_connection) as log, receiver() as to:
        go_on = asyncio.Event()
        to.policies["int_1"] = held_until(go_on)
        await log.integration(to.integration("int_1", ordering="none", max_in_flight=5))
        async with dispatching(kafka_connection) as probe:
            await log.events(*(make_event(number) for number in range(50)))
            await to.wait_for("int_1", 5)
            assert await probe.gauge("in_flight") == 5
            assert len(to.arrivals["int_1"]) == 5
            go_on.set()
            await log.results_come(50)
        assert to.most["int_1"] == 5
        assert set(range(50)) == set(to.numbers("int_1"))


async def test_ordering_key_keeps_the_order_of_each_key_and_lets_other_keys_go_on(kafka_connection: Connection):
    keys = ["red", "green", "blue", None]
    async with log_of(kafka_connection) as log, receiver() as to:
        go_on = asyncio.Event()
        to.policies["int_1"] = held_until(go_on, only={0})  # the first of red
        await log.integration(to.integration("int_1", ordering="key", max_in_flight=3))
        async with dispatching(kafka_connection):
            await log.events(*(make_event(n, ordering_key=keys[n % 4]) for n in range(200)))
            await log.results_come(150)  # all but red
            assert {0} == {n for n in to.numbers("int_1") if n % 4 == 0}
            go_on.set()
            await log.results_come(200)
        by_key: dict[str | None, list[int]] = defaultdict(list)
        for arrival in to.arrivals["int_1"]:
            by_key[arrival.key].append(arrival.number)
        for number, key in enumerate(keys):
            assert list(range(number, 200, 4)) == by_key[key]
            assert to.most["int_1", key] == 1
        assert 1 < to.most["int_1"] <= 3


@pytest.mark.alone
async def test_a_receiver_that_hangs_delays_only_its_own_integration(kafka_connection: Connection):
    """All on one partition, so that nothing but the lanes keeps them apart."""
    one = topics.Partitions(by_app=1, by_integration=1)
    names = ("int_1", "int_2", "int_3")
    async with log_of(kafka_connection, one) as log, receiver() as to:
        never = asyncio.Event()
        to.policies["int_hang"] = held_until(never)
        for name in (*names, "int_hang"):
            await log.integration(to.integration(name, timeout_ms=10_000))
        async with dispatching(kafka_connection, one):
            await log.events(*(make_event(number) for number in range(200)))
            await eventually(lambda: len(log.results) == 600, 8)  # before the one that hangs times out
            assert to.numbers("int_hang") == [0]
            for name in names:
                assert list(range(200)) == to.numbers(name)
            never.set()
            await log.results_come(800)
        assert list(range(200)) == to.numbers("int_hang")
