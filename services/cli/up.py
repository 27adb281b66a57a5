"""
`tenterhook up`: everything on one machine, started, watched and drained by one process.

`planning` decides what to start, `life` starts and ends it, `children` watches each process, `welcome` says where
everything is. Nothing of this is for production: there, each service is a process of its own.
"""

import asyncio
import json
import os
import shlex
import signal
import sys
import time
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Final

from cyclopts import Parameter
from cyclopts.validators import Number

from services.cli.access import READY_FILE
from services.cli.brokers import BrokerFailed
from services.cli.children import ChildFailed, ChildLost
from services.cli.data_dir import held, write_private
from services.cli.errors import Failed, WrongUsage
from services.cli.life import Life, Plan, client_host
from services.cli.planning import Options, plan_of
from services.cli.welcome import Ready

_PORT: Final = Number(gte=0, lte=65_535)


def up(
    *,
    broker: str | None = None,
    data: Path = READY_FILE.parent,
    ingest_port: Annotated[int | None, Parameter(validator=_PORT)] = None,
    admin_port: Annotated[int | None, Parameter(validator=_PORT)] = None,
    ready_file: Path | None = None,
    allow_private_addresses: bool = True,
    as_json: Annotated[bool, Parameter(name="--json", negative=())] = False,
) -> int:
    """
    Start everything on this machine: a broker if none is given, all services, an app with its keys.

    Ctrl-C drains and stops; a second one kills.

    Args:
        broker: auto, embedded, kafka or HOST:PORT,...; auto is Kafka where Java and its jars are, else embedded. Where
            absent, the broker of the settings, if they name one, else auto.
        data: Folder of the broker's data, the keys and the key-encryption key.
        ingest_port: Where events come in; else that of the settings, 8080. 0 takes a free one.
        admin_port: Where the admin API is; else that of the settings, 8081. 0 takes a free one.
        ready_file: Written when all is ready: ingest, admin, app, publicKey, secretKey and token, as JSON.
        allow_private_addresses: Let deliveries reach loopback and private networks.
        as_json: When all is ready, print that JSON on a line instead of the text for people.
    """
    if ready_file is not None and not ready_file.parent.is_dir():
        raise WrongUsage(f"--ready-file {ready_file}: there is no folder {ready_file.parent}")
    options = Options(broker, ingest_port, admin_port, allow_private_addresses)
    # Keys, the KEK, the broker's data: this user's alone.
    os.umask(0o077)
    try:
        with held(data) as folder:
            say(f"tenterhook {version('tenterhook')}, keeping its state in {data}")
            plan = plan_of(options, folder, say)
            # The folder's first: whoever waits for the other one calls commands, which look there.
            files = tuple(dict.fromkeys([folder.ready_file, *([ready_file] if ready_file else [])]))
            return asyncio.run(_Up(plan, files, as_json=as_json).run())
    except (BrokerFailed, ChildFailed) as error:
        raise Failed(str(error)) from None
    except KeyboardInterrupt:
        # Before the event loop took the signals over: nothing has been started.
        return 1


def say(line: str) -> None:
    """A line of progress, with the time. On stderr: stdout is for what is ready."""
    try:
        print(time.strftime("%H:%M:%S"), line, file=sys.stderr, flush=True)
    except OSError:
        return  # nobody reads any more, and draining goes on


class _Up:
    """Life after life: a new one only when the embedded broker is lost."""

    def __init__(self, plan: Plan, ready_files: tuple[Path, ...], *, as_json: bool) -> None:
        self._plan = plan
        self._ready_files = ready_files
        self._as_json = as_json
        self._started_at = time.monotonic()
        self._is_shown = False
        self._stop = asyncio.Event()
        self._life: Life

    async def run(self) -> int:
        """
        Run until a signal; the exit code.

        Raises:
            ChildFailed, Failed: it cannot run; nothing of it runs any more.
        """
        # What asks a service where its tasks stand (`kill -USR1`) does not end this one, nor a child while it loads.
        signal.signal(signal.SIGUSR1, signal.SIG_IGN)
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            loop.add_signal_handler(number, self._on_signal, number)
        while True:
            self._remove_ready_files()
            self._life = Life(self._plan, say, self._on_ready)
            try:
                return 0 if await self._life.run(self._stop) else 1
            except ChildLost as lost:
                if self._stop.is_set():
                    return 1
                say(f"{lost}, and what it held in memory is gone, integrations too. Starting anew, with the same keys")
            finally:
                self._remove_ready_files()

    def _on_signal(self, number: signal.Signals) -> None:
        if self._stop.is_set():
            say(f"{number.name} again: killing what has not drained")
            self._life.kill()
        else:
            say(f"{number.name}: draining. Once more kills")
            self._stop.set()

    def _on_ready(self, life: Life) -> None:
        ready = self._ready(life)
        try:
            for file in self._ready_files:
                write_private(file, ready.document())
        except Failed as error:
            if not self._is_shown:
                raise
            say(str(error))
        if not self._is_shown:
            self._is_shown = True
            self._show(ready)

    def _show(self, ready: Ready) -> None:
        say(f"ready after {time.monotonic() - self._started_at:.1f} s")
        file = self._plan.folder.ready_file
        is_found = file.resolve() == READY_FILE.resolve()
        text = ready.text(shlex.quote(sys.argv[0]), file, is_found=is_found)
        print(json.dumps(ready.document()) if self._as_json else text, flush=True)

    def _ready(self, life: Life) -> Ready:
        settings = self._plan.settings
        return Ready(
            ingest=_url(settings.ingest.host, settings.ingest.port),
            admin=_url(settings.admin.host, settings.admin.port),
            dispatcher=_url(settings.dispatcher.host, settings.dispatcher.port),
            **life.keys,
            broker=settings.broker,
            broker_kind=self._plan.broker.kind if self._plan.broker else "given",
            pid=os.getpid(),
            pids=life.pids,
        )

    def _remove_ready_files(self) -> None:
        """They say that all is ready; so they must not outlive it."""
        for file in self._ready_files:
            file.unlink(missing_ok=True)


def _url(host: str, port: int) -> str:
    host = client_host(host)
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
