"""
What one unwell endpoint costs the others: each scenario beside a run without it, in one round on one broker.

- `hang`: one of ten endpoints hangs, once with auto-pause off and once on.
- `behind`: one integration is thousands of events behind and catches up, in order and without.
- `slow`: many slow integrations, each behind by its own amount, beside healthy ones.
- `trip`: an endpoint fails until the breaker pauses it: when does the last request start?
"""

import asyncio
import tempfile
import time
from collections.abc import Callable, Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any, Final

from aiokafka import AIOKafkaConsumer, TopicPartition

from bench.stage import PARTITIONS, Stage, stage
from streams import codec, topics
from streams.records import IntegrationState, Result

Say = Callable[[str], None]

#: Shares of sorted latencies.
_P50: Final = 0.50
_P99: Final = 0.99
#: How long the run without a fault is at most, seconds.
_HEALTHY_S: Final = 180


def at(latencies: list[float], share: float) -> float:
    """That percentile of sorted values."""
    return latencies[min(int(len(latencies) * share), len(latencies) - 1)] if latencies else float("nan")


def figures(latencies: list[float]) -> dict[str, float]:
    return {"p50Ms": at(latencies, _P50), "p99Ms": at(latencies, _P99), "count": len(latencies)}


async def settle(run: Stage) -> None:
    """Warm up: connections, caches, Java."""
    await run.at_a_pace(range(-300, 0), 100, "warm")


async def hang(bootstrap: str, folder: Path, say: Say, *, seconds: float = 60, per_s: float = 50) -> dict[str, Any]:
    """Ten integrations, all healthy; then the tenth hangs with auto-pause off; then on."""
    found: dict[str, Any] = {}
    for name, behaviour, auto_pause in (("healthy", "fast", False), ("hangs", "hang", False), ("paused", "hang", True)):
        async with stage(bootstrap, folder / f"hang-{name}") as run:
            names = [f"int_{number}" for number in range(9)]
            for each in names:
                await run.integration(each, "fast")
            await run.integration("int_ill", behaviour, auto_pause=auto_pause)
            worker = await run.dispatcher()
            await run.breaker()
            await run.ready()
            await settle(run)
            before_mb, before_s = run.rss_mb(worker), run.cpu_s(worker)
            # Without a fault a few minutes say what its percentiles are.
            numbers = range(int((min(seconds, _HEALTHY_S) if name == "healthy" else seconds) * per_s))
            await run.at_a_pace(numbers, per_s)
            await run.come({each: len(numbers) + 300 for each in names}, 30)
            found[name] = figures(run.latencies_ms(names, numbers)) | {
                "grownMb": run.rss_mb(worker) - before_mb,
                "cpuS": run.cpu_s(worker) - before_s,
                "sentToIll": sum(each.integration == "int_ill" for each in run.arrivals()),
            }
            say(f"hang, {name}: {found[name]}")
    for name in ("hangs", "paused"):
        found[name]["ratioP99"] = found[name]["p99Ms"] / found["healthy"]["p99Ms"]
    return found


async def behind(bootstrap: str, folder: Path, say: Say, *, events: int = 20_000, per_s: float = 20) -> dict[str, Any]:
    """One is so many events behind while nine others have a steady load; it is activated, and catches up."""
    found: dict[str, Any] = {}
    for ordering in ("integration", "none"):
        async with stage(bootstrap, folder / f"behind-{ordering}") as run:
            names = [f"int_{number}" for number in range(9)]
            for each in names:
                await run.integration(each, "fast", events=["live", "warm"])
            late = await run.integration(
                "int_late", "fast", ordering=ordering, max_in_flight=50, events=["backlog"], status="paused"
            )
            await run.dispatcher()
            await run.ready()
            await settle(run)
            sending = [run.send(number, "backlog") for number in range(1_000_000, 1_000_000 + events)]
            for start in range(0, events, 2_000):
                await asyncio.gather(*sending[start : start + 2_000])
            await asyncio.sleep(5)
            calm = range(int(20 * per_s))
            await run.at_a_pace(calm, per_s, "live")
            began_ns = time.time_ns()
            await run.integration(
                late.id, "fast", ordering=ordering, max_in_flight=50, events=["backlog"], version=2, epoch=2
            )
            loaded = range(len(calm), 2 * len(calm))
            await asyncio.gather(
                run.at_a_pace(loaded, per_s, "live"), run.come({"int_late": events}, events / 50 + 60, say)
            )
            arrivals = [each for each in run.arrivals() if each.integration == "int_late"]
            order = list(dict.fromkeys(each.number for each in arrivals))
            found[ordering] = {
                "perS": events / ((arrivals[-1].at_ns - began_ns) / 1e9),
                "repeated": len(arrivals) - events,
                "outOfOrder": sum(a > b for a, b in pairwise(order)),
                "othersBefore": figures(run.latencies_ms(names, calm)),
                "othersMeanwhile": figures(run.latencies_ms(names, loaded)),
            }
            say(f"behind, {ordering}: {found[ordering]}")
    return found


