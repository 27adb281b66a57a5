"""One of ten endpoints drips, resets or floods: what it costs the other nine."""

import asyncio
import subprocess
import time
from collections import Counter
from collections.abc import Awaitable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

from bench.isolation.read_back import everything
from bench.isolation.well import COMES_S, WARM, Say, all_came, figures, missing, settle
from bench.stage import Stage, stage
from streams import topics
from streams.records import Result

#: What the tenth endpoint does, one after the other. See `endpoints.py`.
UNWELL: Final = ("drip", "reset", "flood")
#: Requests that it has at once: it is to have the means to harm.
_IN_FLIGHT: Final = 50
#: Latency counts from so many seconds on: the first record of each partition of a retry topic costs the broker 45 to
#: 190 ms, once.
_AFTER_S: Final = 30


async def unwell(bootstrap: str, folder: Path, say: Say, *, seconds: float = 45, per_s: float = 50) -> dict[str, Any]:
    """
    Ten integrations, all healthy; then the tenth drips, then resets, then floods. It is never paused.

    Args:
        seconds: of each that latency is taken of; it begins `_AFTER_S` earlier.

    Raises:
        Missing: an event had not come to each of the nine half a minute after the last one was sent. All is measured
            and said before that.
    """
    found: dict[str, Any] = {}
    names = [f"int_{number}" for number in range(9)]
    numbers = range(int((_AFTER_S + seconds) * per_s))
    for name, behaviour in (("healthy", "fast"), *((each, each) for each in UNWELL)):
        async with stage(bootstrap, folder / f"unwell-{name}") as run:
            for each in names:
                await run.integration(each, "fast")
            await run.integration(
                "int_ill",
                behaviour,
                is_apart=True,
                ordering="none",
                max_in_flight=_IN_FLIGHT,
                auto_pause=False,
            )
            worker = await run.dispatcher()
            await run.breaker()
            await run.ready()
            await settle(run)
            before_mb, before_s, began = run.rss_mb(worker), run.cpu_s(worker), time.monotonic()
            most = await most_mb(run, worker, _send_and_wait(run, numbers, per_s, names))
            cores = (run.cpu_s(worker) - before_s) / (time.monotonic() - began)
            grown = run.rss_mb(worker) - before_mb
            reasons = Counter(
                each.reason
                for _, each in await everything(run, topics.RESULTS)
                if isinstance(each, Result) and each.integration == "int_ill"
            )
            found[name] = figures(run.latencies_ms(names, numbers[int(_AFTER_S * per_s) :])) | {
                "grownMb": grown,
                "mostMb": max(most - before_mb, grown),
                "cores": cores,
                "sent": len(names) * (len(WARM) + len(numbers)),
                "missing": missing(run.arrivals(), names, range(WARM.start, numbers.stop)),
                "requestsToIll": sum(each.integration == "int_ill" for each in run.arrivals()),
                "reasonsOfIll": dict(reasons.most_common()),
            }
            say(f"unwell, {name}: {found[name]}")
    for line in unwell_lines(found):
        say(line)
    all_came(found)
    return found


def unwell_lines(found: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """What `unwell` has found, as a table: ratios are to the healthy run."""
    healthy = found["healthy"]
    lines = [
        "| the tenth | p50 of the nine | p99 | ratio of p50, p99 | memory: end, most | CPU | missing | its requests |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for name, each in found.items():
        ratios = (
            "" if each is healthy else f"{each['p50Ms'] / healthy['p50Ms']:.2f}, {each['p99Ms'] / healthy['p99Ms']:.2f}"
        )
        reasons = ", ".join(f"{count:,} {reason}" for reason, count in each["reasonsOfIll"].items())
        lines.append(
            f"| {name} | {each['p50Ms']:.0f} ms | {each['p99Ms']:.0f} ms | {ratios}"
            f" | {each['grownMb']:+.0f}, {each['mostMb']:+.0f} MB | {each['cores']:.2f} cores"
            f" | {sum(each['missing'].values())} of {each['sent']:,}"
            f" | {each['requestsToIll']:,}: {reasons} |"
        )
    return lines


async def _send_and_wait(run: Stage, numbers: range, per_s: float, names: list[str]) -> None:
    """Until all has come, those that warmed up included, or half a minute is over."""
    await run.at_a_pace(numbers, per_s)
    with suppress(TimeoutError):
        await run.come({each: len(WARM) + len(numbers) for each in names}, COMES_S)


async def most_mb(run: Stage, worker: subprocess.Popen[bytes], meanwhile: Awaitable[None]) -> float:
    """The most memory that the process has while this lasts, looked at twice a second."""
    lasting, most = asyncio.ensure_future(meanwhile), run.rss_mb(worker)
    while not lasting.done():
        await asyncio.wait((lasting,), timeout=0.5)
        most = max(most, run.rss_mb(worker))
    await lasting
    return most
