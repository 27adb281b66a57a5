"""Work that can wait for a moment lets others by who are in the middle of something (`pacing.py`)."""

import asyncio
from collections.abc import Callable
from typing import Final

from services.dispatcher.pacing import Pacing

#: How often it is looked whether they are still there.
_LOOK_S: Final = 0.005


async def let_by(pacing: Pacing, within_s: float, *, is_urgent: Callable[[], bool] = lambda: False) -> None:
    """Returns when nobody is in the middle of anything, when it has become urgent, or after so long."""
    loop = asyncio.get_running_loop()
    until_s = loop.time() + within_s
    while loop.time() < until_s and pacing.is_amidst(loop.time()) and not is_urgent():  # noqa: ASYNC110  # briefly
        await asyncio.sleep(_LOOK_S)
