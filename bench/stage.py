"""What a measurement of the dispatcher stands on: receivers and services as processes, and a log to write to."""

import asyncio
import base64
import json
import os
import subprocess
import sys
import time
import urllib.request
import uuid
from collections import defaultdict
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, NamedTuple

from aiokafka import AIOKafkaProducer

from services.cli.brokers.ports import free_ports
from streams import codec, topics
from streams.connection import Connection
from streams.producer import open_producer
from streams.records import AppConfig, Event, IntegrationConfig
from streams.topics import Partitions, Topic

APP: Final = "bench"
PARTITIONS: Final = Partitions(8, 16)

#: Folders of the two receivers of a run.
RECEIVERS: Final = ("endpoints", "apart")


class Arrival(NamedTuple):
    """A request that came to a receiver."""

    integration: str
    number: int
    at_ns: int
    attempt: int


@dataclass
class Stage:
    """One run: its log, its receivers, its processes."""

    folder: Path
    connection: Connection
    producer: AIOKafkaProducer
    #: The receiver of those that are measured, and another of whoever is to do them no harm: two customers' endpoints
    #: do not share a process either, and fifty requests at once keep one busy for 2 ms.
    endpoints: str
    endpoints_apart: str
    processes: list[subprocess.Popen[bytes]] = field(default_factory=list)
    ports: list[int] = field(default_factory=list)
    #: When each event was on the broker, by its number.
    sent_ns: dict[int, int] = field(default_factory=dict)
    _arrived: list[Arrival] = field(default_factory=list)
    #: Of each receiver's file.
    _read_bytes: dict[str, int] = field(default_factory=lambda: dict.fromkeys(RECEIVERS, 0))

    async def app(self) -> None:
        """The one app of the run."""
        config = AppConfig(
            app=APP, name=APP, keys=[], tokens=[], origins=[], event_types=[], allow_http=True, max_active=1_000_000,
            version=1, created_at_ms=0, updated_at_ms=0, updated_by="bench",
        )  # fmt: skip
        await self.append(topics.APP_CONFIG, APP, codec.encode(config))

    async def integration(
        self, name: str, behaviour: str, *, is_apart: bool = False, **changes: Any
    ) -> IntegrationConfig:
        """One that delivers to a receiver of that behaviour; *is_apart*: to the other one."""
        fields: dict[str, Any] = {
            "id": name, "app": APP, "profile": "integration", "name": name,
            "url": f"{self.endpoints_apart if is_apart else self.endpoints}/{behaviour}/{name}",
            "events": ["*"], "headers": {}, "secrets": {}, "signing_secrets": [], "signing": False, "timeout_ms": 5_000,
            "retry_policy": "transient", "max_attempts": 3, "delays_ms": [5_000, 20_000], "retry_on_429": False,
            "ordering": "integration", "max_in_flight": 10, "while_paused": "hold", "auto_pause": True,
            "status": "active", "version": 1, "epoch": 1, "skip_before": 0, "created_at_ms": 0, "updated_at_ms": 0,
            "updated_by": "bench",
        }  # fmt: skip
        config = IntegrationConfig(**fields | changes)
        await self.append(topics.INTEGRATION_CONFIG, name, codec.encode(config))
        return config

    async def append(self, topic: Topic, key: str, value: bytes) -> None:
        """Returns when it is on the broker."""
        await self.producer.send_and_wait(self.connection.topic(topic), value, key=key.encode())

    async def send(self, number: int, event_type: str = "call_ended") -> None:
        """One event of 1 KiB, as ingest does it; latency counts from right before."""
        self.sent_ns[number] = time.time_ns()
        await self.append(topics.EVENTS, APP, codec.encode(event(number, event_type)))

    async def at_a_pace(self, numbers: Iterable[int], per_s: float, event_type: str = "call_ended") -> None:
        """So many a second, by a timetable: a late one does not delay the next."""
        loop, sending = asyncio.get_running_loop(), set()
        began = loop.time()
        for at, number in enumerate(numbers):
            await asyncio.sleep(max(0, began + at / per_s - loop.time()))
            task = asyncio.create_task(self.send(number, event_type))
            sending.add(task)
            task.add_done_callback(sending.discard)
        await asyncio.gather(*sending)

    def arrivals(self) -> list[Arrival]:
        """What has come until now. Only what is new is read: events are sent by the loop that would wait for it."""
        for receiver, read_bytes in self._read_bytes.items():
            with (self.folder / receiver / "arrivals").open("rb") as file:
                file.seek(read_bytes)
                lines = file.read()
            lines = lines[: lines.rfind(b"\n") + 1]
            self._read_bytes[receiver] += len(lines)
            for line in lines.decode().splitlines():
                integration, number, at_ns, attempt = line.split()
                self._arrived.append(Arrival(integration, int(number), int(at_ns), int(attempt)))
        return self._arrived

    def latencies_ms(self, names: Iterable[str], numbers: Iterable[int]) -> list[float]:
        """Of first arrivals at these integrations, sorted."""
        wanted, those = set(names), set(numbers)
        first: dict[tuple[str, int], int] = {}
        for each in self.arrivals():
            if each.integration in wanted and each.number in those:
                first.setdefault((each.integration, each.number), each.at_ns)
        return sorted((at - self.sent_ns[number]) / 1e6 for (_, number), at in first.items())

    async def come(self, count: dict[str, int], within_s: float, say: Any = None) -> None:
        """Until so many different events have come to each of these."""
        until = time.monotonic() + within_s
        seen: dict[str, set[int]] = defaultdict(set)
        counted = 0
        while True:
            arrivals = self.arrivals()
            for each in arrivals[counted:]:
                seen[each.integration].add(each.number)
            counted = len(arrivals)
            missing = {name: wanted - len(seen[name]) for name, wanted in count.items() if len(seen[name]) < wanted}
            if not missing:
                return
            if time.monotonic() > until:
                raise TimeoutError(f"did not come in {within_s:.0f} s: {missing}")
            if say:
                say(f"{sum(missing.values()):,} to come")
            await asyncio.sleep(0.5)

    async def dispatcher(self, **own: Any) -> subprocess.Popen[bytes]:
        """Another worker; not ready yet."""
        [port] = free_ports(1)
        own = {"port": port, "allow_private_addresses": True, **own}
        environment = {
            **os.environ,
            "TENTERHOOK_BROKER": self.connection.bootstrap,
            "TENTERHOOK_TOPIC_PREFIX": self.connection.prefix,
            "TENTERHOOK_KEK": base64.b64encode(bytes(32)).decode(),
            **{f"TENTERHOOK_DISPATCHER__{name.upper()}": str(value) for name, value in own.items()},
        }
        with (self.folder / f"dispatcher-{len(self.processes)}.log").open("ab") as output:
            process = subprocess.Popen(  # noqa: ASYNC220  # at once
                [sys.executable, "-m", "services.cli", "dispatcher"], env=environment, stdout=output, stderr=output
            )
        self.processes.append(process)
        self.ports.append(port)
        return process

    async def breaker(self) -> subprocess.Popen[bytes]:
        """The breaker."""
        [port] = free_ports(1)
        environment = {
            **os.environ,
            "TENTERHOOK_BROKER": self.connection.bootstrap,
            "TENTERHOOK_TOPIC_PREFIX": self.connection.prefix,
            "TENTERHOOK_BREAKER__PORT": str(port),
        }
        with (self.folder / "breaker.log").open("ab") as output:
            process = subprocess.Popen(  # noqa: ASYNC220  # at once
                [sys.executable, "-m", "services.cli", "breaker"], env=environment, stdout=output, stderr=output
            )
        self.processes.append(process)
        self.ports.append(port)
        return process

    async def ready(self, within_s: float = 60) -> None:
        """Until all of them are."""
        until = time.monotonic() + within_s
        for port in self.ports:
            while not await asyncio.to_thread(_is_ready, port):
                if time.monotonic() > until:
                    raise TimeoutError(f"not ready in {within_s:.0f} s: port {port}")
                await asyncio.sleep(0.1)

    def rss_mb(self, process: subprocess.Popen[bytes]) -> float:
        """Memory of a process."""
        lines = Path(f"/proc/{process.pid}/status").read_text().splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith("VmRSS")) / 1024

    @staticmethod
    def cpu_s(process: subprocess.Popen[bytes]) -> float:
        """CPU seconds of a process, user and system."""
        fields = Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _is_ready(port: int) -> bool:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/health/ready", timeout=2) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False


