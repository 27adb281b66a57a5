"""
The fan-out agent: each event becomes a receipt, then a delivery for every integration that selected it.

Order of writes: the receipt says who, under which configuration; when it is on the broker the deliveries
follow; when they are, the event is finished. The first receipt of an event counts, so a replay after a crash
fans out to the same integrations, and what it had appended already is found by the takeover and passed over.
What a frozen predecessor appended behind its successor's marker does not count, receipts included.
"""

import asyncio
from asyncio import Future
from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import Final

import structlog
from aiokafka import AIOKafkaProducer, TopicPartition
from aiokafka.errors import KafkaError, MessageSizeTooLargeError
from aiokafka.structs import RecordMetadata

from services.dispatcher.appended import Appended, Floor, ReadBack
from services.dispatcher.match import delivery_id, selected
from streams import codec, takeover, topics
from streams.connection import Connection
from streams.engine.processor import Assignment, Batch
from streams.follower import Follower
from streams.quarantine import Quarantine
from streams.records import Delivery, Event, FanOutReceipt, Marker
from streams.takeover import Ends, Held
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
        on_fatal: Callable[[Exception], None],
    ) -> None:
        self._on_fatal = on_fatal
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
        self._held = Held()
        self._generation = 0
        #: By predecessors, as the takeover found it, and by us for a batch that is not finished.
        self._appended = Appended()

    # -- takeover --------------------------------------------------------------------------------------------

    async def take_over(self, assignment: Assignment) -> None:
        """Mark and read back `fan-out` and `deliveries`, once for all partitions of the assignment."""
        self._appended.clear()
        self._held.clear()
        markers = {p: self._marker(p, assignment.generation) for p in assignment.floors}
        targets = {TopicPartition(self._receipts, p): [marker] for p, marker in markers.items()}
        targets |= {target: list(markers.values()) for target in self._deliveries if markers}
        try:
            marked = await takeover.mark(self._producer, targets, self._ends)
        except KafkaError as error:
            self._on_fatal(error)
            raise
        floors = {p: Floor.parse(floor, len(self._deliveries)) for p, floor in assignment.floors.items()}
        starts = {TopicPartition(self._receipts, p): floor.receipts for p, floor in floors.items()}
        starts |= {
            target: min(floor.deliveries[target.partition] for floor in floors.values())
            for target in self._deliveries
            if floors
        }
        back = ReadBack(
            self._appended, events=self._events, receipts=self._receipts, floors=floors, starts=assignment.starts
        )
        spans = {target: (start, marked[target]) for target, start in starts.items()}
        await takeover.read_back(self._connection, spans, back.see)
        self._held.hold(assignment.floors, self._appended.places())
        self._generation = assignment.generation
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

    def floor(self, partition: int) -> str:
        """Our generation, and the ends of this partition's receipts and of `deliveries`, as known now."""
        receipts = self._ends.of(TopicPartition(self._receipts, partition))
        deliveries = tuple(self._ends.of(target) for target in self._deliveries)
        return self._held.floor(partition, str(Floor(self._generation, receipts, deliveries)))

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
        self._held.passed(batch.partition, batch.records[-1].offset)
        events = await self._readable(batch)
        if not events:
            return
        # An event accepted after a change of configuration was answered has to meet it.
        config_offset = await self._config.catch_up()
        receipts = [self._receipt(batch, offset, event, config_offset) for offset, event in events]
        try:
            await self._append_receipts(batch, receipts)
            await self._append_deliveries(batch, [event for _, event in events], receipts)
        except MessageSizeTooLargeError:
            raise  # one event's fault: it is put aside
        except KafkaError as error:
            # The producer has ended for good: nothing that this worker does can be recorded any more.
            log.exception("fan_out.unrecordable", partition=batch.partition, events=len(events))
            self._on_fatal(error)
            return
        for offset, _ in events:
            self._appended.finish((batch.partition, offset))
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
        return self._appended.receipt((batch.partition, offset)) or FanOutReceipt(
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
        pending: list[Future[RecordMetadata]] = []
        try:
            for receipt in receipts:
                place = batch.partition, receipt.source_offset
                if self._appended.receipt(place) is None:
                    value, key = codec.encode(receipt), receipt.app.encode()
                    pending.append(await self._producer.send(self._receipts, value, key=key, partition=batch.partition))
                    self._appended.put(place, receipt)
        except Exception:
            # One event's fault. The others of its batch are tried again, and must not be fanned out twice.
            await self._acknowledged(pending)
            raise
        await self._acknowledged(pending)

    async def _append_deliveries(self, batch: Batch, events: list[Event], receipts: list[FanOutReceipt]) -> None:
        pending: list[Future[RecordMetadata]] = []
        try:
            for event, receipt in zip(events, receipts, strict=True):
                appended = self._appended.deliveries((batch.partition, receipt.source_offset))
                for integration in receipt.integrations:
                    delivery = _delivery(event, receipt, integration, batch)
                    if delivery.delivery_id not in appended:
                        value, key = codec.encode(delivery), integration.encode()
                        pending.append(await self._producer.send(self._deliveries[0].topic, value, key=key))
                        appended.add(delivery.delivery_id)
        except Exception:
            await self._acknowledged(pending)
            raise
        await self._acknowledged(pending)

    async def _acknowledged(self, pending: "Iterable[Future[RecordMetadata]]") -> None:
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
