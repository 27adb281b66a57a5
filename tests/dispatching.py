"""A dispatcher for tests: in this process, or as one of its own that can be killed and started again."""

import asyncio
import base64
import os
import re
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from services.cli.brokers.ports import free_ports
from services.dispatcher.app import main
from services.runtime.settings import Settings
from services.vault.seal import Context, Keyring
from streams import topics
from streams.connection import Connection
from streams.records import SigningSecret
from tests.logs import PARTITIONS
from tests.waiting import eventually

#: Half a minute and more: for a change in what it tests, and before a release.
SLOW = pytest.mark.long

KEK = bytes(range(32))
KEYRING = Keyring(KEK)

#: A takeover after `kill -9` begins when the group has missed the dead one for `session_timeout_ms`, which is 6 s at
#: least; the rest is the machine's, which may be busy.
TAKEN_OVER_S = 40.0


def sealed_header(app: str, integration: str, name: str, value: str) -> bytes:
    return KEYRING.seal(value.encode(), Context.of_header(app, integration, name))


def sealed_signing(app: str, integration: str, secret: str, version: int = 1) -> SigningSecret:
    sealed = KEYRING.seal(secret.encode(), Context.of_signing(app, integration, version))
    return SigningSecret(version=version, sealed=sealed, created_at_ms=0)


class Probe:
    """The health port of a dispatcher."""

    def __init__(self, port: int) -> None:
        self.port = port

    async def get(self, path: str) -> tuple[int, str]:
        """Status and body; status 0 where nobody answers."""
        try:
            async with aiohttp.request("GET", f"http://127.0.0.1:{self.port}{path}") as response:
                return response.status, await response.text()
        except aiohttp.ClientError:
            return 0, ""

    async def is_ready(self) -> bool:
        return (await self.get("/health/ready"))[0] == 200

    async def until_ready(self, within_s: float = TAKEN_OVER_S) -> None:
        await eventually(self.is_ready, within_s)

    async def gauge(self, name: str) -> float:
        """One of the dispatcher's own numbers, `in_flight` for example."""
        _, text = await self.get("/metrics")
        found = re.search(rf"^tenterhook_dispatcher_{name} ([\d.e+]+)$", text, re.MULTILINE)
        assert found is not None, text
        return float(found[1])


@asynccontextmanager
async def dispatching(
    connection: Connection,
    partitions: topics.Partitions = PARTITIONS,
    keks: tuple[bytes, ...] = (KEK,),
    **own: Any,
) -> AsyncIterator[Probe]:
    """A dispatcher in this process, ready; drained at the end. *keks*: the current one first."""
    [port] = free_ports(1)
    settings = Settings(
        broker=connection.bootstrap,
        topic_prefix=connection.prefix,
        kek=base64.b64encode(keks[0]).decode(),
        kek_previous=",".join(base64.b64encode(each).decode() for each in keks[1:]),
        partitions={"by_app": partitions.by_app, "by_integration": partitions.by_integration},
        dispatcher={"port": port, "allow_private_addresses": True, "commit_interval_ms": 50, **own},
    )
    stop = asyncio.Event()
    running = asyncio.create_task(main(settings, stop))
    probe = Probe(port)
    try:
        ready = asyncio.create_task(probe.until_ready())
        await asyncio.wait((running, ready), return_when=asyncio.FIRST_COMPLETED)
        if running.done():
            ready.cancel()
            running.result()
        await ready
        yield probe
        if running.done():
            running.result()
    finally:
        stop.set()
        await asyncio.wait_for(running, 40)


_RUN = """
from services.dispatcher.app import main
from services.runtime.process import run_service
raise SystemExit(run_service(main))
"""


class DispatcherProcess(Probe):
    """A dispatcher as a process of its own, which can be killed and started again."""

    def __init__(self, connection: Connection, output: Path, partitions: topics.Partitions, **own: Any) -> None:
        super().__init__(free_ports(1)[0])
        own = {"port": self.port, "allow_private_addresses": True, "commit_interval_ms": 50, **own}
        self._output = output
        self._environment = {
            **os.environ,
            "TENTERHOOK_BROKER": connection.bootstrap,
            "TENTERHOOK_TOPIC_PREFIX": connection.prefix,
            "TENTERHOOK_KEK": base64.b64encode(KEK).decode(),
            "TENTERHOOK_PARTITIONS__BY_APP": str(partitions.by_app),
            "TENTERHOOK_PARTITIONS__BY_INTEGRATION": str(partitions.by_integration),
            **{f"TENTERHOOK_DISPATCHER__{name.upper()}": str(value) for name, value in own.items()},
        }
        self.process: subprocess.Popen[bytes]
        self.start()

    def start(self) -> None:
        """Start it, the first time or again; it is not ready yet."""
        with self._output.open("ab") as output:
            self.process = subprocess.Popen(
                [sys.executable, "-c", _RUN], env=self._environment, stdout=output, stderr=output
            )

    @property
    def is_running(self) -> bool:
        return self.process.poll() is None

    @property
    def said(self) -> str:
        """What it has written until now, in all its lives."""
        return self._output.read_text()

    def kill(self) -> None:
        """`kill -9`; returns when it is gone."""
        self.process.kill()
        self.process.wait()

    def signal(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    async def drain(self, within_s: float = 40.0) -> int:
        """SIGTERM; its exit code, once it has ended."""
        self.process.terminate()
        return await self.ended(within_s)

    async def ended(self, within_s: float = 40.0) -> int:
        await eventually(lambda: not self.is_running, within_s)
        return self.process.returncode


@asynccontextmanager
async def dispatcher_processes(
    connection: Connection, folder: Path, count: int = 1, partitions: topics.Partitions = PARTITIONS, **own: Any
) -> AsyncIterator[list[DispatcherProcess]]:
    """So many dispatchers, ready; those still there are killed at the end."""
    made: list[DispatcherProcess] = []
    try:
        for number in range(count):
            made.append(DispatcherProcess(connection, folder / f"dispatcher-{number}.log", partitions, **own))  # noqa: PERF401
        for each in made:
            await each.until_ready()
        yield made
    except BaseException:
        for each in made:
            sys.stderr.write(each.said)
        raise
    finally:
        for each in made:
            each.signal(signal.SIGCONT)
            each.kill()
