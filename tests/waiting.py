"""Waiting for a condition of the outside world, with a bound."""

import asyncio
import inspect
import time
from collections.abc import Callable
from typing import Any


async def eventually(condition: Callable[[], Any], within_s: float = 10.0) -> Any:
    """The condition's value as soon as it is true; fails after the bound, with what it was last."""
    until = time.monotonic() + within_s
    while True:
        value = condition()
        if inspect.isawaitable(value):
            value = await value
        if value:
            return value
        if time.monotonic() > until:
            raise AssertionError(f"not within {within_s} s: {value!r}")
        await asyncio.sleep(0.02)
