"""How fast a line catches up, alone and beside others."""

from collections.abc import Callable
from itertools import pairwise

import pytest

from services.dispatcher.pacing import (
    ALONE_PER_S,
    AMIDST_S,
    BESIDE_S,
    BURST_S,
    CREDIT_S,
    SEVERAL_CREDIT_S,
    SEVERAL_PER_S,
    SEVERAL_STEP_ASIDE_S,
    SINGLE_PER_S,
    STEPS_ASIDE_S,
    TIMES_MS,
    YIELDS_MS,
    NextStart,
    Pacing,
    every_ms,
    yields_ms,
)


def started_in_a_second(
    pacing: Pacing, *, is_single: bool, live_every_s: float | None, looked_at_s: float = 0.0005
) -> int:
    """Starts of a line that always has something, looked at so often."""
    now_s, following, live_s, started = 100.0, NextStart(), 100.0, 0
    while now_s < 101.0:
        if live_every_s is not None and now_s >= live_s:
            pacing.saw_live(now_s)
            live_s += live_every_s
        while pacing.may_start_s(following, now_s, is_single=is_single) <= now_s:
            following = pacing.after(following, now_s, is_single=is_single)
            started += 1
        now_s += looked_at_s
    return started


@pytest.mark.parametrize("is_single", [True, False])
@pytest.mark.parametrize("looked_at_s", [0.0005, 0.004, 0.01])
def test_a_line_that_is_alone_goes_at_full_speed_however_late_its_timers_are(
    looked_at_s: float, is_single: bool
) -> None:
    started = started_in_a_second(Pacing(), is_single=is_single, live_every_s=None, looked_at_s=looked_at_s)
    assert started == pytest.approx(ALONE_PER_S, rel=0.05)


def test_beside_others_it_goes_as_fast_as_it_has_to_and_no_faster() -> None:
    assert started_in_a_second(Pacing(), is_single=True, live_every_s=0.1) == pytest.approx(SINGLE_PER_S, rel=0.05)
    assert started_in_a_second(Pacing(), is_single=False, live_every_s=0.1) == pytest.approx(SEVERAL_PER_S, rel=0.05)


def test_others_are_forgotten_when_they_have_been_silent_for_a_while() -> None:
    pacing = Pacing()
    pacing.saw_live(100.0)
    beside_s = pacing.after(NextStart(), 100.0 + BESIDE_S, is_single=True).due_s - (100.0 + BESIDE_S)
    alone_s = pacing.after(NextStart(), 100.1 + BESIDE_S, is_single=True).due_s - (100.1 + BESIDE_S)
    assert beside_s - alone_s == pytest.approx(1 / SINGLE_PER_S - 1 / ALONE_PER_S)


def test_an_event_alone_is_nobody_beside_whom_it_would_go_slowly() -> None:
    """It may be an event of the line itself."""
    pacing = Pacing()
    pacing.saw_event(100.0)
    assert pacing.after(NextStart(), 100.0, is_single=True).due_s == pytest.approx(100.0 - CREDIT_S + 1 / ALONE_PER_S)


def test_nor_does_one_that_is_alone_wait_for_it() -> None:
    pacing = Pacing()
    pacing.saw_event(100.0)
    assert not pacing.is_amidst(100.001)
    assert pacing.may_start_s(NextStart(99.999), 100.001, is_single=False) <= 100.001


def test_one_with_a_single_request_does_not_step_aside_for_an_event() -> None:
    pacing = Pacing()
    pacing.saw_event(100.0)
    assert pacing.may_start_s(NextStart(100.0), 100.0, is_single=True) <= 100.0


def starts_at_once(pacing: Pacing, this: NextStart, now_s: float) -> int:
    """Of a line with several requests at once, and as many waiting as it may start."""
    count = 0
    while pacing.may_start_s(this, now_s, is_single=False) <= now_s:
        this = pacing.after(this, now_s, is_single=False)
        count += 1
    return count


def test_what_a_line_makes_good_for_does_not_start_in_one_burst() -> None:
    """Neither what its endpoint was slow for nor what it stood aside for."""
    pacing = Pacing()
    pacing.saw_live(100.0)
    since = NextStart(99.99, 99.99)
    assert 3 < starts_at_once(pacing, since, 100.01) <= ALONE_PER_S * BURST_S + 1
    assert starts_at_once(pacing, NextStart(50.0, 50.0), 100.01) == starts_at_once(pacing, since, 100.01)


def test_what_an_endpoint_was_slow_for_is_made_good_for_up_to_a_bound() -> None:
    pacing, now_s, this, count = Pacing(), 100.0, NextStart(50.0, 50.0), 0
    while now_s < 100.5:
        pacing.saw_live(100.0)
        while pacing.may_start_s(this, now_s, is_single=False) <= now_s:
            this = pacing.after(this, now_s, is_single=False)
            count += 1
        now_s += 0.001
    assert count == pytest.approx((0.5 + SEVERAL_CREDIT_S) * SEVERAL_PER_S, rel=0.01)


def test_timers_may_be_late_beside_others_that_are_always_in_the_middle_of_it() -> None:
    started = started_in_a_second(Pacing(), is_single=False, live_every_s=0.002, looked_at_s=2 * BURST_S)
    assert started == pytest.approx(SEVERAL_PER_S, rel=0.05)


@pytest.mark.parametrize(("is_single", "per_s"), [(True, SINGLE_PER_S), (False, SEVERAL_PER_S)])
def test_others_that_are_always_in_the_middle_of_it_do_not_slow_it_down(is_single: bool, per_s: float) -> None:
    assert started_in_a_second(Pacing(), is_single=is_single, live_every_s=0.002) == pytest.approx(per_s, rel=0.05)


