"""
What becomes of deliveries whose endpoints fail, hang, or are paused: a dispatcher, Apache Kafka, real HTTP.

Waits are a second here, the shortest that a retry topic has; the rules are the same for hours.
"""

import asyncio
import time
from collections import defaultdict

import msgspec
import pytest

from streams import codec, topics
from streams.connection import Connection
from streams.records import IntegrationConfig, IntegrationState
from tests.dispatching import dispatching
from tests.endpoints import Peer, Received, answer
from tests.logs import Log, log_of, make_event
from tests.receiving import Arrival, Policy, held_until, receiver
from tests.waiting import eventually

pytestmark = pytest.mark.kafka

ONE = topics.Partitions(by_app=1, by_integration=1)

#: Three attempts, the second after a second and the third after another; 0.8 to 1.2 of it.
QUICK = {"max_attempts": 3, "delays_ms": [1_000, 1_000]}


def fails(times: int, *numbers: int, status: int = 500) -> Policy:
    """The first so many requests of these events fail."""
    failed: dict[int, int] = defaultdict(int)

    async def policy(arrival: Arrival) -> int:
        if arrival.number in numbers and failed[arrival.number] < times:
            failed[arrival.number] += 1
            return status
        return 200

    return policy


async def ended(log: Log, count: int, within_s: float = 30.0) -> dict[str, list[tuple[str, int]]]:
    """When so many deliveries have their outcome: by event, the outcome and the attempt, in the order of the log."""
    await eventually(lambda: sum(each.outcome is not None for each in log.results) >= count, within_s)
    found: dict[str, list[tuple[str, int]]] = defaultdict(list)
    for each in log.results:
        if each.outcome is not None:
            found[each.event_id].append((each.outcome, each.attempt))
    return found


async def test_a_failed_delivery_leaves_the_line_and_comes_back_when_it_is_due(kafka_connection: Connection):
    async with log_of(kafka_connection) as log, receiver() as to, dispatching(kafka_connection):
        to.policies["int_1"] = fails(2, 0)
        await log.integration(to.integration("int_1", **QUICK))
        await log.events(*(make_event(number) for number in range(20)))
        outcomes = await ended(log, 20)
        await eventually(log.all_is_committed)

    assert list(range(20)) == to.first_numbers("int_1"), "the others went on"
    assert to.numbers("int_1")[20:] == [0, 0]
    assert all(len(each) == 1 for each in outcomes.values())
    first, second, last = sorted(
        (r for r in log.results if r.event_id == log.receipts[0].event_id), key=lambda r: r.attempt
    )
    assert (first.outcome, second.outcome, last.outcome) == (None, None, "delivered")
    assert (first.next_attempt, second.next_attempt, last.next_attempt) == (2, 3, None)
    for before, after in ((first, second), (second, last)):
        wait_ms = before.next_due_at_ms - before.finished_at_ms
        assert wait_ms in (800, 900, 1_000, 1_100, 1_200)
        assert 0 <= after.started_at_ms - before.next_due_at_ms < 1_000
    assert [
        dict(each.request.headers)["X-ApifyCloud-Delivery"] for each in to.arrivals["int_1"] if each.number == 0
    ] == [
        "int_1:1",
        "int_1:2",
        "int_1:3",
    ]


async def test_a_retry_meets_what_has_changed_while_it_waited(kafka_connection: Connection):
    """Another URL, a pause by a person or by the breaker, a deletion: each comes while the second attempt waits."""
    names = ("int_moved", "int_paused", "int_failing", "int_gone")
    async with log_of(kafka_connection, ONE) as log, receiver() as to, dispatching(kafka_connection, ONE):
        configs = {name: to.integration(name, **QUICK) for name in names}
        for name, config in configs.items():
            to.policies[name] = fails(1, 0)
            await log.integration(config)
        await log.events(make_event(0))
        first = await log.results_come(4)
        await changed(log, configs["int_moved"], url=f"{to.endpoint.url}/int_elsewhere")
        by_person = await paused(log, configs["int_paused"], "a person")
        by_breaker = await paused(log, configs["int_failing"], "the breaker")
        await log.delete("int_gone")
        assert time.time() * 1_000 < min(each.next_due_at_ms for each in first), "too late: this says nothing"

        again = {(name, 2) for name in names}
        await eventually(lambda: again <= {(each.integration, each.attempt) for each in log.deliveries})
        await ended(log, 2)
        await eventually(log.all_is_committed)
        assert {name: len(to.arrivals[name]) for name in (*names, "int_elsewhere")} == {
            **dict.fromkeys(names, 1),
            "int_elsewhere": 1,
        }
        outcomes = {each.integration: (each.outcome, each.reason, each.attempt) for each in log.results if each.outcome}
        assert outcomes == {
            "int_moved": ("delivered", "status_200", 2),
            "int_gone": ("discarded", "integration_deleted", 0),
        }
        for held in (by_person, by_breaker):
            await changed(log, held, status="active", epoch=2)
        await ended(log, 4)

    assert {name: len(to.arrivals[name]) for name in names} == {
        "int_moved": 1, "int_paused": 2, "int_failing": 2, "int_gone": 1
    }  # fmt: skip
    assert len(log.results) == 8


