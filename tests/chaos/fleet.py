"""
The services of a run as processes, and what is done to them.

Each is started again when it ends, as `tenterhook up` does it; what happened, and when all were ready again, is noted.
"""

import asyncio
import base64
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

import aiohttp

from services.cli.brokers.kafka import KafkaBroker
from services.cli.brokers.ports import free_ports
from services.cli.die_with_parent import die_with
from streams.connection import Connection
from streams.topics import Partitions
from tests.chaos.observed import DIED, Happened
from tests.chaos.releases import THIS, Release
from tests.chaos.schedule import Fault
from tests.dispatching import KEK

#: As `Happened.settled_ms` while it is not known.
_NOT_YET: Final = float("inf")

_LOOK_S: Final = 0.1
#: Until a process that was frozen knows that it is no member any more, and the others that somebody has come or gone.
_FELT_S: Final = 1.5
#: Twice as long as a request, its result and the rest of a drain may take.
_DRAINED_S: Final = 60.0


def now_ms() -> float:
    """The time, in fractions of milliseconds."""
    return time.time_ns() / 1_000_000


#: Variables of a service of this kind: how it is let in by the broker.
Access = Callable[[str], dict[str, str]]


def anybody(_kind: str) -> dict[str, str]:
    """The broker asks nobody."""
    return {}


