"""
How many events one ingest process accepts on one core, every one of them on the log of Apache Kafka (`acks=all`).

The process has the last core for itself; broker and client share the others, and their connections are kept. CPU is
the process's own, user and system, so that CPU an event says what the core could do where broker or client were the
slower ones.
"""

import asyncio
import hashlib
import json
import os
import subprocess
import sys
import tempfile
import time
import urllib.request
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import uvloop

from bench.stage import Stage
from services.cli.brokers.ports import free_ports
from streams import codec, topics
from streams.connection import Connection
from streams.producer import open_producer
from streams.records import AppConfig, IngestKey

APP: Final = "bench"
KEY: Final = "sk_bench"
PARTITIONS: Final = topics.Partitions(8, 16)
PAYLOAD_BYTES: Final = 1_024
WARM_UP_EVENTS: Final = 3_000


@dataclass(frozen=True)
class Load:
    """What is posted: so many events a request, over so many connections with one request under way on each."""

    per_request: int
    connections: int
    has_ids: bool


LOADS: Final = {
    "single": Load(per_request=1, connections=32, has_ids=False),
    "single, with ids": Load(per_request=1, connections=32, has_ids=True),
    "one connection": Load(per_request=1, connections=1, has_ids=False),
    "batches of 10": Load(per_request=10, connections=8, has_ids=True),
    "batches of 500": Load(per_request=500, connections=4, has_ids=True),
}


