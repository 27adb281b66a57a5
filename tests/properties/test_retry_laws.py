"""Laws of backoff and delay lines: never early, never late by themselves, few hops, the same every time."""

from collections import Counter
from datetime import UTC, datetime
from email.utils import format_datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.profiles import PROFILES
from services.dispatcher.backoff import RETRY_AFTER_CAP_MS, next_attempt, retry_after_ms, slot_of
from streams.delay_lines import NEAR_MS, PLACES, SHORTEST_MS, leave_at_ms, place_for
from streams.topics import RETRIES, SLOT_TENTHS
from tests.records import make_integration

NOW_MS = 1_700_000_000_000
DAY_MS = 86_400_000

delays = st.lists(st.integers(1, DAY_MS), min_size=1, max_size=10)


# -- backoff ---------------------------------------------------------------------------------------------------


@given(st.text(max_size=40), st.integers(1, 30), delays)
def test_the_wait_is_the_policys_delay_within_a_fifth_and_the_same_every_time(delivery, attempt, delays_ms):
    integration = make_integration(delays_ms=delays_ms)
    follows = next_attempt(delivery, attempt, integration, NOW_MS, None)
    step_ms = delays_ms[min(attempt, len(delays_ms)) - 1]
    assert follows.attempt == attempt + 1
    assert 0.8 * step_ms <= follows.due_at_ms - NOW_MS < 1.2 * step_ms + 1
    assert follows == next_attempt(delivery, attempt, integration, NOW_MS, None)


@given(st.text(max_size=40), st.integers(1, 30), delays, st.integers(0, 10 * DAY_MS))
def test_an_endpoint_is_left_alone_as_long_as_it_asks_up_to_the_cap(delivery, attempt, delays_ms, asked_ms):
    integration = make_integration(delays_ms=delays_ms)
    without = next_attempt(delivery, attempt, integration, NOW_MS, None)
    follows = next_attempt(delivery, attempt, integration, NOW_MS, asked_ms)
    cap_ms = max(RETRY_AFTER_CAP_MS, *delays_ms)
    assert follows.due_at_ms == max(without.due_at_ms, NOW_MS + min(asked_ms, cap_ms))
    assert follows.slot == without.slot


def test_slots_are_used_equally_over_deliveries_and_over_attempts():
    of_many = Counter(slot_of(f"dlv_{number}", 1) for number in range(10_000))
    of_one = Counter(slot_of("dlv_1", attempt) for attempt in range(10_000))
    for counted in (of_many, of_one):
        assert counted.keys() == set(range(len(SLOT_TENTHS)))
        assert max(counted.values()) < 1.1 * min(counted.values())


def test_a_policy_without_delays_of_its_own_has_its_profiles():
    follows = next_attempt("dlv_1", 2, make_integration(profile="booking", delays_ms=[]), NOW_MS, None)
    assert 16_000 <= follows.due_at_ms - NOW_MS <= 24_000


@given(st.integers(0, 10**9))
def test_retry_after_is_read_as_seconds(seconds):
    for status in (429, 503):
        assert retry_after_ms(status, [("Server", "x"), ("retry-AFTER", f" {seconds} ")], NOW_MS) == seconds * 1_000


@given(st.datetimes(datetime(1970, 1, 2), datetime(2199, 1, 1)))  # noqa: DTZ001  # made UTC below
def test_retry_after_is_read_as_a_date(at):
    at = at.replace(microsecond=0, tzinfo=UTC)
    header = [("Retry-After", format_datetime(at, usegmt=True))]
    assert retry_after_ms(503, header, NOW_MS) == max(0, round(at.timestamp() * 1_000) - NOW_MS)


@given(st.text(max_size=60))
def test_no_retry_after_makes_us_fall_over(value):
    asked = retry_after_ms(429, [("Retry-After", value)], NOW_MS)
    assert asked is None or asked >= 0


