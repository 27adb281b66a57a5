"""When a child process that ended is started again."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.cli.restarts import MOST_FAILED_STARTS, WAITS_S, History, Life, after


def life(ready_s=None, exit_code=1):
    return Life(exit_code=exit_code, lived_s=(ready_s or 0) + 1.0, ready_s=ready_s)


def test_a_crash_after_a_long_life_is_followed_by_a_start_at_once():
    assert after(life(ready_s=3600), History(restarts=5, failed_starts=2)) == (History(restarts=1), 0.0)


def test_a_child_that_keeps_crashing_is_given_ever_more_time():
    history, waits = History(), []
    for _ in range(len(WAITS_S) + 2):
        history, wait_s = after(life(ready_s=1), history)
        waits.append(wait_s)

    assert waits == [*WAITS_S, WAITS_S[-1], WAITS_S[-1]]


def test_a_child_that_never_becomes_ready_is_given_up():
    history, waits = History(), []
    for _ in range(MOST_FAILED_STARTS):
        history, wait_s = after(life(), history)
        waits.append(wait_s)

    assert waits == [0.0, 0.5, None]


@given(st.lists(st.none() | st.floats(0, 100), min_size=1, max_size=50))
def test_it_is_given_up_exactly_after_so_many_failed_starts_in_a_row(readys):
    history, in_a_row = History(), 0
    for ready_s in readys:
        history, wait_s = after(life(ready_s), history)
        in_a_row = in_a_row + 1 if ready_s is None else 0
        assert (wait_s is None) == (in_a_row == MOST_FAILED_STARTS)
        if wait_s is None:
            break
        assert wait_s in WAITS_S


def test_a_start_that_became_ready_forgives_the_failed_ones():
    history, _ = after(life(), History())
    history, _ = after(life(ready_s=0.1), history)

    assert history == History(restarts=2)


@pytest.mark.parametrize(
    ("exit_code", "ending"),
    [(0, "exit code 0"), (3, "exit code 3"), (-9, "killed by SIGKILL"), (-99, "killed by signal 99")],
)
def test_an_ending_is_said_in_words(exit_code, ending):
    assert life(exit_code=exit_code).ending == ending
