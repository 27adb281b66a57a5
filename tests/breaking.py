"""Breakers for tests: results as a dispatcher writes them, a breaker here or in its own process, what it says."""

import asyncio
import os
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
from aiokafka import AIOKafkaConsumer, TopicPartition

from services.breaker.app import main
from services.cli.brokers.ports import free_ports
from services.runtime.settings import BreakerSettings, PartitionSettings, Settings
from streams import codec, topics
from streams.connection import Connection
from streams.producer import partition_of
from streams.records import IntegrationState, Record, Result
from streams.states import States
from streams.topics import Topic
from tests.logs import PARTITIONS, Log
from tests.waiting import eventually

#: Noon of some day.
NOON_MS = 1_767_355_200_000


def make_result(number: int = 0, integration: str = "int_1", **changes: Any) -> Result:
    """A failed attempt that another one follows; *number* makes the delivery and the time."""
    fields: dict[str, Any] = {
        "delivery_id": f"dlv_{integration}_{number}",
        "integration": integration,
        "app": "demo",
        "record_id": f"rec_{number}",
        "event_id": f"evt_{number}",
        "type": "call_ended",
        "cause": "live",
        "attempt": 1,
        "outcome": None,
        "reason": "status_503",
        "epoch": 1,
        "config_version": 1,
        "url": "https://crm.example/hooks",
        "request_headers": {},
        "status": 503,
        "response_headers": {},
        "response_body": b"",
        "response_truncated": False,
        "started_at_ms": NOON_MS + number * 1_000 - 20,
        "finished_at_ms": NOON_MS + number * 1_000,
        "accepted_at_ms": NOON_MS,
        "source_partition": 0,
        "source_offset": number,
        "source_generation": 1,
    }
    return Result(**fields | changes)


def delivered(number: int = 0, integration: str = "int_1", **changes: Any) -> Result:
    return make_result(number, integration, **{"outcome": "delivered", "reason": "status_200", "status": 200} | changes)


async def put_results(log: Log, *results: Result) -> list[int]:
    """Append them in this order; their offsets."""
    topic = log.connection.topic(topics.RESULTS)
    sent = [await log.producer.send(topic, codec.encode(each), key=each.integration.encode()) for each in results]
    return [(await each).offset for each in sent]


class Probe:
    """The health port of a breaker."""

    def __init__(self, port: int) -> None:
        self.port = port

    async def get(self, path: str) -> tuple[int, str]:
        """Status and body; status 0 where nobody answers."""
        try:
            async with aiohttp.request("GET", f"http://127.0.0.1:{self.port}{path}") as response:
                return response.status, await response.text()
        except aiohttp.ClientError:
            return 0, ""

    async def until_ready(self, within_s: float = 40.0) -> None:
        async def is_ready() -> bool:
            return (await self.get("/health/ready"))[0] == 200

        await eventually(is_ready, within_s)

    async def number(self, name: str) -> float:
        """One of the breaker's own, `results_total` for example."""
        _, text = await self.get("/metrics")
        return float(text.partition(f"\ntenterhook_breaker_{name} ")[2].split()[0])


def breaker_settings(connection: Connection, **own: Any) -> Settings:
    return Settings(
        broker=connection.bootstrap,
        topic_prefix=connection.prefix,
        partitions=PartitionSettings(by_app=PARTITIONS.by_app, by_integration=PARTITIONS.by_integration),
        breaker=BreakerSettings(**{"port": next(iter(free_ports(1))), "commit_interval_ms": 50} | own),
        log_level="info",
        log_format="json",
    )


@asynccontextmanager
async def breaker_at(connection: Connection, **own: Any) -> AsyncIterator[Probe]:
    """A breaker in this process, ready."""
    settings = breaker_settings(connection, **own)
    stop = asyncio.Event()
    running = asyncio.create_task(main(settings, stop))
    probe = Probe(settings.breaker.port)
    try:
        ready = asyncio.create_task(probe.until_ready())
        await asyncio.wait((running, ready), return_when=asyncio.FIRST_COMPLETED)
        if running.done():
            ready.cancel()
            running.result()
        await ready
        yield probe
    finally:
        stop.set()
        await asyncio.wait_for(running, 40)


def environment_of(connection: Connection) -> dict[str, str]:
    """That of a breaker's process."""
    return {
        **os.environ,
        "TENTERHOOK_BROKER": connection.bootstrap,
        "TENTERHOOK_TOPIC_PREFIX": connection.prefix,
        "TENTERHOOK_PARTITIONS__BY_APP": str(PARTITIONS.by_app),
        "TENTERHOOK_PARTITIONS__BY_INTEGRATION": str(PARTITIONS.by_integration),
        "TENTERHOOK_LOG_FORMAT": "json",
    }


class BreakerProcess:
    """A breaker in a process of its own, which a test kills and starts again."""

    def __init__(self, connection: Connection, output: Path) -> None:
        self.probe = Probe(next(iter(free_ports(1))))
        self._output = output
        self._environment = environment_of(connection) | {"TENTERHOOK_BREAKER__PORT": str(self.probe.port)}
        self.process: subprocess.Popen[bytes]

    def start(self) -> None:
        with self._output.open("ab") as output:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "services.cli", "breaker"], env=self._environment, stdout=output, stderr=output
            )

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()


async def everything_on(connection: Connection, topic: Topic) -> list[tuple[bytes | None, bytes | None, int]]:
    """Key, value and offset of every record there now, each partition in order."""
    reader = AIOKafkaConsumer(
        bootstrap_servers=connection.bootstrap, enable_auto_commit=False, auto_offset_reset="earliest"
    )
    await reader.start()
    try:
        count = topics.partition_count(topic, PARTITIONS)
        partitions = [TopicPartition(connection.topic(topic), number) for number in range(count)]
        reader.assign(partitions)
        ends = await reader.end_offsets(partitions)
        found = []
        for partition in partitions:
            while await reader.position(partition) < ends[partition]:
                for records in (await reader.getmany(timeout_ms=200)).values():
                    found += [(record.key, record.value, record.offset) for record in records]
        return found
    finally:
        await reader.stop()


async def records_on(connection: Connection, topic: Topic) -> list[Record]:
    return [codec.decode(value) for _, value, _ in await everything_on(connection, topic) if value is not None]


async def states_on(connection: Connection) -> States:
    """`integration-state` as a follower has it."""
    states = States()
    for record in await everything_on(connection, topics.INTEGRATION_STATE):
        states.apply(*record)
    return states


async def state_on(connection: Connection, integration: str) -> IntegrationState | None:
    return (await states_on(connection)).get(integration)


def integration_of(partition: int, prefix: str = "int") -> str:
    """An integration whose records stand in this partition."""
    numbers = list(range(PARTITIONS.by_integration))
    return next(
        name
        for name in (f"{prefix}_{number}" for number in range(1_000))
        if partition_of(name.encode(), numbers, numbers) == partition
    )
