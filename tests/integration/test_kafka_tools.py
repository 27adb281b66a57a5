"""Commands of the pages for other programs, where they need a log of their own: kcat, and Kafka's tool for topics."""

import asyncio
import re
import shutil
from contextlib import closing
from pathlib import Path

import pytest
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType

from services.cli.brokers.kafka import JARS
from streams.connection import Connection
from streams.producer import open_producer
from streams.topics import APP_CONFIG, INTEGRATION_CONFIG, RESULTS, ensure
from tests.admins import PARTITIONS, admin_at, client_of, furnish
from tests.pasted import Terminal, blocks, pages
from tests.waiting import eventually

pytestmark = pytest.mark.kafka


@pytest.mark.skipif(not shutil.which("kcat"), reason="needs kcat: make languages")
async def test_what_no_version_is_left_of_is_deleted_as_the_page_says(kafka_connection: Connection, tmp_path: Path):
    """An integration and an app of which there is nothing but what no code can read."""
    [block] = [each.text for each in blocks() if each.page == "docs/operating.md" and "kcat" in each.text]
    await furnish(kafka_connection)
    producer = await open_producer(kafka_connection, client_id="test")
    try:
        for topic, key in ((INTEGRATION_CONFIG, b"int_lost"), (APP_CONFIG, b"shop")):
            await producer.send_and_wait(kafka_connection.topic(topic), b"{}", key=key)
    finally:
        await producer.stop()
    log = {"127.0.0.1:9092": kafka_connection.bootstrap}
    of_integration = {"int_…": "int_lost", "tenterhook.integration-config": kafka_connection.topic(INTEGRATION_CONFIG)}
    of_app = {"int_…": "shop", "tenterhook.integration-config": kafka_connection.topic(APP_CONFIG)}

    async with admin_at(kafka_connection) as admin, client_of(admin) as client:

        async def answered() -> list[int]:
            integration = await client.get("/v1/apps/demo/integrations/int_lost")
            app = await client.get("/v1/apps/shop")
            return [integration.status_code, app.status_code]

        async def is_deleted() -> bool:
            return await answered() == [404, 404]

        assert await answered() == [503, 503]
        for name, replaced in {"integration": of_integration, "app": of_app}.items():
            with closing(Terminal(tmp_path, name, replaced=log | replaced)) as terminal:
                await asyncio.to_thread(terminal.paste, block)
        await eventually(is_deleted)
        created = await client.post("/v1/apps", json={"id": "shop"})

    assert created.status_code == 201, created.text


async def test_a_topic_is_compressed_as_the_page_says_and_a_start_goes_on(kafka_connection: Connection, tmp_path: Path):
    [command] = re.findall(r"`(kafka-configs\.sh [^`]+)`", pages()["docs/scale.md"])
    await ensure(kafka_connection, PARTITIONS)
    results = kafka_connection.topic(RESULTS)
    replaced = {
        "kafka-configs.sh": f"java -Xmx128m -cp '{JARS}/*' kafka.admin.ConfigCommand",
        "127.0.0.1:9092": kafka_connection.bootstrap,
        "tenterhook.delivery-results": results,
    }
    with closing(Terminal(tmp_path, replaced=replaced)) as terminal:
        await asyncio.to_thread(terminal.paste, f"{command}\n")
    await ensure(kafka_connection, PARTITIONS)

    admin = AIOKafkaAdminClient(**kafka_connection.client_options)
    await admin.start()
    try:
        [told] = await admin.describe_configs([ConfigResource(ConfigResourceType.TOPIC, results)])
    finally:
        await admin.close()
    [(*_, entries)] = told.resources
    assert {name: value for name, value, *_ in entries}["compression.type"] == "zstd"
