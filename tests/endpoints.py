"""
A real HTTP endpoint: records requests byte for byte, and answers as well or as badly as a test asks.

On asyncio's streams alone, so that nothing between a test and the wire tidies up what was sent. Behaviours are
coroutines that get the request and the connection; `Endpoint.behave` sets them, one a request, the last for all that
follow.
"""

import asyncio
import gzip
import socket
import ssl
import struct
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from functools import cache

import trustme


@dataclass
class Received:
    """One request, as it came."""

    method: str
    target: str
    #: In the order and case in which they came.
    headers: list[tuple[str, str]]
    raw_head: bytes
    body: bytes
    #: Number of the connection that it came on, from 1.
    connection: int
    #: Bytes of a flood that could be sent before the other side closed.
    flooded: int = 0

    def header(self, name: str) -> str | None:
        """The value of the first header of that name, in whatever case."""
        return next((value for key, value in self.headers if key.lower() == name.lower()), None)


@dataclass(eq=False)
class Peer:
    """The connection that a behaviour answers on."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    #: Set by a behaviour that leaves nothing to go on with.
    is_over: bool = False

    async def send(self, data: bytes) -> None:
        if self.writer.is_closing():  # uvloop's own error for it would be another one
            raise ConnectionResetError
        self.writer.write(data)
        await self.writer.drain()

    def reset(self) -> None:
        """Close with a reset instead of an orderly end."""
        self.is_over = True
        sock = self.writer.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.writer.transport.abort()


Behaviour = Callable[[Received, Peer], Awaitable[None]]


def _response(status: int, headers: list[tuple[str, str]], body: bytes) -> bytes:
    head = "".join(f"{name}: {value}\r\n" for name, value in [*headers, ("Content-Length", str(len(body)))])
    return f"HTTP/1.1 {status} Some Reason\r\n{head}\r\n".encode("latin-1") + body


def answer(
    status: int = 200, body: bytes = b"ok", headers: list[tuple[str, str]] | None = None, delay_s: float = 0.0
) -> Behaviour:
    """A well-formed answer, after a while if asked."""

    async def behaviour(received, peer):
        if delay_s:
            await asyncio.sleep(delay_s)
        await peer.send(_response(status, headers or [], body))

    return behaviour


def raw(data: bytes, close: bool = True) -> Behaviour:
    """These bytes, and the end of the connection unless told otherwise."""

    async def behaviour(received, peer):
        await peer.send(data)
        peer.is_over = close

    return behaviour


def hang(after: bytes = b"") -> Behaviour:
    """Nothing, or nothing more after some bytes; the connection stays open until the other side closes it."""

    async def behaviour(received, peer):
        peer.is_over = True
        await peer.send(after)
        with suppress(ConnectionError):
            await peer.reader.read()

    return behaviour


def reset(after: bytes = b"") -> Behaviour:
    """A reset, after some bytes if given."""

    async def behaviour(received, peer):
        if after:
            await peer.send(after)
            await asyncio.sleep(0.02)  # so that they are read before the reset throws them away
        peer.reset()

    return behaviour


def drip(data: bytes, every_s: float = 0.02) -> Behaviour:
    """A byte at a time, for as long as somebody reads."""

    async def behaviour(received, peer):
        peer.is_over = True
        with suppress(ConnectionError):
            for byte in data:
                await peer.send(bytes([byte]))
                await asyncio.sleep(every_s)

    return behaviour


def flood(total: int, declared: bool = True, head: bytes = b"", block: bytes = b"x" * 65_536) -> Behaviour:
    """A body of *total* bytes, as far as somebody reads it; its length declared, or told by the connection's end."""

    async def behaviour(received, peer):
        peer.is_over = True
        length = b"Content-Length: %d\r\n" % total if declared else b""
        sent = 0
        with suppress(ConnectionError):
            await peer.send(b"HTTP/1.1 200 OK\r\n" + length + head + b"\r\n")
            while sent < total:
                await peer.send(block)
                sent += len(block)
        received.flooded = sent

    return behaviour


def chunked(chunks: list[bytes], trailer: bytes = b"", extension: bytes = b"") -> Behaviour:
    """A body in these chunks."""

    async def behaviour(received, peer):
        await peer.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        for chunk in chunks:
            await peer.send(b"%x%b\r\n%b\r\n" % (len(chunk), extension, chunk))
        await peer.send(b"0\r\n%b\r\n" % trailer)

    return behaviour


def gzip_bomb(plain_bytes: int = 10_000_000) -> Behaviour:
    """A small body that inflates to a thousand times its size."""
    return answer(200, _zeros_packed(plain_bytes), [("Content-Encoding", "gzip")])


@cache
def _zeros_packed(count: int) -> bytes:
    return gzip.compress(bytes(count), 9)


