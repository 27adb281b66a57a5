"""An ingest service for tests, in this process or as its own, and what it has put onto the log."""

import asyncio
import os
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
from aiokafka import AIOKafkaConsumer, TopicPartition

from services.cli.brokers.ports import free_ports
from services.ingest.app import Ingest, running
from services.runtime.settings import Settings
from streams import codec, topics
from streams.connection import Connection
from streams.ends import EndOffsets
from streams.features import features_of
from streams.producer import open_producer
from streams.records import AppConfig, Event
from tests.apps import SECRET_KEY, make_app
from tests.logs import PARTITIONS
from tests.waiting import eventually

PATH = "/v1/apps/demo/events"
SECRET = {"Authorization": f"Bearer {SECRET_KEY}", "Content-Type": "application/json"}

RUN_INGEST = """
from services.ingest.app import main
from services.runtime.process import run_service
raise SystemExit(run_service(main))
"""


def settings_for(connection: Connection, **ingest: Any) -> Settings:
    return Settings(
        broker=connection.bootstrap,
        topic_prefix=connection.prefix,
        partitions={"by_app": PARTITIONS.by_app, "by_integration": PARTITIONS.by_integration},
        ingest={"port": 0, **ingest},
    )


async def put_apps(connection: Connection, *apps: AppConfig) -> None:
    """Make the topics, and the apps; returns when the broker has them."""
    await topics.ensure(connection, PARTITIONS)
    producer = await open_producer(connection, client_id="test")
    try:
        for app in apps:
            await producer.send_and_wait(connection.topic(topics.APP_CONFIG), codec.encode(app), key=app.app.encode())
    finally:
        await producer.stop()


@asynccontextmanager
async def ingesting(connection: Connection, *, apps: tuple[AppConfig, ...] | None = None) -> AsyncIterator[Ingest]:
    """A ready ingest service in this process."""
    await put_apps(connection, *(apps if apps is not None else (make_app(),)))
    async with running(settings_for(connection)) as ingest:
        await until_ready(ingest)
        yield ingest


async def until_ready(ingest: Ingest) -> None:
    await eventually(lambda: ingest.trouble() is None, within_s=30)


async def events_on(connection: Connection) -> list[tuple[bytes | None, Event]]:
    """Key and event of every record of `events`, partition by partition, in order."""
    topic = connection.topic(topics.EVENTS)
    consumer = AIOKafkaConsumer(
        bootstrap_servers=connection.bootstrap,
        group_id=None,
        enable_auto_commit=False,
        auto_offset_reset="earliest",
        fetch_max_wait_ms=(await features_of(connection)).fetch_wait_ms,
    )
    await consumer.start()
    try:
        partitions = [TopicPartition(topic, number) for number in range(PARTITIONS.by_app)]
        consumer.assign(partitions)
        asker = EndOffsets(connection, partitions)
        try:
            ends = await asker.ask()
        finally:
            await asker.stop()
        found: dict[TopicPartition, list[tuple[bytes | None, Event]]] = {partition: [] for partition in partitions}
        async with asyncio.timeout(30):
            while any([await consumer.position(each) < ends[each] for each in partitions]):
                for partition, records in (await consumer.getmany(timeout_ms=200)).items():
                    found[partition] += [(record.key, codec.decode_as(Event, record.value)) for record in records]
        return [record for partition in partitions for record in found[partition]]
    finally:
        await consumer.stop()


@dataclass(frozen=True)
class IngestProcess:
    """An ingest service as a process of its own."""

    process: subprocess.Popen[str]
    url: str

    async def until_ready(self) -> None:
        async with aiohttp.ClientSession() as client:
            await eventually(lambda: self._is_ready(client), within_s=30)

    async def _is_ready(self, client: aiohttp.ClientSession) -> bool:
        assert self.process.poll() is None, "ingest has ended"
        try:
            async with client.get(f"{self.url}/health/ready") as response:
                return response.status == 200
        except aiohttp.ClientConnectorError:
            return False


@asynccontextmanager
async def ingest_process(
    connection: Connection, output: Path | None = None, **environment: str
) -> AsyncIterator[IngestProcess]:
    """Started, perhaps not ready yet; killed at the end unless it has ended. *output*: for stderr; else it is piped."""
    [port] = free_ports(1)
    with nullcontext(subprocess.PIPE) if output is None else output.open("w") as stderr:
        process = subprocess.Popen(  # noqa: ASYNC220 - takes a millisecond
            [sys.executable, "-c", RUN_INGEST],
            env={
                **os.environ,
                "TENTERHOOK_BROKER": connection.bootstrap,
                "TENTERHOOK_TOPIC_PREFIX": connection.prefix,
                "TENTERHOOK_PARTITIONS__BY_APP": str(PARTITIONS.by_app),
                "TENTERHOOK_PARTITIONS__BY_INTEGRATION": str(PARTITIONS.by_integration),
                "TENTERHOOK_INGEST__PORT": str(port),
                **environment,
            },
            stderr=stderr,
            text=True,
        )
    try:
        yield IngestProcess(process, f"http://127.0.0.1:{port}")
    finally:
        process.kill()
        process.wait()
        if process.stderr is not None:
            process.stderr.close()


def ended(process: subprocess.Popen[str], *, within_s: float = 20.0) -> tuple[int, str]:
    """Exit code and what was written to stderr, once the process has ended."""
    started = time.monotonic()
    _, stderr = process.communicate(timeout=within_s)
    assert time.monotonic() - started < within_s
    return process.returncode, stderr