@pytest.mark.parametrize(
    ("saw", "is_single", "at_most_s"),
    [
        (Pacing.saw_live, True, STEPS_ASIDE_S),
        (Pacing.saw_live, False, SEVERAL_STEP_ASIDE_S),
        (Pacing.saw_event, False, SEVERAL_STEP_ASIDE_S),
    ],
)
def test_it_starts_behind_what_others_are_in_the_middle_of(
    saw: Callable[[Pacing, float], None], is_single: bool, at_most_s: float
) -> None:
    pacing = Pacing()
    pacing.saw_live(99.5)
    saw(pacing, 100.0)

    def starts_s(due_s: float, now_s: float) -> float:
        return pacing.may_start_s(NextStart(due_s), now_s, is_single=is_single)

    assert starts_s(100.004, 100.005) == 100.0 + AMIDST_S
    assert starts_s(99.993, 100.005) == min(99.993 + at_most_s, 100.0 + AMIDST_S), "no later"
    assert starts_s(99.985, 100.0) == 99.985 + at_most_s, "it has waited for as long as it does"
    assert starts_s(100.007, 100.005) == 100.007, "not its turn yet"
    assert starts_s(90.0, 100.005) < 100.005, "it has not started one for long"
    assert starts_s(100.02, 100.03) < 100.03, "the others are done"


@pytest.mark.parametrize("is_single", [True, False])
@pytest.mark.parametrize("saw", [Pacing.saw_live, Pacing.saw_event])
def test_one_whose_endpoint_is_slow_steps_aside_from_when_its_request_has_ended(
    saw: Callable[[Pacing, float], None], is_single: bool
) -> None:
    """By when it was due it would go at once: that is seconds ago."""
    pacing = Pacing()
    pacing.saw_live(99.5)
    saw(pacing, 100.0)

    def starts_s(took_s: float, now_s: float) -> float:
        this = Pacing.ended(NextStart(90.0), 100.0, took_s)
        return pacing.may_start_s(this, now_s, is_single=is_single)

    assert starts_s(4.0, 100.001) == 100.0 + AMIDST_S
    assert starts_s(0.1, 100.001) == pytest.approx(100.005), "for no longer than a share of what it took"
    assert starts_s(0.01, 100.001) <= 100.001, "its endpoint is fast"
    assert starts_s(4.0, 100.02) <= 100.02, "the others are done"
    saw(pacing, 100.19)
    assert starts_s(4.0, 100.195) == pytest.approx(100.2), "no longer than that"
    assert starts_s(4.0, 100.2) <= 100.2


def test_one_that_was_fast_changes_nothing_for_a_slow_one_that_ends_before_the_next_starts() -> None:
    pacing, this = Pacing(), NextStart(90.0)
    pacing.saw_live(100.0)
    fast = Pacing.ended(this, 99.999, 0.01)
    assert fast is this
    assert pacing.may_start_s(Pacing.ended(fast, 100.0, 4.0), 100.001, is_single=False) == 100.0 + AMIDST_S


def test_requests_that_end_together_do_not_have_others_start_together() -> None:
    """Results that are acknowledged at once: each run that ends starts the next."""
    pacing, this, count = Pacing(), NextStart(), 0
    pacing.saw_live(99.9)
    for _ in range(50):
        this = pacing.ended(this, 100.0, 0.1)
        if pacing.may_start_s(this, 100.0, is_single=False) <= 100.0:
            this = pacing.after(this, 100.0, is_single=False)
            count += 1
    assert 0 < count <= ALONE_PER_S * BURST_S + 1


def test_one_that_is_alone_does_not() -> None:
    pacing = Pacing()
    pacing.saw_event(100.0)
    this = Pacing.ended(NextStart(90.0), 100.0, 4.0)
    assert pacing.may_start_s(this, 100.001, is_single=True) == 90.0


def test_requests_that_go_on_ending_do_not_have_it_step_aside_for_ever() -> None:
    """Of fifty at once, with others that are in the middle of it all the time: none would start any more."""
    pacing, this, now_s, waited_since_s, waits_s = Pacing(), NextStart(), 100.0, 100.0, []
    while now_s < 110.0:
        pacing.saw_live(now_s)
        this = pacing.ended(this, now_s, 4.0)
        while pacing.may_start_s(this, now_s, is_single=False) <= now_s:
            this = pacing.after(this, now_s, is_single=False)
            waits_s.append(now_s - waited_since_s)
            waited_since_s = now_s
        now_s += 0.005
    assert len(waits_s) > 40
    assert max(waits_s) <= YIELDS_MS / 1_000 + 0.02


def test_results_of_slow_requests_have_times_at_which_they_meet() -> None:
    assert [every_ms(took_s) for took_s in (0.05, 0.999, 1.0, 2.0, 3.9, 4.0, 10.0)] == [0, 0, 10, 20, 20, 40, 40]
    assert all(slow % quick == 0 for slow, quick in pairwise(TIMES_MS)), (
        "who is written seldom meets those of each time"
    )
    assert [yields_ms(took_s) for took_s in (1.0, 4.0, 10.0)] == [50, 200, 200]


def test_others_are_in_the_middle_of_it_for_a_while() -> None:
    pacing = Pacing()
    assert not pacing.is_amidst(100.0)
    pacing.saw_live(100.0)
    assert pacing.is_amidst(100.0 + AMIDST_S / 2)
    assert not pacing.is_amidst(100.0 + AMIDST_S)
    pacing.saw_event(100.5)
    assert pacing.is_amidst(100.5 + AMIDST_S / 2)
    assert not pacing.is_amidst(100.5 + AMIDST_S)
