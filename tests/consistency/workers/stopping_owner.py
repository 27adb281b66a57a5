"""
An admin service whose owner of the configuration stops in the middle of a transaction, at a moment that a file names.

Environment: `STOP_AT` is a file that holds one of `begun`, `audit`, `written`, `committed`, `told`; read before each
step, so that a test lets the first changes go through. The process kills itself there, or freezes where the file's
second word is `freeze`.
"""

import os
import signal
from pathlib import Path
from typing import Any

from services.admin import owner
from services.admin.app import main
from services.runtime.process import run_service

STOP_AT = Path(os.environ["STOP_AT"])


def reached(moment: str) -> None:
    try:
        at, _, how = STOP_AT.read_text().partition(" ")
    except FileNotFoundError:
        return
    if at == moment:
        STOP_AT.unlink()
        os.kill(os.getpid(), signal.SIGSTOP if how == "freeze" else signal.SIGKILL)


class Stopping:
    """A producer of transactions that may stop before each step; everything else is the producer's own."""

    def __init__(self, producer: Any) -> None:
        self._producer = producer

    def __getattr__(self, name: str) -> Any:
        return getattr(self._producer, name)

    async def begin_transaction(self) -> None:
        await self._producer.begin_transaction()
        reached("begun")

    async def send(self, topic: str, value: bytes | None, *, key: bytes) -> Any:
        sent = await self._producer.send(topic, value, key=key)
        if topic.endswith("audit"):
            await sent
            reached("audit")
        return sent

    async def commit_transaction(self) -> None:
        reached("written")
        await self._producer.commit_transaction()
        reached("committed")


class StoppingOwner(owner.Owner):
    """See the module's docstring."""

    async def _open(self) -> Any:
        writers = await super()._open()
        self._writers = owner._Writers(Stopping(writers.config), writers.tell, writers.has_transactions)
        return self._writers

    async def _tell(self, writers: Any, judged: Any) -> None:
        await super()._tell(writers, judged)
        reached("told")


if __name__ == "__main__":
    from services.admin import app

    app.Owner = StoppingOwner
    raise SystemExit(run_service(main))
