"""
What one unwell endpoint costs the others: each scenario beside a run without it, in one round on one broker.

- `hang`: one of ten endpoints hangs, once with auto-pause off and once on.
- `stock`: the same with a stock Faust app, which posts one delivery after another.
- `unwell`: one of ten endpoints drips its answers, resets its connections, floods its answers. Fails when anything for
  the nine is missing.
- `behind`: one integration is thousands of events behind and catches up, in order and without.
- `slow`: many slow integrations, each behind by its own amount, beside healthy ones.
- `trip`: an endpoint fails until the breaker pauses it: what is in flight then, and when does the last request start?
"""

import asyncio
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from bench.isolation.behind import behind
from bench.isolation.hang import hang, stock
from bench.isolation.slow import slow
from bench.isolation.trip import trip
from bench.isolation.unwell import unwell
from bench.isolation.well import Missing, Say

__all__ = ("SCENARIOS", "Missing", "measure")

SCENARIOS: Final = {"hang": hang, "stock": stock, "unwell": unwell, "behind": behind, "slow": slow, "trip": trip}


def measure(bootstrap: str, names: list[str], say: Say, sizes: Mapping[str, dict[str, Any]]) -> dict[str, Any]:
    """
    Each of these scenarios once, with the sizes that are given for it.

    Raises:
        Missing: see `unwell`.
    """
    with tempfile.TemporaryDirectory(prefix="tenterhook-isolation-") as folder:
        return {
            name: asyncio.run(SCENARIOS[name](bootstrap, Path(folder), say, **sizes.get(name, {}))) for name in names
        }
