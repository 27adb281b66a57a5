"""What a line counts as held, and what it reads again, where copies stand among its deliveries that nobody sends."""

import asyncio
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest

from services.dispatcher.lane import Pace
from services.dispatcher.line import Line
from streams import codec, topics
from streams.records import Delivery, Marker
from tests.simulated import (
    CONNECTION,
    DELIVERIES,
    Broker,
    Endpoint,
    SimulatedLoop,
    Worker,
    delivery_of,
    simulation,
    spin,
)

INT = "int_a"
#: Of an owner of events that was frozen, and has been replaced.
LATE = 0


class Held:
    """One integration that is paused and activated, its workers, and what is on the log of it."""

    def __init__(self, loop: SimulatedLoop, broker: Broker) -> None:
        self.loop, self.broker = loop, broker
        self.sent: Counter[str] = Counter()
        self.endpoint = Endpoint({INT: Pace("integration", 1)}, on_start=self.has_started)
        events = CONNECTION.topic(topics.EVENTS)
        marker = Marker(source_topic=events, source_partition=0, generation=LATE + 1, owner="", at_ms=0)
        broker.append(DELIVERIES, None, codec.encode(marker))
        self.take_over()

    def has_started(self, flying: Any) -> None:
        self.sent[f"{flying.delivery.event_id}/{flying.delivery.attempt}"] += 1

    def take_over(self) -> None:
        self.worker = Worker(self.broker, self.endpoint)
        self.worker.take_over()
        self.worker.spin()

    def changes_hands(self) -> None:
        """The last row is written, and what is in flight never ends."""
        self.worker.leave()
        self.worker.kill()
        self.take_over()
        self.passes(60)

    def comes(self, *numbers: int, **changes: Any) -> None:
        for number in numbers:
            self.broker.append(DELIVERIES, INT.encode(), codec.encode(delivery_of(INT, number, **changes)))
        self.worker.process(100)
        self.worker.spin()

    def stands(self, standing: Any) -> None:
        self.endpoint.standings[INT] = standing

        async def wake() -> None:
            self.worker.lanes.wake(INT)
            await spin()

        self.worker.run(wake)
        self.passes(3)

    def passes(self, for_s: float) -> None:
        self.loop.run_until_complete(asyncio.sleep(for_s))
        self.worker.spin()

    def answers(self, times: int = 1) -> None:
        for _ in range(times):
            for each in [each for each in self.endpoint.flying if not each.answer.done()]:
                each.answer.set_result({})
            self.passes(1)

    @property
    def line(self) -> Line:
        return self.worker.lanes._lines[INT]

    def is_exact(self, waits: int) -> bool:
        """Whether the row counts what stands on the log from its frontier on, lists what is open below, and no more."""
        row = self.worker.lanes._saving.row(self.line, busy=False)
        above = [each for each in self.broker.partitions[DELIVERIES] if each.key and each.offset >= row.frontier]
        deliveries = [codec.decode_as(Delivery, each.value) for each in above]
        below = {each.offset for each in row.open}
        copies = sum(each.source_generation == LATE for each in deliveries)
        return row.held == len(above) == waits - len(below) + copies


@pytest.fixture
def held(monkeypatch: pytest.MonkeyPatch) -> Iterator[Held]:
    """It reads 8 ahead, and is attached again when 2 are left."""
    monkeypatch.setattr("services.dispatcher.line.AHEAD_RECORDS", 8)
    monkeypatch.setattr("services.dispatcher.line.LOW_RECORDS", 2)
    with simulation() as both:
        yield Held(*both)


@pytest.mark.parametrize("is_paused_first", [True, False])
def test_what_is_held_is_exact_however_often_copies_were_read(held, is_paused_first):
    """Whether they came by before it was paused, or since: 2 and 4 stand twice, of a frozen owner."""
    if is_paused_first:
        held.stands("hold")
    held.comes(1, 2, 3)
    held.comes(2, 4, source_generation=LATE)
    held.comes(*range(4, 21))
    for _ in range(3):
        held.stands("hold")
        assert held.is_exact(waits=20)
        held.stands("send")
        assert held.line.until is None
        assert held.is_exact(waits=20)
        held.changes_hands()
    held.stands("hold")
    held.comes(6, source_generation=LATE)
    assert held.is_exact(waits=20)
    held.stands("send")
    held.answers(25)
    assert held.sent.keys() == {f"evt-{number}/1" for number in range(1, 21)}
    assert all(held.broker.results[f"int_a-{number}"] for number in range(1, 21))
    assert INT not in held.worker.lanes._lines


@pytest.mark.parametrize("changes_hands", [True, False])
def test_a_retry_that_stands_twice_is_sent_once_though_its_line_goes_back_to_before_it(
    held, monkeypatch, changes_hands
):
    """What was read beyond it is too late on the log to have the first copy in mind; and so is who comes then."""
    monkeypatch.setattr("services.dispatcher.lanes.LAST_RESULTS", 0)
    held.stands("hold")
    held.comes(1, attempt=2)
    held.passes(10)
    held.comes(2, 3)
    held.passes(6)
    held.comes(1, attempt=2)
    held.passes(40)
    held.comes(4, attempt=2)
    held.comes(*range(5, 21))
    held.stands("send")
    held.answers()
    assert held.sent == {"evt-1/2": 1, "evt-2/1": 1}
    held.worker.commit()
    held.passes(130)
    if changes_hands:
        held.changes_hands()
    else:
        held.stands("hold")
        held.passes(130)
        held.stands("send")
    held.answers(25)
    assert held.sent["evt-1/2"] == 1
    assert held.sent.keys() == {"evt-1/2", "evt-4/2", *(f"evt-{n}/1" for n in range(2, 21) if n != 4)}
    assert INT not in held.worker.lanes._lines
