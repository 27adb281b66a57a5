"""Requests that two servers could read in two ways, and clients that take their time: over raw sockets."""

import asyncio
import base64
from contextlib import asynccontextmanager, suppress

import pytest
from aiohttp import web
from structlog.testing import capture_logs

import services.admin.app
import services.ingest.app
from services.runtime import serving
from services.runtime.serving import application, body_of, serve
from services.runtime.settings import Settings

CHUNKED = b"POST /echo HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
ASIDE = b"GET /aside HTTP/1.1\r\nHost: x\r\n\r\n"


def post(headers: bytes, body: bytes = b"ab") -> bytes:
    return b"POST /echo HTTP/1.1\r\nHost: x\r\n%b\r\n%b" % (headers, body)


#: What a proxy in front may read otherwise than we do: then one of the two sees a request that the other does not.
#: Sources: RFC 9112, sections 2.2, 5, 6.3, 7.1 and 11.2.
AMBIGUOUS = {
    "a length and chunks": post(b"Content-Length: 4\r\nTransfer-Encoding: chunked\r\n", b"0\r\n\r\n" + ASIDE),
    "chunks and a length": post(b"Transfer-Encoding: chunked\r\nContent-Length: 4\r\n", b"0\r\n\r\n" + ASIDE),
    "two lengths": post(b"Content-Length: 2\r\nContent-Length: 36\r\n", b"ab" + ASIDE),
    "one length twice": post(b"Content-Length: 2\r\nContent-Length: 2\r\n"),
    "a list of lengths": post(b"Content-Length: 2, 2\r\n"),
    "a length with a sign": post(b"Content-Length: +2\r\n"),
    "a negative length": post(b"Content-Length: -2\r\n"),
    "a hexadecimal length": post(b"Content-Length: 0x2\r\n"),
    "a length that is a number for Python alone": post(b"Content-Length: 1_0\r\n", b"0123456789"),
    "a length beyond 64 bits": post(b"Content-Length: 18446744073709551618\r\n"),
    "a length of nothing": post(b"Content-Length: \r\n"),
    "a space before the colon": post(b"Content-Length : 2\r\n"),
    "another space before the colon": post(b"Transfer-Encoding : chunked\r\n", b"0\r\n\r\n"),
    "an unknown coding": post(b"Transfer-Encoding: xchunked\r\n", b"0\r\n\r\n"),
    "the identity coding": post(b"Transfer-Encoding: identity\r\n"),
    "chunks that are not the last coding": post(b"Transfer-Encoding: chunked, identity\r\n", b"0\r\n\r\n"),
    "chunks twice": post(b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n", b"0\r\n\r\n"),
    "chunks behind a vertical tab": post(b"Transfer-Encoding: \x0bchunked\r\n", b"0\r\n\r\n"),
    "a folded coding": post(b"Transfer-Encoding:\r\n chunked\r\n", b"0\r\n\r\n"),
    "a folded header": post(b"A: b\r\n c\r\nContent-Length: 2\r\n"),
    "a folded first header": b"POST /echo HTTP/1.1\r\n Host: x\r\nContent-Length: 2\r\n\r\nab",
    "NUL in a value": post(b"A: b\x00c\r\nContent-Length: 2\r\n"),
    "NUL in a name": post(b"A\x00: b\r\nContent-Length: 2\r\n"),
    "a carriage return alone": post(b"A: b\rContent-Length: 2\r\n"),
    "line feeds alone": b"POST /echo HTTP/1.1\nHost: x\nContent-Length: 2\n\nab",
    "a name beyond ASCII": post("Ä: b\r\nContent-Length: 2\r\n".encode()),
    "two hosts": post(b"Host: y\r\nContent-Length: 2\r\n"),
    "no host": b"POST /echo HTTP/1.1\r\nContent-Length: 2\r\n\r\nab",
    "a chunk with a sign": CHUNKED + b"+2\r\nab\r\n0\r\n\r\n",
    "a chunk with a prefix": CHUNKED + b"0x2\r\nab\r\n0\r\n\r\n",
    "a chunk that is a number for Python alone": CHUNKED + b"1_0\r\n0123456789abcdef\r\n0\r\n\r\n",
    "a chunk size with a space": CHUNKED + b"2 \r\nab\r\n0\r\n\r\n",
    "a chunk size that ends with a line feed": CHUNKED + b"2\nab\r\n0\r\n\r\n",
    "a chunk extension with a line feed": CHUNKED + b"2;a\nb\r\nab\r\n0\r\n\r\n",
    "a chunk longer than its size": CHUNKED + b"2\r\nabc\r\n0\r\n\r\n",
    "a chunk beyond 64 bits": CHUNKED + b"fffffffffffffffff\r\nab\r\n0\r\n\r\n",
    "a length in the trailer": CHUNKED + b"2\r\nab\r\n0\r\nContent-Length: 5\r\n\r\n",
    "HTTP/2 by prior knowledge": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "a version that there is not": b"POST /echo HTTP/1.2\r\nHost: x\r\nContent-Length: 2\r\n\r\nab",
    "a method in lower case": b"post /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\nab",
    "an escape sequence in the path": b"GET /\x1b[31m HTTP/1.1\r\nHost: x\r\n\r\n",
}


class Echo:
    """A server with a route that reads a body, one with a large answer, and one that nobody here asks for."""

    def __init__(self) -> None:
        self.asides = 0
        self.app = application(lambda: None, lambda: None, max_body_bytes=100)
        self.app.router.add_post("/echo", self._echo)
        self.app.router.add_get("/aside", self._aside)
        self.app.router.add_get("/large", self._large)

    async def _echo(self, request):
        return web.Response(body=await body_of(request))

    async def _aside(self, request):
        self.asides += 1
        return web.Response()

    async def _large(self, request):
        return web.Response(body=b"x" * 20_000_000)


@asynccontextmanager
async def echoing():
    echo = Echo()
    server = await serve(echo.app, "127.0.0.1", 0, drain_s=1)
    try:
        yield echo, server.port
    finally:
        await server.stop()


async def to_the_end(reader, *, may_be_reset: bool = False) -> bytes:
    """What the server says until it closes. It resets whoever writes after that, or before it has read all."""
    found = b""
    with suppress(ConnectionError if may_be_reset else ()):
        while block := await reader.read(10_000):
            found += block
    return found


async def said(port: int, *, sent: bytes = b"", within_s: float = 5.0) -> bytes:
    """All that the server says until it closes."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(sent)
    try:
        return await asyncio.wait_for(reader.read(), within_s)
    finally:
        writer.close()


@pytest.mark.parametrize("kind", AMBIGUOUS)
async def test_what_could_be_read_in_two_ways_is_refused_and_the_connection_closed(kind):
    async with echoing() as (echo, port):
        answer = await said(port, sent=AMBIGUOUS[kind] + ASIDE)

    assert answer.split(b"\r\n")[0].endswith(b" 400 Bad Request")
    assert answer.count(b"HTTP/1.") == 1
    assert b'"code":"not_http"' in answer or b'"code":"body_incomplete"' in answer
    assert echo.asides == 0


@pytest.mark.parametrize("service", ["ingest", "admin"])
async def test_both_services_refuse_them(service):
    """Without a broker: whatever a service knows or not, this comes first."""
    settings = Settings(
        broker="127.0.0.1:1", kek=base64.b64encode(bytes(32)).decode(), ingest={"port": 0}, admin={"port": 0}
    )
    async with getattr(services, service).app.running(settings) as running:
        for kind in ("a length and chunks", "a folded coding", "NUL in a value", "a space before the colon"):
            answer = await said(running.served.port, sent=AMBIGUOUS[kind])

            assert answer.split(b"\r\n")[0].endswith(b" 400 Bad Request"), kind


async def test_a_body_of_a_request_that_has_none_by_habit_is_no_second_request():
    async with echoing() as (echo, port):
        sent = b"GET /health/live HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: %d\r\n\r\n" % len(ASIDE)
        answer = await said(port, sent=sent + ASIDE)

    assert (answer.count(b"HTTP/1.1 200"), echo.asides) == (1, 0)


@pytest.mark.parametrize("kind", ["a head that drips", "a head that stops", "the head of a second request"])
async def test_a_head_that_takes_too_long_ends_its_connection_and_delays_nobody(kind, monkeypatch):
    monkeypatch.setattr(serving, "HEAD_DEADLINE_S", 0.3)
    async with echoing() as (_, port):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        if kind == "the head of a second request":
            writer.write(post(b"Content-Length: 2\r\n"))
            await reader.readuntil(b"ab")
        writer.write(b"POST /echo HTTP/1.1\r\n")
        drips = kind == "a head that drips"
        ending = asyncio.ensure_future(asyncio.wait_for(to_the_end(reader, may_be_reset=drips), 5))
        others = []
        while not ending.done():
            if drips:
                writer.write(b"A: b\r\n")
            others.append(await said(port, sent=post(b"Connection: close\r\nContent-Length: 2\r\n")))
            await asyncio.sleep(0.01)
        writer.close()

    assert await ending == b""
    assert {answer.split(b"\r\n")[0] for answer in others} == {b"HTTP/1.1 200 OK"}


async def test_a_head_in_pieces_within_the_time_is_taken_and_idleness_is_not_a_slow_head(monkeypatch):
    monkeypatch.setattr(serving, "HEAD_DEADLINE_S", 0.2)
    async with echoing() as (_, port):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        for _ in range(2):
            for piece in (b"POST /echo HTTP/1.1\r\nHo", b"st: x\r\nContent-Length: 2\r\n", b"\r\nab"):
                writer.write(piece)
                await asyncio.sleep(0.02)
            answer = await asyncio.wait_for(reader.readuntil(b"\r\n\r\nab"), 5)
            await asyncio.sleep(0.3)

            assert answer.startswith(b"HTTP/1.1 200 ")
        writer.close()


async def test_a_body_that_takes_too_long_is_refused(monkeypatch):
    monkeypatch.setattr(serving, "BODY_DEADLINE_S", 0.2)
    async with echoing() as (_, port):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(post(b"Content-Length: 3\r\n", b"a"))
        answer = await asyncio.wait_for(reader.readuntil(b'"body_too_slow"}'), 5)
        writer.close()

    assert answer.startswith(b"HTTP/1.1 408 ")


async def test_a_client_that_does_not_read_its_answer_is_let_go(monkeypatch):
    monkeypatch.setattr(serving, "STALLED_S", 0.3)
    async with echoing() as (_, port):
        reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=1_000)
        writer.write(b"GET /large HTTP/1.1\r\nHost: x\r\n\r\n")
        await asyncio.sleep(0.6)
        received = 0
        with suppress(ConnectionResetError):
            while block := await asyncio.wait_for(reader.read(1_000_000), 5):
                received += len(block)
        writer.close()

    assert received < 20_000_000


async def test_above_the_bound_connections_are_closed_at_once_until_there_is_room(monkeypatch):
    monkeypatch.setattr(serving, "room_for_connections", lambda: 3)
    with capture_logs() as logged:
        async with echoing() as (_, port):
            open_ones = [await asyncio.open_connection("127.0.0.1", port) for _ in range(3)]
            await asyncio.sleep(0.05)
            refused = [await said(port) for _ in range(5)]
            for _, writer in open_ones:
                writer.close()
            await asyncio.sleep(0.05)
            answer = await said(port, sent=post(b"Connection: close\r\nContent-Length: 2\r\n"))

    assert refused == [b""] * 5
    assert answer.startswith(b"HTTP/1.1 200 ")
    assert [line["event"] for line in logged] == ["connections.full", "connections.free"]


def test_room_is_left_for_files_of_our_own(monkeypatch):
    for files, room in ((1_024, 768), (100, 1), (1_000_000, 10_000), (-1, 10_000)):
        monkeypatch.setattr(serving.resource, "getrlimit", lambda _, files=files: (files, files))

        assert serving.room_for_connections() == room
