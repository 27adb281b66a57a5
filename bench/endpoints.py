"""
Receivers for measurements, in a process of their own: `python -m bench.endpoints FOLDER`.

The first part of a path says how it behaves, once it has the whole request:

- `/fast/…` answers 200, `/slow-MS/…` does so MS milliseconds later, `/fail/…` answers 500, `/hang/…` never answers;
- `/drip/…` answers 200, one byte of it a second, the head included;
- `/reset/…` resets the connection;
- `/flood/…` answers 200 with a body that does not end, as fast as it is read.

Every arrival is a line of FOLDER/arrivals: integration, number of the event, nanoseconds since 1970 when the request
had come, attempt.
"""

import asyncio
import json
import os
import random
import socket
import struct
import sys
import time
from pathlib import Path
from typing import Any, Final

import uvloop

OK: Final = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"
ERROR: Final = b"HTTP/1.1 500 Internal Server Error\r\nContent-Length: 0\r\n\r\n"

#: Seconds between two bytes of an answer that drips.
DRIP_S: Final = 1.0

#: A flood: nothing says how long its body is.
FLOOD: Final = b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\n\r\n"
FLOOD_BLOCK: Final = b"x" * 65_536

#: For `SO_LINGER`: what is closed is reset.
_AT_ONCE: Final = struct.pack("ii", 1, 0)


class Receiver(asyncio.Protocol):
    """Requests with a Content-Length, one after another on a connection."""

    def __init__(self, arrivals: Any, drip_s: float = DRIP_S) -> None:
        self._arrivals = arrivals
        self._drip_s = drip_s
        self._data = bytearray()
        self._transport: asyncio.Transport | None = None
        self._is_flooding = False
        #: Whether more has been written than is read.
        self._is_full = False

    def connection_made(self, transport: Any) -> None:
        self._transport = transport

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None

    def pause_writing(self) -> None:
        self._is_full = True

    def resume_writing(self) -> None:
        self._is_full = False
        if self._is_flooding:
            self._flood()

    def data_received(self, data: bytes) -> None:
        self._data += data
        while (end := self._data.find(b"\r\n\r\n")) >= 0:
            head = bytes(self._data[:end]).decode("latin-1")
            fields = dict(line.split(": ", 1) for line in head.split("\r\n")[1:])
            length = int({name.lower(): value for name, value in fields.items()}["content-length"])
            if len(self._data) < end + 4 + length:
                return
            body = bytes(self._data[end + 4 : end + 4 + length])
            del self._data[: end + 4 + length]
            self._arrived(head.split(" ", 2)[1], json.loads(body))

    def _arrived(self, path: str, body: dict[str, Any]) -> None:
        _, behaviour, integration = path.split("/")
        # Events of tenterhook's own (an integration was paused) have no number, and are answered all the same.
        number, attempt = body["payload"].get("n", -1), body["attempt"]
        self._arrivals.write(f"{integration} {number} {time.time_ns()} {attempt}\n")
        if behaviour.startswith("slow-"):
            # Endpoints are not slow in step with each other.
            after_s = int(behaviour[5:]) / 1_000 * random.uniform(0.75, 1.25)
            asyncio.get_running_loop().call_later(after_s, self._answer, OK)
        elif behaviour == "drip":
            self._drip(OK)
        elif behaviour == "reset":
            self._reset()
        elif behaviour == "flood":
            self._answer(FLOOD)
            self._is_flooding = True
            self._flood()
        elif behaviour != "hang":
            self._answer(ERROR if behaviour == "fail" else OK)

    def _answer(self, answer: bytes) -> None:
        if self._transport is not None and not self._transport.is_closing():
            self._transport.write(answer)

    def _drip(self, left: bytes) -> None:
        if left and self._transport is not None:
            self._answer(left[:1])
            asyncio.get_running_loop().call_later(self._drip_s, self._drip, left[1:])

    def _reset(self) -> None:
        if self._transport is not None:
            # The transport's own socket is not to be closed by others; what is set on another name of it holds for it.
            with socket.socket(fileno=os.dup(self._transport.get_extra_info("socket").fileno())) as same:
                same.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _AT_ONCE)
            self._transport.abort()

    def _flood(self) -> None:
        """A block in each turn of the loop, so that others have theirs, until what is written is not read."""
        if self._transport is not None and not self._is_full:
            self._answer(FLOOD_BLOCK)
            if not self._is_full:
                asyncio.get_running_loop().call_soon(self._flood)


async def serve(folder: Path) -> None:
    """Until this process is ended; the port stands in FOLDER/port."""
    with (folder / "arrivals").open("w", buffering=1) as arrivals:
        server = await asyncio.get_running_loop().create_server(
            lambda: Receiver(arrivals), "127.0.0.1", 0, backlog=4096
        )
        port = folder / "port.new"
        port.write_text(str(server.sockets[0].getsockname()[1]))
        port.rename(folder / "port")
        await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(serve(Path(sys.argv[1])))
