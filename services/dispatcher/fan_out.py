"""
The fan-out agent: each event becomes a receipt, then a delivery for every integration that selected it.

Order of writes: the receipt says who, under which configuration; when it is on the broker the deliveries
follow; when they are, the event is finished. The first receipt of an event counts, so a replay after a crash
fans out to the same integrations, and what it had appended already is found by the takeover and passed over.
What a frozen predecessor appended behind its successor's marker does not count, receipts included.

Of several records with one id that a client supplied, the first is fanned out; each other gets a receipt that names it.
"""

import asyncio
import time
from asyncio import Future
from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import Any, Final

import structlog
from aiokafka import AIOKafkaProducer, ConsumerRecord, TopicPartition
from aiokafka.errors import KafkaError, MessageSizeTooLargeError
from aiokafka.structs import RecordMetadata

from services.dispatcher.appended import Appended, Floor, ReadBack
from services.dispatcher.event_ids import EventIds
from services.dispatcher.match import Selections
from services.dispatcher.pacing import Pacing
from services.dispatcher.traced import fan_out_span
from services.runtime import metrics
from services.runtime.tracing import TRACING, Span, headers_of
from streams import codec, takeover, topics
from streams.connection import Connection
from streams.delivery_ids import LIVE_RUN, delivery_id
from streams.engine.processor import Assignment, Batch
from streams.follower import Follower
from streams.quarantine import Quarantine
from streams.records import Delivery, Event, FanOutReceipt, Marker, Record, WonIds
from streams.takeover import Ends, Held
from streams.topics import Partitions
from streams.trace_context import RecordHeaders, TraceContext
from streams.trouble import Trouble
from streams.views import Integrations

