"""The token bucket of an app's public keys."""

import pytest

from services.ingest.rate import Bucket, Rates, take, wait_s


def test_two_seconds_worth_may_come_at_once_and_not_one_more():
    bucket, first = take(None, wanted=200, rate_per_s=100, now_s=50.0)
    bucket, second = take(bucket, wanted=1, rate_per_s=100, now_s=50.0)

    assert (first, second) == (200, 0)
    assert wait_s(bucket, wanted=1, rate_per_s=100) == 1


def test_afterwards_as_many_a_second_as_the_rate_says():
    bucket, _ = take(None, wanted=200, rate_per_s=100, now_s=0.0)
    bucket, half_a_second_later = take(bucket, wanted=500, rate_per_s=100, now_s=0.5)
    bucket, an_hour_later = take(bucket, wanted=500, rate_per_s=100, now_s=3_600.0)

    assert (half_a_second_later, an_hour_later) == (50, 200)


def test_part_of_what_is_wanted_is_taken():
    bucket, taken = take(None, wanted=250, rate_per_s=100, now_s=0.0)

    assert taken == 200
    assert wait_s(bucket, wanted=50, rate_per_s=100) == 1
    assert wait_s(bucket, wanted=150, rate_per_s=100) == 2
    # More than it ever holds: until it is full.
    assert wait_s(bucket, wanted=5_000, rate_per_s=100) == 2


def test_after_the_wait_that_was_told_there_is_one():
    bucket, _ = take(None, wanted=6, rate_per_s=3, now_s=0.0)
    wait = wait_s(bucket, wanted=6, rate_per_s=3)

    assert take(bucket, wanted=6, rate_per_s=3, now_s=float(wait))[1] == 6


@pytest.mark.parametrize("rate_per_s", [0, -1])
def test_a_rate_of_nothing_lets_nothing_in(rate_per_s):
    bucket, taken = take(None, wanted=1, rate_per_s=rate_per_s, now_s=0.0)
    _, later = take(bucket, wanted=1, rate_per_s=rate_per_s, now_s=1e6)

    assert (taken, later) == (0, 0)
    assert wait_s(bucket, wanted=1, rate_per_s=rate_per_s) == 60


def test_a_changed_rate_counts_from_then_on():
    bucket, _ = take(None, wanted=0, rate_per_s=1_000, now_s=0.0)

    assert take(bucket, wanted=5_000, rate_per_s=10, now_s=0.0)[1] == 20
    assert take(bucket, wanted=5_000, rate_per_s=2_000, now_s=0.5)[1] == 3_000


def test_apps_do_not_take_from_each_other():
    rates = Rates()

    taken = [rates.take(app, wanted=3, rate_per_s=1, now_s=0.0) for app in ("a", "b", "a")]

    assert taken == [2, 2, 0]


def test_a_refusal_says_when_to_come_again():
    rates = Rates()
    rates.take("a", wanted=20, rate_per_s=10, now_s=0.0)

    problem = rates.refusal("a", wanted=20, rate_per_s=10)

    assert (problem.status, problem.code, problem.headers) == (429, "rate_limited", {"Retry-After": "2"})
    assert "10 events a second" in problem.detail


def test_a_wait_is_never_shorter_than_a_second():
    assert wait_s(Bucket(5.0, 0.0), wanted=1, rate_per_s=10) == 1
