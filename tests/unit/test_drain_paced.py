"""What was held goes out at the pace of a line that catches up, alone and beside a line that keeps up."""

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest

from services.dispatcher.detaching import SAVE_FEW_S
from services.dispatcher.lane import Pace
from services.dispatcher.pacing import ALONE_PER_S, AMIDST_S, SEVERAL_PER_S, SINGLE_PER_S
from streams import codec
from tests.simulated import (
    BASE_MS,
    DELIVERIES,
    ROWS,
    Broker,
    Endpoint,
    Flying,
    SimulatedLoop,
    Worker,
    delivery_of,
    simulation,
)

HELD = 6_000
#: How often the line that keeps up has something.
LIVE_EVERY_S = 0.1
#: Answers. What failed keeps its place, and comes back long after.
DELIVERED: dict[str, Any] = {}
FAILED = {"outcome": None, "next_attempt": 2, "next_due_at_ms": BASE_MS + 3_600_000, "next_slot": None}


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
            number = len(self.broker.partitions[DELIVERIES])
            delivery = delivery_of(name, number, ordering_key=f"key {number}")
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


@pytest.mark.parametrize(
    ("pace", "answer"),
    [(Pace("integration", 1), DELIVERED), (Pace("none", 1), DELIVERED), (Pace("key", 1), FAILED)],
    ids=["integration", "none", "key, failed"],
)
@pytest.mark.parametrize(("others_s", "least_s", "most_s"), [(0.0, 0, 0.013), (0.06, 0.06, 0.08), (9.0, 0.19, 0.22)])
def test_a_line_whose_endpoint_is_slow_lets_others_by_before_its_next_request(
    simulated, pace, answer, others_s, least_s, most_s
):
    """By when it was due it would start at once: that is seconds ago."""
    loop, _ = simulated
    draining = Draining(*simulated, pace)
    draining.endpoint.at_once = None
    ended_s: list[float] = []

    def started(request: Flying) -> None:
        draining.saw(request)
        if request.delivery.integration == "int_live":
            request.answer.set_result(DELIVERED)
            return
        loop.call_later(4.0, lambda: (ended_s.append(loop.time()), request.answer.set_result(answer)))

    draining.endpoint.on_start = started
    draining.come("int_held", 10)
    draining.activate()
    loop.run_until_complete(asyncio.sleep(3.95))
    while len(draining.started_s["int_held"]) < 2 and loop.time() < 105:
        if loop.time() < 104 + others_s:
            draining.come("int_live", 1)
        loop.run_until_complete(asyncio.sleep(0.005))
    assert least_s <= draining.started_s["int_held"][1] - ended_s[0] <= most_s


def test_one_that_was_activated_is_paused_no_more_and_its_row_is_written_as_seldom_as_another_s(simulated):
    loop, broker = simulated
    draining = Draining(*simulated, Pace("integration", 1))
    draining.endpoint.at_once = None
    draining.endpoint.on_start = lambda request: loop.call_later(4, request.answer.set_result, DELIVERED)
    draining.come("int_held", 50)
    loop.run_until_complete(asyncio.sleep(5))
    assert codec.decode(broker.partitions[ROWS][-1].value).reason == "paused"
    draining.activate()
    loop.run_until_complete(asyncio.sleep(5))
    before = len(broker.partitions[ROWS])
    loop.run_until_complete(asyncio.sleep(60))
    rows = [codec.decode(record.value) for record in broker.partitions[ROWS][before:]]
    assert {row.reason for row in rows} == {"behind"}
    assert len(rows) == pytest.approx(60 / SAVE_FEW_S, abs=1)


def test_rows_are_written_between_bursts_of_others_and_all_the_same_where_those_never_end(simulated):
    loop, broker = simulated
    draining = Draining(*simulated, Pace("integration", 1))

    def rows_s(until_s: float, pause_s: float) -> list[float]:
        """How long after a start of others each row was written; one in the same moment may follow the row."""
        before = len(broker.partitions[ROWS])
        while loop.time() < until_s:
            draining.come("int_held", 1)
            for _ in range(6):
                draining.come("int_live", 1)
                loop.run_until_complete(asyncio.sleep(0.005))
            loop.run_until_complete(asyncio.sleep(pause_s))
        written_s = [(row.timestamp - BASE_MS) / 1_000 for row in broker.partitions[ROWS][before:]]
        starts_s = draining.started_s["int_live"]
        return [at_s - max((each for each in starts_s if each < at_s - 0.001), default=0) for at_s in written_s]

    between = rows_s(110, 0.063)
    assert len(between) > 5
    assert min(between) >= AMIDST_S - 0.001
    amidst = rows_s(120, 0)
    assert len(amidst) > 5
    assert max(amidst) < AMIDST_S