log = structlog.get_logger("dispatcher.fan_out")

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
        pacing: Pacing,
        on_fatal: Callable[[Exception], None],
    ) -> None:
        self._on_fatal = on_fatal
        self._ask_ends = ask_ends
        self._pacing = pacing
        self._refreshing: asyncio.Task[None] | None = None
        self._asking = Trouble(log)
        self._connection = connection
        self._producer = producer
        self._config = config
        self._integrations = integrations
        self._selections = Selections()
        self._quarantine = quarantine
        self._worker_id = worker_id
        self._now_ms = now_ms
        self._events = connection.topic(topics.EVENTS)
        self._receipts = connection.topic(topics.FAN_OUT)
        self._won_ids = connection.topic(topics.EVENT_IDS)
        self._deliveries = [
            TopicPartition(connection.topic(topics.DELIVERIES), number) for number in range(partitions.by_integration)
        ]
        self._ends = Ends()
        self._held = Held()
        self._generation = 0
        #: By predecessors, as the takeover found it, and by us for a batch that is not finished.
        self._appended = Appended()
        #: By partition of `events`.
        self._ids: dict[int, EventIds] = {}

    # -- takeover --------------------------------------------------------------------------------------------

    async def take_over(self, assignment: Assignment) -> None:
        """Mark and read back `event-ids`, `fan-out` and `deliveries`, once for all partitions of the assignment."""
        self._appended.clear()
        self._held.clear()
        self._ids.clear()
        markers = {p: self._marker(p, assignment.generation) for p in assignment.floors}
        targets = {TopicPartition(self._receipts, p): [marker] for p, marker in markers.items()}
        targets |= {target: list(markers.values()) for target in self._deliveries if markers}
        try:
            # The ids first: what a frozen predecessor saves before this marker is of receipts before the next.
            own_marker = {TopicPartition(self._won_ids, p): [marker] for p, marker in markers.items()}
            ids_marked = await takeover.mark(self._producer, own_marker, self._ends)
            marked = await takeover.mark(self._producer, targets, self._ends)
        except KafkaError as error:
            self._on_fatal(error)
            raise
        floors = {p: Floor.parse(floor, len(self._deliveries)) for p, floor in assignment.floors.items()}
        self._say_lost(floors, {**marked, **ids_marked})
        await self._read_ids(floors, ids_marked)
        starts = {
            TopicPartition(self._receipts, p): min(floor.receipts, self._ids[p].receipts_from)
            for p, floor in floors.items()
        }
        starts |= {
            target: min(floor.deliveries[target.partition] for floor in floors.values())
            for target in self._deliveries
            if floors
        }
        back = ReadBack(
            self._appended, events=self._events, receipts=self._receipts, floors=floors, starts=assignment.starts
        )
        spans = {target: (start, marked[target]) for target, start in starts.items()}

        def see(record: "ConsumerRecord[Any, Any]") -> None:
            back.see(record)
            if record.topic == self._receipts:
                self._see_receipt(record)

        await takeover.read_back(self._connection, spans, see)
        self._held.hold(assignment.floors, self._appended.places())
        self._generation = assignment.generation
        for partition, ids in self._ids.items():
            ids.taken_over(ids_marked[TopicPartition(self._won_ids, partition)])
        if ids_kept := sum(map(len, self._ids.values())):
            log.info("takeover.ids", ids=ids_kept)
        if self._refreshing is None:
            self._refreshing = asyncio.create_task(self._refresh_ends(), name="refresh ends")

    def _say_lost(self, floors: Mapping[int, Floor], marked: Mapping[TopicPartition, int]) -> None:
        """Of topics that end before what was appended to them. Fan-out goes on without it."""
        takeover.say_lost(
            self._receipts,
            (p for p, floor in floors.items() if floor.receipts > marked[TopicPartition(self._receipts, p)]),
            hint="tenterhook reconcile cannot prove events of before",
        )
        takeover.say_lost(
            self._won_ids,
            (p for p, floor in floors.items() if floor.ids.chunk > marked[TopicPartition(self._won_ids, p)]),
            hint="an id of before that comes again may be delivered again",
        )

    async def _read_ids(self, floors: Mapping[int, Floor], marked: Mapping[TopicPartition, int]) -> None:
        """Fill the tables of ids with what was saved."""
        self._ids = {partition: EventIds(floor.ids) for partition, floor in floors.items()}

        def see(record: "ConsumerRecord[Any, Any]") -> None:
            found, ids = _readable(record), self._ids[record.partition]
            if isinstance(found, WonIds):
                ids.see_saved(record.offset, found)
            elif isinstance(found, Marker):
                ids.see_marker(found.generation)

        spans = {TopicPartition(self._won_ids, p): floor.ids.chunk for p, floor in floors.items()}
        await takeover.read_back(self._connection, {tp: (start, marked[tp]) for tp, start in spans.items()}, see)

    def _see_receipt(self, record: "ConsumerRecord[Any, Any]") -> None:
        found, ids = _readable(record), self._ids[record.partition]
        if isinstance(found, FanOutReceipt):
            ids.see_receipt(record.offset, found)
        elif isinstance(found, Marker):
            ids.see_owner(record.offset, found.generation)

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
        ids = self._ids[partition].floor
        return self._held.floor(partition, str(Floor(self._generation, receipts, deliveries, ids)))

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
                self._asking.met("ends.unknown", error, hint="a takeover will read more; asking again")
            else:
                self._asking.over()
                self._ends.reach(ends)

    # -- work ------------------------------------------------------------------------------------------------

    async def process(self, batch: Batch) -> None:
        """Fan the batch out; returns when all that it caused is on the broker."""
        self._held.passed(batch.partition, batch.records[-1].offset)
        self._pacing.saw_event(time.monotonic())
        events = await self._readable(batch)
        if not events:
            return
        traces = _Traces(batch, dict(events)) if TRACING.is_on else _UNTRACED
        # An event accepted after a change of configuration was answered has to meet it.
        config_offset = await self._config.catch_up()
        receipts = [self._receipt(batch, offset, event, config_offset) for offset, event in events]
        try:
            await self._append_receipts(batch, receipts)
            await self._append_deliveries(batch, [event for _, event in events], receipts, traces)
            self._pacing.saw_event(time.monotonic())
            await self._save_ids(batch)
        except MessageSizeTooLargeError:
            raise  # one event's fault: it is put aside
        except KafkaError as error:
            # The producer has ended for good: what goes through it cannot be recorded any more.
            log.exception("fan_out.unrecordable", partition=batch.partition, events=len(events))
            self._on_fatal(error)
            return
        self._count([event for _, event in events], receipts)
        traces.end(receipts)
        for offset, _ in events:
            self._appended.finish((batch.partition, offset))
            batch.finish(offset)

    def _count(self, events: list[Event], receipts: list[FanOutReceipt]) -> None:
        now_ms = self._now_ms()
        metrics.FANNED_OUT.inc(by=len(receipts))
        metrics.FANNED_OUT_REPEATS.inc(by=sum(receipt.repeat_of is not None for receipt in receipts))
        metrics.FANNED_OUT_DELIVERIES.inc(by=sum(len(receipt.integrations) for receipt in receipts))
        for event in events:
            metrics.FAN_OUT_AGE.observe(max(0, now_ms - event.accepted_at_ms) / 1_000)

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
        found = self._appended.receipt((batch.partition, offset))
        if found is not None:
            return found
        repeat_of = self._ids[batch.partition].decide(event) if event.id_supplied else None
        configs = self._integrations.of_app(event.app)
        wanted = self._selections.of(event.app, configs, event.type) if repeat_of is None else []
        return FanOutReceipt(
            record_id=event.record_id,
            app=event.app,
            event_id=event.event_id,
            type=event.type,
            config_offset=config_offset,
            integrations=[config.id for config in wanted],
            accepted_at_ms=event.accepted_at_ms,
            source_partition=batch.partition,
            source_offset=offset,
            source_generation=batch.generation,
            id_space=event.id_space if event.id_supplied else None,
            repeat_of=repeat_of,
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
                    self._ids[batch.partition].count(1)
        except Exception:
            # One event's fault. The others of its batch are tried again, and must not be fanned out twice.
            await self._acknowledged(pending)
            raise
        await self._acknowledged(pending)

    async def _append_deliveries(
        self, batch: Batch, events: list[Event], receipts: list[FanOutReceipt], traces: "_Traces"
    ) -> None:
        pending: list[Future[RecordMetadata]] = []
        try:
            for event, receipt in zip(events, receipts, strict=True):
                appended = self._appended.deliveries((batch.partition, receipt.source_offset))
                headers = traces.headers(receipt.source_offset)
                for integration in receipt.integrations:
                    delivery = _delivery(event, receipt, integration, batch)
                    if delivery.delivery_id not in appended:
                        value, key = codec.encode(delivery), integration.encode()
                        topic = self._deliveries[0].topic
                        pending.append(await self._producer.send(topic, value, key=key, headers=headers))
                        appended.add(delivery.delivery_id)
        except Exception:
            await self._acknowledged(pending)
            raise
        await self._acknowledged(pending)

    async def _save_ids(self, batch: Batch) -> None:
        """Now and then, so that a takeover has few receipts to read."""
        ids, target = self._ids[batch.partition], TopicPartition(self._won_ids, batch.partition)
        if not ids.is_due:
            return
        # Every receipt up to here is ours or was seen at the takeover.
        until = self._ends.of(TopicPartition(self._receipts, batch.partition))
        for record in ids.to_save(batch.partition, batch.generation, until):
            appended = await self._producer.send_and_wait(
                target.topic, codec.encode(record), partition=target.partition
            )
            ids.saved(appended.offset, record)

    async def _acknowledged(self, pending: "Iterable[Future[RecordMetadata]]") -> None:
        for future in pending:
            appended = await future
            self._ends.saw(appended.topic_partition, appended.offset)


class _Traces:
    """Spans of the events of a batch that are traced, by offset, and the contexts that their deliveries carry."""

    def __init__(self, batch: Batch | None, events: Mapping[int, Event]) -> None:
        self._spans: dict[int, Span] = {}
        self._contexts: dict[int, TraceContext] = {}
        for record in batch.records if batch else ():
            context, event = TRACING.of_record(record), events.get(record.offset)
            if context is not None and event is not None:
                span = fan_out_span(TRACING, context, record, event)
                self._contexts[record.offset] = context
                if span is not None:
                    self._spans[record.offset], self._contexts[record.offset] = span, span.context

    def headers(self, offset: int) -> RecordHeaders | None:
        """For the deliveries of the event there."""
        return headers_of(self._contexts.get(offset))

    def end(self, receipts: Iterable[FanOutReceipt]) -> None:
        """The deliveries of these are on the log."""
        for receipt in receipts if self._spans else ():
            if (span := self._spans.get(receipt.source_offset)) is not None:
                span.set({"tenterhook.integrations": len(receipt.integrations)})
                span.end()


_UNTRACED: Final = _Traces(None, {})


def _readable(record: "ConsumerRecord[Any, Any]") -> Record | None:
    try:
        return codec.decode(record.value)
    except codec.Unreadable:
        return None  # its readers put it aside


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
