"""What lines that hang have in hand leaves others the room of their partition, and what they write, their time."""

import asyncio
from collections import Counter
from collections.abc import Iterator
from typing import Any
from unittest import mock

import pytest

from services.dispatcher.catch_up import AT_ONCE, HANDED_OUT, TURN_AMIDST_S, CatchUp
from services.dispatcher.detaching import LOOKED_AT, ROWS_A_LOOK
from services.dispatcher.lane import Pace
from streams import codec
from streams.engine.app import Bounds
from tests.simulated import DELIVERIES, ROWS, Broker, Endpoint, SimulatedLoop, Worker, delivery_of, simulation

ROOM = 100
BYTES = 65_536


@pytest.fixture
def simulated() -> Iterator[tuple[SimulatedLoop, Broker]]:
    with simulation() as both:
        yield both


class Partition:
    """One partition whose worker has little room, and takes nothing more where that is full."""

    def __init__(self, broker: Broker, bounds: Bounds, **paces: Pace) -> None:
        self.broker = broker
        self.bounds = bounds
        self.endpoint = Endpoint(paces)
        self.worker = Worker(broker, self.endpoint, bounds=bounds)
        self.worker.take_over()
        self.count = 0

    def come(self, *names: str, size: int = 0) -> list[str]:
        """A delivery of each comes onto the log, in this order; their ids."""
        ids = []
        for name in names:
            self.count += 1
            changes: dict[str, Any] = {"payload": b'"%s"' % (b"x" * size), "ordering_key": "k"}
            delivery = delivery_of(name, self.count, **changes)
            self.broker.append(DELIVERIES, name.encode(), codec.encode(delivery))
            ids.append(delivery.delivery_id)
        return ids

    def work(self) -> None:
        """As the consumer does, without time going by."""
        while self.is_roomy and self.worker.ledger.position < len(self.broker.partitions[DELIVERIES]):
            self.worker.process(10)
            self.worker.spin()

    @property
    def is_roomy(self) -> bool:
        ledger, bounds = self.worker.ledger, self.bounds
        return (
            ledger.unfinished_records < bounds.unfinished_records and ledger.unfinished_bytes < bounds.unfinished_bytes
        )

    def heal(self, loop: SimulatedLoop) -> list[str]:
        """Every request is answered, for so long that all rows go; what was sent, in order."""
        sent = [each.delivery.delivery_id for each in self.endpoint.flying]
        self.endpoint.on_start = lambda each: sent.append(each.delivery.delivery_id)
        self.endpoint.at_once = {}
        for flying in list(self.endpoint.flying):
            flying.answer.set_result({})
        loop.now_s += 20
        for _ in range(40):
            self.worker.spin()
            loop.run_until_complete(asyncio.sleep(0.5))
        return sent


@pytest.mark.parametrize(
    ("bounds", "size"), [(Bounds(unfinished_records=ROOM), 0), (Bounds(unfinished_bytes=BYTES), 1_000)]
)
@pytest.mark.parametrize("pace", [Pace("integration", 1), Pace("key", 4), Pace("none", 100)], ids=lambda p: p.ordering)
def test_several_that_hang_do_not_take_the_room_of_one_that_does_not(simulated, bounds, size, pace):
    loop, broker = simulated
    partition = Partition(broker, bounds, int_a=pace, int_b=pace, int_c=Pace("integration", 1))

    hanging = partition.come(*["int_a", "int_b"] * 60, size=size)
    partition.work()
    assert partition.worker.ledger.position == 120
    assert partition.is_roomy
    healthy = partition.come("int_c")
    partition.work()
    assert healthy[0] in [each.delivery.delivery_id for each in partition.endpoint.flying]

    sent = partition.heal(loop)
    assert sorted(sent) == sorted(hanging + healthy)
    if pace.ordering != "none":
        for name in ("int_a", "int_b"):
            assert [each for each in sent if each.startswith(name)] == [
                each for each in hanging if each.startswith(name)
            ]
    assert partition.worker.ledger.unfinished_records == 0


def test_rows_are_written_at_once_where_what_waits_for_them_fills_the_room_with_the_rest(simulated):
    _, broker = simulated
    pace = Pace("integration", 1)
    few = [f"int_{number}" for number in range(3)]
    partition = Partition(broker, Bounds(unfinished_records=ROOM), int_a=pace, int_b=pace, **dict.fromkeys(few, pace))
    partition.endpoint.standings = dict.fromkeys(few, "hold")
    partition.come(*few)
    partition.work()
    partition.come(*["int_a", "int_b"] * 24)
    partition.work()
    assert partition.worker.lanes.detached_lines == len(few), "one that hangs is left alone below its part"

    partition.come(*few * 9)
    partition.work()
    assert partition.worker.ledger.unfinished_records < 0.75 * ROOM


