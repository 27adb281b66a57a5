"""
`kill -9` of workers at random under load: tenterhook's dispatcher beside stock Faust apps of the same shape.

Four healthy integrations and two workers; one of them is killed, and started again a second later. The same events,
receivers and kills, at the same moments, for each, one after the other on one broker. Before the kills comes the same
load without any: what does not deliver all of it has no place in the comparison.
"""

import asyncio
import random
import subprocess
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, Final

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient

from bench.stage import Arrival, Stage, stage
from bench.stock import AS_OURS, Stock
from services.cli.bench.findings import overtaken

Say = Callable[[str], None]
Start = Callable[[int], Awaitable["subprocess.Popen[bytes]"]]

NAMES: Final = [f"int_{number}" for number in range(4)]
WORKERS: Final = 2
#: Events a second, each to all four.
PER_S: Final = 25
#: The load without kills.
UNHARMED_S: Final = 15
#: From one kill to the next, at least and at most; the load goes on as long as that after the last.
GAP_S: Final = (10.0, 20.0)
#: Nothing has come for so long: nothing will. Faust's default session takes 60 s to end, and the rebalance comes then.
SILENT_S: Final = 100.0

#: By name: its settings, and whether it has a table.
STOCK: Final[Mapping[str, tuple[Mapping[str, float], bool]]] = {
    "stock Faust, its defaults": ({}, False),
    "stock Faust, our timeouts": (AS_OURS, False),
    "the same with a table": (AS_OURS, True),
}


class Unfit(Exception):
    """It does not deliver everything while nobody is killed, or ends by itself."""


@dataclass(frozen=True, slots=True)
class Found:
    """What came of some events, each of which every integration should get once, in order."""

    events: int
    delivered: int
    #: Did not come. Where the group has not committed all records, another rebalance may still bring them.
    lost: int
    #: Requests with a delivery that had come before.
    repeated: int
    #: Deliveries that came first after a later one of their integration.
    out_of_order: int
    #: Of any integration, between two deliveries that came first, seconds.
    longest_silence_s: float


def found(arrivals: Iterable[Arrival], names: Iterable[str], numbers: range) -> Found:
    """Judges the arrivals of events with these ascending numbers."""
    lines: dict[str, dict[int, int]] = {name: {} for name in names}
    requests = 0
    for each in arrivals:
        if each.number in numbers:
            requests += 1
            lines[each.integration].setdefault(each.number, each.at_ns)
    delivered = sum(map(len, lines.values()))
    return Found(
        events=len(numbers),
        delivered=delivered,
        lost=len(lines) * len(numbers) - delivered,
        repeated=requests - delivered,
        out_of_order=sum(overtaken(line) for line in lines.values()),
        longest_silence_s=max(
            (later - earlier for line in lines.values() for earlier, later in pairwise(line.values())), default=0
        )
        / 1e9,
    )


def plan(seed: int, kills: int) -> list[tuple[float, int]]:
    """How long after the one before each kill comes, seconds, and which worker it meets."""
    dice = random.Random(seed)
    return [(dice.uniform(*GAP_S), dice.randrange(WORKERS)) for _ in range(kills)]


async def ours(bootstrap: str, folder: Path, kills: list[tuple[float, int]], say: Say) -> dict[str, Any]:
    async with stage(bootstrap, folder) as run:
        for name in NAMES:
            await run.integration(name, "fast", events=["call_ended"])
        await run.breaker()
        workers = [await run.dispatcher() for _ in range(WORKERS)]
        await run.ready()
        return await _under_kills(run, workers, lambda _: run.dispatcher(), kills, say)


async def stock(
    bootstrap: str, folder: Path, settings: Mapping[str, float], table: bool, kills: list[tuple[float, int]], say: Say
) -> dict[str, Any]:
    async with stage(bootstrap, folder) as run:
        app = Stock(run, {name: f"{run.endpoints}/fast/{name}" for name in NAMES}, settings, table=table)
        await app.make_topics()
        workers = [await app.start(number) for number in range(WORKERS)]
        result = await _under_kills(run, workers, app.start, kills, say)
        return result | {"uncommitted": await _uncommitted(bootstrap, app.id, app.topics, app.partitions)}