async def slow(
    bootstrap: str, folder: Path, say: Say, *, count: int = 1_000, healthy: int = 100, seconds: float = 60
) -> dict[str, Any]:
    """
    Slow integrations, each with a backlog of its own size, so that their cursors are spread over the log.

    Events of type `g0` to `g9` make the backlogs: integration n wants those of group n % 10 and up, and is paused while
    they are accepted, so cursors of the groups begin at different places.
    """
    found: dict[str, Any] = {}
    for name, ill in (("healthy", 0), ("slow", count)):
        async with stage(bootstrap, folder / f"slow-{name}") as run:
            names = [f"int_{number}" for number in range(healthy)]
            for each in names:
                await run.integration(each, "fast", events=["live", "warm"])
            for number in range(ill):
                wanted = [f"g{group}" for group in range(number % 10, 10)]
                await run.integration(f"int_slow_{number}", "slow-4000", events=wanted, auto_pause=False)
            worker = await run.dispatcher()
            await run.ready()
            await settle(run)
            for group in range(10):
                await asyncio.gather(*(run.send(1_000_000 + group * 100 + n, f"g{group}") for n in range(40)))
            await fanned_out(run)
            await asyncio.sleep(30)  # lines fall behind, and are detached
            numbers = range(int(seconds * 2))
            await run.at_a_pace(numbers, 2, "live")
            await run.come({each: len(numbers) + 300 for each in names}, 60)
            found[name] = figures(run.latencies_ms(names, numbers)) | {"rssMb": run.rss_mb(worker)}
            say(f"slow, {name}: {found[name]}")
    found["slow"]["ratioP99"] = found["slow"]["p99Ms"] / found["healthy"]["p99Ms"]
    return found


async def fanned_out(run: Stage) -> None:
    """Until no delivery has come onto its topic for a while: an event for 1,000 integrations takes 0.2 s."""
    reader: AIOKafkaConsumer[Any, Any] = AIOKafkaConsumer(bootstrap_servers=run.connection.bootstrap)
    await reader.start()
    try:
        count = topics.partition_count(topics.DELIVERIES, PARTITIONS)
        partitions = [TopicPartition(run.connection.topic(topics.DELIVERIES), number) for number in range(count)]
        before: dict[TopicPartition, int] = {}
        while (ends := await reader.end_offsets(partitions)) != before:
            before = ends
            await asyncio.sleep(3)
    finally:
        await reader.stop()


async def trip(bootstrap: str, folder: Path, say: Say) -> dict[str, Any]:
    """When requests start after the result of the twentieth failure in a row, and when the pause is published."""
    async with stage(bootstrap, folder / "trip") as run:
        await run.integration("int_ill", "fail", ordering="none", max_in_flight=5, max_attempts=1)
        await run.dispatcher()
        await run.breaker()
        await run.ready()
        await run.at_a_pace(range(400), 100)
        await asyncio.sleep(3)
        results = [each for _, each in await everything(run, topics.RESULTS) if isinstance(each, Result)]
        states = [
            (at_ms, each)
            for at_ms, each in await everything(run, topics.INTEGRATION_STATE)
            if isinstance(each, IntegrationState) and each.state == "paused"
        ]
        twentieth_ms = results[19].finished_at_ms
        found = {
            "requests": len(run.arrivals()),
            "lastStartAfterMs": max(each.started_at_ms for each in results if each.attempt) - twentieth_ms,
            "pausedAfterMs": states[0][0] - twentieth_ms if states else None,
        }
        say(f"trip: {found}")
    return found


async def everything(run: Stage, topic: topics.Topic) -> list[tuple[int, Any]]:
    """All records of the topic, each partition in order, with the broker's time."""
    reader: AIOKafkaConsumer[Any, Any] = AIOKafkaConsumer(
        bootstrap_servers=run.connection.bootstrap, auto_offset_reset="earliest", enable_auto_commit=False
    )
    await reader.start()
    try:
        count = topics.partition_count(topic, PARTITIONS)
        partitions = [TopicPartition(run.connection.topic(topic), number) for number in range(count)]
        reader.assign(partitions)
        ends = await reader.end_offsets(partitions)
        found: list[tuple[int, Any]] = []
        while any([await reader.position(each) < ends[each] for each in partitions]):
            for records in (await reader.getmany(timeout_ms=500)).values():
                found += [(record.timestamp, codec.decode(record.value)) for record in records if record.value]
        return found
    finally:
        await reader.stop()


SCENARIOS: Final = {"hang": hang, "behind": behind, "slow": slow, "trip": trip}


def measure(bootstrap: str, names: list[str], say: Say, sizes: Mapping[str, dict[str, Any]]) -> dict[str, Any]:
    """Each of these scenarios once, with the sizes that are given for it."""
    with tempfile.TemporaryDirectory(prefix="tenterhook-isolation-") as folder:
        return {
            name: asyncio.run(SCENARIOS[name](bootstrap, Path(folder), say, **sizes.get(name, {}))) for name in names
        }
