"""The tenterhook that is measured: one that runs already, or one of our own in a folder that goes away with it."""

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from services.cli.access import Access
from services.cli.bench.processes import Process, listener, parent_of, tree
from services.cli.die_with_parent import die_with
from services.cli.errors import Failed

_START_S: Final = 90.0
_STOP_S: Final = 60.0
_LAST_LINES: Final = 15


@dataclass(frozen=True, slots=True)
class Stack:
    """Where it is, what opens it, and which process it hangs from."""

    ingest: Access
    admin: Access
    #: HOST:PORT of its Kafka broker; None where that is not known.
    broker: str | None
    #: `kafka`, `embedded` or `given`; None where that is not known.
    broker_kind: str | None
    #: Of `tenterhook up`; None where the services run without it.
    up: int | None

    def processes(self) -> list[Process]:
        """
        Its processes on this machine: all that hang from `up`, else what listens on the known addresses.

        A broker on this machine that `up` has not started is among them.
        """
        found = {each.pid: each for each in (tree(self.up) if self.up else [])}
        for address in (self.ingest.url, self.admin.url, f"kafka://{self.broker}" if self.broker else None):
            pid = _listener(address)
            if pid is not None:
                found |= {each.pid: each for each in tree(pid) if each.pid not in found}
        return list(found.values())


def running_stack(ingest: Access, admin: Access, broker: str | None, ready_file: Path) -> Stack:
    """The one that listens there; where the ready file is its own, that knows its broker."""
    ready: dict[str, str] = {}
    with suppress(OSError, ValueError):
        ready = json.loads(ready_file.read_text(encoding="utf-8"))
    if ready.get("ingest") != ingest.url:
        ready = {}
    return Stack(ingest, admin, broker or ready.get("broker"), ready.get("brokerKind"), _up_of(ingest.url))


def _listener(address: str | None) -> int | None:
    port = urlsplit(address).port if address else None
    return listener(port) if port else None


def _up_of(ingest: str) -> int | None:
    """The `tenterhook up` whose child listens at *ingest*."""
    service = _listener(ingest)
    parent = parent_of(service) if service else None
    of_parent = tree(parent) if parent else []
    return parent if of_parent and of_parent[0].name == "up" else None


@contextmanager
def own_stack(broker: str) -> Iterator[Stack]:
    """
    A `tenterhook up` on free ports with its data in a temporary folder, ended and removed afterwards.

    Args:
        broker: as `up --broker` takes it.

    Raises:
        Failed: it does not become ready; the message has its last lines.
    """
    with tempfile.TemporaryDirectory(prefix="tenterhook-bench-") as name:
        folder = Path(name)
        log = folder / "up.log"
        with log.open("wb") as lines:
            up = subprocess.Popen(  # noqa: S603 (our own command)
                _command(broker, folder),
                stdout=lines,
                stderr=lines,
                cwd=folder,
                # Ctrl-C is for this process, which then ends that one; should this be killed, that is too.
                start_new_session=True,
                preexec_fn=die_with(os.getpid()),  # noqa: PLW1509 (takes no lock)
            )
        try:
            ready = _ready(up, folder / "ready.json", log)
            yield Stack(
                ingest=Access(ready["ingest"], ready["app"], ready["secretKey"]),
                admin=Access(ready["admin"], ready["app"], ready["token"]),
                broker=ready["broker"],
                broker_kind=ready["brokerKind"],
                up=up.pid,
            )
        finally:
            _stop(up)


def _command(broker: str, folder: Path) -> list[str]:
    return [
        sys.executable, "-P", "-m", "services.cli", "up",
        "--broker", broker, "--data", str(folder / "data"), "--ready-file", str(folder / "ready.json"),
        "--ingest-port", "0", "--admin-port", "0",
    ]  # fmt: skip


def _ready(up: subprocess.Popen[bytes], ready_file: Path, log: Path) -> dict[str, str]:
    waited_until = time.monotonic() + _START_S
    while time.monotonic() < waited_until:
        if ready_file.exists():
            ready: dict[str, str] = json.loads(ready_file.read_text(encoding="utf-8"))
            return ready
        if up.poll() is not None:
            break
        time.sleep(0.05)
    last = "\n".join(log.read_text(errors="replace").splitlines()[-_LAST_LINES:])
    raise Failed(f"`tenterhook up` has not become ready. Its last lines:\n{last}")


def _stop(up: subprocess.Popen[bytes]) -> None:
    """Ask it to drain; kill it when it does not end. Its children die with it."""
    with suppress(ProcessLookupError):
        up.send_signal(signal.SIGINT)
    try:
        up.wait(_STOP_S)
    except subprocess.TimeoutExpired:
        up.kill()
        up.wait()