@pytest.mark.parametrize("value", ["", "soon", "-5", "1.5", "1e3", "١٢", "9" * 5_000, "Sun, 99 Foo 2099 99:99:99 GMT"])
def test_a_retry_after_that_is_neither_is_passed_over(value):
    assert retry_after_ms(429, [("Retry-After", value)], NOW_MS) is None


@pytest.mark.parametrize("status", [None, 200, 301, 400, 500, 502, 504])
def test_retry_after_means_something_with_429_and_503_only(status):
    assert retry_after_ms(status, [("Retry-After", "60")], NOW_MS) is None


# -- delay lines -----------------------------------------------------------------------------------------------


def path(wait_ms: int, slot: int | None, took_ms: int = 0) -> list[tuple[str, int, int]]:
    """Lines that a delivery goes through, with partition, and when it leaves; written so long after it failed."""
    now_ms, due_at_ms, hops = NOW_MS + took_ms, NOW_MS + wait_ms, []
    while True:
        place = place_for(due_at_ms - now_ms, slot)
        leaves = leave_at_ms(place.wait_ms, now_ms, due_at_ms)
        assert leaves <= due_at_ms  # never late by itself
        hops.append((place.line.name, place.partition, leaves))
        if due_at_ms - leaves < SHORTEST_MS:
            return hops
        assert leaves > now_ms
        now_ms, slot = leaves, None


@given(st.integers(1, 30 * DAY_MS), st.one_of(st.none(), st.integers(0, 4)))
def test_a_wait_is_never_longer_than_what_remains_but_by_what_its_own_slot_may_take(remaining_ms, slot):
    place = place_for(remaining_ms, slot)
    if remaining_ms >= SHORTEST_MS:
        assert place.wait_ms <= remaining_ms + (NEAR_MS if place.partition == slot else 0)
    else:
        assert place.line.name == "retry.1s"


@given(st.integers(1, 30 * DAY_MS), st.integers(0, 4))
def test_any_wait_takes_few_lines(wait_ms, slot):
    longest_ms = PLACES[-1].wait_ms
    assert len(path(wait_ms, slot)) <= 2 * len(RETRIES) + wait_ms // longest_ms


@pytest.mark.parametrize("profile", PROFILES)
@given(number=st.integers(0, 10**6), took_ms=st.integers(0, NEAR_MS))
def test_the_profiles_own_delays_take_one_line_and_leave_it_when_they_are_due(profile, number, took_ms):
    delays_ms = PROFILES[profile].delays_ms
    integration = make_integration(profile=profile, delays_ms=list(delays_ms))
    for attempt, delay_ms in enumerate(delays_ms, 1):
        follows = next_attempt(f"dlv_{number}", attempt, integration, NOW_MS, None)
        hops = path(follows.due_at_ms - NOW_MS, follows.slot, took_ms)
        assert hops == [(f"retry.{delay_ms // 1_000}s", follows.slot, follows.due_at_ms)]


@given(
    st.lists(st.tuples(st.integers(0, 60_000), st.integers(0, NEAR_MS)), min_size=2, max_size=50), st.integers(0, 39)
)
def test_whoever_stands_behind_another_waits_for_it_no_longer_than_near(written, place_number):
    """Records of one partition, written in order, each some time after its attempt failed."""
    place = PLACES[place_number]
    leaves = [leave_at_ms(place.wait_ms, at_ms, at_ms - took_ms + place.wait_ms) for at_ms, took_ms in sorted(written)]
    for number, own in enumerate(leaves):
        assert max(leaves[: number + 1]) - own <= NEAR_MS


def test_places_are_sorted_and_each_waits_another_time():
    waits = [place.wait_ms for place in PLACES]
    assert waits == sorted(set(waits))
    assert len(waits) == len(RETRIES) * len(SLOT_TENTHS)
    assert waits[0] == 800
    assert waits[-1] == 24_576_000
