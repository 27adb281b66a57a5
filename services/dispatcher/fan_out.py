"""
The fan-out agent: each event becomes a receipt, then a delivery for every integration that selected it.

Order of writes: the receipt says who, under which configuration; when it is on the broker the deliveries
follow; when they are, the event is finished. The first receipt of an event counts, so a replay after a crash
fans out to the same integrations, and what it had appended already is found by the takeover and passed over.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import Any, Final

import structlog
from aiokafka import AIOKafkaProducer, ConsumerRecord, TopicPartition
from aiokafka.errors import KafkaError

from services.dispatcher.match import delivery_id, selected
from streams import codec, takeover, topics
from streams.connection import Connection
from streams.engine.processor import Assignment, Batch
from streams.follower import Follower
from streams.quarantine import Quarantine
from streams.records import Delivery, Event, FanOutReceipt, Marker
from streams.takeover import Ends
from streams.topics import Partitions
from streams.views import Integrations

log = structlog.get_logger("dispatcher.fan_out")

#: Run of the deliveries that fan-out makes; a retry, replay or test has its command's id instead.
LIVE_RUN: Final = "0"

#: How often the broker is asked where `deliveries` ends. Others append there too, and a takeover reads from what we
#: know; at 5,000 records a second it then reads 50,000 that are not ours, in a second or so.
ENDS_REFRESH_S: Final = 10.0

#: Asks the broker where partitions end.
AskEnds = Callable[[Iterable[TopicPartition]], Awaitable[Mapping[TopicPartition, int]]]


class FanOut:
    """The processor of topic `events`. See the module's docstring, and `streams.engine.processor.Processor`."""

    def __init__(
        self,
        *,
        connection: Connection,
        partitions: Partitions,
        producer: AIOKafkaProducer,
        config: Follower,
        integrations: Integrations,
        quarantine: Quarantine,
        worker_id: str,
        now_ms: Callable[[], int],
        ask_ends: AskEnds,
    ) -> None:
        self._ask_ends = ask_ends
        self._refreshing: asyncio.Task[None] | None = None
        self._connection = connection
        self._producer = producer
        self._config = config
        self._integrations = integrations
        self._quarantine = quarantine
        self._worker_id = worker_id
        self._now_ms = now_ms
        self._events = connection.topic(topics.EVENTS)
        self._receipts = connection.topic(topics.FAN_OUT)
        self._deliveries = [
            TopicPartition(connection.topic(topics.DELIVERIES), number) for number in range(partitions.by_integration)
        ]
        self._ends = Ends()
        #: Found by the takeover, by (partition, offset) of the event that will be read again.
        self._found_receipts: dict[tuple[int, int], FanOutReceipt] = {}
        self._found_deliveries: dict[tuple[int, int], set[str]] = {}

    # -- takeover --------------------------------------------------------------------------------------------

    async def take_over(self, assignment: Assignment) -> None:
        """Mark and read back `fan-out` and `deliveries`, once for all partitions of the assignment."""
        self._found_receipts.clear()
        self._found_deliveries.clear()
        markers = {p: self._marker(p, assignment.generation) for p in assignment.floors}
        targets = {TopicPartition(self._receipts, p): [marker] for p, marker in markers.items()}
        targets |= {target: list(markers.values()) for target in self._deliveries if markers}
        marked = await takeover.mark(self._producer, targets, self._ends)
        floors = {p: _parse(floor, len(self._deliveries)) for p, floor in assignment.floors.items()}
        ranges = {TopicPartition(self._receipts, p): (floor[0], 0) for p, floor in floors.items()}
        ranges |= {
            target: (min(floor[1][target.partition] for floor in floors.values()), 0)
            for target in self._deliveries
            if floors
        }
        spans = {target: (start, marked[target]) for target, (start, _) in ranges.items()}
        await takeover.read_back(self._connection, spans, lambda record: self._found(record, assignment))
        if self._refreshing is None:
            self._refreshing = asyncio.create_task(self._refresh_ends(), name="refresh ends")

    def _marker(self, partition: int, generation: int) -> Marker:
        return Marker(
            source_topic=self._events,
            source_partition=partition,
            generation=generation,
            owner=self._worker_id,
            at_ms=self._now_ms(),
        )

    def _found(self, record: "ConsumerRecord[Any, Any]", assignment: Assignment) -> None:
        try:
            found = codec.decode(record.value)
        except codec.Unreadable:
            return  # its reader puts it aside
        if not isinstance(found, FanOutReceipt | Delivery):
            return
        place = found.source_partition, found.source_offset
        if found.source_offset < assignment.starts.get(found.source_partition, found.source_offset + 1):
            return
        if isinstance(found, FanOutReceipt):
            self._found_receipts.setdefault(place, found)
        elif found.run == LIVE_RUN:
            self._found_deliveries.setdefault(place, set()).add(found.delivery_id)

    def floor(self, partition: int) -> str:
        """Ends of this partition's receipts and of every partition of `deliveries`, as known now."""
        receipts = self._ends.of(TopicPartition(self._receipts, partition))
        return f"{receipts};{','.join(str(self._ends.of(target)) for target in self._deliveries)}"

    async def settle(self, timeout_s: float) -> None:  # noqa: ARG002  # nothing that matters outlives `process`
        """Stop asking for ends."""
        if self._refreshing is not None:
            self._refreshing.cancel()
            self._refreshing = None

    async def _refresh_ends(self) -> None:
        while True:
            await asyncio.sleep(ENDS_REFRESH_S)
            try:
                ends = await self._ask_ends(self._deliveries)
            except KafkaError as error:
                log.warning("ends.unknown", reason=repr(error), hint="a takeover will read more; asking again")
            else:
                self._ends.reach(ends)

    # -- work ------------------------------------------------------------------------------------------------

    async def process(self, batch: Batch) -> None:
        """Fan the batch out; returns when all that it caused is on the broker."""
        events = await self._readable(batch)
        if not events:
            return
        # An event accepted after a change of configuration was answered has to meet it.
        config_offset = await self._config.catch_up()
        receipts = [self._receipt(batch, offset, event, config_offset) for offset, event in events]
        await self._append_receipts(batch, receipts)
        await self._append_deliveries(batch, [event for _, event in events], receipts)
        for offset, _ in events:
            self._found_receipts.pop((batch.partition, offset), None)
            self._found_deliveries.pop((batch.partition, offset), None)
            batch.finish(offset)

    async def _readable(self, batch: Batch) -> list[tuple[int, Event]]:
        events = []
        for record in batch.unfinished():
            try:
                events.append((record.offset, codec.decode_as(Event, record.value)))
            except codec.Unreadable as error:
                await self._quarantine.put(record, "record.unreadable", str(error))
                batch.finish(record.offset)
        return events

    def _receipt(self, batch: Batch, offset: int, event: Event, config_offset: int) -> FanOutReceipt:
        return self._found_receipts.get((batch.partition, offset)) or FanOutReceipt(
            record_id=event.record_id,
            app=event.app,
            event_id=event.event_id,
            type=event.type,
            config_offset=config_offset,
            integrations=[config.id for config in selected(self._integrations.of_app(event.app), event.type)],
            accepted_at_ms=event.accepted_at_ms,
            source_partition=batch.partition,
            source_offset=offset,
            source_generation=batch.generation,
        )

    async def _append_receipts(self, batch: Batch, receipts: list[FanOutReceipt]) -> None:
        target = TopicPartition(self._receipts, batch.partition)
        pending = [
            await self._producer.send(
                target.topic, codec.encode(receipt), key=receipt.app.encode(), partition=target.partition
            )
            for receipt in receipts
            if (batch.partition, receipt.source_offset) not in self._found_receipts
        ]
        for future in pending:
            self._ends.saw(target, (await future).offset)

    async def _append_deliveries(self, batch: Batch, events: list[Event], receipts: list[FanOutReceipt]) -> None:
        pending = []
        for event, receipt in zip(events, receipts, strict=True):
            found = self._found_deliveries.get((batch.partition, receipt.source_offset), ())
            for integration in receipt.integrations:
                delivery = _delivery(event, receipt, integration, batch)
                if delivery.delivery_id not in found:
                    pending.append(
                        await self._producer.send(
                            self._deliveries[0].topic, codec.encode(delivery), key=integration.encode()
                        )
                    )
        for future in pending:
            appended = await future
            self._ends.saw(appended.topic_partition, appended.offset)


def _delivery(event: Event, receipt: FanOutReceipt, integration: str, batch: Batch) -> Delivery:
    return Delivery(
        delivery_id=delivery_id(event.record_id, integration, LIVE_RUN),
        integration=integration,
        app=event.app,
        record_id=event.record_id,
        event_id=event.event_id,
        type=event.type,
        payload=event.payload,
        occurred_at_ms=event.occurred_at_ms,
        accepted_at_ms=event.accepted_at_ms,
        ordering_key=event.ordering_key,
        run=LIVE_RUN,
        config_offset=receipt.config_offset,
        source_partition=receipt.source_partition,
        source_offset=receipt.source_offset,
        source_generation=batch.generation,
    )


def _parse(floor: str, deliveries: int) -> tuple[int, list[int]]:
    """What `floor` wrote; zeros, which read all that is kept, where nothing of that form is stored."""
    receipts, _, ends = floor.partition(";")
    try:
        parsed = int(receipts), [int(end) for end in ends.split(",")]
    except ValueError:
        return 0, [0] * deliveries
    return parsed if len(parsed[1]) == deliveries else (parsed[0], [0] * deliveries)
