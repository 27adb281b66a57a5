"""
One broker process: started out of reach of the terminal's Ctrl-C, ended with us, its output in a file.

Plain `subprocess`, no event loop: a test session starts one in one loop and stops it in another.
"""

import asyncio
import os
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

from services.cli.brokers import BrokerFailed, Probe
from services.cli.die_with_parent import die_with

#: Asking costs a connection. Started brokers are ready after 0.05 to 3 s.
_ASK_EVERY_S: Final = 0.03
#: Long enough on a busy machine, short enough to see soon that the process has ended.
_ANSWER_S: Final = 2.0
_LOOK_EVERY_S: Final = 0.02


class Node:
    """One process after another of the same command."""

    def __init__(self, name: str, command: Callable[[], tuple[str, ...]], output: Path) -> None:
        """
        Args:
            command: asked at each start.
            output: what the process prints is appended there.
        """
        self.name = name
        self.output = output
        self._command = command
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int | None:
        """Of the running process; None while there is none."""
        return self._process.pid if self._process is not None and self._process.poll() is None else None

    def launch(self) -> None:
        """
        Start the process, unless it runs.

        Raises:
            BrokerFailed: the command cannot be run.
        """
        if self.pid is not None:
            return
        command = self._command()
        self.output.parent.mkdir(parents=True, exist_ok=True)
        try:
            with self.output.open("ab") as output:
                self._process = subprocess.Popen(  # noqa: S603 - a command of ours
                    command,
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=subprocess.STDOUT,
                    start_new_session=True,
                    preexec_fn=die_with(os.getpid()),  # noqa: PLW1509 - before any thread of ours
                )
        except OSError as error:
            raise BrokerFailed(f"{self.name} cannot be started: {command[0]}: {error.strerror}") from None

    def check(self) -> None:
        """
        Nothing while the process runs.

        Raises:
            BrokerFailed: it has ended; the message has its last lines.
        """
        if self._process is not None and (code := self._process.poll()) is not None:
            raise BrokerFailed(
                f"{self.name} ended with exit code {code}. Its last lines, in {self.output}:\n{self.tail()}"
            )

    def tail(self, lines: int = 12) -> str:
        """The last lines that it printed."""
        try:
            text = self.output.read_text(encoding="utf-8", errors="replace")
        except OSError:
            return ""
        return "\n".join(text.splitlines()[-lines:])

    async def stop(self, *, grace_s: float) -> None:
        """SIGTERM, and SIGKILL when it has not ended in time."""
        if self.pid is None or self._process is None:
            return
        self._process.terminate()
        until = time.monotonic() + grace_s
        while self._process.poll() is None and time.monotonic() < until:  # noqa: ASYNC110 - no event tells of its end
            await asyncio.sleep(_LOOK_EVERY_S)
        self.kill()

    def kill(self) -> None:
        """`kill -9`; returns when it is gone."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()


async def in_service(nodes: list[Node], probe: Probe, *, within_s: float) -> None:
    """
    Returns when the probe says so.

    Raises:
        BrokerFailed: a node ended, or the time is up.
    """
    until = time.monotonic() + within_s
    while True:
        try:
            reason = await asyncio.wait_for(probe(), _ANSWER_S)
        except TimeoutError:
            reason = "it does not answer"
        for node in nodes:
            node.check()  # also where the probe is content: somebody else may have had the port
        if reason is None:
            return
        if time.monotonic() > until:
            named = ", ".join(f"{node.name} (its output is in {node.output})" for node in nodes)
            raise BrokerFailed(f"{named} not ready within {within_s:.0f} s: {reason}")
        await asyncio.sleep(_ASK_EVERY_S)
