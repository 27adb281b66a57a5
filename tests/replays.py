"""Replays for tests: asked for on the log, as the command does it, and followed until they end."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from services.runtime.clock import now_ms
from streams import codec, topics
from streams.follower import Follower
from streams.records import Delivery, Replay
from streams.replays import RUNNING, Replays, row_key
from tests.logs import Log
from tests.receiving import Arrival, Receiver
from tests.records import make_replay
from tests.waiting import eventually

HEADER = "X-ApifyCloud-Replay"


class Asked:
    """What a test asks for, and what comes of it."""

    def __init__(self, log: Log, rows: Replays) -> None:
        self.log = log
        self.rows = rows

    async def start(self, replay: str = "rpl_1", **changes: Any) -> Replay:
        at_ms = now_ms()
        times = {"created_at_ms": at_ms, "updated_at_ms": at_ms, "until_ms": at_ms + 1}
        return await self.write(make_replay(replay, **times | changes))

    async def cancel(self, replay: Replay) -> None:
        await self.write(
            Replay(**{name: getattr(replay, name) for name in replay.__struct_fields__} | {"state": "cancelled"})
        )

    async def write(self, row: Replay) -> Replay:
        await self.log.raw(topics.REPLAYS, codec.encode(row), row_key(row))
        return row

    async def ended(self, replay: str = "rpl_1", within_s: float = 60.0) -> Replay:
        """The row of the worker that ended it."""

        def found() -> Replay | None:
            row = self.rows.progress(replay)
            return row if row is not None and row.state != RUNNING else None

        row = await eventually(found, within_s)
        assert isinstance(row, Replay)
        return row

    def deliveries(self, replay: str = "rpl_1") -> list[Delivery]:
        """As they stand on the log."""
        return [each for each in self.log.deliveries if each.run == replay]


@asynccontextmanager
async def asking(log: Log) -> AsyncIterator[Asked]:
    """For the time of the block, what workers say of replays is followed."""
    rows = Replays()
    follower = Follower(log.connection, topics.REPLAYS, rows.apply, clear=rows.clear)
    await follower.start()
    try:
        yield Asked(log, rows)
    finally:
        await follower.stop()
        await asyncio.sleep(0)


def replayed(to: Receiver, integration: str, replay: str = "rpl_1") -> list[Arrival]:
    """Requests of the replay that have arrived, in order."""
    return [each for each in to.arrivals[integration] if each.request.header(HEADER) == replay]
