"""
One life of `tenterhook up`: from the start of its first process to the end of its last.

The broker comes first and goes last. The services start while a broker of our own does, since they wait for it by
themselves and their imports take as long; on the way out, ingest stops taking events before the dispatcher stops.
"""

import asyncio
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import Any, Final

from services.cli.brokers.embedded import EmbeddedBroker
from services.cli.brokers.kafka import KafkaBroker
from services.cli.children import Child, ChildLost, Command, Say
from services.cli.data_dir import DataDir
from services.cli.readiness import Probe, gauge, health
from services.runtime.connection import connection_of
from services.runtime.settings import Settings
from streams.connection import wait_for_broker

#: In the order in which they drain, with the seconds that each may take: a little more than it gives itself.
#: A dispatcher's requests last 10 s at most, and their results must be on the broker.
SERVICES: Final = {"ingest": 10.0, "dispatcher": 25.0, "breaker": 10.0, "admin": 10.0}

#: The dispatcher takes longest: beside the most imports it has a consumer group to join.
_LAUNCH_ORDER: Final = ("dispatcher", "breaker", "ingest", "admin")

#: In lines of services whose broker is only just starting: they wait for it, and it is not ready for groups at once.
_EXPECTED_AT_START: Final = ("broker.awaited", "aiokafka.consumer.group_coordinator")

#: Apache Kafka closes its files; the embedded broker has nothing to save.
_BROKER_GRACE_S: Final = {"kafka": 20.0, "embedded": 3.0}

BROKER: Final = "broker"

#: What the dispatcher says that it has taken and not finished.
_UNFINISHED: Final = "tenterhook_dispatcher_unfinished_records"
#: How long it is given for that: as long as a request may take.
_FINISH_S: Final = 10.0
#: Looked at this often; so many zeros in a row are the end: between fan-out and lanes, a record is in neither.
_LOOK_EVERY_S: Final = 0.1
_ZEROS: Final = 3


@dataclass(frozen=True, slots=True)
class Plan:
    """What to start."""

    #: Those of the services: the broker's address, all ports.
    settings: Settings
    #: Ours to start and end; None when somebody else's is used.
    broker: EmbeddedBroker | KafkaBroker | None
    folder: DataDir
    #: Of the services' processes.
    environment: Mapping[str, str] = field(repr=False)


