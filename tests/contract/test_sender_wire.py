"""What the fast sender promises beyond the contract."""

import asyncio
import socket
import threading
import time

import pytest

from services.dispatcher.client import _timeout
from services.dispatcher.sender import Request
from services.dispatcher.wire import WireSender
from tests import endpoints
from tests.endpoints import endpoint

ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


def request(port):
    return Request(url=f"http://127.0.0.1:{port}/", headers=(), body=b"{}", timeout_ms=3_000)


def serve_one_each(listening, may_close):
    """One request a connection, in a thread: closes each when told, whatever the test's loop is busy with."""
    for _ in range(2):
        accepted, _ = listening.accept()
        with accepted:
            accepted.recv(65_536)
            accepted.sendall(ANSWER)
            may_close.wait(5)


@pytest.fixture
async def wire(system_authorities):
    sender = WireSender(allow_private=True, ssl_context=system_authorities)
    yield sender
    await sender.close()


async def test_a_connection_that_was_closed_unnoticed_is_not_used(wire):
    """The end has come, and the loop, busy elsewhere, has not read it: used now, the request would be lost."""
    may_close = threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as listening:
        thread = threading.Thread(target=serve_one_each, args=(listening, may_close))
        thread.start()
        port = listening.getsockname()[1]
        await wire.send(request(port))
        may_close.set()
        time.sleep(0.1)  # noqa: ASYNC251  # the loop is busy elsewhere: the point of it
        answer = await wire.send(request(port))
        thread.join()
    assert (answer.status, answer.connect_us is not None) == (200, True)


async def test_a_connection_with_half_a_request_on_it_is_not_used_again(wire):
    """The rest of it would be read as the beginning of the next one."""

    async def early(received, peer):
        await peer.send(b"HTTP/1.1 413 No\r\nContent-Length: 0\r\n\r\n")
        peer.is_over = True
        await asyncio.sleep(0.2)

    async with endpoint(early, endpoints.answer()) as there:
        there.reads_body = False
        # More than the sockets between the two take.
        first = await wire.send(Request(url=there.url, headers=(), body=bytes(20_000_000), timeout_ms=3_000))
        there.reads_body = True
        second = await wire.send(request(there.port))
    assert (first.status, second.status, there.connections) == (413, 200, 2)


def test_aiohttp_does_not_round_timeouts():
    """It does above 5 s, unless told otherwise."""
    assert _timeout(9_900).ceil_threshold > 10