def echo_headers(status: int = 200) -> Behaviour:
    """The request's head as the answer's body, and each of its headers as one of the answer's."""

    async def behaviour(received, peer):
        await peer.send(
            _response(status, [(f"Echo-{name}", value) for name, value in received.headers], received.raw_head)
        )

    return behaviour


def redirect(to: str, status: int = 302) -> Behaviour:
    """A redirect."""
    return answer(status, b"", [("Location", to)])


def close_mid_body(status: int = 200, body: bytes = b"half", declared: int = 100) -> Behaviour:
    """A body shorter than it said."""
    return raw(b"HTTP/1.1 %d OK\r\nContent-Length: %d\r\n\r\n%b" % (status, declared, body))


@dataclass
class Endpoint:
    """A listening endpoint and what it has received."""

    url: str
    port: int
    received: list[Received] = field(default_factory=list)
    #: Connections accepted so far; also those on which no request came.
    connections: int = 0
    behaviours: list[Behaviour] = field(default_factory=lambda: [answer()])
    #: Whether the body is read before the behaviour answers.
    reads_body: bool = True
    #: Connections that are open now.
    peers: dict[Peer, asyncio.Task] = field(default_factory=dict)
    _arrived: asyncio.Condition = field(default_factory=asyncio.Condition)
    #: What is accepted from now on is closed at once.
    is_over: bool = False

    def behave(self, *behaviours: Behaviour) -> None:
        """How it answers from now on: one a request, the last for all that follow."""
        self.behaviours = list(behaviours)

    async def wait_for(self, count: int, timeout_s: float = 5.0) -> list[Received]:
        """The requests, once there are so many."""
        async with asyncio.timeout(timeout_s), self._arrived:
            await self._arrived.wait_for(lambda: len(self.received) >= count)
        return self.received

    async def accepted(self, count: int, timeout_s: float = 5.0) -> None:
        """Once so many connections have been accepted, requests or not."""
        async with asyncio.timeout(timeout_s):
            while self.connections < count:  # noqa: ASYNC110  # what is waited for tells nobody
                await asyncio.sleep(0.005)

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        # A task of our own: asyncio reports one of its own as an error when it is cancelled.
        if self.is_over:
            writer.transport.abort()
            return
        self.connections += 1
        peer = Peer(reader, writer)
        self.peers[peer] = asyncio.create_task(self._serve(peer, self.connections))

    async def _serve(self, peer: Peer, number: int) -> None:
        try:
            while not peer.is_over:
                received = await self._read(peer.reader, number)
                self.received.append(received)
                async with self._arrived:
                    self._arrived.notify_all()
                behaviour = self.behaviours[0] if len(self.behaviours) == 1 else self.behaviours.pop(0)
                await behaviour(received, peer)
        except (ConnectionError, asyncio.IncompleteReadError, ssl.SSLError):
            pass
        finally:
            self.peers.pop(peer, None)
            peer.writer.close()

    async def _read(self, reader: asyncio.StreamReader, number: int) -> Received:
        head = await reader.readuntil(b"\r\n\r\n")
        first, *lines = head.decode("latin-1").removesuffix("\r\n\r\n").split("\r\n")
        method, target, _ = first.split(" ")
        headers = [tuple(line.split(": ", 1)) for line in lines]
        length = next((int(value) for name, value in headers if name.lower() == "content-length"), 0)
        body = await reader.readexactly(length) if self.reads_body else b""
        return Received(method, target, headers, head, body, number)


@asynccontextmanager
async def endpoint(
    *behaviours: Behaviour, host: str = "127.0.0.1", tls: ssl.SSLContext | None = None, port: int = 0
) -> AsyncIterator[Endpoint]:
    """
    An endpoint on a free port, for the time of the block.

    With *tls* it speaks https; `authority()` and `server_context()` make what it takes.
    """
    made = Endpoint("", 0)
    if behaviours:
        made.behave(*behaviours)
    server = await asyncio.start_server(made._accept, host, port, ssl=tls)
    made.port = server.sockets[0].getsockname()[1]
    shown = f"[{host}]" if ":" in host else host
    made.url = f"{'https' if tls else 'http'}://{shown}:{made.port}/hook"
    try:
        yield made
    finally:
        made.is_over = True  # of what was accepted by now some is told only later
        server.close()
        peers = dict(made.peers)
        for peer, task in peers.items():
            task.cancel()
            peer.writer.close()  # here too: a task that had not begun closes nothing
        await asyncio.gather(*peers.values(), return_exceptions=True)


def authority() -> trustme.CA:
    """A certificate authority of our own."""
    return trustme.CA()


def server_context(certificate: trustme.LeafCert) -> ssl.SSLContext:
    """What an endpoint needs to show this certificate."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    certificate.configure_cert(context)
    return context


def client_context(ca: trustme.CA) -> ssl.SSLContext:
    """What a sender needs to trust this authority, beside those of the system."""
    context = ssl.create_default_context()
    ca.configure_trust(context)
    return context