async def test_an_endpoint_that_asks_to_wait_is_left_alone_for_so_long(kafka_connection: Connection):
    """Two seconds by `Retry-After`, where the policy would come back after 0.8 to 1.2."""
    at_s: list[float] = []

    async def busy_once(received: Received, peer: Peer) -> None:
        at_s.append(time.time())
        await answer(200 if at_s[1:] else 503, headers=[("Retry-After", "2")])(received, peer)

    async with log_of(kafka_connection, ONE) as log, receiver() as to, dispatching(kafka_connection, ONE):
        to.behaviours["int_1"] = busy_once
        await log.integration(to.integration("int_1", **QUICK))
        await log.events(make_event(0))
        await ended(log, 1)

    first, second = log.results
    assert (first.status, first.next_attempt, second.outcome, second.attempt) == (503, 2, "delivered", 2)
    assert first.next_due_at_ms - first.finished_at_ms == 2_000
    assert second.started_at_ms >= first.next_due_at_ms
    assert at_s[1] - at_s[0] >= 2.0


async def test_attempts_are_used_up_and_a_4xx_is_final(kafka_connection: Connection):
    async with log_of(kafka_connection) as log, receiver() as to, dispatching(kafka_connection):
        to.policies["int_1"] = fails(9, 0)
        to.policies["int_2"] = fails(9, 0, status=404)
        to.policies["sub_3"] = fails(9, 0, status=404)
        await log.integration(to.integration("int_1", **QUICK))
        await log.integration(to.integration("int_2", **QUICK))
        await log.integration(to.integration("sub_3", retry_policy="any_failure", **QUICK))
        await log.events(make_event(0))
        await ended(log, 3)

    assert {name: len(to.arrivals[name]) for name in ("int_1", "int_2", "sub_3")} == {
        "int_1": 3,
        "int_2": 1,
        "sub_3": 3,
    }
    assert {r.integration: (r.outcome, r.attempt) for r in log.results if r.outcome} == {
        "int_1": ("exhausted", 3),
        "int_2": ("rejected", 1),
        "sub_3": ("exhausted", 3),
    }


async def test_under_strict_nothing_overtakes_a_failing_delivery(kafka_connection: Connection):
    async with log_of(kafka_connection) as log, receiver() as to, dispatching(kafka_connection):
        to.policies["int_1"] = fails(2, 3, 7)
        await log.integration(to.integration("int_1", ordering="strict", **QUICK))
        await log.integration(to.integration("int_2"))
        await log.events(*(make_event(number) for number in range(10)))
        await to.wait_for("int_2", 10)
        assert to.numbers("int_1") == [0, 1, 2, 3]
        await ended(log, 20)
        await eventually(log.all_is_committed)

    assert to.numbers("int_1") == [0, 1, 2, 3, 3, 3, 4, 5, 6, 7, 7, 7, 8, 9]


async def test_under_key_only_the_failing_key_waits(kafka_connection: Connection):
    async with log_of(kafka_connection) as log, receiver() as to, dispatching(kafka_connection):
        to.policies["int_1"] = fails(2, 0)
        await log.integration(to.integration("int_1", ordering="key", max_in_flight=4, **QUICK))
        await log.events(*(make_event(number, ordering_key="ab"[number % 2]) for number in range(20)))
        await eventually(lambda: to.seen["int_1"] >= set(range(1, 20, 2)))
        assert 2 not in to.seen["int_1"]
        await ended(log, 20)
        await eventually(log.all_is_committed)

    assert [n for n in to.numbers("int_1") if n % 2] == list(range(1, 20, 2))
    assert [n for n in to.numbers("int_1") if n % 2 == 0] == [0, 0, *range(0, 20, 2)]


