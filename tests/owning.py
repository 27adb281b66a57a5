"""
Admin services as processes of their own, which tests kill and freeze, and what the log says of all their changes.

`whole` holds the log to what the owner of the configuration promises: an audit record for every version and a version
for every audit record, chains without a break, nothing half applied.
"""

import asyncio
import base64
import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
from aiokafka import AIOKafkaConsumer, ConsumerRecord, TopicPartition

from services.admin.audit import verified
from services.cli.brokers.ports import free_ports
from streams import codec, topics
from streams.connection import Connection
from streams.features import features_of
from streams.records import AuditRecord, IntegrationConfig
from streams.topics import Topic
from tests.admins import KEK, KNOWN, PARTITIONS
from tests.waiting import eventually

INTEGRATIONS = "/v1/apps/{app}/integrations"

#: A session of the group, and what a busy machine adds.
TAKEN_OVER_S = 40.0

RUN_ADMIN = """
from services.admin.app import main
from services.runtime.process import run_service
raise SystemExit(run_service(main))
"""

#: Actions that write a version of an integration, and the one that takes it away.
VERSIONED = {f"integration.{verb}" for verb in ("create", "update", "pause", "activate", "roll_back")}
REMOVED = "integration.delete"


@dataclass(frozen=True, slots=True)
class Answer:
    """What the API said; status 0 where the connection broke."""

    status: int
    body: Any = None
    headers: dict[str, str] = field(default_factory=dict)
    took_s: float = 0.0

    @property
    def code(self) -> str | None:
        return self.body.get("code") if isinstance(self.body, dict) else None


class AdminProcess:
    """An admin service as a process of its own."""

    def __init__(
        self,
        connection: Connection,
        output: Path,
        *,
        run: str = RUN_ADMIN,
        partitions: topics.Partitions = PARTITIONS,
        **environment: str,
    ) -> None:
        """
        Args:
            run: its program.
        """
        [port] = free_ports(1)
        self.url = f"http://127.0.0.1:{port}"
        self._run = run
        self._output = output
        self._environment = {
            **os.environ,
            "TENTERHOOK_BROKER": connection.bootstrap,
            "TENTERHOOK_TOPIC_PREFIX": connection.prefix,
            "TENTERHOOK_KEK": base64.b64encode(KEK).decode(),
            "TENTERHOOK_PARTITIONS__BY_APP": str(partitions.by_app),
            "TENTERHOOK_PARTITIONS__BY_INTEGRATION": str(partitions.by_integration),
            "TENTERHOOK_ADMIN__PORT": str(port),
            "TENTERHOOK_LOG_LEVEL": "info",
            "TENTERHOOK_LOG_FORMAT": "json",
            **environment,
        }
        self._session: aiohttp.ClientSession | None = None
        self.process: subprocess.Popen[bytes]
        self.start()

    def start(self) -> None:
        """The first time or again; it is not ready yet."""
        with self._output.open("ab") as output:
            self.process = subprocess.Popen(
                [sys.executable, "-c", self._run], env=self._environment, stdout=output, stderr=output
            )

    @property
    def said(self) -> str:
        """What it has logged, in all its lives."""
        return self._output.read_text()

    @property
    def generation(self) -> int:
        """Of the group, when it took the configuration over last, in all its lives; -1: never."""
        told = [json.loads(line) for line in self.said.splitlines() if '"owner.took_over"' in line]
        return max((each["generation"] for each in told), default=-1)

    def signal(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    def kill(self) -> None:
        """`kill -9`; returns when it is gone."""
        self.process.kill()
        self.process.wait()

    async def until_ready(self, within_s: float = TAKEN_OVER_S) -> None:
        async def is_ready() -> bool:
            return (await self.ask("GET", "/health/ready")).status == 200

        await eventually(is_ready, within_s)

    async def ask(
        self, method: str, path: str, body: Any = None, *, token: str = KNOWN.token, **headers: str
    ) -> Answer:
        """One request; header names have underscores here."""
        if self._session is None:
            self._session = aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(60))
        began_s = time.monotonic()
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        try:
            async with self._session.request(
                method, self.url + path, json=body, headers={"Authorization": f"Bearer {token}", **named}
            ) as response:
                content = await response.json(content_type=None) if response.status != 204 else None
                return Answer(response.status, content, dict(response.headers), time.monotonic() - began_s)
        except (aiohttp.ClientError, ConnectionError):
            return Answer(0, took_s=time.monotonic() - began_s)

    async def create(self, app: str = "demo", **changes: Any) -> Answer:
        body = {"name": "CRM", "url": "https://crm.example/hooks", "events": ["call_ended"], **changes}
        return await self.ask("POST", INTEGRATIONS.format(app=app), body)

    async def patch(self, integration: str, body: Any, app: str = "demo", **headers: str) -> Answer:
        return await self.ask("PATCH", f"{INTEGRATIONS.format(app=app)}/{integration}", body, **headers)

    async def act(self, integration: str, verb: str, app: str = "demo", body: Any = None) -> Answer:
        return await self.ask("POST", f"{INTEGRATIONS.format(app=app)}/{integration}/{verb}", body)

    async def close(self) -> None:
        """Wake it, kill it, and close the connections to it."""
        if self.process.poll() is None:
            self.signal(signal.SIGCONT)
            self.kill()
        if self._session is not None:
            await self._session.close()


