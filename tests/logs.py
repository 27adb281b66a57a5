"""
The log of an installation for tests: what a test writes to it, and all that a dispatcher appends.

`log_of` makes the topics, writes configuration and events the way admin and ingest do, and follows the other topics.
"""

import asyncio
import json
import time
import uuid
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, ConsumerRecord, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import KafkaError
from aiokafka.partitioner import DefaultPartitioner

from streams import codec, topics
from streams.connection import Connection
from streams.producer import open_producer
from streams.records import (
    AppConfig,
    Delivery,
    Event,
    FanOutReceipt,
    IntegrationConfig,
    Quarantined,
    Record,
    Result,
)
from streams.topics import Topic
from tests.apps import make_app
from tests.waiting import eventually

R = TypeVar("R")

#: Few, so that a test's topics are made quickly; more than one of each, so that they can be mixed up.
PARTITIONS = topics.Partitions(by_app=2, by_integration=3)

#: What a dispatcher appends to.
_FOLLOWED = (topics.FAN_OUT, topics.DELIVERIES, topics.RESULTS, topics.QUARANTINE)


def make_event(number: int = 0, app: str = "demo", **changes: Any) -> Event:
    """An event whose payload tells its number, and its ordering key where it has one."""
    record_id = f"rec_{uuid.uuid4().hex}"
    now_ms = time.time_ns() // 1_000_000
    fields: dict[str, Any] = {
        "record_id": record_id,
        "app": app,
        "event_id": f"evt_{record_id[4:]}",
        "id_space": "secret",
        "id_supplied": False,
        "type": "call_ended",
        "payload": json.dumps({"n": number, "key": changes.get("ordering_key")}).encode(),
        "occurred_at_ms": now_ms,
        "accepted_at_ms": now_ms,
    }
    return Event(**fields | changes)


@dataclass(frozen=True, slots=True)
class Seen:
    """A record of the log, and what it says; None where that cannot be read."""

    raw: "ConsumerRecord[Any, Any]"
    record: Record | None


