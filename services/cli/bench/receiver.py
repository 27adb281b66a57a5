"""
The built-in receiver, a process of its own: answers 200 and notes when which event arrived.

As cheap as it can be, since it shares the machine with what is measured: no HTTP library, one recorded row a request.
One port an integration, because endpoints of different customers do not share connections either.
Standard input has its orders as one line of JSON, and its end ends the process; standard output gets the ports.
"""

import asyncio
import gc
import json
import sys
from collections.abc import Callable
from pathlib import Path
from time import time_ns
from typing import Any, Final

import uvloop

from services.cli.bench.recording import ARRIVAL_COLUMNS, Recording
from services.cli.bench.wire import body_length, stamp_of

_OK: Final = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Type: text/plain\r\n\r\nok"
#: A request that has no length, or no stamp of ours.
_NOT_OURS: Final = b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
#: More than the largest request that a dispatcher sends (64 KiB and its headers).
_MAX_BYTES: Final = 256 * 1024

Note = Callable[[int, int, int, int], None]


class Arrivals(asyncio.Protocol):
    """One connection of one integration."""

    def __init__(self, integration: int, note: Note) -> None:
        self._integration = integration
        self._note = note
        self._rest = b""
        self._transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport  # type: ignore[assignment]  # TCP's is one

    def data_received(self, data: bytes) -> None:
        arrived_ns = time_ns()
        if self._rest:
            data = self._rest + data
        while data:
            head_end = data.find(b"\r\n\r\n")
            if head_end < 0:
                break
            length = body_length(data, head_end)
            end = head_end + 4 + (length or 0)
            if length is not None and len(data) < end:
                break
            stamp = None if length is None else stamp_of(data, head_end)
            if stamp is None:
                self._refuse()
                return
            self._note(arrived_ns, self._integration, *stamp)
            self._transport.write(_OK)
            data = data[end:]
        self._rest = data
        if len(data) > _MAX_BYTES:
            self._refuse()

    def _refuse(self) -> None:
        self._rest = b""
        self._transport.write(_NOT_OURS)
        self._transport.close()


async def receive(integrations: int, note: Note, ready: Callable[[list[int]], None], ended: asyncio.Event) -> None:
    """Listen on a free port an integration, tell them to *ready*, until *ended*."""
    loop = asyncio.get_running_loop()

    def listener(integration: int) -> Any:
        return loop.create_server(lambda: Arrivals(integration, note), "127.0.0.1", 0, backlog=1024)

    servers = [await listener(integration) for integration in range(integrations)]
    ready([server.sockets[0].getsockname()[1] for server in servers])
    await ended.wait()
    for server in servers:
        server.close()


async def _process() -> None:
    loop = asyncio.get_running_loop()
    orders = json.loads(sys.stdin.readline())
    recording = Recording(Path(orders["recording"]), ARRIVAL_COLUMNS, orders["rows"])
    ended = asyncio.Event()
    # Nothing more is ever written there: it becomes readable when the parent closes it or dies.
    loop.add_reader(sys.stdin.fileno(), ended.set)
    gc.freeze()
    await receive(orders["integrations"], recording.append, lambda ports: print(json.dumps(ports), flush=True), ended)


if __name__ == "__main__":
    uvloop.run(_process())
