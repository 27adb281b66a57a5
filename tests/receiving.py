"""A receiver for what is delivered: one endpoint with a path for each integration, told apart and counted."""

import asyncio
import json
import time
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable, Container
from contextlib import asynccontextmanager
from typing import Any

from streams.records import IntegrationConfig
from tests.endpoints import Behaviour, Endpoint, Peer, Received, answer, endpoint
from tests.records import make_integration
from tests.waiting import eventually


class Arrival:
    """One request at a receiver, and what it says of its event."""

    __slots__ = ("at_s", "event_id", "key", "number", "request")

    def __init__(self, request: Received) -> None:
        self.at_s = time.time()
        self.request = request
        body = json.loads(request.body)
        self.event_id: str = body.get("id", "")
        #: As `make_event` put it there; -1 and None where it did not.
        self.number: int = body["payload"].get("n", -1)
        self.key: str | None = body["payload"].get("key")


#: What a receiver does with a request before it answers: wait, say. The status; None resets the connection.
Policy = Callable[[Arrival], Awaitable[int | None]]


def after(delay_s: float, status: int = 200) -> Policy:
    """An answer after a while."""

    async def policy(arrival: Arrival) -> int:
        await asyncio.sleep(delay_s)
        return status

    return policy


def held_until(event: asyncio.Event, *, only: Container[int] | None = None) -> Policy:
    """No answer before the event is set; to the events of those numbers, or to all."""

    async def policy(arrival: Arrival) -> int:
        if only is None or arrival.number in only:
            await event.wait()
        return 200

    return policy


class Receiver:
    """An endpoint with a path for each integration, which it tells apart and can treat differently."""

    def __init__(self) -> None:
        self.endpoint: Endpoint
        self.arrivals: dict[str, list[Arrival]] = defaultdict(list)
        #: Numbers of the events that have arrived, by integration.
        self.seen: dict[str, set[int]] = defaultdict(set)
        #: By integration; 200 at once where there is none.
        self.policies: dict[str, Policy] = {}
        #: By integration, instead of a policy: all of what it does with a request.
        self.behaviours: dict[str, Behaviour] = {}
        #: Requests whose policy runs, by integration, and by integration and key; and the most there ever were.
        self.open: Counter[Any] = Counter()
        self.most: Counter[Any] = Counter()

    def integration(self, name: str, **changes: Any) -> IntegrationConfig:
        """One that delivers here."""
        return make_integration(name, **{"url": f"{self.endpoint.url}/{name}"} | changes)

    def numbers(self, integration: str) -> list[int]:
        """Of the events that have arrived for it, in order."""
        return [arrival.number for arrival in self.arrivals[integration]]

    def first_numbers(self, integration: str) -> list[int]:
        """The same without repeats."""
        return list(dict.fromkeys(self.numbers(integration)))

    @property
    def count(self) -> int:
        return sum(map(len, self.arrivals.values()))

    async def wait_for(self, integration: str, count: int, within_s: float = 30.0) -> None:
        await eventually(lambda: len(self.arrivals[integration]) >= count, within_s)

    async def behave(self, received: Received, peer: Peer) -> None:
        integration = received.target.rpartition("/")[2]
        arrival = Arrival(received)
        self.arrivals[integration].append(arrival)
        self.seen[integration].add(arrival.number)
        if (behaviour := self.behaviours.get(integration)) is not None:
            await behaviour(received, peer)
            return
        status: int | None = 200
        if (policy := self.policies.get(integration)) is not None:
            counted = [integration, (integration, arrival.key)]
            self.open.update(counted)
            for each in counted:
                self.most[each] = max(self.most[each], self.open[each])
            try:
                status = await _unless_gone(policy(arrival), peer)
            finally:
                self.open.subtract(counted)
        if status is None:
            peer.reset()
        else:
            await answer(status)(received, peer)


async def _unless_gone(policy: Awaitable[int | None], peer: Peer) -> int | None:
    """The policy's answer; None where the other side has closed before."""
    answering, closing = asyncio.ensure_future(policy), asyncio.ensure_future(peer.reader.read(1))
    try:
        await asyncio.wait((answering, closing), return_when=asyncio.FIRST_COMPLETED)
        return answering.result() if answering.done() else None
    finally:
        answering.cancel()
        closing.cancel()
        await asyncio.gather(answering, closing, return_exceptions=True)


@asynccontextmanager
async def receiver() -> AsyncIterator[Receiver]:
    """A receiver that listens for the time of the block."""
    made = Receiver()
    async with endpoint(made.behave) as made.endpoint:
        yield made
