"""Results of requests that took long are written together, and not in the middle of what others do."""

import asyncio
import time
from collections.abc import Coroutine
from typing import Any

import uvloop

from services.dispatcher.pacing import AMIDST_S, TIMES_MS, YIELDS_MS, Pacing
from services.dispatcher.together import Together
from tests.simulated import SimulatedLoop


def simulated(run: Coroutine[Any, Any, None]) -> None:
    with asyncio.Runner(loop_factory=SimulatedLoop) as runner:
        runner.run(run)


class Writing:
    """Who waits, and when each was let go on, in milliseconds."""

    def __init__(self) -> None:
        self.loop = asyncio.get_running_loop()
        self.pacing = Pacing()
        self.together = Together(self.pacing)
        self.at_ms: dict[str, int] = {}

    async def wait(self, name: str, after_ms: int, took_s: float) -> None:
        await asyncio.sleep(after_ms / 1_000)
        await self.together.wait(took_s)
        self.at_ms[name] = round(self.loop.time() * 1_000) - 100_000

    async def others(self, until_ms: int) -> None:
        """Start something each five milliseconds until then."""
        while self.loop.time() * 1_000 < 100_000 + until_ms:
            self.pacing.saw_live(self.loop.time())
            await asyncio.sleep(0.005)


def test_who_is_quick_waits_for_nobody_and_who_is_slow_for_the_next_time() -> None:
    async def run() -> None:
        writing = Writing()
        await asyncio.gather(
            writing.wait("quick", 3, 0.9),
            *(writing.wait(f"slow {after_ms}", after_ms, 4.0) for after_ms in (1, 17, 39, 41)),
            writing.wait("less slow", 21, 2.0),
        )
        assert writing.at_ms == {
            "quick": 3, "slow 1": 40, "slow 17": 40, "slow 39": 40, "less slow": 40, "slow 41": 80,
        }  # fmt: skip

    simulated(run())


def test_a_burst_of_others_is_let_by_but_not_for_ever() -> None:
    async def run() -> None:
        writing = Writing()
        await asyncio.gather(writing.others(70), writing.wait("slow", 1, 4.0))
        assert 65 < writing.at_ms["slow"] <= 70 + AMIDST_S * 1_000 + TIMES_MS[-1]
        others = asyncio.create_task(writing.others(100_000))
        began_ms = round(writing.loop.time() * 1_000) - 100_000
        await writing.wait("never quiet", 0, 4.0)
        assert YIELDS_MS <= writing.at_ms["never quiet"] - began_ms <= YIELDS_MS + 2 * TIMES_MS[0] + TIMES_MS[-1]
        others.cancel()

    simulated(run())


def test_who_stops_waiting_holds_up_nobody() -> None:
    async def run() -> None:
        writing = Writing()
        gone = asyncio.create_task(writing.wait("gone", 0, 4.0))
        other = asyncio.create_task(writing.wait("other", 0, 4.0))
        await asyncio.sleep(0.001)
        gone.cancel()
        await other
        await writing.wait("later", 1, 4.0)
        assert writing.at_ms == {"other": 40, "later": 80}

    simulated(run())


def test_on_a_loop_that_is_late_everybody_goes_on() -> None:
    async def run() -> None:
        together = Together(Pacing())

        async def late(number: int) -> None:
            for again in range(3):
                await asyncio.sleep((number * 7 + again * 13) % 50 / 1_000)
                if number % 5 == 0:
                    time.sleep(0.01)  # noqa: ASYNC251  # what makes a loop late: its clock stands still meanwhile
                await together.wait((1.0, 2.0, 4.0)[(number + again) % 3])

        async with asyncio.timeout(10):
            await asyncio.gather(*map(late, range(60)))

    uvloop.run(run())
