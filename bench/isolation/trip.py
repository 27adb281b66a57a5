"""An endpoint fails until the breaker pauses it."""

import asyncio
from pathlib import Path
from typing import Any

from bench.isolation.read_back import everything
from bench.isolation.well import Say
from bench.stage import stage
from schemas.profiles import PAUSED_AFTER
from streams import topics
from streams.records import IntegrationState, Result


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
        found = {"requests": len(run.arrivals())} | tripped(results, states[0][0] if states else None)
        say(f"trip: {found}")
    return found


def tripped(results: list[Result], paused_ms: int | None) -> dict[str, Any]:
    """
    What was in flight when the twentieth of these failures had ended, and what started later.

    Args:
        results: of one integration, in the order of the log.
        paused_ms: when the pause was published; None: it was not.
    """
    sent = [each for each in results if each.attempt]
    twentieth_ms = sent[PAUSED_AFTER - 1].finished_at_ms
    later = [each.started_at_ms for each in sent if each.started_at_ms > twentieth_ms]
    return {
        "inFlight": sum(each.started_at_ms <= twentieth_ms < each.finished_at_ms for each in sent),
        "startedLater": len(later),
        "startedAfterPause": 0 if paused_ms is None else sum(each > paused_ms for each in later),
        "lastStartAfterMs": max(each.started_at_ms for each in sent) - twentieth_ms,
        "pausedAfterMs": None if paused_ms is None else paused_ms - twentieth_ms,
    }
