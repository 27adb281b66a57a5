"""What a group has committed, asked of a broker that does not know it: not its coordinator any more, or not yet."""

import asyncio

import pytest
from aiokafka import AIOKafkaConsumer, OffsetAndMetadata, TopicPartition

from streams import topics
from streams.connection import Connection
from streams.reading import committed_offsets, started

pytestmark = pytest.mark.kafka

PARTITIONS = topics.Partitions(by_app=1, by_integration=1)


async def test_a_broker_that_is_not_the_group_s_is_not_taken_for_one_that_has_no_commits(
    cluster_connection: Connection,
) -> None:
    await topics.ensure(cluster_connection, PARTITIONS)
    partition, other = (TopicPartition(cluster_connection.topic(each), 0) for each in (topics.EVENTS, topics.RESULTS))
    reader = AIOKafkaConsumer(
        bootstrap_servers=cluster_connection.bootstrap,
        group_id=f"{cluster_connection.prefix}dispatcher",
        enable_auto_commit=False,
    )
    async with started(reader), asyncio.timeout(60):
        reader.assign([partition, other])
        await reader.commit({partition: OffsetAndMetadata(7, "floor")})
        coordinator = reader._coordinator
        nodes = {each.nodeId for each in reader._client.cluster.brokers()}
        for wrong in nodes - {coordinator.coordinator_id}:
            coordinator.coordinator_id = wrong
            assert await committed_offsets(reader, [partition, other]) == {partition: OffsetAndMetadata(7, "floor")}
        assert await committed_offsets(reader, []) == {}
