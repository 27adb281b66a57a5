"""Reads deliveries back from their topic, by where their results say they stood."""

import asyncio
from collections.abc import Iterable
from typing import Any, Final, NamedTuple

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import KafkaError

from services.admin.config_log import unavailable
from streams import codec
from streams.connection import Connection
from streams.reading import look_at, started
from streams.records import Delivery, Result
from streams.topics import DELIVERIES
from streams.trace_context import TraceContext, of_record

#: A broker that has the record answers within milliseconds.
PATIENCE_S: Final = 5.0
_POLL_MS: Final = 1_000


class Kept(NamedTuple):
    """A delivery that is still on the log."""

    delivery: Delivery
    #: What its record carries.
    trace: TraceContext | None


async def kept_deliveries(connection: Connection, results: Iterable[Result]) -> dict[str, Kept]:
    """
    By delivery id, the deliveries that these results are of; those that have fallen out of retention are missing.

    Raises:
        Problem: 503 `broker_unavailable`.
    """
    wanted = {TopicPartition(connection.topic(DELIVERIES), each.source_partition) for each in results}
    found: dict[str, Kept] = {}
    if not wanted:
        return found
    consumer: AIOKafkaConsumer[Any, Any] = AIOKafkaConsumer(
        **connection.client_options, enable_auto_commit=False, auto_offset_reset="earliest"
    )
    try:
        async with started(consumer):
            look_at(consumer, wanted)
            async with asyncio.timeout(PATIENCE_S):
                beginnings = await consumer.beginning_offsets(list(wanted))
            for each in results:
                place = TopicPartition(connection.topic(DELIVERIES), each.source_partition)
                if each.source_offset < beginnings[place]:
                    continue
                kept = await _at(consumer, place, each.source_offset)
                if kept is not None and kept.delivery.delivery_id == each.delivery_id:
                    found[each.delivery_id] = kept
    except (KafkaError, OSError, TimeoutError):
        raise unavailable("The broker does not answer, so nothing was sent. Repeat the request.") from None
    return found


async def _at(consumer: "AIOKafkaConsumer[Any, Any]", place: TopicPartition, offset: int) -> Kept | None:
    """The delivery there; None where there is none."""
    consumer.assign([place])
    consumer.seek(place, offset)
    records = (await consumer.getmany(place, timeout_ms=_POLL_MS, max_records=1)).get(place, [])
    if not records or records[0].offset != offset:
        return None
    try:
        return Kept(codec.decode_as(Delivery, records[0].value), of_record(records[0].headers))
    except codec.Unreadable:
        return None
