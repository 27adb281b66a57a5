import pytest

from services.cli.bench.findings import Arrival, Sent, Spread, findings, first_arrivals, overtaken, spread_ms
from services.cli.bench.wire import ORDERING_KEYS

MS = 1_000_000


def sent(number: int, *, at_ms: int | None = None, status: int = 202) -> Sent:
    at_ms = number if at_ms is None else at_ms
    return Sent(number, at_ms * MS, (at_ms + 1) * MS, status)


def arrival(number: int, *, integration: int = 0, at_ms: int | None = None) -> Arrival:
    return Arrival((number + 5 if at_ms is None else at_ms) * MS, integration, number, number * MS)


def test_rates_count_from_the_first_request_to_the_last_answer_and_the_last_arrival():
    found = findings(
        [sent(0, at_ms=0), sent(1, at_ms=499)],
        [arrival(0, at_ms=10), arrival(1, at_ms=1_000)],
        integrations=1,
        log_order=[0, 1],
        ordering="integration",
    )

    assert found.accepted_per_s == pytest.approx(2 / 0.5)
    assert found.deliveries_per_s == pytest.approx(2 / 1.0)
    assert found.took_s == pytest.approx(1.0)


def test_latency_is_taken_from_the_first_arrival_of_a_delivery():
    found = findings([sent(0)], [arrival(0, at_ms=7), arrival(0, at_ms=900)], 1, [0], "integration")

    assert found.latency_ms == Spread(7.0, 7.0, 7.0)
    assert (found.deliveries, found.repeated) == (1, 1)


def test_lost_is_what_was_accepted_and_did_not_arrive_at_every_integration():
    arrivals = [arrival(0), arrival(0, integration=1), arrival(1)]

    found = findings([sent(0), sent(1), sent(2, status=503)], arrivals, 2, None, "none")

    assert (found.accepted, found.deliveries, found.lost) == (2, 3, 1)
    assert found.refused == {503: 1}


def test_an_arrival_of_an_event_without_an_answer_is_neither_a_delivery_nor_a_repeat():
    found = findings([sent(0), sent(1, status=-1)], [arrival(0), arrival(1)], 1, None, "none")

    assert (found.deliveries, found.lost, found.repeated, found.refused) == (1, 0, 0, {-1: 1})


def test_order_is_that_of_the_log_and_not_that_of_the_requests():
    arrivals = [arrival(1), arrival(0), arrival(2)]

    assert findings([], arrivals, 1, [1, 0, 2], "integration").out_of_order == (0,)
    assert findings([], arrivals, 1, [0, 1, 2], "integration").out_of_order == (1,)


def test_order_is_counted_by_integration():
    arrivals = [arrival(1, integration=1), arrival(0), arrival(0, integration=1), arrival(1)]

    assert findings([], arrivals, 2, [0, 1], "strict").out_of_order == (0, 1)


def test_under_key_only_events_of_one_key_are_compared():
    other_key, same_key = 1, ORDERING_KEYS

    assert findings([], [arrival(other_key), arrival(0)], 1, [0, other_key], "key").out_of_order == (0,)
    assert findings([], [arrival(same_key), arrival(0)], 1, [0, same_key], "key").out_of_order == (1,)


def test_a_repeat_is_not_out_of_order_as_well():
    assert findings([], [arrival(0), arrival(1), arrival(0)], 1, [0, 1], "integration").out_of_order == (0,)


def test_without_the_log_nothing_is_said_about_order():
    assert findings([], [arrival(1), arrival(0)], 1, None, "integration").out_of_order is None


def test_nothing_sent_is_zeros_and_no_error():
    found = findings([], [], 3, [], "integration")

    assert (found.accepted_per_s, found.deliveries_per_s, found.lost, found.latency_ms) == (0, 0, 0, Spread(0, 0, 0))


@pytest.mark.parametrize(
    ("positions", "count"), [([], 0), ([0, 1, 2], 0), ([1, 0], 1), ([5, 0, 1, 2], 3), ([0, 2, 1, 3], 1)]
)
def test_overtaken_counts_what_comes_after_a_later_one(positions, count):
    assert overtaken(positions) == count


def test_first_arrivals_keep_their_order():
    kept = first_arrivals([arrival(2), arrival(1), arrival(2, at_ms=99), arrival(2, integration=1)])

    assert [(each.number, each.integration) for each in kept] == [(2, 0), (1, 0), (2, 1)]


def test_a_percentile_is_the_nearest_rank():
    assert spread_ms(each * MS for each in range(1, 101)) == Spread(50.0, 99.0, 100.0)
    assert spread_ms([3 * MS]) == Spread(3.0, 3.0, 3.0)
