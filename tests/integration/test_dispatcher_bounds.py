"""The dispatcher's end and its bounds: what hangs holds nothing up for longer than it must, and no more than it may."""

import asyncio
import time
from pathlib import Path

import pytest

from streams import topics
from streams.connection import Connection
from tests.dispatching import TAKEN_OVER_S, dispatcher_processes, dispatching
from tests.logs import Log, log_of, make_event
from tests.receiving import after, held_until, receiver
from tests.waiting import eventually

pytestmark = pytest.mark.kafka

ONE = topics.Partitions(by_app=1, by_integration=1)


async def test_a_drain_with_a_hanging_receiver_ends_in_time_and_repeats_nothing(
    kafka_connection: Connection, tmp_path: Path
):
    timeout_s = 1
    async with (
        log_of(kafka_connection) as log,
        receiver() as to,
        dispatcher_processes(kafka_connection, tmp_path) as [dispatcher],
    ):
        never = asyncio.Event()
        to.policies["int_hang"] = held_until(never)
        to.policies["int_none"] = held_until(never)
        to.policies["int_slow"] = after(0.2)
        for name in ("int_hang", "int_slow", "int_1"):
            await log.integration(to.integration(name, timeout_ms=1_000 * timeout_s, max_attempts=1))
        await log.integration(
            to.integration("int_none", ordering="none", max_in_flight=7, timeout_ms=1_000 * timeout_s, max_attempts=1)
        )
        await log.events(*(make_event(number) for number in range(10)))
        await to.wait_for("int_none", 7)
        await to.wait_for("int_hang", 1)
        await to.wait_for("int_1", 10)

        began = time.monotonic()
        assert await dispatcher.drain() == 0
        assert time.monotonic() - began < timeout_s + 5
        sent = {name: list(to.numbers(name)) for name in to.arrivals}
        await eventually(log.is_read_to_the_end)
        assert sum(map(len, sent.values())) == len(log.results), "what was sent has its result"
        assert sum((each.outcome, each.reason) == ("exhausted", "timeout") for each in log.results) == 8

        never.set()
        dispatcher.start()
        await log.results_come(40, TAKEN_OVER_S)
        await eventually(log.all_is_committed)
        for name in ("int_hang", "int_slow", "int_1"):
            assert list(range(10)) == to.numbers(name)
        assert list(range(10)) == sorted(to.numbers("int_none"))
        assert 40 == len({each.delivery_id for each in log.results}) == len(log.results)


async def test_a_second_sigterm_ends_a_drain_at_once(kafka_connection: Connection, tmp_path: Path):
    async with (
        log_of(kafka_connection) as log,
        receiver() as to,
        dispatcher_processes(kafka_connection, tmp_path) as [dispatcher],
    ):
        never = asyncio.Event()
        to.policies["int_hang"] = held_until(never)
        await log.integration(to.integration("int_hang", timeout_ms=10_000))
        await log.events(make_event(1))
        await to.wait_for("int_hang", 1)
        dispatcher.process.terminate()
        await eventually(lambda: "dispatcher.draining" in dispatcher.said)
        began = time.monotonic()
        await dispatcher.drain()
        assert time.monotonic() - began < 5


async def test_behind_a_hanging_receiver_memory_is_bounded_and_others_go_on(kafka_connection: Connection):
    """One integration on each partition, and one beside the one whose receiver hangs, which does not fill its bound."""
    bound = 50
    async with log_of(kafka_connection) as log, receiver() as to:
        heals = asyncio.Event()
        hangs, goes_on, beside = on_other_partitions(log)
        to.policies[hangs] = held_until(heals)
        for name in (hangs, goes_on, beside):
            await log.integration(to.integration(name, timeout_ms=10_000))
        async with dispatching(kafka_connection, max_unfinished_records=bound, commit_interval_ms=50) as probe:
            most = 0.0
            for start in range(0, 300, 50):
                await log.events(*(make_event(number) for number in range(start, start + 50)))
                await to.wait_for(goes_on, start + 50)
                await to.wait_for(beside, start + 50)
                most = max(most, await probe.gauge("unfinished_records"))
            assert to.numbers(hangs) == [0]
            # A fetch that was under way when the bound was reached is taken too: at most what one brings.
            assert most <= bound + 1_000 + bound
            await log.events(*(make_event(number) for number in range(300, 400)))
            await to.wait_for(goes_on, 400)
            await to.wait_for(beside, 400)
            assert to.numbers(hangs) == [0], "and all of that while its first request hangs"
            heals.set()
            await log.results_come(1_200, 60)
            await eventually(log.all_is_committed)
            assert await probe.gauge("unfinished_records") == 0
            assert await probe.gauge("unfinished_bytes") == 0
        assert list(range(400)) == to.numbers(hangs)
        assert list(range(400)) == to.numbers(goes_on)
        assert list(range(400)) == to.numbers(beside)


def on_other_partitions(log: Log) -> tuple[str, str, str]:
    """Names of two integrations whose deliveries stand on different partitions, and of one beside the first."""
    names: dict[int, list[str]] = {}
    for number in range(20):
        name = f"int_{number}"
        names.setdefault(log.partition_of(topics.DELIVERIES, name), []).append(name)
    (first, beside, *_), (second, *_) = sorted(names.values(), key=len, reverse=True)[:2]
    return first, second, beside
