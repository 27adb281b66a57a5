"""Topics that were deleted and made again, or whose counts were changed with the settings: refused at start."""

import asyncio

import aiohttp
import pytest
from aiokafka.admin import AIOKafkaAdminClient, NewPartitions

from services.cli.brokers.kafka import KafkaBroker
from streams import codec, installation, topics
from streams.connection import Connection
from streams.records import Installation
from streams.topic_ids import topic_ids
from streams.topics import DELIVERIES, EVENTS, FAN_OUT, INSTALLATION, Partitions, TopicMismatch
from tests.breaking import everything_on
from tests.ingesting import PATH, SECRET, events_on, ingesting
from tests.waiting import eventually

FEW = Partitions(2, 3)


async def delete(connection: Connection, *gone: topics.Topic) -> None:
    """Returns when the broker shows them no more."""
    names = [connection.topic(topic) for topic in gone]
    admin = AIOKafkaAdminClient(bootstrap_servers=connection.bootstrap)
    await admin.start()
    try:
        await admin.delete_topics(names)

        async def is_gone() -> bool:
            return not {each["topic"] for each in await admin.describe_topics()} & set(names)

        await eventually(is_gone)
    finally:
        await admin.close()


async def test_a_second_start_finds_what_the_first_recorded(connection: Connection):
    await topics.ensure(connection, FEW)
    await topics.ensure(connection, FEW)


async def test_several_services_that_start_at_once_agree(connection: Connection):
    await asyncio.gather(*(topics.ensure(connection, FEW) for _ in range(3)))
    await topics.ensure(connection, FEW)


async def test_a_broker_tells_the_same_id_each_time_and_none_for_what_is_not_there(connection: Connection):
    await topics.ensure(connection, FEW)
    names = [connection.topic(EVENTS), connection.topic(DELIVERIES)]
    first = await topic_ids(connection, [*names, "nobody-made-this"])
    assert set(first) == set(names)
    assert len(set(first.values())) == 2
    assert await topic_ids(connection, names) == first


#: Of what cannot be made again, some that nothing but the record of the installation tells of.
GONE = (DELIVERIES, topics.RETRIES[3], topics.LANE_ROWS, topics.APP_CONFIG, topics.INTEGRATION_CONFIG, topics.AUDIT)


@pytest.mark.kafka
@pytest.mark.parametrize("gone", GONE, ids=lambda topic: topic.name)
async def test_a_topic_that_was_made_again_refuses_to_start_and_says_what_to_do(
    kafka_connection: Connection, gone: topics.Topic
):
    await topics.ensure(kafka_connection, FEW)
    await delete(kafka_connection, gone)
    for _ in range(2):
        with pytest.raises(TopicMismatch, match=f"{gone.name} was deleted and made again") as refused:
            await topics.ensure(kafka_connection, FEW)
    assert f"delete topic {kafka_connection.topic(INSTALLATION)}" in str(refused.value)
    assert str(refused.value).count("was deleted and made again") == 1

    await delete(kafka_connection, INSTALLATION)
    await topics.ensure(kafka_connection, FEW)


@pytest.mark.kafka
async def test_what_is_made_again_of_other_topics_may_go(kafka_connection: Connection):
    """Of `docs/operating.md`'s table, and as `docs/breaker.md` says to begin anew."""
    await topics.ensure(kafka_connection, FEW)
    await delete(kafka_connection, *topics.MADE_AGAIN - {INSTALLATION})
    await topics.ensure(kafka_connection, FEW)


async def recorded_on(connection: Connection) -> list[tuple[bytes | None, Installation]]:
    found = await everything_on(connection, INSTALLATION)
    return [(key, codec.decode_as(Installation, value)) for key, value, _ in found]


@pytest.mark.kafka
async def test_an_older_installation_gets_the_topics_that_it_did_not_record_and_older_releases_go_on_with_that(
    kafka_connection: Connection, monkeypatch: pytest.MonkeyPatch
):
    """As one that began with a release that knew four of them; three processes of this one begin at once."""
    with monkeypatch.context() as older:
        older.setattr(topics, "KEPT", (EVENTS, FAN_OUT, DELIVERIES, topics.RESULTS))
        older.setattr(installation, "key_of", lambda _: b"topics")
        await topics.ensure(kafka_connection, FEW)
    [(_, first)] = await recorded_on(kafka_connection)
    assert set(first.topic_ids) == {"events", "fan-out", "deliveries", "delivery-results"}

    await asyncio.gather(*(topics.ensure(kafka_connection, FEW) for _ in range(3)))
    before, *more = await recorded_on(kafka_connection)
    await topics.ensure(kafka_connection, FEW)

    assert [before, *more] == await recorded_on(kafka_connection)
    assert before == (b"topics", first)
    assert {key for key, _ in more} == {f"{len(topics.KEPT)} topics".encode()}
    for _, record in more:
        assert set(record.topic_ids) == {topic.name for topic in topics.KEPT}
        # Older releases take whichever they meet first.
        assert first.topic_ids.items() <= record.topic_ids.items()

    await delete(kafka_connection, topics.RETRIES[3])
    with pytest.raises(TopicMismatch, match=r"retry\.80s was deleted and made again"):
        await topics.ensure(kafka_connection, FEW)


@pytest.mark.kafka
async def test_counts_of_partners_changed_together_refuse_to_start(kafka_connection: Connection):
    """Also where the settings were changed with them."""
    await topics.ensure(kafka_connection, FEW)
    admin = AIOKafkaAdminClient(bootstrap_servers=kafka_connection.bootstrap)
    await admin.start()
    try:
        by_app = [topic for topic in topics.TOPICS if topic.partitioned_by == "app"]
        await admin.create_partitions({kafka_connection.topic(topic): NewPartitions(4) for topic in by_app})
    finally:
        await admin.close()

    async def refused(partitions: Partitions) -> str:
        try:
            await topics.ensure(kafka_connection, partitions)
        except TopicMismatch as mismatch:
            return str(mismatch)
        return ""

    async def with_the_settings() -> str:
        said = await refused(Partitions(4, 3))
        return said if "began with" in said else ""

    said = await eventually(with_the_settings)
    for topic in (EVENTS, FAN_OUT):
        assert f"topic {kafka_connection.topic(topic)} has 4 partitions and began with 2" in said
    assert "has 4 partitions, and these settings want 2" in await refused(FEW)


@pytest.mark.kafka
@pytest.mark.slow
async def test_two_of_three_in_sync_accept_and_one_alone_does_not(
    kafka_cluster: KafkaBroker, cluster_connection: Connection
):
    """What was answered with 202 is there when that one dies too, and all come back."""
    accepted: list[str] = []
    async with ingesting(cluster_connection) as ingest, aiohttp.ClientSession(headers=SECRET) as client:

        async def is_taken() -> bool:
            event = {"type": "call_ended", "id": f"order-{len(accepted)}"}
            async with client.post(ingest.served.url + PATH, json=event) as response:
                assert response.status in (202, 503)
                if response.status == 202:
                    accepted.append(event["id"])
                return response.status == 202

        try:
            assert await is_taken()
            kafka_cluster.nodes[0].kill()
            await eventually(is_taken, 60)
            for _ in range(20):
                await is_taken()
            kafka_cluster.nodes[1].kill()
            assert not [taken for taken in [await is_taken() for _ in range(2)] if taken]
            kafka_cluster.nodes[2].kill()
            assert not await is_taken()
        finally:
            await kafka_cluster.start()
        await eventually(is_taken, 60)
    found = {event.event_id for _, event in await events_on(cluster_connection)}

    assert len(accepted) > 3
    assert set(accepted) <= found
