"""
The load, a process of its own: posts events over a number of connections, one request under way on each.

As cheap as it can be, since it shares the machine with what is measured: requests are joined from prepared bytes, and
answers are read as far as our own ingest needs it (a status, a length). Every event is sent once: what is refused or
not answered is counted and never sent again, because a second copy could not be told from a repeat.
Standard input has its orders, a line of JSON each: first where to and what, then ranges of numbers to send; standard
output gets a line when a range is done.
"""

import asyncio
import gc
import json
import sys
from collections import deque
from pathlib import Path
from time import time_ns
from typing import Any, Final

import uvloop

from services.cli.bench.recording import ANSWERED_NS, LOAD_COLUMNS, SENT_NS, STATUS, UNANSWERED, Recording
from services.cli.bench.wire import RequestParts, body_length, events_path, request_parts

_CONNECT_TIMEOUT_S: Final = 10.0


class Load:
    """What is still to be sent, and by whom."""

    def __init__(self, parts: RequestParts, recording: Recording, host: str, port: int) -> None:
        self.parts = parts
        self.sent_ns = recording.columns[SENT_NS]
        self.answered_ns = recording.columns[ANSWERED_NS]
        self.status = recording.columns[STATUS]
        self._recording = recording
        self._address = host, port
        self._next = self._last = 0
        self._open = 0
        #: Whether a connection takes the next event as soon as it has its answer.
        self._eager = True
        self._idle: deque[Poster] = deque()
        self._someone_idle = asyncio.Event()
        self._all_answered = asyncio.Event()
        self._opening: set[asyncio.Task[None]] = set()

    async def connect(self, connections: int) -> None:
        """Open that many connections, or raise OSError."""
        async with asyncio.timeout(_CONNECT_TIMEOUT_S):
            await asyncio.gather(*(self._connect() for _ in range(connections)))

    async def _connect(self) -> None:
        await asyncio.get_running_loop().create_connection(lambda: Poster(self), *self._address)

    async def send(self, first: int, last: int, rate_per_s: float | None) -> None:
        """Send events *first* to *last* - 1 and wait for all answers; as fast as they come without a rate."""
        self._next, self._last, self._open = first, last, last - first
        self._all_answered.clear()
        self._eager = rate_per_s is None
        if rate_per_s is None:
            while self._idle and self._next < last:
                self._idle.pop().post(self.take())
        else:
            await self._pace(rate_per_s)
        await self._all_answered.wait()

    async def _pace(self, rate_per_s: float) -> None:
        """Start request i at i / rate; later only when every connection waits for an answer."""
        loop = asyncio.get_running_loop()
        started, first = loop.time(), self._next
        while self._next < self._last:
            early_s = started + (self._next - first) / rate_per_s - loop.time()
            if early_s > 0:
                await asyncio.sleep(early_s)
            while not self._idle:
                self._someone_idle.clear()
                await self._someone_idle.wait()
            self._idle.pop().post(self.take())

    def take(self) -> int:
        """The next event to send. There must be one."""
        number = self._next
        self._next = number + 1
        return number

    def free(self, poster: "Poster") -> None:
        """Take note that *poster* has nothing under way; it may get the next event."""
        if self._eager and self._next < self._last:
            poster.post(self.take())
        else:
            self._idle.append(poster)
            self._someone_idle.set()

    def settled(self, number: int, status: int) -> None:
        """Event *number* has its answer, or will never have one."""
        self.answered_ns[number] = time_ns()
        self.status[number] = status
        self._recording.head[0] += 1
        self._open -= 1
        if self._open == 0:
            self._all_answered.set()

    def lost(self, poster: "Poster") -> None:
        """Open another connection in the place of one that is gone."""
        if poster in self._idle:
            self._idle.remove(poster)
        task = asyncio.ensure_future(self._reconnect())
        self._opening.add(task)
        task.add_done_callback(self._opening.discard)

    async def _reconnect(self) -> None:
        while True:
            try:
                return await self._connect()
            except OSError:
                await asyncio.sleep(0.2)


class Poster(asyncio.Protocol):
    """One connection to ingest."""

    def __init__(self, load: Load) -> None:
        self._load = load
        self._number: int | None = None
        self._rest = b""
        self._transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport  # type: ignore[assignment]  # TCP's is one
        self._load.free(self)

    def post(self, number: int) -> None:
        """Send event *number*. Its latency starts here."""
        self._number = number
        sent_ns = time_ns()
        self._load.sent_ns[number] = sent_ns
        self._transport.write(self._load.parts.request(number, sent_ns))

    def data_received(self, data: bytes) -> None:
        if self._rest:
            data = self._rest + data
        head_end = data.find(b"\r\n\r\n")
        length = body_length(data, head_end) if head_end >= 0 else 0
        if head_end < 0 or (length is not None and len(data) < head_end + 4 + length):
            self._rest = data
            return
        self._rest = b""
        number, self._number = self._number, None
        if number is None or length is None:
            # Not asked for, or not as our ingest answers.
            self._number = number
            self._transport.abort()
            return
        self._load.settled(number, int(data[9:12]))
        self._load.free(self)

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 (asyncio's name)
        number, self._number = self._number, None
        if number is not None:
            self._load.settled(number, UNANSWERED)
        self._load.lost(self)


async def _orders() -> asyncio.StreamReader:
    reader = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    return reader


def _load(to: dict[str, Any]) -> Load:
    parts = request_parts(
        host=f"{to['host']}:{to['port']}",
        path=events_path(to["app"]),
        key=to["key"],
        profile=to["profile"],
        payload_bytes=to["payload_bytes"],
        keyed=to["keyed"],
    )
    return Load(parts, Recording(Path(to["recording"]), LOAD_COLUMNS, to["rows"]), to["host"], to["port"])


async def _process() -> None:
    orders = await _orders()
    to = json.loads(await orders.readline())
    load = _load(to)
    try:
        await load.connect(to["connections"])
    except OSError as error:
        print(json.dumps({"error": f"cannot connect to {to['host']}:{to['port']}: {error}"}), flush=True)
        return
    print(json.dumps({"connected": to["connections"]}), flush=True)
    gc.freeze()
    while line := await orders.readline():
        order = json.loads(line)
        await load.send(order["first"], order["last"], order["rate_per_s"])
        print(json.dumps({"sent": order["last"] - order["first"]}), flush=True)


if __name__ == "__main__":
    uvloop.run(_process())
