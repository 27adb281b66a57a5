"""
Child processes of `tenterhook up`: started, watched, started again when they die, drained.

Each has a session of its own, so that the terminal's Ctrl-C reaches `up` alone, which then drains them in the right
order. Should `up` itself be killed, the kernel (Linux) kills them.
"""

import asyncio
import os
import signal
import time
from asyncio.subprocess import DEVNULL, PIPE, STDOUT, Process
from collections.abc import Callable, Mapping
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from services.cli.die_with_parent import die_with
from services.cli.readiness import Probe
from services.cli.restarts import History, Life, after

#: For people; one line.
Say = Callable[[str], None]

#: How often a child that starts is asked whether it is ready. Asking costs the child a fraction of a millisecond.
_ASK_EVERY_S: Final = 0.05

#: After how long the reason why a child is not ready yet is said, and said again.
_SAY_WHY_EVERY_S: Final = 10.0

#: A grandchild that outlives its parent may hold the pipe; its lines are not waited for.
_LAST_LINES_S: Final = 1.0

#: So many of a broker's lines are shown when it fails.
_LAST_LINES: Final = 12

#: A line that is longer is shown in pieces.
_MOST_LINE_BYTES: Final = 65_536

#: Exit codes after SIGTERM: a service's own, that of a process that does not catch it, and Java's.
_DRAINED: Final = frozenset({0, -signal.SIGTERM, 128 + signal.SIGTERM})


class ChildFailed(Exception):
    """A child cannot be started, or fails each time. The message says which, how, and what to look at."""


class ChildLost(ChildFailed):
    """A child that is not to be started again has ended, after it had been ready."""


@dataclass(frozen=True, slots=True)
class Command:
    """What to run, when it counts as ready, and how long it may drain."""

    name: str
    argv: tuple[str, ...]
    probe: Probe
    #: Seconds from SIGTERM to SIGKILL.
    grace_s: float
    environment: Mapping[str, str] | None = field(default=None, repr=False)
    #: Where its lines go; None: they are shown, with its name before them.
    output: Path | None = None
    #: Whether it is started again when it ends after it was ready; else that raises ChildLost.
    restarts: bool = True
    #: Whether it has anything to save before it ends; one that has not may be killed for being slow about it.
    saves: bool = True


