"""Work that can wait lets others by, for a while."""

import asyncio
from collections.abc import Callable

from services.dispatcher.pacing import AMIDST_S, Pacing
from services.dispatcher.quiet import let_by
from tests.simulated import SimulatedLoop


def waited_s(*, others_s: float, within_s: float, is_urgent: Callable[[float], bool] = lambda _: False) -> float:
    """How long, where others start something each five milliseconds for so long."""

    async def run() -> float:
        loop, pacing = asyncio.get_running_loop(), Pacing()
        began_s = loop.time()

        async def others() -> None:
            while loop.time() < began_s + others_s:
                pacing.saw_live(loop.time())
                await asyncio.sleep(0.005)

        task = asyncio.create_task(others())
        await asyncio.sleep(0)
        await let_by(pacing, within_s, is_urgent=lambda: is_urgent(loop.time() - began_s))
        task.cancel()
        return loop.time() - began_s

    with asyncio.Runner(loop_factory=SimulatedLoop) as runner:
        return runner.run(run())


def test_it_waits_for_nobody_where_nobody_is_there() -> None:
    assert waited_s(others_s=0, within_s=10) == 0


def test_it_waits_until_they_are_by() -> None:
    assert 0.025 < waited_s(others_s=0.03, within_s=10) <= 0.03 + AMIDST_S + 0.005


def test_it_does_not_wait_for_ever() -> None:
    assert 0.05 <= waited_s(others_s=10, within_s=0.05) <= 0.06


def test_what_is_urgent_does_not_wait() -> None:
    assert waited_s(others_s=10, within_s=10, is_urgent=lambda _: True) == 0
    assert 0.02 <= waited_s(others_s=10, within_s=10, is_urgent=lambda at_s: at_s >= 0.02) <= 0.03