async def _under_kills(
    run: Stage, workers: "list[subprocess.Popen[bytes]]", start: Start, kills: list[tuple[float, int]], say: Say
) -> dict[str, Any]:
    # Both have joined the group, and have shared it out, before anything is counted.
    await run.at_a_pace(range(PER_S), PER_S)
    await _come(run, range(PER_S))
    await asyncio.sleep(10)

    calm = range(PER_S, PER_S + UNHARMED_S * PER_S)
    await run.at_a_pace(calm, PER_S)
    await _come(run, calm)
    unharmed = found(run.arrivals(), NAMES, calm)
    say(f"  nobody killed: {unharmed}")
    if unharmed.lost or any(each.poll() is not None for each in workers):
        raise Unfit(f"{unharmed}; see {run.folder}")

    load_s = sum(gap for gap, _ in kills) + GAP_S[1] + len(kills)
    numbers = range(calm.stop, calm.stop + int(load_s * PER_S))
    died = 0

    async def kill() -> None:
        nonlocal died
        for gap, worker in kills:
            await asyncio.sleep(gap)
            died += workers[worker].poll() is not None
            workers[worker].kill()
            await asyncio.sleep(1)
            workers[worker] = await start(worker)
            say(f"  killed worker {worker} after {gap:.1f} s")

    await asyncio.gather(kill(), run.at_a_pace(numbers, PER_S))
    await _come(run, numbers)
    await asyncio.sleep(5)
    died += sum(each.poll() is not None for each in workers)
    return {
        "kills": len(kills),
        "unharmed": asdict(unharmed),
        **asdict(found(run.arrivals(), NAMES, numbers)),
        "died": died,
    }


async def _come(run: Stage, numbers: range) -> None:
    """Until all have come to all, or nothing comes any more."""
    came, quiet_since = 0, time.monotonic()
    while (delivered := found(run.arrivals(), NAMES, numbers)).lost:
        if delivered.delivered > came:
            came, quiet_since = delivered.delivered, time.monotonic()
        if time.monotonic() > quiet_since + SILENT_S:
            return
        await asyncio.sleep(0.5)


async def _uncommitted(bootstrap: str, group: str, names: Iterable[str], count: int) -> int:
    """Records that the group has not got behind it: with none, what has not come is lost, not late."""
    admin = AIOKafkaAdminClient(bootstrap_servers=bootstrap)
    reader: AIOKafkaConsumer[Any, Any] = AIOKafkaConsumer(bootstrap_servers=bootstrap)
    await admin.start()
    await reader.start()
    try:
        committed = await admin.list_consumer_group_offsets(group)
        ends = await reader.end_offsets([TopicPartition(name, number) for name in names for number in range(count)])
        return sum(end - max(committed[each].offset if each in committed else 0, 0) for each, end in ends.items())
    finally:
        await reader.stop()
        await admin.close()


async def measure(bootstrap: str, folder: Path, seed: int, kills: int, say: Say) -> dict[str, dict[str, Any]]:
    """
    All of them, one after the other, by name.

    Raises:
        Unfit: one did not deliver everything before anybody was killed.
    """
    planned = plan(seed, kills)
    say("tenterhook")
    result = {"tenterhook": await ours(bootstrap, folder / "ours", planned, say)}
    for number, (name, (settings, table)) in enumerate(STOCK.items()):
        say(name)
        result[name] = await stock(bootstrap, folder / f"stock-{number}", settings, table, planned, say)
    return result


ROWS: Final = {
    "events": "events sent",
    "delivered": "delivered, to four each",
    "lost": "lost: did not come",
    "uncommitted": "records not committed",
    "repeated": "repeated requests",
    "out_of_order": "order violations",
    "longest_silence_s": "longest silence, s",
    "died": "workers ended by themselves",
}


def summary(result: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """A row for each figure, a column for each that was measured."""

    def cell(value: object) -> str:
        return "-" if value is None else f"{value:,.1f}" if isinstance(value, float) else f"{value:,}"

    width = max(map(len, ROWS.values()))
    lines = [f"{'':{width}}  " + "  ".join(result)]
    for key, heading in ROWS.items():
        lines.append(
            f"{heading:{width}}  " + "  ".join(f"{cell(each.get(key)):>{len(name)}}" for name, each in result.items())
        )
    return lines
