"""
Records that finish out of order: what Faust's own consumer loses, and ours does not.

The model: one partition, eight records; the first hangs, the other seven finish; the worker commits, is killed
with SIGKILL, and starts again; a ninth record shows that it has caught up. Claim: every record is finished by
one of the two runs. The same agent runs on both consumers, on the same Apache Kafka.
"""

import subprocess
import sys
import time
from pathlib import Path

import pytest
from aiokafka import AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewTopic

from streams.connection import Connection
from tests.waiting import eventually

WORKER = Path(__file__).parent / "workers" / "out_of_order.py"
COMMITTED_WITHIN_S = 1.0


class Journal:
    """What a worker has finished, by number."""

    def __init__(self, path: Path) -> None:
        self.path = path
        path.touch()

    def numbers(self) -> list[str]:
        return self.path.read_text().split()


@pytest.fixture
async def topic(kafka_connection: Connection):
    name = f"{kafka_connection.prefix}work"
    admin = AIOKafkaAdminClient(bootstrap_servers=kafka_connection.bootstrap)
    await admin.start()
    await admin.create_topics([NewTopic(name, 1, 1)])
    await admin.close()
    return name


async def produce(connection: Connection, topic: str, *values: str) -> None:
    producer = AIOKafkaProducer(bootstrap_servers=connection.bootstrap, acks="all")
    await producer.start()
    for value in values:
        await producer.send_and_wait(topic, value.encode(), partition=0)
    await producer.stop()


async def committed(connection: Connection, group: str, topic: str) -> int:
    admin = AIOKafkaAdminClient(bootstrap_servers=connection.bootstrap)
    await admin.start()
    try:
        found = await admin.list_consumer_group_offsets(group)
    finally:
        await admin.close()
    stored = found.get(TopicPartition(topic, 0))
    return stored.offset if stored else -1


async def finished_after_a_kill(kind: str, connection: Connection, topic: str, folder: Path) -> set[str]:
    """What both runs of a worker of this kind finished between them."""
    first, second = Journal(folder / "first"), Journal(folder / "second")

    def start(journal: Journal, mode: str) -> subprocess.Popen[bytes]:
        arguments = [kind, connection.bootstrap, connection.prefix, topic, str(journal.path), mode]
        with (folder / f"{mode}.log").open("wb") as log:
            return subprocess.Popen([sys.executable, str(WORKER), *arguments], stdout=log, stderr=log, cwd=folder)

    await produce(connection, topic, *"01234567")
    worker = start(first, "hang")
    try:
        await eventually(lambda: len(first.numbers()) == 7, 30)
        began = time.monotonic()
        # Its chance to commit what it should not.
        while time.monotonic() - began < COMMITTED_WITHIN_S:
            await committed(connection, f"{connection.prefix}worker", topic)
    finally:
        worker.kill()
        worker.wait()
    await produce(connection, topic, "last")
    worker = start(second, "finish")
    try:
        await eventually(lambda: "last" in second.numbers(), 30)
    finally:
        worker.kill()
        worker.wait()
    return {*first.numbers(), *second.numbers()}


@pytest.mark.kafka
async def test_faust_s_own_consumer_loses_the_record_in_flight(kafka_connection, topic, tmp_path):
    finished = await finished_after_a_kill("stock", kafka_connection, topic, tmp_path)

    # When this fails Faust has been mended: read docs/why/own-consumer.md again.
    assert finished == {*"1234567", "last"}


@pytest.mark.kafka
async def test_ours_does_not(kafka_connection, topic, tmp_path):
    finished = await finished_after_a_kill("ours", kafka_connection, topic, tmp_path)

    assert finished == {*"01234567", "last"}
