"""What the fast sender promises beyond the contract."""

import socket
import threading
import time

import pytest

from services.dispatcher.client import _timeout
from services.dispatcher.sender import Request
from services.dispatcher.wire import WireSender

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


def test_aiohttp_does_not_round_timeouts():
    """It does above 5 s, unless told otherwise."""
    assert _timeout(9_900).ceil_threshold > 10