def event(number: int, event_type: str = "call_ended", size: int = 1_024) -> Event:
    """An event whose payload tells its number."""
    payload = {"n": number, "fill": ""}
    payload["fill"] = "x" * (size - len(json.dumps(payload)))
    record_id, now_ms = f"rec_{uuid.uuid4().hex}", time.time_ns() // 1_000_000
    return Event(
        record_id=record_id, app=APP, event_id=f"evt_{record_id[4:]}", id_space="secret", id_supplied=False,
        type=event_type, payload=json.dumps(payload).encode(), occurred_at_ms=now_ms, accepted_at_ms=now_ms,
    )  # fmt: skip


@asynccontextmanager
async def stage(bootstrap: str, folder: Path) -> AsyncIterator[Stage]:
    """Topics of its own, receivers; no dispatcher yet. All processes are ended with it."""
    for receiver in RECEIVERS:
        (folder / receiver).mkdir(parents=True, exist_ok=True)
    connection = Connection(bootstrap, f"b{uuid.uuid4().hex[:8]}.")
    await topics.ensure(connection, PARTITIONS)
    receivers = [
        subprocess.Popen([sys.executable, "-m", "bench.endpoints", str(folder / each)])  # noqa: ASYNC220  # at once
        for each in RECEIVERS
    ]
    producer = await open_producer(connection, client_id="bench")
    made: Stage | None = None
    try:
        ports = [folder / each / "port" for each in RECEIVERS]
        while not all(each.exists() for each in ports):  # noqa: ASYNC110  # other processes make them
            await asyncio.sleep(0.05)
        made = Stage(folder, connection, producer, *(f"http://127.0.0.1:{each.read_text()}" for each in ports))
        await made.app()
        yield made
    finally:
        for process in [*(made.processes if made else ()), *receivers]:
            process.kill()
            process.wait()
        await producer.stop()
