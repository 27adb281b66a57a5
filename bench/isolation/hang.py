"""One of ten endpoints hangs: what it costs the other nine, here and in a stock Faust app."""

import asyncio
from pathlib import Path
from typing import Any, Final

from bench.isolation.well import COMES_S, WARM, Say, figures, missing, settle
from bench.stage import stage
from bench.stock import AS_OURS, Stock

#: How long the run without a fault is at most, seconds.
_HEALTHY_S: Final = 180


async def hang(bootstrap: str, folder: Path, say: Say, *, seconds: float = 60, per_s: float = 50) -> dict[str, Any]:
    """Ten integrations, all healthy; then the tenth hangs with auto-pause off; then on."""
    found: dict[str, Any] = {}
    for name, behaviour, auto_pause in (("healthy", "fast", False), ("hangs", "hang", False), ("paused", "hang", True)):
        async with stage(bootstrap, folder / f"hang-{name}") as run:
            names = [f"int_{number}" for number in range(9)]
            for each in names:
                await run.integration(each, "fast")
            await run.integration("int_ill", behaviour, is_apart=True, auto_pause=auto_pause)
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


async def stock(bootstrap: str, folder: Path, say: Say, *, seconds: float = 60, per_s: float = 50) -> dict[str, Any]:
    """Ten endpoints of a stock Faust app with tenterhook's timeouts, all healthy; then the tenth hangs."""
    found: dict[str, Any] = {}
    for name, behaviour in (("healthy", "fast"), ("hangs", "hang")):
        async with stage(bootstrap, folder / f"stock-{name}") as run:
            names = [f"int_{number}" for number in range(9)]
            urls = {each: f"{run.endpoints}/fast/{each}" for each in names}
            app = Stock(run, urls | {"int_ill": f"{run.endpoints_apart}/{behaviour}/int_ill"}, AS_OURS, table=False)
            await app.make_topics()
            await app.start(0)
            await run.send(WARM.start)
            await run.come(dict.fromkeys(names, 1), 2 * COMES_S)
            numbers = range(int(seconds * per_s))
            await run.at_a_pace(numbers, per_s)
            await asyncio.sleep(COMES_S)
            arrivals = run.arrivals()
            found[name] = figures(run.latencies_ms(names, numbers)) | {
                "sent": len(names) * len(numbers),
                "missing": missing(arrivals, names, numbers),
                "sentToIll": sum(each.integration == "int_ill" for each in arrivals),
            }
            say(f"stock, {name}: {found[name]}")
    return found
