"""What the contract suites share: each sender, on each event loop."""

import asyncio
import ssl

import pytest
import uvloop

from services.dispatcher.client import AiohttpSender
from services.dispatcher.wire import WireSender

_LOOPS = {"uvloop": uvloop.new_event_loop, "asyncio": asyncio.new_event_loop}


def pytest_asyncio_loop_factories(config, item):
    """The senders run on uvloop in production and on asyncio's loop wherever uvloop is not."""
    name = item.path.name
    if name == "test_sender_guard.py":
        return {"uvloop": uvloop.new_event_loop}  # what is dialled does not depend on the loop
    return _LOOPS if name.startswith("test_sender") else {"asyncio": asyncio.new_event_loop}


@pytest.fixture(params=[AiohttpSender, WireSender], ids=["aiohttp", "wire"])
def sender_class(request):
    """Each implementation of `Sender`."""
    return request.param


@pytest.fixture(scope="session")
def system_authorities():
    """What senders trust unless told otherwise; reading it takes 30 ms, so it is read once."""
    return ssl.create_default_context()


@pytest.fixture
async def make_sender(sender_class, system_authorities):
    """Makes senders and closes them."""
    made = []

    def make(**options):
        made.append(sender_class(**{"allow_private": True, "ssl_context": system_authorities} | options))
        return made[-1]

    yield make
    for sender in made:
        await sender.close()


@pytest.fixture
async def sender(make_sender):
    """A sender that may reach this machine."""
    return make_sender()
