"""
Reads the log for the proof, in the order that makes it right while everything goes on.

First where `events` ends, then what the dispatchers have committed, then the rows of what they hold, then where all
else ends. Whatever was finished by then has what it led to on the log before those ends.
"""

from collections.abc import Callable
from typing import Any

from aiokafka import ConsumerRecord, TopicPartition

from services.cli.log_access import committed_by_dispatchers, partitions_of, read, reading, spans_of
from services.cli.reconcile.proof import DeliveriesProof, EventsProof, Open, Pairs, Report, Span, packed
from streams import codec, topics
from streams.connection import Connection
from streams.lane_rows import LaneRows
from streams.producer import partition_of
from streams.records import Delivery, Event, FanOutReceipt, HandOver, Marker, Quarantined, Record, Result
from streams.topics import Topic

#: Told how many records have been read, and of how many.
Advance = Callable[[int, int], None]


class Reconciliation:
    """One reading of the whole log."""

    def __init__(self, connection: Connection, span: Span, advance: Advance) -> None:
        self._connection = connection
        self._span = span
        self._advance = advance
        self._report = Report()
        self._all: dict[TopicPartition, tuple[int, int]] = {}
        self._committed: dict[TopicPartition, int] = {}
        self._rows = LaneRows()
        self._read = 0
        self._quarantined_events: dict[int, set[int]] = {}
        self._by_integration = 0
        #: Ids of deliveries by partition of `deliveries`: what waits on retry topics, what was put aside.
        self._retrying: list[set[bytes]] = []
        self._quarantined: list[set[bytes]] = []

    async def run(self) -> Report:
        """The report."""
        await self._look()
        self._by_integration = len(self._of(topics.DELIVERIES))
        self._retrying = [set() for _ in range(self._by_integration)]
        self._quarantined = [set() for _ in range(self._by_integration)]
        await self._see_all(topics.QUARANTINE, self._see_quarantined)
        for topic in topics.RETRIES:
            await self._see_all(topic, self._see_waiting)
        pairs = Pairs(self._by_integration)
        for partition in self._of(topics.EVENTS):
            await self._prove_events(partition, pairs)
        for partition in self._of(topics.DELIVERIES):
            await self._prove_deliveries(partition, pairs)
        return self._report

    async def _look(self) -> None:
        """Where everything ends; see the module's docstring."""
        worked_on = (topics.DELIVERIES, *topics.RETRIES)
        others = (topics.FAN_OUT, topics.RESULTS, topics.QUARANTINE, *worked_on)
        there = await partitions_of(self._connection, topics.EVENTS, topics.LANE_ROWS, *others)
        events = there[topics.EVENTS]
        async with reading(self._connection) as consumer:
            self._all |= await spans_of(consumer, self._connection, events)
            self._committed = await committed_by_dispatchers(
                self._connection, [*events, *(each for topic in worked_on for each in there[topic])]
            )
            rows = await spans_of(consumer, self._connection, there[topics.LANE_ROWS])
            await read(self._connection, rows, self._see_row)
            wanted = [each for topic in others for each in there[topic]]
            self._all |= await spans_of(consumer, self._connection, wanted)

    def _see_row(self, record: "ConsumerRecord[Any, Any]") -> None:
        self._rows.apply(record.partition, record.key, record.value, record.offset)

    def _of(self, topic: Topic) -> list[TopicPartition]:
        name = self._connection.topic(topic)
        return sorted(each for each in self._all if each.topic == name)

    def _one(self, topic: Topic, partition: int) -> TopicPartition:
        return TopicPartition(self._connection.topic(topic), partition)

    def _partition(self, integration: str) -> int:
        """Of `deliveries`."""
        numbers = list(range(self._by_integration))
        return partition_of(integration.encode(), numbers, numbers)

    async def _see(
        self, partition: TopicPartition, see: "Callable[[ConsumerRecord[Any, Any], Record | None], None]"
    ) -> None:
        total = sum(end - start for start, end in self._all.values())

        def seen(record: "ConsumerRecord[Any, Any]") -> None:
            self._read += 1
            if self._read % 1_000 == 0:
                self._advance(self._read, total)
            see(record, _decoded(record.value))

        await read(self._connection, {partition: self._all[partition]}, seen)

    async def _see_all(self, topic: Topic, see: "Callable[[ConsumerRecord[Any, Any], Record | None], None]") -> None:
        for partition in self._of(topic):
            await self._see(partition, see)

    # -- what waits, and what was put aside ------------------------------------------------------------------

    def _see_waiting(self, record: "ConsumerRecord[Any, Any]", found: Record | None) -> None:
        committed = self._committed.get(TopicPartition(record.topic, record.partition), 0)
        if record.offset >= committed and isinstance(found, Delivery):
            self._note(found, self._retrying)

    def _see_quarantined(self, record: "ConsumerRecord[Any, Any]", found: Record | None) -> None:  # noqa: ARG002
        if not isinstance(found, Quarantined):
            return
        if found.topic == self._connection.topic(topics.EVENTS):
            self._quarantined_events.setdefault(found.partition, set()).add(found.offset)
        elif isinstance(was := _decoded(found.value), Delivery):
            self._note(was, self._quarantined)

    def _note(self, delivery: Delivery, into: list[set[bytes]]) -> None:
        named = packed(delivery.delivery_id)
        if delivery.cause == "live" and named is not None:
            into[self._partition(delivery.integration)].add(named)

    # -- the proof -------------------------------------------------------------------------------------------

    async def _prove_events(self, partition: TopicPartition, pairs: Pairs) -> None:
        beginning, end = self._all[partition]
        proof = EventsProof(
            partition.partition,
            beginning,
            end,
            committed=self._committed.get(partition),
            quarantined=self._quarantined_events.get(partition.partition, ()),
            events=partition.topic,
            report=self._report,
            span=self._span,
        )

        def see_event(record: "ConsumerRecord[Any, Any]", found: Record | None) -> None:
            proof.see_event(record.offset, found if isinstance(found, Event) else None, record.timestamp)

        def see_receipt(record: "ConsumerRecord[Any, Any]", found: Record | None) -> None:  # noqa: ARG001
            if isinstance(found, Marker):
                proof.see_marker(found)
            elif isinstance(found, FanOutReceipt):
                for integration in proof.see_receipt(found):
                    pairs.add(self._partition(integration), found, integration)

        await self._see(partition, see_event)
        await self._see(self._one(topics.FAN_OUT, partition.partition), see_receipt)
        proof.end()

    async def _prove_deliveries(self, partition: TopicPartition, pairs: Pairs) -> None:
        number = partition.partition
        events = self._of(topics.EVENTS)
        proof = DeliveriesProof(
            number,
            pairs=pairs,
            known=Open(
                committed=self._committed.get(partition),
                rows={row.integration: row for row in self._rows.all()},
                retrying=self._retrying[number],
                quarantined=self._quarantined[number],
            ),
            fanned_out={each.partition: self._committed.get(each) for each in events},
            kept={each.partition: self._all[each] for each in events},
            put_aside=self._quarantined_events,
            span_of_deliveries=self._all[partition],
            events=self._connection.topic(topics.EVENTS),
            report=self._report,
            span=self._span,
        )

        def see_delivery(record: "ConsumerRecord[Any, Any]", found: Record | None) -> None:
            if isinstance(found, Marker):
                proof.see_marker(found)
            elif isinstance(found, Delivery):
                proof.see_delivery(record.offset, found)

        def see_result(record: "ConsumerRecord[Any, Any]", found: Record | None) -> None:
            if isinstance(found, Result):
                proof.see_result(record.offset, found)
            elif isinstance(found, Marker | HandOver):
                proof.see_note(found)

        await self._see(partition, see_delivery)
        await self._see(self._one(topics.RESULTS, number), see_result)
        proof.end()


def _decoded(value: bytes | None) -> Record | None:
    try:
        return codec.decode(value)
    except codec.Unreadable:
        return None
