"""What is on the log of a run, noted as it is appended: as little of each record as the claims need."""

import asyncio
from collections.abc import Mapping
from typing import Any

from aiokafka import AIOKafkaConsumer, ConsumerRecord, TopicPartition
from aiokafka.errors import KafkaError

from services.breaker.fold import fold, rules_of, state_of
from streams import codec, topics
from streams.connection import Connection
from streams.lane_rows import LaneRows
from streams.reading import stop
from streams.records import (
    BreakerRow,
    Delivery,
    Event,
    FanOutReceipt,
    IntegrationConfig,
    Marker,
    Quarantined,
    Record,
    Result,
)
from streams.states import States
from streams.takeover import Generations
from streams.topics import Partitions, Topic
from tests.chaos.fleet import now_ms
from tests.chaos.observed import Changed, Ended, Observed, Paused, Receipt, Stored, Taken

_FOLLOWED = (
    topics.EVENTS,
    topics.FAN_OUT,
    topics.DELIVERIES,
    topics.RESULTS,
    topics.QUARANTINE,
    topics.INTEGRATION_CONFIG,
    topics.INTEGRATION_STATE,
    topics.BREAKER_ROWS,
    topics.LANE_ROWS,
)


class Following:
    """Reads the topics into what was observed."""

    def __init__(
        self,
        connection: Connection,
        partitions: Partitions,
        configs: Mapping[str, IntegrationConfig],
        into: Observed,
    ) -> None:
        """
        Args:
            configs: the integrations as they are at the beginning.
        """
        self._into = into
        self._names = {connection.topic(topic): topic for topic in _FOLLOWED}
        self._partitions = [
            TopicPartition(connection.topic(topic), number)
            for topic in _FOLLOWED
            for number in range(topics.partition_count(topic, partitions))
        ]
        self._connection = connection
        self._positions: dict[TopicPartition, int] = {}
        #: When the records that are looked at now came.
        self._read_ms = 0.0
        self._generations = Generations()
        self._states = States()
        self._lane_rows = LaneRows()
        self._configs = dict(configs)
        #: Those that are paused now, by integration.
        self._paused: dict[str, Paused] = {}
        #: (integration, event id) with an outcome.
        self.ended: set[tuple[str, str]] = set()

    async def run(self) -> None:
        """Read what is appended, until cancelled."""
        while True:
            try:
                await self._read()
            except KafkaError:
                await asyncio.sleep(0.5)

    async def _read(self) -> None:
        reader: AIOKafkaConsumer[Any, Any] = AIOKafkaConsumer(
            **self._connection.client_options,
            enable_auto_commit=False,
            auto_offset_reset="earliest",
            isolation_level="read_committed",
        )
        try:
            await reader.start()
            reader.assign(self._partitions)
            for partition, position in self._positions.items():
                reader.seek(partition, position)
            while True:
                for partition, records in (await reader.getmany(timeout_ms=500)).items():
                    self._read_ms = now_ms()
                    for record in records:
                        self._see(self._names[partition.topic], record)
                # The last offset of a partition may be a transaction's marker, which no record comes of.
                for partition in self._partitions:
                    self._positions[partition] = await reader.position(partition)
        finally:
            await stop(reader)

    async def is_at_the_end(self) -> bool:
        """Whether everything that was appended until now was read."""
        reader: AIOKafkaConsumer[Any, Any] = AIOKafkaConsumer(**self._connection.client_options)
        await reader.start()
        try:
            ends: Mapping[TopicPartition, int] = await reader.end_offsets(self._partitions)
        finally:
            await stop(reader)
        return all(self._positions.get(partition, 0) >= end for partition, end in ends.items())

    def conclude(self) -> None:
        """What was folded, as it stands now."""
        into = self._into
        into.published = {state.integration: state for state in self._states.all()}
        into.folded = {name: state_of(row, self._configs[name]) for name, row in into.folded_rows.items()}
        into.lane_rows = {row.integration: row for row in self._lane_rows.all()}
        into.paused += self._paused.values()

    # -- one record ------------------------------------------------------------------------------------------

    def _see(self, topic: Topic, raw: "ConsumerRecord[Any, Any]") -> None:
        if raw.value is not None:
            self._into.schema_ids[topic.name].add(int.from_bytes(raw.value[1:5], "big"))
        if topic == topics.INTEGRATION_STATE:
            self._states.apply(raw.key, raw.value, raw.offset)
            self._look_whether_paused((raw.key or b"").decode(), raw.timestamp)
        elif topic == topics.LANE_ROWS:
            self._lane_rows.apply(raw.partition, raw.key, raw.value, raw.offset)
        elif raw.value is not None:
            self._see_record(topic, raw, codec.decode(raw.value))

    def _see_record(self, topic: Topic, raw: "ConsumerRecord[Any, Any]", record: Record) -> None:  # noqa: C901  # a table
        into = self._into
        match record:
            case Event():
                into.stored.append(Stored(raw.partition, raw.offset, record.event_id, record.record_id, record.type))
            case Marker():
                for source in record.sources:
                    self._generations.saw((topic, raw.partition, record.source_topic), source, record.generation)
            case FanOutReceipt():
                self._see_receipt(raw, record)
            case Delivery():
                self._see_delivery(raw, record)
            case Result():
                self._see_result(raw, record)
            case Quarantined():
                into.quarantined.append(f"{record.topic} {record.partition}@{record.offset}: {record.reason}")
            case IntegrationConfig():
                self._configs[record.id] = record
                into.configured.append(Changed(record.id, record.status, record.version))
                self._look_whether_paused(record.id, raw.timestamp)
            case BreakerRow():
                known = into.rows.get(record.integration)
                if known is None or _rank(record) >= _rank(known):
                    into.rows[record.integration] = record
            case _:
                pass

    def _look_whether_paused(self, integration: str, at_ms: int) -> None:
        """Note where that has changed; *at_ms*: when the record that may have changed it was given to a producer."""
        config, state = self._configs[integration], self._states.get(integration)
        if not self._states.is_paused(config):
            if (paused := self._paused.pop(integration, None)) is not None:
                self._into.paused.append(paused._replace(until_ms=at_ms))
        elif integration not in self._paused:
            tripped_by = state.tripped_by_offset if state is not None and config.status != "paused" else None
            self._paused[integration] = Paused(integration, self._read_ms, tripped_by=tripped_by)

    def _see_receipt(self, raw: "ConsumerRecord[Any, Any]", receipt: FanOutReceipt) -> None:
        place = topics.FAN_OUT, raw.partition, self._connection.topic(topics.EVENTS)
        if receipt.type.startswith("tenterhook."):
            return  # the breaker's own events, which nobody here selects
        if not self._generations.is_late(place, receipt.source_partition, receipt.source_generation):
            known = Receipt(
                receipt.record_id,
                receipt.event_id,
                tuple(receipt.integrations),
                receipt.repeat_of is not None,
                receipt.source_partition,
                receipt.source_offset,
            )
            self._into.receipts.append(known)

    def _see_delivery(self, raw: "ConsumerRecord[Any, Any]", delivery: Delivery) -> None:
        source, partition, generation = topics.EVENTS.name, delivery.source_partition, delivery.source_generation
        if delivery.retry_line is not None:
            source, partition = delivery.retry_line, delivery.retry_partition or 0
            generation = delivery.retry_generation or 0
        place = topics.DELIVERIES, raw.partition, f"{self._connection.prefix}{source}"
        if self._generations.is_late(place, partition, generation):
            self._into.late_copies.append((delivery.integration, raw.offset))
        else:
            taken = Taken(
                raw.partition,
                raw.offset,
                delivery.delivery_id,
                delivery.integration,
                delivery.event_id,
                delivery.attempt,
                self._read_ms,
                delivery.retry_line is not None,
            )
            self._into.deliveries.append(taken)

    def _see_result(self, raw: "ConsumerRecord[Any, Any]", result: Result) -> None:
        into = self._into
        into.results.append(
            Ended(
                raw.partition,
                raw.offset,
                result.delivery_id,
                result.integration,
                result.event_id,
                result.attempt,
                result.outcome,
                result.reason,
                result.started_at_ms,
                result.finished_at_ms,
                self._read_ms,
                result.next_attempt,
                result.next_due_at_ms,
                result.next_slot is not None,
            )
        )
        if result.outcome is not None:
            self.ended.add((result.integration, result.event_id))
        rules, row = rules_of(self._configs[result.integration]), into.folded_rows.get(result.integration)
        into.folded_rows[result.integration] = fold(row, result, raw.offset, rules)


def _rank(row: BreakerRow) -> tuple[int, int]:
    return row.epoch, row.applied_offset
