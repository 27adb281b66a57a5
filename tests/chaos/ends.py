"""
Both ends of a run: who sends events and who receives requests, each noting what it sees.

The sending end is a client that cannot bear a loss: it gives each event an id, and repeats it until it gets a 202. The
receiving end is one endpoint with a path for each integration, which behaves as `destinations.py` says.
"""

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from typing import Final

import aiohttp

from tests.apps import SECRET_KEY
from tests.chaos.destinations import COMMON, RARE, Destination
from tests.chaos.fleet import now_ms
from tests.chaos.observed import Request, Sent
from tests.endpoints import Endpoint, Peer, Received, answer, endpoint

#: Ordering keys of the events, in turn.
KEYS: Final = 20
#: Of so many events, one is of the type that every integration selects.
RARE_OF: Final = 4

#: Sent and not answered at once, at most.
_MOST_WAITING: Final = 300
_AGAIN_S: Final = 0.2
_PATIENCE_S: Final = 10.0


def event_of(seed: int, number: int) -> tuple[str, str, str]:
    """Id, type and ordering key of an event of the load."""
    return f"e{seed}-{number}", RARE if number % RARE_OF == 0 else COMMON, f"k{number // RARE_OF % KEYS}"


class Sender:
    """Sends events at a steady pace, until told to stop."""

    def __init__(self, ingests: Callable[[], list[str]], seed: int, per_second: float) -> None:
        """
        Args:
            ingests: those that there are now; each event goes to the next one, and again to the next but one.
        """
        self.sent: list[Sent] = []
        self._ingests = ingests
        self._seed = seed
        self._per_second = per_second
        self._waiting = asyncio.Semaphore(_MOST_WAITING)
        self._is_over = asyncio.Event()

    def stop(self) -> None:
        """Send nothing new; `run` returns when all that was sent is acknowledged."""
        self._is_over.set()

    async def run(self) -> None:
        """Send events until `stop`."""
        headers = {"Authorization": f"Bearer {SECRET_KEY}"}
        timeout = aiohttp.ClientTimeout(total=_PATIENCE_S)
        loop = asyncio.get_running_loop()
        async with aiohttp.ClientSession(headers=headers, timeout=timeout) as http, asyncio.TaskGroup() as sending:
            began_s, number = loop.time(), 0
            while not self._is_over.is_set():
                await self._waiting.acquire()
                sending.create_task(self._send(http, number))
                number += 1
                delay_s = began_s + number / self._per_second - loop.time()
                with suppress(TimeoutError):
                    await asyncio.wait_for(self._is_over.wait(), max(delay_s, 0))

    async def _send(self, http: aiohttp.ClientSession, number: int) -> None:
        event_id, kind, key = event_of(self._seed, number)
        event = {"id": event_id, "type": kind, "orderingKey": key, "payload": {"n": number, "key": key}}
        times = 0
        try:
            while True:
                times += 1
                ingests = self._ingests()
                url = f"{ingests[(number + times) % len(ingests)]}/v1/apps/demo/events"
                if await self._is_accepted(http, url, event):
                    self.sent.append(Sent(event_id, number, kind, key, now_ms(), times))
                    return
                await asyncio.sleep(_AGAIN_S)
        finally:
            self._waiting.release()

    async def _is_accepted(self, http: aiohttp.ClientSession, url: str, event: dict[str, object]) -> bool:
        try:
            async with http.post(url, json=event) as response:
                said = await response.text()
        except (aiohttp.ClientError, TimeoutError):
            return False
        assert response.status in {202, 503}, f"{response.status}: {said}"
        return response.status == 202


class Receiver:
    """The endpoints of all destinations."""

    def __init__(self, destinations: Mapping[str, Destination], seed: int) -> None:
        #: As they ended; `requests` has them as they came, with those that are open.
        self._requests: list[Request] = []
        self._open: dict[int, Request] = {}
        self._numbers = 0
        #: Whether destinations that heal have done so.
        self.is_healed = False
        self.endpoint: Endpoint
        self._destinations = destinations
        self._seed = seed

    @property
    def requests(self) -> list[Request]:
        """All requests, in the order of their arrival."""
        return sorted([*self._requests, *self._open.values()], key=lambda each: each.arrived_ms)

    @property
    def count(self) -> int:
        """All requests that have come."""
        return len(self._requests) + len(self._open)

    @property
    def open(self) -> int:
        """Those that wait for their answer."""
        return len(self._open)

    async def behave(self, received: Received, peer: Peer) -> None:
        """What the integration's endpoint does, noted."""
        arrived_ms = now_ms()
        self.endpoint.received.clear()  # they hold whole bodies
        integration, _, attempt = (received.header("X-ApifyCloud-Delivery") or "").rpartition(":")
        body = json.loads(received.body)
        number, key = int(body["payload"]["n"]), body["payload"]["key"]
        request = Request(integration, body["id"], int(attempt), key, arrived_ms, None, None)
        self._numbers += 1
        own = self._numbers
        self._open[own] = request
        destination = self._destinations[integration]
        does = destination.answer(self._seed, number, key, int(attempt), is_healed=self.is_healed)
        status = None
        try:
            if await _is_gone(peer, does.after_s):
                peer.is_over = True
            elif does.status is None:
                peer.reset()
            else:
                status = does.status
                await answer(status)(received, peer)
        finally:
            del self._open[own]
            self._requests.append(request._replace(ended_ms=now_ms(), status=status))


async def _is_gone(peer: Peer, wait_s: float) -> bool:
    """Whether the other side closes within that time."""
    try:
        await asyncio.wait_for(peer.reader.read(1), wait_s)
    except TimeoutError:
        return False
    except ConnectionError:
        return True
    return True


@asynccontextmanager
async def receiving(destinations: Mapping[str, Destination], seed: int) -> AsyncIterator[Receiver]:
    """Endpoints for the time of the block."""
    made = Receiver(destinations, seed)
    async with endpoint(made.behave) as made.endpoint:
        yield made
