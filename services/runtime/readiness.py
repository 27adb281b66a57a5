"""A log line whenever a service becomes ready, and whenever it is so no longer."""

import asyncio
from collections.abc import Callable
from typing import Final

import structlog

log = structlog.get_logger(__name__)

#: Between two looks. What is over sooner is no state that anybody could act on; rebalances have lines of their own.
LOOK_S: Final = 1.0


async def tell_readiness(
    trouble: Callable[[], str | None], *, ready: str, not_ready: str, look_s: float = LOOK_S
) -> None:
    """
    Say *ready* and *not_ready*, one line a turn, until cancelled.

    Args:
        trouble: why it is not ready, as its probe says; None when it is. At the beginning it is not, which goes unsaid.
    """
    was_ready = False
    while True:
        why = trouble()
        if (why is None) != was_ready:
            was_ready = why is None
            if why is None:
                log.info(ready)
            else:
                log.warning(not_ready, why=why)
        await asyncio.sleep(look_s)
