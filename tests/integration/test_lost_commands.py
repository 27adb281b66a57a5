"""Topic `commands` whose records are lost: no change can be made, and the owner of the configuration is not ready."""

import pytest
from aiokafka import AIOKafkaConsumer, OffsetAndMetadata, TopicPartition

from services.admin.app import running
from services.admin.owner import GROUP
from streams.connection import Connection
from streams.topics import COMMANDS
from tests.admins import admin_settings, client_of, furnish
from tests.waiting import eventually


@pytest.mark.kafka
async def test_an_owner_that_has_lost_its_commands_says_so_and_a_restart_is_not_asked_for(kafka_connection: Connection):
    await furnish(kafka_connection)
    commands = TopicPartition(kafka_connection.topic(COMMANDS), 0)
    reader = AIOKafkaConsumer(
        **kafka_connection.client_options, group_id=f"{kafka_connection.prefix}{GROUP}", enable_auto_commit=False
    )
    await reader.start()
    try:
        reader.assign([commands])
        await reader.commit({commands: OffsetAndMetadata(9, "")})
    finally:
        await reader.stop()

    async with running(admin_settings(kafka_connection)) as admin, client_of(admin) as client:

        async def names_them() -> str | None:
            response = await client.get("/health/ready")
            return response.text if response.status_code == 503 and commands.topic in response.text else None

        told = await eventually(names_them, 40)
        live = await client.get("/health/live")

    assert f"{commands.topic} 0 ended before what was read of it: its records are lost. Stop all services" in told
    assert live.status_code == 200