class Service:
    """One service: one process after another."""

    def __init__(self, name: str, environment: Mapping[str, str], folder: Path, release: Release = THIS) -> None:
        """
        Args:
            name: `ingest`, or `dispatcher-2` for one of several.
        """
        self.name = name
        #: What it is started from the next time.
        self.release = release
        #: Held by whatever is done to it.
        self.busy = asyncio.Lock()
        self.port = next(iter(free_ports(1)))
        #: Whether it is started again when it ends.
        self.is_wanted = True
        self.kind = name.partition("-")[0]
        self._output = folder / f"{name}.log"
        self._environment = {**environment, f"TENTERHOOK_{self.kind.upper()}__PORT": str(self.port)}
        self._process: subprocess.Popen[bytes] | None = None
        self._started_ms = 0.0

    def start(self) -> None:
        """Start it, the first time or again."""
        self._started_ms = now_ms()
        with self._output.open("ab") as output:
            self._process = subprocess.Popen(
                [sys.executable, "-m", self.release.module, self.kind],
                cwd=self.release.folder,
                env={**self._environment, "PYTHONPATH": str(self.release.folder)},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                preexec_fn=die_with(os.getpid()),  # noqa: PLW1509 - before any thread of ours matters
            )

    @property
    def ran_ms(self) -> float:
        """For how long it has run."""
        return now_ms() - self._started_ms

    @property
    def exit_code(self) -> int | None:
        """None while it runs."""
        return None if self._process is None else self._process.poll()

    def signal(self, number: signal.Signals) -> None:
        if self._process is not None and self._process.poll() is None:
            self._process.send_signal(number)

    def kill(self) -> None:
        """`kill -9`; returns when it is gone."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    async def stop(self) -> int:
        """SIGTERM; its exit code, that of SIGKILL where it takes too long."""
        self.signal(signal.SIGTERM)
        until = time.monotonic() + _DRAINED_S
        while self.exit_code is None and time.monotonic() < until:  # noqa: ASYNC110  # no event tells of its end
            await asyncio.sleep(0.02)
        self.kill()
        return self.exit_code or 0

    def tail(self, lines: int = 30) -> str:
        """The last lines that it wrote."""
        return "\n".join(self._output.read_text(errors="replace").splitlines()[-lines:])


class Fleet:
    """All services of one run, on a broker that can be restarted."""

    def __init__(
        self,
        broker: KafkaBroker,
        connection: Connection,
        partitions: Partitions,
        folder: Path,
        workers: int,
        say: Callable[[str], None],
        *,
        access: Access = anybody,
        older: Release = THIS,
        newer: Release = THIS,
    ) -> None:
        """
        Args:
            access: how a service of a kind is let in by the broker.
            older: what services are started from at first, and after `back`.
            newer: after `update`.
        """
        self._releases = {"update": newer, "back": older}
        self._broker = broker
        self._folder = folder
        self._say = say
        self._access = access
        self._environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith("TENTERHOOK_")},
            # Compiling takes most of a start, and is done once.
            "PYTHONPYCACHEPREFIX": str(Path(tempfile.gettempdir()) / "tenterhook-bytecode"),
            "TENTERHOOK_BROKER": connection.bootstrap,
            "TENTERHOOK_TOPIC_PREFIX": connection.prefix,
            "TENTERHOOK_KEK": base64.b64encode(KEK).decode(),
            "TENTERHOOK_PARTITIONS__BY_APP": str(partitions.by_app),
            "TENTERHOOK_PARTITIONS__BY_INTEGRATION": str(partitions.by_integration),
            "TENTERHOOK_DISPATCHER__ALLOW_PRIVATE_ADDRESSES": "true",
            "TENTERHOOK_LOG_FORMAT": "json",
        }
        self._environment.pop("PYTHONDONTWRITEBYTECODE", None)
        names = ["ingest", "admin", "breaker", *(f"dispatcher-{number + 1}" for number in range(workers))]
        self.services = {name: self._made(name, older) for name in names}
        #: How many there have been of each kind.
        self._numbers = Counter(service.kind for service in self.services.values())
        #: What has happened, with no time yet at which it was over.
        self._happened: list[Happened] = []
        self._doing: set[asyncio.Task[None]] = set()
        self._failed: Exception | None = None
        self._nodes = asyncio.Lock()
        self._http: aiohttp.ClientSession
        self._watching: list[asyncio.Task[None]] = []

    def _made(self, name: str, release: Release) -> Service:
        return Service(name, self._environment | self._access(name.partition("-")[0]), self._folder, release)

    @property
    def happened(self) -> list[Happened]:
        """What was done, and what happened by itself."""
        return list(self._happened)

    def url(self, service: str) -> str:
        """Where it listens."""
        return f"http://127.0.0.1:{self.services[service].port}"

    def urls(self, kind: str) -> list[str]:
        """Where services of this kind listen, those left out that were told to leave."""
        return [self.url(each.name) for each in self.services.values() if each.kind == kind and each.is_wanted]

    # -- life ------------------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Returns when all are ready."""
        self._http = aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=1.0))
        for service in self.services.values():
            service.start()
        await self.settled()
        self._watching = [asyncio.create_task(self._restart()), asyncio.create_task(self._note_settled())]

    async def end(self) -> None:
        """Kill them all."""
        for task in (*self._watching, *self._doing):
            task.cancel()
        await asyncio.gather(*self._watching, *self._doing, return_exceptions=True)
        for service in self.services.values():
            service.signal(signal.SIGCONT)
            service.kill()
        await self._http.close()

    async def settled(self, within_s: float = 120.0) -> None:
        """
        Returns when everything that was begun is over, and all are ready.

        Raises:
            AssertionError: one of them is not, or a fault could not be made.
        """
        until = time.monotonic() + within_s
        while self._doing or any(each.settled_ms == _NOT_YET for each in self._happened) or await self._unready():
            assert time.monotonic() < until, f"not ready within {within_s} s: {await self._unready()}"
            await asyncio.sleep(_LOOK_S)
        assert self._failed is None, f"a fault could not be made: {self._failed!r}"

    async def _unready(self) -> list[str]:
        wanted = [each for each in self.services.values() if each.is_wanted]
        ready = await asyncio.gather(*(self._is_ready(each) for each in wanted))
        return [each.name for each, is_ready in zip(wanted, ready, strict=True) if not is_ready]

    async def _is_ready(self, service: Service) -> bool:
        try:
            async with self._http.get(f"http://127.0.0.1:{service.port}/health/ready") as response:
                return response.status == 200
        except (aiohttp.ClientError, TimeoutError):
            return False

    async def _restart(self) -> None:
        """Start again whatever ends by itself."""
        while True:
            await asyncio.sleep(_LOOK_S)
            for service in self.services.values():
                if service.is_wanted and not service.busy.locked() and self._has_died(service):
                    service.start()

    def _has_died(self, service: Service) -> bool:
        """Whether it ended though nobody had killed it or asked it to, noted."""
        code = service.exit_code
        if code is not None:
            self._say(f"{service.name} ended by itself with {code}:\n{service.tail(5)}")
            self._note(DIED, service.name, now_ms() - 1_000 * _LOOK_S, now_ms(), code)
        return code is not None

    async def _note_settled(self) -> None:
        """Note when all were ready again after each fault."""
        while True:
            await asyncio.sleep(_LOOK_S)
            if all(each.settled_ms != _NOT_YET for each in self._happened) or await self._unready():
                continue
            at_ms = now_ms()
            for number, each in enumerate(self._happened):
                if each.settled_ms == _NOT_YET and at_ms - each.ended_ms > 1_000 * _FELT_S:
                    self._happened[number] = each._replace(settled_ms=at_ms)

    def _note(
        self,
        kind: str,
        target: str,
        began_ms: float,
        ended_ms: float,
        code: int | None = None,
        ran_ms: float = float("inf"),
    ) -> None:
        self._happened.append(Happened(kind, target, began_ms, ended_ms, _NOT_YET, code, ran_ms))

    # -- faults ----------------------------------------------------------------------------------------------

    def begin(self, fault: Fault) -> None:
        """Do it; `settled` waits for its end."""
        doing = asyncio.create_task(self._do(fault), name=str(fault))
        self._doing.add(doing)
        doing.add_done_callback(self._doing.discard)

    async def _do(self, fault: Fault) -> None:
        try:
            match fault.kind:
                case "join":
                    await self._join(fault.target, fault.for_s)
                case "leave":
                    await self._leave(self.services[fault.target])
                case "node":
                    await self._restart_node(fault.target, fault.for_s)
                case _:
                    await self._strike(self.services[fault.target], fault)
        except Exception as error:  # noqa: BLE001  # told by `settled`
            self._failed = error

    async def _strike(self, service: Service, fault: Fault) -> None:
        async with service.busy:
            if self._has_died(service):
                service.start()
            began_ms, ran_ms, code = now_ms(), service.ran_ms, None
            if fault.kind == "kill":
                service.kill()
            elif fault.kind in {"stop", "update", "back"}:
                code = await service.stop()
            else:
                service.signal(signal.SIGSTOP)
                await asyncio.sleep(fault.for_s)
                service.signal(signal.SIGCONT)
            self._note(fault.kind, fault.target, began_ms, now_ms(), code, ran_ms)
            service.release = self._releases.get(fault.kind, service.release)
            if fault.kind != "freeze":
                service.start()

    async def _join(self, kind: str, stays_s: float) -> None:
        self._numbers[kind] += 1
        name = f"{kind}-{self._numbers[kind]}"
        service = self.services[name] = self._made(name, self._releases["back"])
        began_ms = now_ms()
        service.start()
        self._note("join", name, began_ms, now_ms())
        if stays_s:
            await asyncio.sleep(stays_s)
            await self._leave(service)

    async def _leave(self, service: Service) -> None:
        async with service.busy:
            service.is_wanted = False
            # One that has died leaves nobody: its code is told as that.
            has_died = self._has_died(service)
            began_ms, ran_ms = now_ms(), service.ran_ms
            code = await service.stop()
            self._note("leave", service.name, began_ms, now_ms(), None if has_died else code, ran_ms)

    async def _restart_node(self, target: str, away_s: float) -> None:
        node = self._broker.nodes[int(target.removeprefix("node-")) - 1]
        async with self._nodes:
            began_ms = now_ms()
            await asyncio.to_thread(node.kill)
            await asyncio.sleep(away_s)
            await self._broker.start()
            self._note("node", target, began_ms, now_ms())