class Child:
    """One command, as one process after another. `run` owns the process; the other methods only ask it."""

    def __init__(self, command: Command, say: Say, *, on_ready: Callable[[], None] = lambda: None) -> None:
        """
        Args:
            on_ready: called each time a process of it becomes ready.
        """
        self.command = command
        #: Set while its process is ready.
        self.ready = asyncio.Event()
        #: Of its process; None while there is none.
        self.pid: int | None = None
        self._say = say
        self._on_ready = on_ready
        self._stop = asyncio.Event()
        self._kill = asyncio.Event()
        self._ready_at: float | None = None

    def stop(self) -> None:
        """Ask it to drain; `run` returns when it has ended."""
        self._stop.set()

    def kill(self) -> None:
        """End it at once; `run` returns."""
        self._kill.set()
        self._stop.set()

    async def run(self) -> bool:
        """
        Keep a process running until `stop` or `kill` is called; whether it drained in time then.

        Raises:
            ChildFailed: it cannot be started, or fails each time.
        """
        name, history = self.command.name, History()
        while True:
            process, started_at = await self._start(), time.monotonic()
            life = await self._live(process, started_at)
            if self._stop.is_set():
                is_cut_off = life.exit_code == -signal.SIGKILL and not self._kill.is_set()
                return life.exit_code in _DRAINED or (is_cut_off and not self.command.saves)
            if not self.command.restarts and life.ready_s is not None:
                raise ChildLost(f"{name} ended ({life.ending})")
            history, wait_s = after(life, history)
            if wait_s is None:
                times = f"{history.failed_starts} times in a row before it was ready"
                raise ChildFailed(f"{name} ended {times} ({life.ending}){self._clue()}")
            again = f"in {wait_s:g} s" if wait_s else "at once"
            self._say(f"{name} ended ({life.ending}) after {life.lived_s:.1f} s; starting it again {again}")
            with suppress(TimeoutError):
                await asyncio.wait_for(self._stop.wait(), wait_s)
                return True

    async def _start(self) -> Process:
        command = self.command
        try:
            with ExitStack() as files:
                return await asyncio.create_subprocess_exec(
                    *command.argv,
                    env=command.environment,
                    stdin=DEVNULL,
                    stdout=PIPE if command.output is None else files.enter_context(command.output.open("ab")),
                    stderr=STDOUT,
                    start_new_session=True,
                    preexec_fn=die_with(os.getpid()),
                )
        except OSError as error:
            what = error.filename or command.argv[0]
            raise ChildFailed(f"{command.name} cannot be started: {what}: {error.strerror}") from None

    async def _live(self, process: Process, started_at: float) -> Life:
        """Watch this process to its end."""
        self.pid, self._ready_at = process.pid, None
        ended = asyncio.ensure_future(process.wait())
        stopping = asyncio.ensure_future(self._stop.wait())
        showing = asyncio.ensure_future(self._show(process))
        probing = asyncio.ensure_future(self._become_ready())
        try:
            await asyncio.wait((ended, stopping, probing), return_when=asyncio.FIRST_COMPLETED)
            if probing.done():
                probing.result()  # a probe must not fail; if one does, that is not to go unseen
                await asyncio.wait((ended, stopping), return_when=asyncio.FIRST_COMPLETED)
            probing.cancel()
            if not ended.done():
                await self._drain(process, ended)
            now = time.monotonic()
            await asyncio.wait((showing,), timeout=_LAST_LINES_S)
        finally:
            for task in (ended, stopping, showing, probing):
                task.cancel()
            self.ready.clear()
            self.pid = None
            _kill_session(process)
            await process.wait()  # killed by now, so not for long: else its number stays taken
        ready_s = None if self._ready_at is None else now - self._ready_at
        return Life(ended.result(), now - started_at, ready_s)

    async def _drain(self, process: Process, ended: "asyncio.Future[int]") -> None:
        """SIGTERM, and SIGKILL when it is asked for or the time is up."""
        if not self._kill.is_set():
            process.terminate()
            killing = asyncio.ensure_future(self._kill.wait())
            await asyncio.wait((ended, killing), timeout=self.command.grace_s, return_when=asyncio.FIRST_COMPLETED)
            killing.cancel()
            if not ended.done() and not self._kill.is_set() and self.command.saves:
                self._say(f"{self.command.name} has not drained within {self.command.grace_s:g} s: killed")
        _kill_session(process)
        await ended

    async def _become_ready(self) -> None:
        """Ask until it is ready, and say now and then why it is not."""
        said_at = time.monotonic()
        while (reason := await self.command.probe()) is not None:
            if time.monotonic() - said_at >= _SAY_WHY_EVERY_S:
                self._say(f"{self.command.name} is not ready yet: {reason}")
                said_at = time.monotonic()
            await asyncio.sleep(_ASK_EVERY_S)
        self._ready_at = time.monotonic()
        self.ready.set()
        self._on_ready()

    async def _show(self, process: Process) -> None:
        """Its lines, each with its name before it."""
        if process.stdout is None:
            return
        rest = b""
        while chunk := await process.stdout.read(_MOST_LINE_BYTES):
            *lines, rest = (rest + chunk).split(b"\n")
            if len(rest) >= _MOST_LINE_BYTES:
                lines, rest = [*lines, rest], b""
            for line in lines:
                self._show_line(line)
        if rest:
            self._show_line(rest)

    def _clue(self) -> str:
        """Where to look for the reason."""
        output = self.command.output
        if output is None:
            return ": its lines above say why"
        with suppress(OSError):
            lines = output.read_text(encoding="utf-8", errors="replace").splitlines()[-_LAST_LINES:]
            return ". The last lines of {}:\n{}".format(output, "\n".join(lines))
        return ""

    def _show_line(self, line: bytes) -> None:
        self._say(f"{self.command.name:10} | {line.decode(errors='replace').rstrip()}")


def _kill_session(process: Process) -> None:
    """It, and whatever it has started; nothing once it has ended, since its number may be another's by then."""
    if process.returncode is None:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
