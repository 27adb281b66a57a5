"""
Names to addresses, many at once, on threads of our own.

A tenant can have names whose look-up takes as long as the resolver's patience (30 s is common). The event loop's own
threads for it are few (uvloop has four), and four such look-ups would then hold up every other tenant's.
"""

import asyncio
import errno
import socket
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Final

#: Look-ups at once. A thread that waits for an answer costs about 20 KiB.
MAX_AT_ONCE: Final = 128

#: A name to its addresses in text form, best first. Blocks.
LookUp = Callable[[str], list[str]]


class DnsFailed(OSError):
    """The name has no address, or nobody said so in time."""


def system_look_up(host: str) -> list[str]:
    """
    What this machine's resolver says, hosts file included.

    Raises:
        DnsFailed: it knows no address.
    """
    try:
        # As bytes, because Python's own codec for international names refuses what the resolver would answer.
        found = socket.getaddrinfo(host.encode("ascii"), None, type=socket.SOCK_STREAM)
    except socket.gaierror as error:
        raise DnsFailed(error.strerror or "unknown error") from None
    return [str(address[0]) for *_, address in found]


class Names:
    """Looks names up. One look-up a name at a time, shared by all who ask meanwhile; nothing is remembered after."""

    def __init__(self, look_up: LookUp = system_look_up, max_at_once: int = MAX_AT_ONCE) -> None:
        self._look_up = look_up
        self._free = asyncio.Semaphore(max_at_once)
        self._running: dict[str, asyncio.Task[list[str]]] = {}

    async def addresses(self, host: str) -> list[str]:
        """
        The addresses of this name, each once, best first.

        A caller that is cancelled leaves the look-up to the others.

        Raises:
            DnsFailed: it has none.
        """
        running = self._running.get(host)
        if running is None:
            running = self._running[host] = asyncio.create_task(self._run(host))
            running.add_done_callback(lambda task: self._forget(host, task))
        return await asyncio.shield(running)

    def close(self) -> None:
        """Give up every look-up; their threads end by themselves and keep nobody."""
        for task in list(self._running.values()):
            task.cancel()

    async def _run(self, host: str) -> list[str]:
        async with self._free:
            found = await _on_a_thread(self._look_up, host)
        if not found:
            raise DnsFailed("no address")
        return list(dict.fromkeys(found))

    def _forget(self, host: str, task: asyncio.Task[list[str]]) -> None:
        del self._running[host]
        if not task.cancelled():
            task.exception()  # seen, also where everybody who asked has gone


async def _on_a_thread(look_up: LookUp, host: str) -> list[str]:
    """
    On a daemon thread: one that hangs in the resolver must not keep the process from ending, as a pool's would.

    Starting it takes 50 µs, for a look-up that takes more, once a connection.
    """
    loop = asyncio.get_running_loop()
    done: asyncio.Future[list[str]] = loop.create_future()

    def finish(found: list[str] | None, error: Exception | None) -> None:
        if done.done():
            return
        if error is not None:
            done.set_exception(error)
        else:
            done.set_result(found or [])

    def run() -> None:
        found, error = None, None
        try:
            found = look_up(host)
        except Exception as caught:  # noqa: BLE001  # whatever it is belongs to whoever asked
            error = caught
        with suppress(RuntimeError):  # the loop has ended meanwhile
            loop.call_soon_threadsafe(finish, found, error)

    try:
        threading.Thread(target=run, name="look-up", daemon=True).start()
    except RuntimeError as error:
        raise OSError(errno.EAGAIN, "no thread left to look the name up on") from error
    return await done
