"""What was held goes out at the pace of a line that catches up, alone and beside a line that keeps up."""

import asyncio
from collections.abc import Iterator

import pytest

from services.dispatcher.lane import Pace
from services.dispatcher.pacing import ALONE_PER_S, SEVERAL_PER_S, SINGLE_PER_S
from streams import codec
from tests.simulated import DELIVERIES, Broker, Endpoint, Flying, SimulatedLoop, Worker, delivery_of, simulation

HELD = 6_000
#: How often the line that keeps up has something.
LIVE_EVERY_S = 0.1


@pytest.fixture
def simulated() -> Iterator[tuple[SimulatedLoop, Broker]]:
    with simulation() as both:
        yield both


class Draining:
    """A worker with a line that was paused and holds deliveries, and one that keeps up."""

    def __init__(self, loop: SimulatedLoop, broker: Broker, pace: Pace) -> None:
        self.loop = loop
        self.broker = broker
        self.endpoint = Endpoint({"int_held": pace, "int_live": Pace("integration", 1)}, at_once={})
        self.endpoint.on_start = self.saw
        self.endpoint.standings["int_held"] = "hold"
        self.worker = Worker(broker, self.endpoint)
        self.worker.take_over()
        #: When each started, by integration.
        self.started_s: dict[str, list[float]] = {"int_held": [], "int_live": []}

    def saw(self, request: Flying) -> None:
        self.started_s[request.delivery.integration].append(self.loop.time())

    def come(self, name: str, count: int) -> None:
        for _ in range(count):
            delivery = delivery_of(name, len(self.broker.partitions[DELIVERIES]))
            self.broker.append(DELIVERIES, name.encode(), codec.encode(delivery))
        while self.worker.ledger.position < len(self.broker.partitions[DELIVERIES]):
            self.worker.process(500)

    def activate(self) -> None:
        del self.endpoint.standings["int_held"]
        self.worker.lanes.wake("int_held")

    def a_second(self, *, is_alone: bool) -> int:
        """How many of those that were held start meanwhile."""
        before = len(self.started_s["int_held"])
        for _ in range(round(1 / LIVE_EVERY_S)):
            if not is_alone:
                self.come("int_live", 1)
            self.loop.run_until_complete(asyncio.sleep(LIVE_EVERY_S))
        return len(self.started_s["int_held"]) - before


@pytest.mark.parametrize(
    ("pace", "beside_per_s"),
    [(Pace("integration", 1), SINGLE_PER_S), (Pace("none", 100), SEVERAL_PER_S)],
    ids=lambda each: getattr(each, "ordering", None),
)
def test_what_was_held_is_drained_at_the_pace_of_who_catches_up(simulated, pace, beside_per_s):
    draining = Draining(*simulated, pace)
    draining.come("int_held", HELD)
    assert draining.a_second(is_alone=False) == 0
    draining.activate()

    beside = [draining.a_second(is_alone=False) for _ in range(2)]
    assert beside == pytest.approx([beside_per_s] * 2, rel=0.05)
    assert len(draining.started_s["int_live"]) == 30, "it waits for nobody"

    draining.a_second(is_alone=True)  # the other is forgotten meanwhile
    assert draining.a_second(is_alone=True) == pytest.approx(ALONE_PER_S, rel=0.05)
