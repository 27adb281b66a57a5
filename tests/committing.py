"""A group's coordinator as aiokafka's consumers have it, without a broker: what the group has committed."""

import asyncio
from collections.abc import Callable, Mapping
from types import SimpleNamespace
from typing import Any

from aiokafka import OffsetAndMetadata, TopicPartition

Stored = Mapping[TopicPartition, OffsetAndMetadata]


def coordinator(stored: Callable[[], Stored] | None, **others: Any) -> Any:
    """*stored*: asked at each question; None where the broker never answers. *others*: attributes besides."""

    async def known() -> None:
        pass

    async def answer(_: object) -> Any:
        if stored is None:
            return await asyncio.Future()
        partitions = [(each.topic, [(each.partition, at.offset, at.metadata, 0)]) for each, at in stored().items()]
        return SimpleNamespace(error_code=0, topics=partitions)

    return SimpleNamespace(group_id="t.group", ensure_coordinator_known=known, _send_req=answer, **others)
