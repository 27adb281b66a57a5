"""A consumer without a group, for the time of a block, closed whatever ends it."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Final

from aiokafka import AIOKafkaConsumer

#: How long a start that is not wanted any more may take, before it is cut off.
_LATE_S: Final = 5.0


@asynccontextmanager
async def started(consumer: "AIOKafkaConsumer[Any, Any]") -> "AsyncIterator[AIOKafkaConsumer[Any, Any]]":
    """
    Start it, and stop it at the end.

    aiokafka leaves a connection open when its start is cancelled; so the start is let go on, and what it opened closed.
    """
    starting = asyncio.ensure_future(consumer.start())
    try:
        await asyncio.shield(starting)
        yield consumer
    finally:
        await asyncio.shield(_stopped(consumer, starting))


async def _stopped(consumer: "AIOKafkaConsumer[Any, Any]", starting: "asyncio.Future[None]") -> None:
    _, late = await asyncio.wait((starting,), timeout=_LATE_S)
    if late:
        starting.cancel()
        await asyncio.wait((starting,))
    await consumer.stop()
