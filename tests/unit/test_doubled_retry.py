"""A retry that stands twice on `deliveries`, since its reader died before it committed, is sent once."""

import asyncio
from collections.abc import Iterator

import msgspec
import pytest

from services.dispatcher.lane import Pace
from streams import codec
from streams.records import Delivery, HandOver
from tests.simulated import DELIVERIES, RESULTS, Broker, Endpoint, SimulatedLoop, Worker, delivery_of, simulation

INT = "int_a"
SECOND = delivery_of(INT, 1, attempt=2)


@pytest.fixture
def simulated() -> Iterator[tuple[SimulatedLoop, Broker]]:
    with simulation() as both:
        yield both


@pytest.fixture
def broker(simulated: tuple[SimulatedLoop, Broker]) -> Broker:
    return simulated[1]


def worker_of(broker: Broker, endpoint: Endpoint, session_timeout_ms: int = 6_000) -> Worker:
    worker = Worker(broker, endpoint, session_timeout_ms=session_timeout_ms)
    worker.take_over()
    return worker


def forget_ids(broker: Broker) -> None:
    """As whoever hands over says what it has not read itself."""
    records = broker.partitions[RESULTS]
    for at, record in enumerate(records):
        if isinstance(seen := codec.decode(record.value), HandOver):
            records[at] = record._replace(value=codec.encode(msgspec.structs.replace(seen, delivery_id="")))


@pytest.mark.parametrize("knows_ids", [True, False])
def test_a_retry_whose_first_copy_was_handed_over_is_not_sent_again(broker, knows_ids):
    endpoint = Endpoint({INT: Pace("none", 3)})
    first = worker_of(broker, endpoint)
    for each in (SECOND, delivery_of(INT, 2), SECOND):
        broker.append(DELIVERIES, INT.encode(), codec.encode(each))
    first.process(10)
    first.spin()
    assert [each.delivery.delivery_id for each in endpoint.flying] == ["int_a-1", "int_a-2"]
    first.leave()
    if not knows_ids:
        forget_ids(broker)

    second = worker_of(broker, endpoint)
    second.process(10)
    second.spin()
    assert len(endpoint.flying) == 2, "both are under way"
    for each in list(endpoint.flying):
        each.answer.set_result({})
    second.spin()

    assert {name: len(results) for name, results in broker.results.items()} == {"int_a-1": 1, "int_a-2": 1}
    assert endpoint.flying == []


@pytest.mark.parametrize(("session_timeout_ms", "away_s"), [(6_000, 15.0), (45_000, 55.0)])
def test_a_retry_that_was_sent_before_its_sender_was_missed_is_not_sent_again(simulated, session_timeout_ms, away_s):
    loop, broker = simulated
    endpoint = Endpoint({INT: Pace("none", 3)}, at_once={})
    first = worker_of(broker, endpoint, session_timeout_ms)
    broker.append(DELIVERIES, INT.encode(), codec.encode(SECOND))
    first.process(10)
    first.spin()
    first.commit()
    first.kill()

    loop.now_s += away_s
    broker.append(DELIVERIES, INT.encode(), codec.encode(SECOND))
    second = worker_of(broker, endpoint, session_timeout_ms)
    second.process(10)
    second.spin()

    assert len(broker.results[SECOND.delivery_id]) == 1
    assert second.ledger.committable == 2


def test_a_worker_remembers_a_retry_for_longer_than_its_reader_is_missed(simulated):
    loop, broker = simulated
    endpoint = Endpoint({INT: Pace("none", 3)}, at_once={})
    worker = worker_of(broker, endpoint, session_timeout_ms=180_000)
    for away_s in (0.0, 190.0):
        loop.now_s += away_s
        worker.spin()
        broker.append(DELIVERIES, INT.encode(), codec.encode(SECOND))
        worker.process(10)
        worker.spin()

    assert len(broker.results[SECOND.delivery_id]) == 1


@pytest.mark.parametrize("changes_hands", [(), ("before",), ("after",), ("before", "after")], ids=str)
def test_a_retry_that_was_sent_at_once_is_not_sent_again_by_a_line_that_waits_on_the_log_since(
    simulated, monkeypatch, changes_hands
):
    """The second copy is read when no worker has the first in mind, and no takeover looks so far back."""
    monkeypatch.setattr("services.dispatcher.lanes.LAST_RESULTS", 0)
    loop, broker = simulated
    endpoint = Endpoint({INT: Pace("none", 3)}, at_once={})
    worker = worker_of(broker, endpoint)

    def comes(*deliveries: Delivery) -> None:
        for each in deliveries:
            broker.append(DELIVERIES, INT.encode(), codec.encode(each))
        worker.process(10)
        worker.spin()

    def passes(for_s: float) -> None:
        loop.run_until_complete(asyncio.sleep(for_s))
        worker.spin()

    def next_one() -> Worker:
        worker.leave()
        worker.kill()
        return worker_of(broker, endpoint)

    comes(SECOND)
    assert len(broker.results[SECOND.delivery_id]) == 1
    assert INT not in worker.lanes._lines
    if "before" in changes_hands:
        worker = next_one()
    endpoint.standings[INT] = "hold"
    comes(delivery_of(INT, 2), delivery_of(INT, 3))
    passes(8)
    comes(SECOND, delivery_of(INT, 4))
    passes(200)
    if "after" in changes_hands:
        worker = next_one()
        passes(200)
    endpoint.standings[INT] = "send"
    worker.lanes.wake(INT)
    passes(5)

    assert {name: len(results) for name, results in broker.results.items()} == {f"int_a-{n}": 1 for n in range(1, 5)}
