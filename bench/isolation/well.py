"""What comes to the endpoints that are well: in what time, and whether all of it does."""

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final

from bench.stage import Arrival, Stage

Say = Callable[[str], None]

#: How long what was sent may take to come after the last of it was sent, seconds.
COMES_S: Final = 30
#: Numbers of the events that warm up.
WARM: Final = range(-300, 0)

#: Shares of sorted latencies.
_P50: Final = 0.50
_P99: Final = 0.99


class Missing(Exception):
    """Not everything came to the endpoints that were well."""


async def settle(run: Stage) -> None:
    """Warm up: connections, caches, Java."""
    await run.at_a_pace(WARM, 100, "warm")


def at(latencies: list[float], share: float) -> float:
    """That percentile of sorted values."""
    return latencies[min(int(len(latencies) * share), len(latencies) - 1)] if latencies else float("nan")


def figures(latencies: list[float]) -> dict[str, float]:
    return {"p50Ms": at(latencies, _P50), "p99Ms": at(latencies, _P99), "count": len(latencies)}


def missing(arrivals: Iterable[Arrival], names: Iterable[str], numbers: Iterable[int]) -> dict[str, int]:
    """How many of these events have not come to each of these integrations; who has all of them is left out."""
    wanted, came = set(numbers), defaultdict[str, set[int]](set)
    for each in arrivals:
        came[each.integration].add(each.number)
    left = {name: len(wanted - came[name]) for name in names}
    return {name: count for name, count in left.items() if count}


def all_came(found: Mapping[str, Mapping[str, Any]]) -> None:
    """
    Whether everything came to those that are well in each of these runs.

    Raises:
        Missing: it did not.
    """
    if lost := {name: each["missing"] for name, each in found.items() if each["missing"]}:
        raise Missing(f"not everything came to those that are well: {lost}")