class Log:
    """The log under one prefix: what a test writes to it, and what was appended to the topics that are followed."""

    def __init__(self, connection: Connection, producer: AIOKafkaProducer, partitions: topics.Partitions) -> None:
        self.connection = connection
        self.producer = producer
        self.partitions = partitions
        self._reader: AIOKafkaConsumer[Any, Any] = AIOKafkaConsumer(
            bootstrap_servers=connection.bootstrap,
            enable_auto_commit=False,
            auto_offset_reset="earliest",
            fetch_max_wait_ms=20,
        )
        #: By topic, as they were read: each partition in order.
        self.seen: dict[Topic, list[Seen]] = {topic: [] for topic in _FOLLOWED}

    # writing

    async def raw(
        self, topic: Topic, value: bytes | None, key: bytes | None = None, partition: int | None = None
    ) -> Any:
        """Append these bytes; where they stand then."""
        return await self.producer.send_and_wait(self.connection.topic(topic), value, key=key, partition=partition)

    async def app(self, config: AppConfig | None = None) -> None:
        config = config or make_app()
        await self.raw(topics.APP_CONFIG, codec.encode(config), config.app.encode())

    async def integration(self, config: IntegrationConfig) -> int:
        """As the admin service does it; offset of the record."""
        appended = await self.raw(topics.INTEGRATION_CONFIG, codec.encode(config), config.id.encode())
        return int(appended.offset)

    async def delete(self, integration: str) -> None:
        await self.raw(topics.INTEGRATION_CONFIG, None, integration.encode())

    async def events(self, *events: Event) -> list[Any]:
        """As ingest does it, in this order; where they stand."""
        topic = self.connection.topic(topics.EVENTS)
        futures = [await self.producer.send(topic, codec.encode(each), key=each.app.encode()) for each in events]
        return [await future for future in futures]

    def partition_of(self, topic: Topic, key: str) -> int:
        """Where records of that key stand."""
        numbers = list(range(topics.partition_count(topic, self.partitions)))
        return int(DefaultPartitioner()(key.encode(), numbers, numbers))

    # reading

    def of(self, topic: Topic, kind: type[R]) -> list[R]:
        """The records of that kind on the topic, each partition in order."""
        return [seen.record for seen in self.seen[topic] if isinstance(seen.record, kind)]

    @property
    def receipts(self) -> list[FanOutReceipt]:
        return self.of(topics.FAN_OUT, FanOutReceipt)

    @property
    def deliveries(self) -> list[Delivery]:
        return self.of(topics.DELIVERIES, Delivery)

    @property
    def results(self) -> list[Result]:
        return self.of(topics.RESULTS, Result)

    @property
    def quarantined(self) -> list[Quarantined]:
        return self.of(topics.QUARANTINE, Quarantined)

    def result_of(self, integration: str) -> Result:
        """The only one of that integration."""
        [result] = [each for each in self.results if each.integration == integration]
        return result

    async def results_come(self, count: int, within_s: float = 30.0) -> list[Result]:
        await eventually(lambda: len(self.results) >= count or None, within_s)
        return self.results

    async def quarantined_come(self, count: int, within_s: float = 30.0) -> list[Quarantined]:
        await eventually(lambda: len(self.quarantined) >= count or None, within_s)
        return self.quarantined

    async def is_read_to_the_end(self) -> bool:
        """Whether everything appended until now was seen."""
        wanted = [
            TopicPartition(self.connection.topic(topic), number)
            for topic in self.seen
            for number in range(topics.partition_count(topic, self.partitions))
        ]
        ends = await self._reader.end_offsets(wanted)
        seen = Counter(
            TopicPartition(each.raw.topic, each.raw.partition) for all_ in self.seen.values() for each in all_
        )
        return all(seen[partition] == end for partition, end in ends.items())

    async def committed(self) -> dict[TopicPartition, Any]:
        """What the dispatchers' group has stored, offsets and floors."""
        admin = AIOKafkaAdminClient(bootstrap_servers=self.connection.bootstrap)
        await admin.start()
        try:
            found: dict[TopicPartition, Any] = await admin.list_consumer_group_offsets(
                f"{self.connection.prefix}dispatcher"
            )
        finally:
            await admin.close()
        return found

    async def all_is_committed(self) -> bool:
        """Whether nothing on `deliveries` is left to do."""
        ends = Counter(each.raw.partition for each in self.seen[topics.DELIVERIES])
        stored = await self.committed()
        topic = self.connection.topic(topics.DELIVERIES)
        return all(stored[TopicPartition(topic, number)].offset == end for number, end in ends.items())

    async def follow(self) -> None:
        """Read what is appended, until cancelled."""
        names = {self.connection.topic(topic): topic for topic in self.seen}
        await self._reader.start()
        try:
            self._reader.assign(
                [
                    TopicPartition(name, number)
                    for name, topic in names.items()
                    for number in range(topics.partition_count(topic, self.partitions))
                ]
            )
            while True:
                try:
                    fetched = await self._reader.getmany(timeout_ms=500)
                except KafkaError:
                    await asyncio.sleep(0.1)
                    continue
                for partition, records in fetched.items():
                    self.seen[names[partition.topic]] += [Seen(record, _read(record.value)) for record in records]
        finally:
            await self._reader.stop()


def _read(value: bytes | None) -> Record | None:
    try:
        return codec.decode(value)
    except codec.Unreadable:
        return None


@asynccontextmanager
async def log_of(connection: Connection, partitions: topics.Partitions = PARTITIONS) -> AsyncIterator[Log]:
    """A log with its topics and the app `demo`, followed for the time of the block."""
    await topics.ensure(connection, partitions)
    producer = await open_producer(connection, client_id="test")
    log = Log(connection, producer, partitions)
    await log.app()
    following = asyncio.create_task(log.follow())
    try:
        yield log
        if following.done():
            following.result()
    finally:
        following.cancel()
        await asyncio.gather(following, return_exceptions=True)
        await producer.stop()
