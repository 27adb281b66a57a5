"""Deliveries that failed and keep their place, where what they wait for is not to come: their end does not wait."""

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest

from services.dispatcher.lane import Pace
from services.dispatcher.standing import RETENTION_MARGIN_MS
from streams import codec, topics
from tests.simulated import DELIVERIES, Broker, Endpoint, SimulatedLoop, Worker, delivery_of, now_ms, simulation, spin

INT = "int_a"
HOUR_MS = 3_600_000
#: Of what falls out of the log in a minute, less the margin for that.
OLD_MS = (topics.DELIVERIES.retention_ms or 0) - RETENTION_MARGIN_MS - 60_000


class Lined:
    """One integration, and its worker."""

    def __init__(self, loop: SimulatedLoop, broker: Broker) -> None:
        self.loop, self.broker = loop, broker
        self.endpoint = Endpoint({INT: Pace("strict", 1)})
        self.take_over()

    def take_over(self) -> None:
        self.worker = Worker(self.broker, self.endpoint)
        self.worker.take_over()
        self.passes(1)

    def comes(self, *numbers: int, key: str = "", age_ms: int = 0) -> None:
        for number in numbers:
            delivery = delivery_of(INT, number, ordering_key=key)
            self.broker.append(DELIVERIES, INT.encode(), codec.encode(delivery))
            records = self.broker.partitions[DELIVERIES]
            records[-1] = records[-1]._replace(timestamp=now_ms() - age_ms)
        self.worker.process(100)
        self.worker.spin()

    def passes(self, for_s: float) -> None:
        self.loop.run_until_complete(asyncio.sleep(for_s))
        self.worker.spin()

    def fails(self, in_ms: int, number: int = 1) -> int:
        """The request under way for this one; gives when its next attempt is due."""
        due_at_ms = now_ms() + in_ms
        [flying] = [each for each in self.endpoint.flying if each.delivery.delivery_id == f"{INT}-{number}"]
        failed = {"outcome": None, "next_attempt": 2, "next_due_at_ms": due_at_ms, "next_slot": None}
        flying.answer.set_result(failed)
        self.passes(3)
        return due_at_ms

    def stands(self, *standings: Any) -> None:
        """One after the other, at once."""

        async def wake() -> None:
            for each in standings:
                self.endpoint.standings[INT] = each
                self.worker.lanes.wake(INT)
            await spin()

        self.worker.run(wake)
        self.passes(2)

    @property
    def started(self) -> list[int]:
        return [int(each.delivery.delivery_id.removeprefix(f"{INT}-")) for each in self.endpoint.flying]

    def ends(self) -> dict[int, list[str | None]]:
        """Reasons of the outcomes of each."""
        numbers = (int(each.removeprefix(f"{INT}-")) for each in self.broker.results)
        return {
            number: [each.reason for each in self.broker.results[f"{INT}-{number}"] if each.outcome]
            for number in sorted(numbers)
        }

    @property
    def due_at_ms(self) -> dict[int, int | None]:
        """Of what keeps its place, by offset."""
        return {each.offset: each.due_at_ms for each in self.worker.lanes._lines[INT].lane._kept.values()}


@pytest.fixture
def lined() -> Iterator[Lined]:
    with simulation() as both:
        yield Lined(*both)


def test_what_is_discarded_does_not_wait_until_its_head_is_due(lined):
    lined.comes(1, 2, 3)
    lined.fails(24 * HOUR_MS)
    assert lined.started == []

    lined.stands("discard")

    assert lined.ends() == {number: ["integration_paused"] for number in (1, 2, 3)}


def test_what_is_discarded_does_not_wait_for_its_key(lined):
    lined.endpoint.pace_of[INT] = Pace("key", 5)
    lined.comes(1, 2, key="a")
    lined.comes(3, key="b")
    lined.fails(24 * HOUR_MS)
    assert lined.started == [3]

    lined.stands("discard")

    assert {number: reasons for number, reasons in lined.ends().items() if reasons} == {
        1: ["integration_paused"],
        2: ["integration_paused"],
    }


def test_what_was_to_be_discarded_and_is_sent_after_all_waits_until_it_is_due(lined):
    lined.comes(1, 2)
    due_at_ms = lined.fails(60_000)

    lined.stands("discard", "send")

    assert lined.due_at_ms == {0: due_at_ms}
    assert lined.started == []
    lined.passes(60)
    assert lined.started == [1]
    assert now_ms() >= due_at_ms


def test_a_head_that_is_not_due_before_it_falls_out_of_the_log_is_recorded_before(lined):
    """Of an integration that is neither paused nor anything else."""
    lined.comes(1, age_ms=OLD_MS)
    lined.comes(2)
    lined.fails(24 * HOUR_MS)
    assert lined.started == []

    lined.passes(180)

    assert lined.ends()[1] == ["retention"]
    assert lined.started == [2]


def test_one_of_a_key_that_would_fall_out_of_the_log_does_not_wait_for_requests_of_others(lined):
    lined.endpoint.pace_of[INT] = Pace("key", 5)
    lined.comes(1, key="a", age_ms=OLD_MS)
    lined.comes(2, key="b")
    lined.fails(24 * HOUR_MS)
    assert lined.started == [2]

    lined.passes(180)

    assert lined.ends()[1] == ["retention"]
    assert lined.started == [2]


def test_one_that_waits_from_another_ordering_holds_its_key_alone(lined):
    lined.endpoint.pace_of[INT] = Pace("key", 5)
    lined.comes(1, 2, key="a")
    lined.fails(HOUR_MS)
    lined.endpoint.pace_of[INT] = Pace("integration", 1)

    lined.comes(3, key="b")

    assert lined.started == [3]


def test_a_younger_one_keeps_its_time_where_an_older_one_falls_out_of_the_log_after_a_takeover(lined):
    """A row knows the age of the oldest alone."""
    lined.endpoint.pace_of[INT] = Pace("key", 5)
    lined.comes(1, key="a", age_ms=OLD_MS)
    lined.comes(2, key="b")
    lined.fails(24 * HOUR_MS)
    due_at_ms = lined.fails(24 * HOUR_MS, 2)
    lined.stands("hold")
    lined.worker.leave()
    lined.worker.kill()
    lined.take_over()

    lined.passes(180)

    assert lined.ends() == {1: ["retention"], 2: []}
    assert lined.due_at_ms == {1: due_at_ms}
