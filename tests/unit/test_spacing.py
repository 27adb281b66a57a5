"""Fetches are spaced while records come in a rush, and not because many of them wait."""

from hypothesis import given
from hypothesis import strategies as st

from streams.engine.spacing import BURST, FEW_RECORDS, RUSH_S, STEADY_PER_S, Spacing

#: Seconds after which every rush is over.
OVER_S = BURST / STEADY_PER_S


@given(st.floats(0.001, 0.28), st.integers(1, 400))
def test_a_steady_stream_within_the_bound_is_never_spaced(every_s: float, fetches: int) -> None:
    spacing, each = Spacing(), int(every_s * STEADY_PER_S)
    assert {spacing.after(each, 7 + number * every_s) for number in range(fetches)} == {0.0}


def test_a_burst_is_spaced_while_it_lasts_whatever_is_unfinished_of_it() -> None:
    spacing = Spacing()
    assert spacing.after(BURST, 7.0) == 0.0
    assert spacing.after(5_000, 7.0) == RUSH_S
    assert spacing.after(0, 7.1) == RUSH_S
    assert spacing.after(1, 7.01 + OVER_S) == 0.0


def test_a_stream_of_twice_the_bound_is_spaced_from_its_burst_on() -> None:
    spacing, every_s = Spacing(), 0.01
    waits = [spacing.after(int(2 * STEADY_PER_S * every_s), number * every_s) for number in range(200)]
    begins = waits.index(RUSH_S)
    assert set(waits[:begins]) == {0.0}
    assert 0.8 * OVER_S <= begins * every_s <= OVER_S
    assert set(waits[begins:]) == {RUSH_S}


@given(st.lists(st.tuples(st.floats(0, 1), st.integers(0, 2_000)), max_size=50))
def test_every_rush_is_over_in_time(fetches: list[tuple[float, int]]) -> None:
    spacing, now_s = Spacing(), 0.0
    for after_s, records in fetches:
        now_s += after_s
        spacing.after(records, now_s)
    assert spacing.after(0, now_s + OVER_S + 0.001) == 0.0


@given(st.integers(1, FEW_RECORDS - 1), st.integers(0, 50))
def test_who_can_be_late_lingers_in_a_rush_too(records: int, fetches: int) -> None:
    spacing = Spacing(linger_s=0.1)
    assert {spacing.after(records, 7 + number * 0.001) for number in range(fetches + 1)} == {0.1}


def test_nobody_lingers_after_a_fetch_that_brought_nothing_or_much() -> None:
    spacing = Spacing(linger_s=0.1)
    assert spacing.after(0, 7.0) == 0.0
    assert spacing.after(FEW_RECORDS, 7.0) == 0.0
    assert spacing.after(FEW_RECORDS, 7.0) == RUSH_S