@asynccontextmanager
async def admin_processes(
    connection: Connection, folder: Path, count: int = 2, **given: Any
) -> AsyncIterator[list[AdminProcess]]:
    """So many admin services that are ready, one after another, and know which of them owns the configuration."""
    made: list[AdminProcess] = []
    try:
        for number in range(count):
            made.append(AdminProcess(connection, folder / f"admin-{number}.log", **given))
            await made[-1].until_ready()
        # Each that joins begins another generation of the group.
        await eventually(lambda: max(each.generation for each in made) >= count, TAKEN_OVER_S)
        yield made
    except BaseException:
        for each in made:
            sys.stderr.write(each.said)
        raise
    finally:
        for each in made:
            await each.close()


async def raw_records(
    connection: Connection, topic: Topic, *, committed: bool = True, partitions: topics.Partitions = PARTITIONS
) -> list["ConsumerRecord[Any, Any]"]:
    """Every record of the topic, each partition in its order; *committed*: none that a transaction took back."""
    reader = AIOKafkaConsumer(
        bootstrap_servers=connection.bootstrap,
        enable_auto_commit=False,
        auto_offset_reset="earliest",
        isolation_level=(await features_of(connection)).isolation if committed else "read_uncommitted",
    )
    await reader.start()
    try:
        numbers = range(topics.partition_count(topic, partitions))
        all_ = [TopicPartition(connection.topic(topic), number) for number in numbers]
        reader.assign(all_)
        ends = await reader.end_offsets(all_)
        found = []
        for partition in all_:
            while await reader.position(partition) < ends[partition]:
                for records in (await reader.getmany(timeout_ms=100)).values():
                    found += records
        return found
    finally:
        await reader.stop()


@dataclass(frozen=True, slots=True)
class Written:
    """The configuration as its topics say."""

    audit: list[AuditRecord]
    #: By integration, in the order of the topic; None for its deletion.
    history: dict[str, list[IntegrationConfig | None]]
    config: dict[str, IntegrationConfig | None]


async def written(connection: Connection) -> Written:
    """All of it, as who reads what is committed sees it."""
    audit = [codec.decode_as(AuditRecord, each.value) for each in await raw_records(connection, topics.AUDIT)]
    history: dict[str, list[IntegrationConfig | None]] = defaultdict(list)
    for each in await raw_records(connection, topics.CONFIG_HISTORY):
        history[each.key.decode()].append(_config(each.value))
    config = {
        each.key.decode(): _config(each.value) for each in await raw_records(connection, topics.INTEGRATION_CONFIG)
    }
    return Written(audit, dict(history), config)


def _config(value: bytes | None) -> IntegrationConfig | None:
    return None if value is None else codec.decode_as(IntegrationConfig, value)


def faults(found: Written) -> list[str]:
    """Every place where something is half applied, applied twice, or a chain broken; a sentence each."""
    said = [f"{each.record.id} of {each.record.app}: {each.reason}" for each in verified(found.audit)]
    firsts = {record.app: record for record in reversed(found.audit)}
    said += [f"the chain of {app} begins in the middle" for app, each in firsts.items() if each.previous_hash]
    said += [
        f"{name} is there {count} times" for name, count in Counter(r.id for r in found.audit).items() if count > 1
    ]
    told = _told(found.audit)
    for integration in sorted({*told, *found.history, *found.config}):
        has = [None if each is None else each.version for each in found.history.get(integration, [])]
        if told.get(integration, []) != has:
            said.append(f"{integration}: audit tells of versions {told.get(integration)}, history has {has}")
        kept = [each for each in has if each is not None]
        if kept != list(range(1, len(kept) + 1)):
            said.append(f"{integration}: versions are {kept}")
        if found.history.get(integration, [None])[-1] != found.config.get(integration):
            said.append(f"{integration}: the configuration is not the newest version of its history")
    return said


def _told(audit: Iterable[AuditRecord]) -> dict[str, list[int | None]]:
    """By integration: the versions that the audit log tells of; None for a deletion."""
    told: dict[str, list[int | None]] = defaultdict(list)
    for record in audit:
        if record.action in VERSIONED and record.allowed:
            told[record.target].append(int(record.details["version"]))
        elif record.action == REMOVED and record.allowed:
            told[record.target].append(None)
    return told


async def whole(connection: Connection) -> Written:
    """What is written; fails where something is half applied."""
    found = await written(connection)
    said = faults(found)
    assert said == []
    return found


def owner_of(processes: Iterable[AdminProcess]) -> AdminProcess:
    """Which of them took the configuration over last."""
    return max(processes, key=lambda each: each.generation)


async def until_owned(*processes: AdminProcess, within_s: float = TAKEN_OVER_S) -> float:
    """Returns when a change goes through at each of them; after how many seconds the last did."""
    began_s = time.monotonic()

    async def goes_through(process: AdminProcess) -> bool:
        """A create and a delete of a booking subscription, of which there may be any number."""
        path = "/v1/apps/demo/subscriptions"
        made = await process.ask("POST", path, {"name": "B", "url": "https://b.example", "events": []})
        return made.status == 201 and (await process.ask("DELETE", f"{path}/{made.body['id']}")).status == 204

    for each in processes:
        await eventually(lambda each=each: goes_through(each), within_s)
    return time.monotonic() - began_s


async def gathered(*calls: Any) -> list[Answer]:
    """All at once."""
    return list(await asyncio.gather(*calls))
