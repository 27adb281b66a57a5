"""Many slow integrations, each behind by its own amount: what they cost those that are well beside them."""

import asyncio
import subprocess
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any, Final

from bench.isolation.read_back import fanned_out
from bench.isolation.well import COMES_S, WARM, Say, figures, settle
from bench.stage import Stage, stage

#: Parts of the time that they are watched paused, and active: by turns, since the machine is faster at one time than at
#: another, by more than what is looked for.
_PARTS: Final = 4
#: The backlogs: groups of events, how many are in each, and how many in the last.
_GROUPS: Final = 40
_IN_GROUP: Final = 10
_IN_LAST_GROUP: Final = 40
#: Events a second to those that are well.
_PER_S: Final = 2
#: How many of the slow are paused or activated at once, and how long it takes until all do as they do in that state:
#: requests under way end; what waits is read again for each.
_CHANGED_AT_ONCE: Final = 50
_SETTLE_S: Final = {"paused": 8, "active": 25}


async def slow(
    bootstrap: str, folder: Path, say: Say, *, count: int = 1_000, healthy: int = 100, seconds: float = 60
) -> dict[str, Any]:
    """
    Slow integrations, each with a backlog of its own size, so that their cursors are spread over the log.

    First without any of them; then with all of them, paused and active by turns, for so many seconds of each.

    Events of type `g0` to `g39` make the backlogs: integration n wants those of group n % 40 and up, so that cursors
    begin at forty places, at most a few of them in one chunk of a partition.

    The events are sent as fast as they go, and carry the time of that. How far cursors are apart is a matter of offsets
    alone: a line reads again from an offset (`catch_up.py`), and has fallen behind by the worker's own clock
    (`detaching.py`). Of times the dispatcher asks when a delivery came onto `deliveries`, which is when it was fanned
    out, whatever its event says, and that only for what is about to fall out after 7 days; and when its event was
    accepted for metrics, event ids that a client made, and an activation `from` a time. So the hour stands here as what
    it leaves on the log: 235,000 deliveries to 1,000 integrations are an hour at 65 a second.
    """
    found: dict[str, Any] = {}
    names = [f"int_{number}" for number in range(healthy)]
    part = int(seconds * _PER_S / _PARTS)
    async with _beside(bootstrap, folder / "slow-none", names, 0) as (run, worker):
        took = Took(run, worker)
        await _watch(run, took, range(_PARTS * part))
        found["none"] = await _came(run, names, took)
        say(f"slow, none: {found['none']}")
    async with _beside(bootstrap, folder / "slow", names, count) as (run, worker):
        turns = {"paused": Took(run, worker), "active": Took(run, worker)}
        for number in range(2 * _PARTS):
            status = ("paused", "active")[number % 2]
            await _turn(run, count, number + 2, status)
            await asyncio.sleep(_SETTLE_S[status])
            await _watch(run, turns[status], range(number * part, (number + 1) * part))
            say(f"slow: part {number + 1} of {2 * _PARTS}")
        for status, took in turns.items():
            found[status] = await _came(run, names, took)
            say(f"slow, {status}: {found[status]}")
    for other in ("none", "paused"):
        found["active"][f"ratioP99To{other.capitalize()}"] = found["active"]["p99Ms"] / found[other]["p99Ms"]
    say(f"slow: {found['active']}")
    return found


class Took:
    """What was sent beside the slow ones in one of their states, and what the dispatcher took for it."""

    def __init__(self, run: Stage, worker: subprocess.Popen[bytes]) -> None:
        self._run = run
        self._worker = worker
        self.numbers: list[int] = []
        self.most_mb = 0.0
        self._cpu_s = self._s = 0.0
        self._slow = 0

    @contextmanager
    def part(self, numbers: range) -> Iterator[None]:
        """Around the time in which these events are sent."""
        cpu_s, at_s, slow = self._run.cpu_s(self._worker), time.monotonic(), self._slow_arrivals()
        yield
        self.numbers += numbers
        self._cpu_s += self._run.cpu_s(self._worker) - cpu_s
        self._s += time.monotonic() - at_s
        self._slow += self._slow_arrivals() - slow
        self.most_mb = max(self.most_mb, self._run.rss_mb(self._worker))

    def _slow_arrivals(self) -> int:
        return sum(each.integration.startswith("int_slow") for each in self._run.arrivals())

    def figures(self) -> dict[str, float]:
        return {"cores": self._cpu_s / self._s, "slowPerS": self._slow / self._s, "rssMb": self.most_mb}


@asynccontextmanager
async def _beside(
    bootstrap: str, folder: Path, names: list[str], count: int
) -> AsyncIterator[tuple[Stage, subprocess.Popen[bytes]]]:
    """Integrations of these names that are well, and so many slow ones, each behind; and the worker of all."""
    async with stage(bootstrap, folder) as run:
        for each in names:
            await run.integration(each, "fast", events=["live", "warm"])
        await _turn(run, count, 1, "active")
        worker = await run.dispatcher()
        await run.ready()
        await settle(run)
        for group in range(_GROUPS if count else 0):
            sent = _IN_GROUP if group < _GROUPS - 1 else _IN_LAST_GROUP
            await asyncio.gather(*(run.send(1_000_000 + group * 100 + n, f"g{group}") for n in range(sent)))
        await fanned_out(run)
        await asyncio.sleep(30)  # lines fall behind, and are detached
        yield run, worker


async def _turn(run: Stage, count: int, version: int, status: str) -> None:
    for start in range(0, count, _CHANGED_AT_ONCE):
        changes = {"is_apart": True, "auto_pause": False, "version": version, "epoch": version, "status": status}
        await asyncio.gather(
            *(
                run.integration(
                    f"int_slow_{number}",
                    "slow-4000",
                    events=[f"g{group}" for group in range(number % _GROUPS, _GROUPS)],
                    **changes,
                )
                for number in range(start, min(start + _CHANGED_AT_ONCE, count))
            )
        )


async def _watch(run: Stage, took: Took, numbers: range) -> None:
    with took.part(numbers):
        await run.at_a_pace(numbers, _PER_S, "live")
        await asyncio.sleep(1)


async def _came(run: Stage, names: list[str], took: Took) -> dict[str, float]:
    wanted = max(took.numbers) + 1 + len(WARM)
    await run.come(dict.fromkeys(names, wanted), COMES_S)
    return figures(run.latencies_ms(names, took.numbers)) | took.figures()
