"""What retention takes while no dispatcher runs is named by the next one, which goes on where the log begins."""

from typing import Any

import pytest
from aiokafka import TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, RecordsToDelete
from structlog.testing import capture_logs

from streams import topics
from streams.connection import Connection
from tests.dispatching import dispatching
from tests.logs import Log, log_of, make_event
from tests.receiving import receiver
from tests.waiting import eventually

ONE = topics.Partitions(by_app=1, by_integration=1)


async def take(log: Log, topic: topics.Topic, before: int) -> None:
    """As retention does: everything below that offset."""
    admin = AIOKafkaAdminClient(bootstrap_servers=log.connection.bootstrap)
    await admin.start()
    place = TopicPartition(log.connection.topic(topic), 0)
    await admin.delete_records({place: RecordsToDelete(before_offset=before)})
    await admin.close()


def told(lines: list[Any], event: str) -> list[tuple[Any, ...]]:
    return [(each["topic"], each["partition"], each["first"], each["last"]) for each in lines if each["event"] == event]


@pytest.mark.kafka
async def test_what_fell_out_while_nobody_ran_is_named_and_the_rest_goes_on(kafka_connection: Connection):
    events, deliveries = (kafka_connection.topic(topic) for topic in (topics.EVENTS, topics.DELIVERIES))
    async with log_of(kafka_connection, ONE) as log, receiver() as to:
        await log.integration(to.integration("int_held", status="paused"))
        async with dispatching(kafka_connection, ONE):
            await log.events(*(make_event(number) for number in range(5)))
            await eventually(lambda: len(log.deliveries) == 5)
            await eventually(log.all_is_committed)
        committed = (await log.committed())[TopicPartition(events, 0)].offset
        held = [each.raw.offset for each in log.seen[topics.DELIVERIES] if each.record in log.deliveries]

        # Three events that nobody fans out, and two deliveries of what is held.
        places = await log.events(*(make_event(number) for number in range(5, 8)))
        await take(log, topics.EVENTS, places[-1].offset)
        await take(log, topics.DELIVERIES, held[2])
        with capture_logs() as lines:
            await log.integration(to.integration("int_held", version=2, epoch=2))
            async with dispatching(kafka_connection, ONE):
                await to.wait_for("int_held", 4)
                await eventually(log.all_is_committed)
            assert to.first_numbers("int_held") == [2, 3, 4, 7]
        assert told(lines, "log.fallen_out") == [(events, 0, committed, places[-1].offset - 1)]
        assert told(lines, "deliveries.fallen_out") == [(deliveries, 0, held[0], held[2] - 1)]
        assert [each["integrations"] for each in lines if each["event"] == "deliveries.fallen_out"] == [["int_held"]]

        with capture_logs() as lines:
            async with dispatching(kafka_connection, ONE):
                await log.events(make_event(8))
                await to.wait_for("int_held", 5)
        assert not [each for each in lines if "fallen_out" in each["event"]]
