"""
`kill -9` under load, ours beside a stock Faust app of the same shape: what is lost, repeated, out of order, miscounted.

Four healthy integrations and one whose endpoint takes a second, two workers; every few seconds one of them is killed
and started again. The same events, kills and receivers for both, one after the other on the same broker. Whether our
tables equal the truth is what `tests/chaos` checks (claims 10 and 11); the stock app's is compared here.
"""

import asyncio
import json
import subprocess
import sys
import time
import uuid
from collections import Counter
from collections.abc import Awaitable, Callable
from itertools import pairwise
from pathlib import Path
from typing import Any, Final

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewTopic

from bench.isolation import figures
from bench.stage import Stage, stage

Say = Callable[[str], None]
Start = Callable[[], Awaitable["subprocess.Popen[bytes]"]]

HEALTHY: Final = [f"int_{number}" for number in range(4)]
SLOW: Final = "int_slow"
WORKERS: Final = 2
#: Events a second for the healthy; for the slow one a third of one.
PER_S: Final = 25
KILL_EVERY_S: Final = 10.0
#: Longer than Faust's default session of 60 s, so that a stock worker's partitions come back within the run.
PATIENCE_S: Final = 150.0


async def ours(bootstrap: str, folder: Path, seconds: float, say: Say) -> dict[str, Any]:
    async with stage(bootstrap, folder / "ours") as run:
        for name in HEALTHY:
            await run.integration(name, "fast", events=["live", "warm"])
        await run.integration(SLOW, "slow-1000", events=["slow"])
        await run.breaker()

        async def start() -> "subprocess.Popen[bytes]":
            return await run.dispatcher()

        workers = [await start() for _ in range(WORKERS)]
        await run.ready()
        return await _under_kills(run, workers, start, seconds, say)


async def stock(bootstrap: str, folder: Path, seconds: float, say: Say) -> dict[str, Any]:
    async with stage(bootstrap, folder / "stock") as run:
        config = {name: {"url": f"{run.endpoints}/fast/{name}", "events": ["live", "warm"]} for name in HEALTHY}
        config[SLOW] = {"url": f"{run.endpoints}/slow-1000/{SLOW}", "events": ["slow"]}
        prefix, admin = run.connection.prefix, AIOKafkaAdminClient(bootstrap_servers=bootstrap)
        await admin.start()
        changelog = f"{prefix}stock-counts-changelog"
        await admin.create_topics([NewTopic(each, 8, 1) for each in (f"{prefix}stock-deliveries", changelog)])
        await admin.close()

        async def start() -> "subprocess.Popen[bytes]":
            data = run.folder / f"data-{uuid.uuid4().hex}"
            with (run.folder / f"stock-{len(run.processes)}.log").open("ab") as output:
                process = subprocess.Popen(  # noqa: ASYNC220  # at once
                    [sys.executable, "-m", "bench.stock_worker", bootstrap, prefix, json.dumps(config), str(data)],
                    stdout=output,
                    stderr=output,
                )
            run.processes.append(process)
            return process

        workers = [await start() for _ in range(WORKERS)]
        found = await _under_kills(run, workers, start, seconds, say)
        counted, came = (
            await _last_counts(bootstrap, changelog),
            {(each.integration, each.number) for each in run.arrivals()},
        )
        once = Counter(name for name, _ in came)
        return found | {"wrongCounts": sum(counted.get(name) != once[name] for name in once), "counts": len(once)}


async def _under_kills(
    run: Stage, workers: "list[subprocess.Popen[bytes]]", start: Start, seconds: float, say: Say
) -> dict[str, Any]:
    await run.at_a_pace(range(-50, 0), 10, "warm")
    await run.come(dict.fromkeys(HEALTHY, 50), 120)
    live, slow = range(int(seconds * PER_S)), range(1_000_000, 1_000_000 + int(seconds / 3))

    async def kill() -> int:
        kills = 0
        until_s = time.monotonic() + seconds - KILL_EVERY_S / 2
        while time.monotonic() + KILL_EVERY_S < until_s:
            await asyncio.sleep(KILL_EVERY_S)
            workers[kills % WORKERS].kill()
            await asyncio.sleep(1)
            workers[kills % WORKERS] = await start()
            kills += 1
            say(f"kill {kills}")
        return kills

    kills, *_ = await asyncio.gather(kill(), run.at_a_pace(live, PER_S, "live"), run.at_a_pace(slow, 1 / 3, "slow"))
    wanted = {**dict.fromkeys(HEALTHY, len(live) + 50), SLOW: len(slow)}
    try:
        await run.come(wanted, PATIENCE_S)
    except TimeoutError:
        say("not all came")
    await asyncio.sleep(5)
    return {"kills": kills} | _found(run, wanted, live)


def _found(run: Stage, wanted: dict[str, int], live: range) -> dict[str, Any]:
    arrivals = run.arrivals()
    first: dict[tuple[str, int], int] = {}
    for each in arrivals:
        first.setdefault((each.integration, each.number), each.at_ns)
    silences, disorder = [], 0
    for name in HEALTHY:
        at = sorted(ns for (integration, _), ns in first.items() if integration == name)
        silences.append(max(later - earlier for earlier, later in pairwise(at)) / 1e9)
        order = [number for (integration, number) in first if integration == name]
        disorder += sum(later < earlier for earlier, later in pairwise(order))
    return {
        "lost": sum(wanted.values()) - len(first),
        "repeated": len(arrivals) - len(first),
        "outOfOrder": disorder,
        "longestSilenceS": max(silences),
        **figures(run.latencies_ms(HEALTHY, live)),
    }


async def _last_counts(bootstrap: str, changelog: str) -> dict[str, int]:
    reader: AIOKafkaConsumer[Any, Any] = AIOKafkaConsumer(bootstrap_servers=bootstrap, auto_offset_reset="earliest")
    await reader.start()
    try:
        partitions = [TopicPartition(changelog, number) for number in range(8)]
        reader.assign(partitions)
        ends, found = await reader.end_offsets(partitions), {}
        while any([await reader.position(each) < ends[each] for each in partitions]):
            for records in (await reader.getmany(timeout_ms=500)).values():
                found |= {json.loads(record.key): json.loads(record.value) for record in records if record.value}
        return found
    finally:
        await reader.stop()


async def measure(bootstrap: str, folder: Path, seconds: float, say: Say) -> dict[str, Any]:
    """Both, one after the other."""
    found = {}
    for name, side in (("ours", ours), ("stock", stock)):
        found[name] = await side(bootstrap, folder, seconds, say)
        say(f"{name}: {found[name]}")
    return found
