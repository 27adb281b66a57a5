"""A broker that dies while a service joins its group: the service starts anew when it is back, and does not end."""

import asyncio
import base64
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from types import ModuleType

import pytest
import structlog

from services.admin import app as admin
from services.breaker import app as breaker
from services.cli.brokers.kafka import KafkaBroker
from services.cli.brokers.ports import free_ports
from services.dispatcher import app as dispatcher
from services.runtime.settings import Settings
from streams import topics
from streams.connection import Connection
from streams.engine.app import SafeApp
from tests.dispatching import KEK, Probe
from tests.logs import PARTITIONS
from tests.waiting import eventually

pytestmark = [pytest.mark.kafka, pytest.mark.alone, pytest.mark.timeout(240)]

#: A start of Kafka, and of the service, on a busy machine.
READY_S = 60.0


@asynccontextmanager
async def dying_at(broker: KafkaBroker, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[asyncio.Event]:
    """Kills the broker when a service joins its group for the first time, and starts it at the end; set when joined."""
    died, joined, start = asyncio.Event(), asyncio.Event(), SafeApp.start

    async def start_without_a_broker(app: SafeApp) -> None:
        if not died.is_set():
            await asyncio.to_thread(broker.nodes[0].kill)
            died.set()
        await start(app)
        joined.set()

    monkeypatch.setattr(SafeApp, "start", start_without_a_broker)
    try:
        yield joined
    finally:
        await broker.start()


@pytest.mark.parametrize("service", [dispatcher, breaker, admin], ids=lambda service: service.__name__.split(".")[1])
async def test_a_broker_that_dies_at_the_start_is_waited_for(
    kafka_broker: KafkaBroker, kafka_connection: Connection, monkeypatch: pytest.MonkeyPatch, service: ModuleType
):
    await topics.ensure(kafka_connection, PARTITIONS)
    [port] = free_ports(1)
    settings = Settings(
        broker=kafka_connection.bootstrap,
        topic_prefix=kafka_connection.prefix,
        kek=base64.b64encode(KEK).decode(),
        partitions={"by_app": PARTITIONS.by_app, "by_integration": PARTITIONS.by_integration},
        **{service.__name__.split(".")[1]: {"port": port}},
    )
    probe, stop = Probe(port), asyncio.Event()
    with structlog.testing.capture_logs() as lines:
        async with dying_at(kafka_broker, monkeypatch) as joined:
            running = asyncio.create_task(service.main(settings, stop))

            def is_tried_anew() -> bool:
                return running.done() or any(each["event"] == "start.interrupted" for each in lines)

            async def is_live() -> bool:
                return (await probe.get("/health/live"))[0] == 200

            await eventually(is_tried_anew, READY_S)
            assert not running.done(), running.exception()
            await eventually(is_live, READY_S)
            assert not joined.is_set()
        await asyncio.wait_for(joined.wait(), READY_S)
        await probe.until_ready(READY_S)
    stop.set()
    await asyncio.wait_for(running, 40)
