"""Lines that left their partition and are not read again: the dispatcher is not live, and says for whom."""

import asyncio

import pytest
from structlog.testing import capture_logs

from services.dispatcher.app import _Health
from services.dispatcher.lane import Pace
from streams import codec
from streams.engine.progress import LOOK_S, STUCK_S
from tests.simulated import CONNECTION, DELIVERIES, Endpoint, Worker, delivery_of, simulation

NAME = "int_a"
LATE_S = STUCK_S + LOOK_S


@pytest.fixture
def sim():
    with simulation() as (loop, broker):
        yield loop, broker


def behind(broker, names=(NAME,), each=3):
    """A worker whose lines were paused with deliveries in line, and are to be read again: nothing of them is yet."""
    endpoint = Endpoint({name: Pace("none", 5) for name in names}, at_once={})
    endpoint.standings.update(dict.fromkeys(names, "hold"))
    for number in range(len(names) * each):
        name = names[number // each]
        broker.append(DELIVERIES, name.encode(), codec.encode(delivery_of(name, number)))
    worker = Worker(broker, endpoint)
    worker.take_over()
    while worker.ledger.position < len(broker.partitions[DELIVERIES]):
        worker.process(500)
    pass_time(worker, 2)
    assert worker.lanes.detached_lines == len(names)
    return worker


def pass_time(worker, seconds, *, step_s=0.5):
    async def work():
        for _ in range(round(seconds / step_s)):
            await asyncio.sleep(step_s)

    worker.run(work)


def activate(worker, *names):
    async def wake():
        for name in names:
            worker.endpoint.standings[name] = "send"
            worker.lanes.wake(name)

    worker.run(wake)


def live(worker):
    health = _Health(CONNECTION)
    health.lanes = worker.lanes
    return health.live()


def test_a_line_that_is_not_read_again_makes_the_dispatcher_not_live_once_and_no_longer(sim):
    _, broker = sim
    worker = behind(broker)
    pass_time(worker, 3 * LATE_S)
    assert live(worker) is None, "it is paused"
    broker.is_silent = True
    with capture_logs() as said:
        activate(worker, NAME)
        pass_time(worker, STUCK_S - LOOK_S)
        assert live(worker) is None
        pass_time(worker, 3 * LOOK_S)
        told = live(worker)
        assert told is not None
        assert told.startswith(f"nothing is read again for {NAME} on sim.deliveries 0 for 12")
        pass_time(worker, 3 * LATE_S)
        assert live(worker) is not None
        broker.is_silent = False
        pass_time(worker, 2 * LOOK_S)
        assert live(worker) is None
        pass_time(worker, LATE_S)
    assert live(worker) is None
    assert {len(results) for results in broker.results.values()} == {1}
    told = [(line["event"], line.get("waits")) for line in said if line["event"].startswith("catch_up.")]
    assert told == [("catch_up.stuck", NAME), ("catch_up.moves", None)]


def test_a_reader_that_has_ended_is_found_and_so_is_a_single_record_that_does_not_come(sim):
    _, broker = sim
    worker = behind(broker)
    catch_up = worker.lanes._catch_up
    catch_up._task.cancel()
    worker.start(lambda: catch_up.fetch(0, 1))
    pass_time(worker, LATE_S)
    assert live(worker).startswith("nothing is read again for the delivery at 1 on sim.deliveries 0 for 12")
    worker.leave()
    assert live(worker) is None, "it is another's"


@pytest.mark.parametrize("why", ["unconfirmed", "frozen"])
def test_what_cannot_be_read_or_was_not_looked_at_leaves_it_live(sim, why):
    loop, broker = sim
    worker = behind(broker)
    broker.is_silent, worker.is_confirmed = True, why != "unconfirmed"
    activate(worker, NAME)
    for _ in range(round(4 * LATE_S / LOOK_S)):
        if why == "frozen":
            loop.now_s += STUCK_S  # between any two looks
        pass_time(worker, LOOK_S)
        assert live(worker) is None


def test_lines_that_wait_for_their_turn_longer_than_that_leave_it_live(sim):
    """A fetch takes so long that the last of them is read for after minutes; each that comes is progress."""
    _, broker = sim
    names = [f"int_{number}" for number in range(30)]
    worker = behind(broker, names, each=8)
    broker.fetch_s = 2 * LOOK_S
    activate(worker, *names)
    waited_s = 0
    while worker.lanes.detached_lines:
        pass_time(worker, LOOK_S)
        waited_s += LOOK_S
        assert live(worker) is None
    assert waited_s > 2 * STUCK_S
