"""A worker that freezes while its request is under way, and writes the result when others have the delivery."""

import pytest

from services.dispatcher.lane import Pace
from streams import codec
from tests.simulated import DELIVERIES, Endpoint, Worker, delivery_of, now_ms, simulation

HELD, OTHER = "int_a", "int_b"


@pytest.mark.parametrize("wait_s", [1, 600])
def test_its_late_result_does_not_end_what_its_successor_tries_again(wait_s):
    with simulation() as (loop, broker):
        endpoint = Endpoint({HELD: Pace("strict", 1), OTHER: Pace("none", 3)})
        numbers = iter(range(1, 100))

        def append(name: str) -> None:
            broker.append(DELIVERIES, name.encode(), codec.encode(delivery_of(name, next(numbers))))

        def work(worker: Worker) -> None:
            worker.process(10)
            worker.spin()

        def traffic(worker: Worker) -> None:
            for _ in range(3):
                append(OTHER)
                work(worker)
                endpoint.flying[-1].answer.set_result({})
                worker.spin()

        def pass_time(worker: Worker, seconds: int) -> None:
            for _ in range(seconds):
                loop.now_s += 1
                worker.spin()

        frozen = Worker(broker, endpoint)
        frozen.take_over()
        append(HELD)
        append(HELD)
        work(frozen)
        late = endpoint.flying[0]
        frozen.producer.flows = frozen.is_confirmed = False

        second = Worker(broker, endpoint)
        second.take_over()
        work(second)
        failed = {"outcome": None, "reason": "status_500", "next_attempt": 2}
        due_at_ms = now_ms() + (30 + wait_s) * 1_000
        endpoint.flying[-1].answer.set_result(failed | {"next_due_at_ms": due_at_ms})
        second.spin()
        traffic(second)
        pass_time(second, 30)
        late.answer.set_result({})
        frozen.spin()
        frozen.producer.flow()
        traffic(second)
        second.leave()

        third = Worker(broker, endpoint)
        third.take_over()
        work(third)
        pass_time(third, wait_s + 3)

        assert [(each.delivery.delivery_id, each.delivery.attempt) for each in endpoint.flying] == [(f"{HELD}-1", 2)]
