"""A log for reconciliation: events for two integrations, all delivered; what is left out is the test's choice."""

from typing import Any

from aiokafka import AIOKafkaConsumer, TopicPartition

from streams import codec, topics
from streams.connection import Connection
from streams.delivery_ids import LIVE_RUN, delivery_id
from streams.records import Delivery, Event, FanOutReceipt, Result
from tests.logs import Log, make_event

INTEGRATIONS = ("int_a", "int_b")


def make_receipt(event: Event, partition: int, offset: int, **changes: Any) -> FanOutReceipt:
    fields: dict[str, Any] = {
        "record_id": event.record_id,
        "app": event.app,
        "event_id": event.event_id,
        "type": event.type,
        "config_offset": 1,
        "integrations": list(INTEGRATIONS),
        "accepted_at_ms": event.accepted_at_ms,
        "source_partition": partition,
        "source_offset": offset,
        "source_generation": 1,
    }
    return FanOutReceipt(**fields | changes)


def delivery_of(event: Event, receipt: FanOutReceipt, integration: str, **changes: Any) -> Delivery:
    fields: dict[str, Any] = {
        "delivery_id": delivery_id(event.record_id, integration, LIVE_RUN),
        "integration": integration,
        "app": event.app,
        "record_id": event.record_id,
        "event_id": event.event_id,
        "type": event.type,
        "payload": event.payload,
        "occurred_at_ms": event.occurred_at_ms,
        "accepted_at_ms": event.accepted_at_ms,
        "config_offset": receipt.config_offset,
        "source_partition": receipt.source_partition,
        "source_offset": receipt.source_offset,
        "source_generation": receipt.source_generation,
    }
    return Delivery(**fields | changes)


def result_of(delivery: Delivery, at: Any = None, **changes: Any) -> Result:
    """*at*: where the delivery stands, as the producer told it; else at 0@0."""
    fields: dict[str, Any] = {
        "delivery_id": delivery.delivery_id,
        "integration": delivery.integration,
        "app": delivery.app,
        "record_id": delivery.record_id,
        "event_id": delivery.event_id,
        "type": delivery.type,
        "cause": delivery.cause,
        "of": delivery.of,
        "attempt": delivery.attempt,
        "outcome": "delivered",
        "reason": "status_200",
        "epoch": 1,
        "config_version": 1,
        "url": "https://crm.example/hooks",
        "request_headers": {},
        "status": 200,
        "response_headers": {},
        "response_body": b"",
        "response_truncated": False,
        "started_at_ms": delivery.accepted_at_ms + 1,
        "finished_at_ms": delivery.accepted_at_ms + 2,
        "accepted_at_ms": delivery.accepted_at_ms,
        "source_partition": at.partition if at else 0,
        "source_offset": at.offset if at else 0,
        "source_generation": 1,
    }
    return Result(**fields | changes)


async def deliver_all(log: Log, count: int, *, without: tuple[str, int] | None = None) -> list[Event]:
    """
    Append so many events and all that follows from them.

    Args:
        without: what is left out of the log, and of which event: `receipt`, or of int_a `delivery`, `result`.
    """
    events = [make_event(number) for number in range(count)]
    for number, (event, at) in enumerate(zip(events, await log.events(*events), strict=True)):
        receipt = make_receipt(event, at.partition, at.offset)
        if without != ("receipt", number):
            await log.raw(topics.FAN_OUT, codec.encode(receipt), event.app.encode(), at.partition)
        for integration in INTEGRATIONS:
            delivery = delivery_of(event, receipt, integration)
            left_out = without[0] if without in {("delivery", number), ("result", number)} else None
            standing = None
            if not (left_out == "delivery" and integration == INTEGRATIONS[0]):
                standing = await log.raw(topics.DELIVERIES, codec.encode(delivery), integration.encode())
            if not (left_out is not None and integration == INTEGRATIONS[0]):
                await log.raw(topics.RESULTS, codec.encode(result_of(delivery, standing)), integration.encode())
    return events


async def commit_all(connection: Connection, partitions: topics.Partitions) -> None:
    """What a dispatcher that has finished everything has committed."""
    consumer: AIOKafkaConsumer[Any, Any] = AIOKafkaConsumer(
        bootstrap_servers=connection.bootstrap, group_id=f"{connection.prefix}dispatcher", enable_auto_commit=False
    )
    await consumer.start()
    try:
        wanted = [
            TopicPartition(connection.topic(topic), number)
            for topic in (topics.EVENTS, topics.DELIVERIES, *topics.RETRIES)
            for number in range(topics.partition_count(topic, partitions))
        ]
        consumer.assign(wanted)
        await consumer.commit(dict.fromkeys(wanted, 1_000_000))
    finally:
        await consumer.stop()
