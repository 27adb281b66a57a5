"""How late the event loop is: what holds it up, or takes the CPU away, holds up everything that runs on it."""

import asyncio
from typing import Final

from services.runtime import metrics

#: Between two looks.
EVERY_S: Final = 1.0


async def watch_loop_lag() -> None:
    """Observe it until cancelled."""
    loop = asyncio.get_running_loop()
    while True:
        due_s = loop.time() + EVERY_S
        await asyncio.sleep(EVERY_S)
        metrics.LOOP_LAG.observe(max(0.0, loop.time() - due_s))