async def changed(log: Log, config: IntegrationConfig, **changes: object) -> IntegrationConfig:
    """The next version of a configuration, on the log."""
    config = msgspec.structs.replace(config, version=config.version + 1, **changes)
    await log.integration(config)
    return config


async def paused(log: Log, config: IntegrationConfig, by: str) -> IntegrationConfig:
    if by == "a person":
        return await changed(log, config, status="paused")
    state = IntegrationState(
        integration=config.id, app=config.app, state="paused", epoch=config.epoch, consecutive_failures=20,
        delivered=0, ended=20, applied_offset=1,
    )  # fmt: skip
    await log.raw(topics.INTEGRATION_STATE, codec.encode(state), config.id.encode())
    return config


@pytest.mark.parametrize("by", ["a person", "the breaker"])
async def test_what_comes_while_paused_is_held_and_drained_in_order(kafka_connection: Connection, by: str):
    async with log_of(kafka_connection, ONE) as log, receiver() as to, dispatching(kafka_connection, ONE):
        config = to.integration("int_1")
        await log.integration(config)
        await log.integration(to.integration("int_2"))
        await log.events(make_event(0))
        await to.wait_for("int_1", 1)
        config = await paused(log, config, by)
        await log.events(*(make_event(number) for number in range(1, 600)))
        await to.wait_for("int_2", 600)
        await eventually(log.all_is_committed)
        assert to.numbers("int_1") == [0], "nothing is sent while it is paused, and nothing is held back by it"
        await changed(log, config, status="active", epoch=config.epoch + 1)
        await to.wait_for("int_1", 600)
        await log.events(*(make_event(number) for number in range(600, 700)))
        await ended(log, 1_400)

    assert to.numbers("int_1") == list(range(700))


async def test_what_was_held_is_skipped_and_what_comes_after_is_not(kafka_connection: Connection):
    async with log_of(kafka_connection, ONE) as log, receiver() as to, dispatching(kafka_connection, ONE):
        config = await changed(log, to.integration("int_1"), status="paused")
        await log.events(*(make_event(number) for number in range(100)))
        await eventually(lambda: len(log.deliveries) == 100)
        end = (await log.integration(to.integration("int_2"))) + 1
        await changed(log, config, status="active", epoch=2, skip_before=end + 1)
        await log.events(*(make_event(number) for number in range(100, 110)))
        outcomes = await ended(log, 110 + 10)

    assert to.numbers("int_1") == list(range(100, 110))
    assert [r.reason for r in log.results if r.integration == "int_1"] == 100 * ["skipped"] + 10 * ["status_200"]
    assert len(outcomes) == 110


async def test_what_comes_while_paused_is_discarded_where_that_was_chosen(kafka_connection: Connection):
    async with log_of(kafka_connection) as log, receiver() as to, dispatching(kafka_connection):
        config = await changed(log, to.integration("int_1", while_paused="discard"), status="paused")
        await log.events(*(make_event(number) for number in range(30)))
        await ended(log, 30)
        await changed(log, config, status="active", epoch=2)
        await log.events(make_event(30))
        await to.wait_for("int_1", 1)

    assert to.numbers("int_1") == [30]
    assert {(r.outcome, r.reason, r.attempt) for r in log.results[:30]} == {("discarded", "integration_paused", 0)}


async def test_one_that_is_thousands_behind_delays_nobody_and_catches_up_in_order(kafka_connection: Connection):
    events = 3_000
    async with (
        log_of(kafka_connection, ONE) as log,
        receiver() as to,
        dispatching(kafka_connection, ONE, max_unfinished_records=2_000) as probe,
    ):
        go_on = asyncio.Event()
        to.policies["int_1"] = held_until(go_on)
        await log.integration(to.integration("int_1", timeout_ms=10_000))
        await log.integration(to.integration("int_2", ordering="none", max_in_flight=50))
        began = time.monotonic()
        await log.events(*(make_event(number) for number in range(events)))
        await to.wait_for("int_2", events)
        print(f"the other: {events / (time.monotonic() - began):.0f}/s")  # noqa: T201
        assert to.numbers("int_1") == [0]
        await eventually(log.all_is_committed)
        assert await probe.gauge("unfinished_records") == 0
        began = time.monotonic()
        go_on.set()
        await eventually(lambda: len(to.arrivals["int_1"]) >= events, 60)
        print(f"caught up: {events / (time.monotonic() - began):.0f}/s")  # noqa: T201
        await log.events(make_event(events))
        await ended(log, 2 * events + 2)

    assert to.numbers("int_1") == list(range(events + 1))