def test_a_line_with_one_delivery_is_left_alone_however_little_room_there_is(simulated):
    _, broker = simulated
    partition = Partition(broker, Bounds(unfinished_records=1), int_a=Pace("none", 5), int_b=Pace("none", 5))
    partition.come("int_a")
    partition.work()
    assert partition.worker.lanes.detached_lines == 0
    partition.endpoint.flying[0].answer.set_result({})
    partition.worker.spin()
    partition.come("int_b", "int_b", "int_b")
    partition.work()
    assert partition.worker.lanes.detached_lines == 1
    assert partition.is_roomy


def test_rows_are_begun_a_few_at_a_time_and_none_waits_for_ever(simulated):
    loop, broker = simulated
    names = [f"int_{number}" for number in range(LOOKED_AT + 50)]
    partition = Partition(broker, Bounds(unfinished_records=10_000), **dict.fromkeys(names, Pace("integration", 1)))
    partition.endpoint.standings = dict.fromkeys(names, "hold")
    partition.come(*names)
    partition.work()
    assert len(broker.partitions[ROWS]) == 1 + len(names), "the partition's marker, and one as each was taken out"

    for _ in range(10):  # all want one all the time
        partition.come(*names)
        partition.work()
        loop.run_until_complete(asyncio.sleep(1.0))
    rows = broker.partitions[ROWS][1 + len(names) :]
    written = Counter(record.key for record in rows)
    assert max(Counter(record.timestamp for record in rows).values()) <= ROWS_A_LOOK
    assert len(written) == len(names)
    assert max(written.values()) <= min(written.values()) + 2


def test_a_line_that_has_caught_up_comes_back_though_deliveries_of_others_keep_coming(simulated):
    loop, broker = simulated
    pace = Pace("integration", 1)
    partition = Partition(broker, Bounds(unfinished_records=ROOM), int_a=pace, int_b=pace, int_c=pace)
    partition.come(*["int_a", "int_b"] * 60)
    partition.work()
    assert partition.worker.lanes.detached_lines == 2
    partition.endpoint.at_once = {}
    for flying in list(partition.endpoint.flying):
        flying.answer.set_result({})

    for _ in range(600):
        partition.come("int_c")
        partition.work()
        loop.run_until_complete(asyncio.sleep(0.05))
        if not partition.worker.lanes.detached_lines:
            break
    assert partition.worker.lanes.detached_lines == 0


@pytest.mark.parametrize("ordering", ["integration", "key", "none"])
def test_the_reader_is_woken_for_a_line_that_wants_more_and_only_for_that(simulated, ordering):
    """Without the looks in between, which wake it twice a second."""
    loop, broker = simulated
    pace = Pace(ordering, 2)
    partition = Partition(broker, Bounds(unfinished_records=ROOM), int_a=pace)
    lanes = partition.worker.lanes
    sent = partition.come(*["int_a"] * 1_000)
    partition.work()
    line = lanes._lines["int_a"]
    assert line.is_detached
    lanes._ticking.cancel()
    if ordering != "key":  # there all is parked behind its key, and more is read
        loop.run_until_complete(asyncio.sleep(AT_ONCE / HANDED_OUT * TURN_AMIDST_S))  # it is handed out in turns
        assert not lanes.wants(line)
        assert line.read_from < 1_000
        with mock.patch.object(lanes._catch_up, "_plan", side_effect=lanes._catch_up._plan) as plan:
            for _ in range(20):
                sent += partition.come("int_a")
                partition.work()
                loop.call_soon(lambda: lanes._saving.soon(line, busy=True))
                partition.worker.spin()
        assert len(broker.partitions[ROWS]) > 20
        assert not plan.called

    partition.endpoint.at_once, arrived = {}, [each.delivery.delivery_id for each in partition.endpoint.flying]
    partition.endpoint.on_start = lambda each: arrived.append(each.delivery.delivery_id)
    for flying in list(partition.endpoint.flying):
        flying.answer.set_result({})
    loop.run_until_complete(asyncio.sleep(10.0))
    assert sorted(arrived) == sorted(sent)
    assert ordering == "none" or arrived == sent


def test_a_slow_line_stays_out_until_it_works_on_what_is_new_and_reads_little_again(simulated):
    loop, broker = simulated
    pace = Pace("integration", 1)
    partition = Partition(broker, Bounds(), int_a=pace)
    partition.come(*["int_a"] * 50)
    partition.work()
    loop.run_until_complete(asyncio.sleep(0))
    singles, times = 0, 0
    fetch = CatchUp.fetch

    async def counted(self: CatchUp, *at: int) -> Any:
        nonlocal singles
        singles += 1
        return await fetch(self, *at)

    with mock.patch.object(CatchUp, "fetch", counted):
        for _ in range(60):  # an answer each 4 s, and as many new ones
            partition.come("int_a")
            for _ in range(8):
                partition.work()
                loop.run_until_complete(asyncio.sleep(0.5))
            for flying in list(partition.endpoint.flying):
                flying.answer.set_result({})
            times = max(times, *(line.detached_times for line in partition.worker.lanes._lines.values()))

    assert times == 1, "it swings between the log and what comes"
    assert singles == 0, "each delivery is read alone"