class Life:
    """All processes of one `up`, from start to end."""

    def __init__(self, plan: Plan, say: Say, on_ready: Callable[["Life"], None]) -> None:
        """
        Args:
            on_ready: called when all is ready, and again when a process that was started again is.
        """
        #: `app`, `public_key`, `secret_key` and `token`, once the log has them.
        self.keys: dict[str, str] = {}
        self._plan = plan
        self._say = say
        self._on_ready = on_ready
        self._children: dict[str, Child] = {}
        self._running: dict[str, asyncio.Task[bool]] = {}
        #: Fails when a child cannot be kept running.
        self._failed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._is_ready = False
        self._is_killed = False

    @property
    def pids(self) -> dict[str, int]:
        """Of the processes that run now."""
        return {name: child.pid for name, child in self._children.items() if child.pid is not None}

    async def run(self, stop: asyncio.Event) -> bool:
        """
        Start all, keep all running until *stop* is set, and drain; whether all drained in time.

        Raises:
            ChildLost: the embedded broker ended, and with it all that it held; the services are ended too.
            ChildFailed: a process cannot be started or fails each time; the others are drained.
            Failed: the broker has other topics than these services want, or the folder's keys cannot be read.
        """
        starting, stopping = asyncio.ensure_future(self._start()), asyncio.ensure_future(stop.wait())
        try:
            await asyncio.wait((starting, stopping, self._failed), return_when=asyncio.FIRST_COMPLETED)
            if starting.done():
                await starting
                await asyncio.wait((stopping, self._failed), return_when=asyncio.FIRST_COMPLETED)
            if self._failed.done():
                await self._failed
        except ChildLost:
            self.kill()
            raise
        finally:
            if not self._failed.cancel():
                self._failed.exception()  # told already, or superseded by the wish to stop
            for task in (starting, stopping):
                task.cancel()
            await asyncio.gather(starting, stopping, return_exceptions=True)
            drained = await self._drain()
        return drained

    def kill(self) -> None:
        """End all processes at once; `run` returns soon after."""
        self._is_killed = True
        for child in self._children.values():
            child.kill()

    async def _start(self) -> None:
        plan = self._plan
        if plan.broker is not None:
            self._launch_services()
            await asyncio.to_thread(plan.broker.prepare)
            self._launch(_broker_command(plan.broker, plan.folder.path / "broker.txt"))
            furnishing = await _load("services.cli.furnish")
            await self._children[BROKER].ready.wait()
        else:
            await wait_for_broker(connection_of(plan.settings), say=self._say)
            self._launch_services()
            furnishing = await _load("services.cli.furnish")
        self._say(f"broker is ready at {plan.settings.broker}")
        self.keys = await furnishing.furnish(plan.settings, plan.folder, self._say)
        await asyncio.gather(*(self._children[name].ready.wait() for name in SERVICES))
        self._is_ready = True
        self._on_ready(self)

    def _launch_services(self) -> None:
        for name in _LAUNCH_ORDER:
            # -P: a folder called `services` where `up` is called is not ours.
            argv = (sys.executable, "-P", "-m", "services.cli", name)
            probe = _health_of(name, self._plan.settings)
            self._launch(Command(name, argv, probe, SERVICES[name], self._plan.environment))

    def _launch(self, command: Command) -> None:
        child = Child(command, self._pass_on, on_ready=lambda: self._became_ready(command.name))
        self._children[command.name] = child
        self._running[command.name] = task = asyncio.ensure_future(child.run())
        task.add_done_callback(self._ended)

    def _pass_on(self, line: str) -> None:
        """Say what a child says, except what is no news while all start at once."""
        if self._is_ready or self._plan.broker is None or not any(word in line for word in _EXPECTED_AT_START):
            self._say(line)

    def _became_ready(self, name: str) -> None:
        if self._is_ready:
            self._say(f"{name} is ready again")
            self._on_ready(self)
        elif name != BROKER:
            self._say(f"{name} is ready")

    def _ended(self, task: "asyncio.Task[bool]") -> None:
        if not task.cancelled() and (error := task.exception()) is not None and not self._failed.done():
            self._failed.set_exception(error)

    async def _drain(self) -> bool:
        """End all, in order; whether all ended well and in time."""
        drained = True
        for name in (*SERVICES, BROKER):
            if name not in self._running:
                continue
            started_at = time.monotonic()
            if not self._running[name].done() and not self._is_killed:
                self._say(f"{name} is draining" if name != BROKER else "broker is stopping")
            if name == "dispatcher" and self._plan.broker is not None and self._plan.broker.kind == "embedded":
                await self._finish_what_is_forgotten()
            self._children[name].stop()
            (ended_well,) = await asyncio.gather(self._running[name], return_exceptions=True)
            if ended_well is True:
                self._say(f"{name} has stopped ({time.monotonic() - started_at:.1f} s)")
            drained = drained and ended_well is True
        return drained

    async def _finish_what_is_forgotten(self) -> None:
        """Give the dispatcher time for what was accepted. A lasting broker keeps it for the next start."""
        host, port = _listening("dispatcher", self._plan.settings)
        until, zeros, is_said = time.monotonic() + _FINISH_S, 0, False
        while zeros < _ZEROS and time.monotonic() < until:
            left = await gauge(host, port, _UNFINISHED)
            if left is None:  # it has ended, or is not up yet
                return
            if left and not is_said:
                self._say(f"dispatcher has {left} records to finish, which the broker would forget")
                is_said = True
            zeros = 0 if left else zeros + 1
            await asyncio.sleep(_LOOK_EVERY_S)


async def _load(module: str) -> Any:
    """A module whose imports take long, while the processes start."""
    return await asyncio.to_thread(import_module, module)


def _broker_command(broker: EmbeddedBroker | KafkaBroker, output: Path) -> Command:
    (argv,) = broker.commands
    return Command(
        BROKER,
        argv,
        broker.probe,
        _BROKER_GRACE_S[broker.kind],
        output=output,
        # Kafka comes back with what it held. The embedded one comes back empty, under services that know better.
        restarts=broker.kind != "embedded",
        saves=broker.kind != "embedded",
    )


def _health_of(name: str, settings: Settings) -> Probe:
    return health(*_listening(name, settings))


def _listening(name: str, settings: Settings) -> tuple[str, int]:
    """Where a client on this machine finds the service."""
    listening: dict[str, tuple[str, int]] = {
        "ingest": (settings.ingest.host, settings.ingest.port),
        "dispatcher": (settings.dispatcher.host, settings.dispatcher.port),
        "breaker": (settings.breaker.host, settings.breaker.port),
        "admin": (settings.admin.host, settings.admin.port),
    }
    host, port = listening[name]
    return client_host(host), port


def client_host(host: str) -> str:
    """Where a client on this machine finds what listens on *host*: all addresses include loopback."""
    return {"0.0.0.0": "127.0.0.1", "": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104  # not bound to
