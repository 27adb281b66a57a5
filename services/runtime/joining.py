"""
The start of a service whose work comes from a consumer group: what it follows is read, then the group joined.

One that gets no further with that, or that its group no longer counts as a member, though the broker that keeps the
group answers, is not live (`services.runtime.liveness`). As long as the group does, the engine sees whether each
partition makes progress.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

from services.runtime.liveness import Liveness, keeper_answers
from streams.connection import Connection
from streams.engine.app import SafeApp
from streams.follower import Follower

#: What the probe says.
NOT_JOINED = "the group is not joined"


class Joining:
    """What is known of it, from before the broker answers to the end; `Opening` of its own liveness."""

    def __init__(self, service: str, connection: Connection) -> None:
        #: Once it is made.
        self.app: SafeApp | None = None
        self._begun = 0
        self._reading: Follower | None = None
        # Without the broker that keeps the group nobody joins, and a start anew would not help.
        self._liveness = Liveness(service, self, (), lambda: keeper_answers(connection, service))

    def forget(self) -> None:
        """As before the first start."""
        self.app = self._reading = None
        self._begun += 1

    async def follow(self, follower: Follower, stack: AsyncExitStack) -> Follower:
        """Start it; returns when what is there now is applied. It ends with the stack."""
        self._begun += 1
        self._reading = follower
        await follower.start()
        self._reading = None
        stack.push_async_callback(follower.stop)
        return follower

    @property
    def missing(self) -> str | None:
        """See `Opening`."""
        return None if self.app is not None and self.app.is_confirmed else NOT_JOINED

    @property
    def tries(self) -> int:
        """See `Opening`: what has been read once and goes on does not count."""
        read = self._reading.position if self._reading is not None else 0
        return self._begun + read + (self.app.rebalances if self.app is not None else 0)

    @asynccontextmanager
    async def watched(self) -> AsyncIterator[None]:
        """Look at it for the time of the block."""
        watching = asyncio.ensure_future(self._liveness.watch())
        try:
            yield
        finally:
            watching.cancel()
            await asyncio.gather(watching, return_exceptions=True)

    @property
    def stuck(self) -> str | None:
        """What makes no progress, and for how long; None while all does."""
        return (self.app.stuck if self.app is not None else None) or self._liveness.stuck
