"""
A call for records that a rebalance has overtaken.

It waits as long as the rebalance takes, and then returns what was fetched after it, when the new assignment has sought
already: dropped, those records would be passed over for good. Here each partition's first records come like that.
"""

from typing import Any

import pytest
from aiokafka.admin import AIOKafkaAdminClient, NewTopic

from streams.connection import Connection
from streams.engine.app import SafeApp
from streams.engine.consumer import LedgerConsumer
from streams.engine.processor import Assignment, Batch
from streams.producer import open_producer
from tests.waiting import eventually

PARTITIONS, RECORDS = 2, 30


class _Noting:
    """A processor that notes what it gets."""

    def __init__(self) -> None:
        self.seen: dict[int, list[int]] = {}

    async def take_over(self, assignment: Assignment) -> None:
        pass

    async def process(self, batch: Batch) -> None:
        for record in batch.unfinished():
            self.seen.setdefault(batch.partition, []).append(record.offset)
            batch.finish(record.offset)

    def floor(self, partition: int) -> str:
        return ""

    async def settle(self, timeout_s: float) -> None:
        pass


async def test_the_first_records_of_an_assignment_are_not_passed_over(
    connection: Connection, monkeypatch: pytest.MonkeyPatch
):
    overtaken: set[Any] = set()
    hand_over = LedgerConsumer._hand_over

    async def hand_over_late(consumer: LedgerConsumer, tp: Any, records: list[Any], generation: int) -> None:
        is_first = tp not in overtaken
        overtaken.add(tp)
        await hand_over(consumer, tp, records, generation - 1 if is_first else generation)

    monkeypatch.setattr(LedgerConsumer, "_hand_over", hand_over_late)
    topic = f"{connection.prefix}work"
    admin = AIOKafkaAdminClient(bootstrap_servers=connection.bootstrap)
    await admin.start()
    await admin.create_topics([NewTopic(topic, PARTITIONS, 1)])
    await admin.close()
    producer = await open_producer(connection, client_id="test")
    for number in range(RECORDS):
        await producer.send_and_wait(topic, b"%d" % number, partition=number % PARTITIONS)
    await producer.stop()

    async def put_aside(record: Any, code: str, reason: str) -> None:
        raise AssertionError(reason)

    noting = _Noting()
    app = SafeApp("engine", connection, put_aside=put_aside, commit_interval_ms=50)
    app.add_processor(topic, noting, name="work")
    await app.start()
    try:
        await eventually(lambda: sum(map(len, noting.seen.values())) >= RECORDS, 40)
    finally:
        await app.stop()
    assert {number: list(range(RECORDS // PARTITIONS)) for number in range(PARTITIONS)} == noting.seen
    assert len(overtaken) == PARTITIONS
