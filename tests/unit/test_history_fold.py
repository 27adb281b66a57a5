"""What the history makes of the results of a delivery."""

from typing import Any

import pytest

from services.history.fold import Row, fold, partition_of, place_of
from tests.breaking import NOON_MS, make_result
from tests.histories import BLOCKED, DELIVERED, EXHAUSTED


def folded(*results: dict[str, Any]) -> Row:
    row = None
    for place, changes in enumerate(results):
        row = fold(row, make_result(**changes), place)
    assert row is not None
    return row


FAILED = {"attempt": 1, "next_due_at_ms": NOON_MS + 5_000}


def test_a_delivery_that_failed_is_open_and_says_when_it_is_tried_again():
    row = folded(FAILED)

    assert (row.outcome, row.attempts, row.status, row.reason) == (None, 1, 503, "status_503")
    assert (row.ended_at_ms, row.next_due_at_ms) == (None, NOON_MS + 5_000)


def test_it_ends_with_its_first_outcome_and_keeps_when_it_began():
    row = folded(
        FAILED, DELIVERED | {"attempt": 2, "started_at_ms": NOON_MS + 5_000, "finished_at_ms": NOON_MS + 5_080}
    )

    assert (row.outcome, row.attempts, row.repeats, row.status) == ("delivered", 2, 0, 200)
    assert (row.began_at_ms, row.last_at_ms, row.ended_at_ms) == (NOON_MS - 20, NOON_MS + 5_080, NOON_MS + 5_080)
    assert row.next_due_at_ms is None


def test_an_outcome_behind_the_first_one_is_a_repeat():
    ended = folded(DELIVERED)
    row = folded(DELIVERED, EXHAUSTED | {"finished_at_ms": NOON_MS + 9})

    assert (row.outcome, row.reason, row.last_at_ms, row.repeats) == ("delivered", "status_200", ended.last_at_ms, 1)


def test_a_second_result_of_an_attempt_is_a_repeat_and_the_first_ones_wait_goes_on():
    row = folded(FAILED, FAILED | {"reason": "timeout", "next_due_at_ms": NOON_MS + 7_000})

    assert (row.reason, row.next_due_at_ms, row.attempts, row.repeats) == ("status_503", NOON_MS + 5_000, 1, 1)


def test_a_repeat_that_ends_the_delivery_ends_it():
    """The first outcome counts, also that of a request that was made twice."""
    row = folded(FAILED, FAILED | {"attempt": 2}, DELIVERED | {"attempt": 1})

    assert (row.outcome, row.attempts, row.repeats) == ("delivered", 2, 1)


@pytest.mark.parametrize(("before", "attempts"), [([], 0), ([FAILED], 1)])
def test_an_end_without_an_attempt_counts_none(before: list[dict[str, Any]], attempts: int):
    row = folded(*before, BLOCKED)

    assert (row.outcome, row.attempts, row.repeats, row.reason) == ("blocked", attempts, 0, "address_refused")


def test_places_of_a_partition_follow_each_other_and_are_no_others():
    places = [place_of(partition, offset) for partition in (0, 1, 255) for offset in (0, 1, 2**48 - 1)]

    assert places == sorted(set(places))
    assert places[-1] < 2**63
    assert [partition_of(place) for place in places] == [0, 0, 0, 1, 1, 1, 255, 255, 255]
