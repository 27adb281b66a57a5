"""
Results of requests that took long, written together.

A write costs the same half millisecond, here and on the broker, for one result and for a hundred; and the results of a
thousand slow endpoints come one by one. So they wait for each other, and for those who are in the middle of a burst.
"""

import asyncio
import heapq
from typing import NamedTuple

from services.dispatcher.pacing import TIMES_MS, Pacing, every_ms, yields_ms


class _Waits(NamedTuple):
    #: On the loop's clock, whole milliseconds, as uvloop's timers: who waits for the same time is woken at once.
    at_ms: int
    number: int
    until_ms: int
    future: asyncio.Future[None]


class Together:
    """Of one worker."""

    def __init__(self, pacing: Pacing) -> None:
        self._pacing = pacing
        self._waiting: list[_Waits] = []
        self._number = 0
        self._timer: asyncio.Handle | None = None
        self._timer_ms = 0

    async def wait(self, took_s: float) -> None:
        """Until the result of a request that took so long is to be written."""
        every = every_ms(took_s)
        if not every:
            return
        loop = asyncio.get_running_loop()
        now_ms, self._number = _ms(loop), self._number + 1
        at_ms = _next(now_ms, every)
        until_ms = _next(at_ms + yields_ms(took_s), TIMES_MS[0])
        waits = _Waits(at_ms, self._number, until_ms, loop.create_future())
        heapq.heappush(self._waiting, waits)
        self._set_timer(loop)
        await waits.future

    def _go(self) -> None:
        self._timer = None
        loop = asyncio.get_running_loop()
        now_ms, is_amidst = _ms(loop), self._pacing.is_amidst(loop.time())
        while self._waiting and self._waiting[0].at_ms <= now_ms:
            waits = self._waiting[0]
            if is_amidst and now_ms < waits.until_ms and not waits.future.done():
                heapq.heapreplace(self._waiting, waits._replace(at_ms=_next(now_ms, TIMES_MS[-1])))
                continue
            heapq.heappop(self._waiting)
            if not waits.future.done():
                waits.future.set_result(None)
        self._set_timer(loop)

    def _set_timer(self, loop: asyncio.AbstractEventLoop) -> None:
        if not self._waiting:
            return
        at_ms = self._waiting[0].at_ms
        if self._timer is not None:
            if self._timer_ms <= at_ms:
                return
            self._timer.cancel()
        self._timer, self._timer_ms = loop.call_at(at_ms / 1_000, self._go), at_ms


def _ms(loop: asyncio.AbstractEventLoop) -> int:
    return round(loop.time() * 1_000)


def _next(now_ms: int, every: int) -> int:
    return (now_ms // every + 1) * every
