"""What happens to a worker between its decision to make an attempt and the first byte of it."""

import asyncio

import pytest

from services.dispatcher.lane import Pace
from services.dispatcher.sender import NoResources
from streams import codec
from streams.records import HandOver
from tests.simulated import DELIVERIES, RESULTS, Endpoint, Worker, delivery_of, simulation

NAME = "int_a"


@pytest.fixture
def sim():
    with simulation() as (loop, broker):
        yield loop, broker


def begun(broker, endpoint):
    """A worker that connects for the first of two deliveries."""
    for number in (1, 2):
        broker.append(DELIVERIES, NAME.encode(), codec.encode(delivery_of(NAME, number)))
    worker = Worker(broker, endpoint)
    worker.take_over()
    worker.process(10)
    worker.spin()
    return worker


def pass_time(loop, worker, seconds):
    for _ in range(round(seconds * 20)):
        loop.run_until_complete(asyncio.sleep(0.05))
        worker.spin()


def sent(endpoint):
    return [(each.delivery.delivery_id, each.worker.generation) for each in endpoint.flying]


def hand_overs(broker):
    return [each for each in broker.read(RESULTS) if isinstance(each, HandOver)]


def test_a_connection_that_stands_when_the_worker_is_unconfirmed_waits_for_the_group(sim):
    loop, broker = sim
    endpoint = Endpoint({NAME: Pace("integration", 1)})
    endpoint.is_reached.clear()
    worker = begun(broker, endpoint)
    assert (endpoint.connecting, worker.lanes.in_flight) == (1, 1)

    worker.is_confirmed = False
    endpoint.is_reached.set()
    pass_time(loop, worker, 9)
    assert (sent(endpoint), broker.results, worker.lanes.in_flight) == ([], {}, 1)

    worker.is_confirmed = True
    pass_time(loop, worker, 0.1)
    assert sent(endpoint) == [(f"{NAME}-1", 1)]
    endpoint.flying[0].answer.set_result({})
    pass_time(loop, worker, 0.1)
    assert sent(endpoint) == [(f"{NAME}-2", 1)]


def test_what_a_worker_still_connects_for_is_its_successor_s_at_once(sim):
    """Nobody has had a byte of it, so nothing is handed over, and nobody waits for its deadline."""
    loop, broker = sim
    endpoint = Endpoint({NAME: Pace("integration", 1)})
    endpoint.is_reached.clear()
    first = begun(broker, endpoint)
    first.leave()
    assert (endpoint.connecting, first.lanes.in_flight, hand_overs(broker)) == (0, 0, [])

    endpoint.is_reached.set()
    second = Worker(broker, endpoint)
    second.take_over()
    second.process(10)
    pass_time(loop, second, 0.1)
    assert sent(endpoint) == [(f"{NAME}-1", 2)]


def test_a_request_that_went_out_late_is_waited_for_as_long_as_it_may_take(sim):
    """Its whole time may have gone by in a freeze; the promise counts from the first byte."""
    loop, broker = sim
    endpoint = Endpoint({NAME: Pace("integration", 1)})
    endpoint.is_reached.clear()
    first = begun(broker, endpoint)
    pass_time(loop, first, 20)
    endpoint.is_reached.set()
    first.spin()
    first.leave()
    second = Worker(broker, endpoint)
    second.take_over()
    second.process(10)
    pass_time(loop, second, 9)
    assert sent(endpoint) == [(f"{NAME}-1", 1)]
    endpoint.flying[0].answer.set_result({})
    pass_time(loop, second, 1)
    assert sent(endpoint) == [(f"{NAME}-2", 2)]


@pytest.mark.parametrize("meanwhile", ["paused", "unconfirmed", "handed over"])
def test_a_lack_of_sockets_is_waited_out_without_a_claim_on_the_delivery(sim, meanwhile):
    loop, broker = sim
    endpoint = Endpoint({NAME: Pace("integration", 1)})
    endpoint.failures += [NoResources(24, "no file left")]
    endpoint.is_reached.clear()
    worker = begun(broker, endpoint)
    match meanwhile:
        case "paused":
            endpoint.standings[NAME] = "hold"
        case "unconfirmed":
            worker.is_confirmed = False
        case "handed over":
            worker.leave()
    endpoint.is_reached.set()
    pass_time(loop, worker, 20)
    assert (sent(endpoint), broker.results, hand_overs(broker)) == ([], {}, [])
    if meanwhile != "handed over":
        endpoint.standings[NAME] = "send"
        worker.is_confirmed = True

        async def wake():
            worker.lanes.wake(NAME)

        worker.run(wake)
        pass_time(loop, worker, 2)
        assert sent(endpoint) == [(f"{NAME}-1", 1)]
