"""Following all partitions of a topic, on a broker that goes away and on a log that is replaced."""

import asyncio
from collections import defaultdict

import pytest
from aiokafka.admin import AIOKafkaAdminClient

from streams import topics
from streams.connection import Connection
from streams.partitions_follower import PartitionsFollower
from streams.producer import open_producer
from tests.logs import PARTITIONS
from tests.waiting import eventually


class Seen:
    """What was applied, by partition, as a fold would have it."""

    def __init__(self):
        self.values = defaultdict(list)
        self.cleared = []

    def apply(self, partition, key, value, offset):
        if value == b"poison":
            raise ValueError(value)
        self.values[partition].append((offset, value))

    def clear(self, partition):
        self.cleared.append(partition)
        self.values.pop(partition, None)


def following(connection, seen):
    return PartitionsFollower(connection, topics.LANE_ROWS, PARTITIONS.by_integration, seen.apply, clear=seen.clear)


async def put(connection, *values, partition):
    producer = await open_producer(connection, client_id="test")
    try:
        for value in values:
            await producer.send_and_wait(connection.topic(topics.LANE_ROWS), value, key=b"k", partition=partition)
    finally:
        await producer.stop()


async def test_each_partition_is_folded_in_its_order_from_its_beginning_on(connection: Connection):
    await topics.ensure(connection, PARTITIONS)
    await put(connection, b"a", b"b", partition=0)
    await put(connection, b"c", partition=2)
    seen = Seen()
    follower = following(connection, seen)
    await follower.start()
    at_start = {partition: list(values) for partition, values in seen.values.items()}
    await put(connection, b"poison", b"d", partition=1)
    await put(connection, None, partition=0)
    await eventually(lambda: len(seen.values[0]) == 3 and seen.values[1])
    await follower.stop()

    assert at_start == {0: [(0, b"a"), (1, b"b")], 2: [(0, b"c")]}
    assert seen.values[0] == [(0, b"a"), (1, b"b"), (2, None)]
    assert seen.values[1] == [(1, b"d")]
    assert seen.cleared == []


@pytest.mark.kafka
async def test_it_goes_on_where_it_was_when_the_broker_is_back(kafka_broker, kafka_connection):
    await topics.ensure(kafka_connection, PARTITIONS)
    await put(kafka_connection, b"a", partition=0)
    seen = Seen()
    follower = following(kafka_connection, seen)
    await follower.start()
    kafka_broker.kill()
    await kafka_broker.start()
    await put(kafka_connection, b"b", partition=0)
    await eventually(lambda: len(seen.values[0]) == 2, 30)
    await follower.stop()

    assert (seen.values[0], seen.cleared) == ([(0, b"a"), (1, b"b")], [])


@pytest.mark.kafka
async def test_a_log_that_was_replaced_is_read_from_its_beginning(kafka_connection):
    await topics.ensure(kafka_connection, PARTITIONS)
    await put(kafka_connection, b"a", b"b", partition=0)
    await put(kafka_connection, b"c", partition=1)
    seen = Seen()
    follower = following(kafka_connection, seen)
    await follower.start()
    admin = AIOKafkaAdminClient(bootstrap_servers=kafka_connection.bootstrap)
    await admin.start()
    await admin.delete_topics([kafka_connection.topic(each) for each in (topics.LANE_ROWS, topics.INSTALLATION)])
    await admin.close()
    await asyncio.sleep(1)
    await topics.ensure(kafka_connection, PARTITIONS)
    await put(kafka_connection, b"x", partition=0)
    await eventually(lambda: seen.values[0] == [(0, b"x")], 40)
    await eventually(lambda: not seen.values[1], 20)
    await follower.stop()


async def test_it_can_be_stopped_while_there_is_no_broker(unused_tcp_port):
    follower = following(Connection(f"127.0.0.1:{unused_tcp_port}"), Seen())
    starting = asyncio.ensure_future(follower.start())
    await asyncio.sleep(0.2)
    starting.cancel()
    await asyncio.gather(starting, return_exceptions=True)
    await follower.stop()
