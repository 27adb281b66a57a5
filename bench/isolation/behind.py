"""One integration is thousands of events behind and catches up: how fast, and what it costs nine others."""

import asyncio
import time
from collections.abc import Iterable, Iterator
from itertools import count as versions
from itertools import pairwise
from pathlib import Path
from typing import Any, Final

from bench.isolation.well import Say, figures, settle
from bench.stage import Stage, stage
from schemas.profiles import Ordering

#: How long the others are watched while it waits, and as long while it catches up, at most: their p99 is that of 1 in
#: 100 events, and in 20 s a single pause of the machine makes it.
_WATCHED_S: Final = 60
#: In so many parts of each, by turns: the machine is faster at one time than at another, by more than what is looked
#: for. A part begins so long after it was paused or activated.
_PARTS: Final = 4
_SETTLES_S: Final = 1.5
#: What a line starts a second beside others, and more.
_CATCHES_UP_PER_S: Final = 1_200


async def behind(
    bootstrap: str,
    folder: Path,
    say: Say,
    *,
    events: int = 40_000,
    per_s: float = 20,
    orderings: Iterable[Ordering] = ("integration", "none"),
) -> dict[str, Any]:
    """
    One is so many events behind while nine others have a steady load; it is activated, and catches up.

    Paused again, and activated again, a few times; then it is left alone with what is left.

    Raises:
        ValueError: so few that there would be nothing to watch.
    """
    seconds = min(_WATCHED_S, events / _CATCHES_UP_PER_S - _PARTS * _SETTLES_S)
    if (part := int(seconds * per_s / _PARTS)) < 1:
        raise ValueError(f"{events} events are caught up with before anything is seen: --backlog of 10000 or more")
    found: dict[str, Any] = {}
    for ordering in orderings:
        wanted: dict[str, Any] = {"ordering": ordering, "max_in_flight": 50, "events": ["backlog"]}
        async with stage(bootstrap, folder / f"behind-{ordering}") as run:
            names = [f"int_{number}" for number in range(9)]
            for each in names:
                await run.integration(each, "fast", events=["live", "warm"])
            changes = versions(1)

            async def turn(
                status: str, run: Stage = run, wanted: dict[str, Any] = wanted, changes: Iterator[int] = changes
            ) -> int:
                """When it was so, nanoseconds since 1970."""
                number = next(changes)
                change = {"status": status, "version": number, "epoch": number}
                await run.integration("int_late", "fast", is_apart=True, **wanted, **change)
                return time.time_ns()

            await turn("paused")
            await run.dispatcher()
            await run.ready()
            await settle(run)
            sending = [run.send(number, "backlog") for number in range(1_000_000, 1_000_000 + events)]
            for start in range(0, events, 2_000):
                await asyncio.gather(*sending[start : start + 2_000])
            await asyncio.sleep(5)
            watched: dict[str, list[int]] = {"paused": [], "active": []}
            spans_ns = []
            for number in range(2 * _PARTS):
                status, numbers = ("paused", "active")[number % 2], range(number * part, (number + 1) * part)
                await turn(status)
                await asyncio.sleep(_SETTLES_S)
                began_ns = time.time_ns()
                await run.at_a_pace(numbers, per_s, "live")
                watched[status] += numbers
                if status == "active":
                    spans_ns.append((began_ns, time.time_ns()))
            alone_ns = await turn("active")
            await run.come({"int_late": events}, events / 50 + 60, say)
            arrivals = [each for each in run.arrivals() if each.integration == "int_late"]
            order = list(dict.fromkeys(each.number for each in arrivals))
            beside = sum(began_ns <= each.at_ns < ended_ns for each in arrivals for began_ns, ended_ns in spans_ns)
            left = sum(each.at_ns >= alone_ns for each in arrivals)
            others = {status: figures(run.latencies_ms(names, numbers)) for status, numbers in watched.items()}
            found[ordering] = {
                "perS": beside / (sum(ended_ns - began_ns for began_ns, ended_ns in spans_ns) / 1e9),
                "perSAlone": left / ((arrivals[-1].at_ns - alone_ns) / 1e9),
                "left": left,
                "repeated": len(arrivals) - events,
                "outOfOrder": sum(a > b for a, b in pairwise(order)),
                "othersBefore": others["paused"],
                "othersMeanwhile": others["active"],
                "ratioP99": others["active"]["p99Ms"] / others["paused"]["p99Ms"],
            }
            say(f"behind, {ordering}: {found[ordering]}")
    return found