class Client:
    """Posts events over kept connections until so many have had an answer."""

    def __init__(self, port: int, load: Load, events: int) -> None:
        self.left = events
        self.accepted = 0
        self.refused = 0
        self.open = 0
        self.done = asyncio.get_running_loop().create_future()
        self._load = load
        self._run = uuid.uuid4().hex[:8]
        self._number = 0
        path = f"/v1/apps/{APP}/events" + ("/batch" if load.per_request > 1 else "")
        self._head = f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nAuthorization: Bearer {KEY}\r\n".encode()
        self._fill = hashlib.shake_128(b"bench").hexdigest(PAYLOAD_BYTES // 2).encode()[: PAYLOAD_BYTES - 30]

    def request(self) -> bytes | None:
        """The next one; None when all were sent."""
        count = min(self._load.per_request, self.left)
        if count == 0:
            return None
        self.left -= count
        body = b"\n".join(self._event() for _ in range(count))
        return b"%bContent-Type: text/plain\r\nContent-Length: %d\r\n\r\n%b" % (self._head, len(body), body)

    def _event(self) -> bytes:
        self._number += 1
        event_id = b'"id":"%b-%d",' % (self._run.encode(), self._number) if self._load.has_ids else b""
        return b'{"type":"call_ended",%b"payload":{"n":%d,"fill":"%b"}}' % (event_id, self._number, self._fill)

    def answered(self, status: int, body: bytes) -> None:
        accepted = body.count(b'"status":202') if status == 207 else int(status == 202)
        answers = body.count(b'"status":') if status == 207 else 1
        self.accepted += accepted
        self.refused += answers - accepted

    def ended(self) -> None:
        self.open -= 1
        if self.open == 0 and not self.done.done():
            self.done.set_result(None)


class Poster(asyncio.Protocol):
    """One connection."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._data = b""
        self._has_ended = False
        client.open += 1

    def connection_made(self, transport: Any) -> None:
        self._transport = transport
        self._next()

    def _next(self) -> None:
        request = self._client.request()
        if request is None:
            self._has_ended = True
            self._transport.close()
            self._client.ended()
        else:
            self._transport.write(request)

    def connection_lost(self, exc: Exception | None) -> None:
        if not self._has_ended and not self._client.done.done():
            self._client.done.set_exception(exc or ConnectionError("ingest has closed a connection"))

    def data_received(self, data: bytes) -> None:
        self._data += data
        end = self._data.find(b"\r\n\r\n")
        if end < 0:
            return
        at = self._data.index(b"Content-Length: ") + 16
        length = int(self._data[at : self._data.index(b"\r\n", at)])
        if len(self._data) < end + 4 + length:
            return
        answer, self._data = self._data, b""
        self._client.answered(int(answer[9:12]), answer[end + 4 :])
        self._next()


async def post(port: int, load: Load, events: int) -> Client:
    """Returns when all of them have their answer."""
    client = Client(port, load, events)
    loop = asyncio.get_running_loop()
    await asyncio.gather(
        *(loop.create_connection(lambda: Poster(client), "127.0.0.1", port) for _ in range(load.connections))
    )
    await client.done
    return client


async def prepare(connection: Connection) -> None:
    """The topics and the app."""
    await topics.ensure(connection, PARTITIONS)
    key = IngestKey(id="key_bench", kind="secret", hash=hashlib.sha256(KEY.encode()).digest(), created_at_ms=0)
    app = AppConfig(
        app=APP, name=APP, keys=[key], tokens=[], origins=[], event_types=[], allow_http=True, max_active=3,
        version=1, created_at_ms=0, updated_at_ms=0, updated_by="bench",
    )  # fmt: skip
    producer = await open_producer(connection, client_id="bench")
    try:
        await producer.send_and_wait(connection.topic(topics.APP_CONFIG), codec.encode(app), key=APP.encode())
    finally:
        await producer.stop()


@contextmanager
def a_core_apart() -> Iterator[set[int]]:
    """Leaves the last core to whoever gets it; all that is started meanwhile stays on the others."""
    ours = os.sched_getaffinity(0)
    apart = {max(ours)}
    if len(ours) > 1:
        os.sched_setaffinity(0, ours - apart)
    try:
        yield apart
    finally:
        os.sched_setaffinity(0, ours)


@contextmanager
def ingest(connection: Connection, core: set[int], folder: Path) -> Iterator[tuple[subprocess.Popen[bytes], int]]:
    """A ready ingest service on that core, and its port."""
    [port] = free_ports(1)
    environment = {
        **os.environ,
        "TENTERHOOK_BROKER": connection.bootstrap,
        "TENTERHOOK_TOPIC_PREFIX": connection.prefix,
        "TENTERHOOK_INGEST__PORT": str(port),
    }
    with (folder / "ingest.log").open("ab") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "services.cli", "ingest"], env=environment, stdout=output, stderr=output
        )
    os.sched_setaffinity(process.pid, core)
    try:
        until = time.monotonic() + 30
        while not is_ready(port):
            if time.monotonic() > until or process.poll() is not None:
                raise RuntimeError(f"ingest is not ready: {(folder / 'ingest.log').read_text()[-2_000:]}")
            time.sleep(0.1)
        yield process, port
    finally:
        process.terminate()
        process.wait(20)


def is_ready(port: int) -> bool:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/health/ready", timeout=2) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False


def measure(bootstrap: str, core: set[int], *, events: int, rounds: int, say: Any) -> list[dict[str, dict[str, float]]]:
    """
    Of each round and load: `accepted_per_s`, `cpu_us` an event, `cores` of the process, and what was refused.

    Raises:
        RuntimeError: the service did not start.
    """
    connection, found = Connection(bootstrap, f"b{uuid.uuid4().hex[:8]}."), []
    uvloop.run(prepare(connection))
    with tempfile.TemporaryDirectory() as folder, ingest(connection, core, Path(folder)) as (process, port):
        for load in LOADS.values():
            uvloop.run(post(port, load, WARM_UP_EVENTS))
        for number in range(1, rounds + 1):
            this = {}
            for name, load in LOADS.items():
                count = events // 4 if load.connections == 1 else events
                cpu_s, started_s = Stage.cpu_s(process), time.perf_counter()
                client = uvloop.run(post(port, load, count))
                took_s, cpu_s = time.perf_counter() - started_s, Stage.cpu_s(process) - cpu_s
                this[name] = {
                    "accepted_per_s": round(client.accepted / took_s),
                    "cpu_us": round(cpu_s / max(1, client.accepted) * 1e6, 1),
                    "cores": round(cpu_s / took_s, 2),
                    "refused": client.refused,
                }
                say(f"round {number}, {name}: {json.dumps(this[name])}")
            found.append(this)
    return found
