"""What counts, when it fails and when it pauses, case by case."""

import itertools
import json

import msgspec
import pytest

from services.breaker.announce import event_of, turned
from services.breaker.fold import Rules, fold, has_turned, rules_of, state_of
from streams.records import BreakerRow
from tests.breaking import NOON_MS, delivered, make_result
from tests.records import make_integration

DAY_MS = 86_400_000
INTEGRATION = make_integration()
BOOKING = make_integration(profile="booking")


def folded(*results, config=INTEGRATION, row: BreakerRow | None = None, start=0) -> BreakerRow:
    for offset, result in enumerate(results, start):
        row = fold(row, result, offset, rules_of(config))
    assert row is not None
    return row


def failures(count: int, start: int = 0, **changes):
    return [make_result(number, **changes) for number in range(start, start + count)]


@pytest.mark.parametrize(
    ("changes", "count"),
    [
        ({}, 1),
        ({"next_attempt": 2, "next_due_at_ms": NOON_MS}, 1),
        ({"outcome": "exhausted", "attempt": 3}, 1),
        ({"outcome": "rejected", "status": 404}, 1),
        ({"cause": "retry", "attempt": 4, "outcome": "exhausted"}, 1),
        ({"cause": "replay"}, 1),
        ({"cause": "test", "outcome": "exhausted"}, 1),
        ({"outcome": "blocked"}, 0),
        ({"outcome": "blocked", "attempt": 0}, 0),
        ({"outcome": "discarded", "attempt": 0}, 0),
        ({"outcome": "discarded", "attempt": 2}, 0),
        ({"outcome": "exhausted", "attempt": 0}, 0),
    ],
)
def test_every_failed_attempt_counts_and_nothing_else(changes, count):
    assert folded(*failures(2), make_result(9, **changes)).failures == 2 + count


def test_a_success_sets_the_count_back():
    row = folded(*failures(19), delivered(19), *failures(1, 20))

    assert (row.failures, row.failing_since_ms, state_of(row, INTEGRATION).state) == (1, NOON_MS + 20_000, "active")


def test_the_twentieth_pauses_and_says_which_it_was():
    before, after = folded(*failures(19)), folded(*failures(20))
    state = state_of(after, INTEGRATION)

    assert state_of(before, INTEGRATION).state == "active"
    assert (state.state, state.consecutive_failures, state.since_ms) == ("paused", 20, NOON_MS + 19_000)
    assert (state.tripped_by_delivery, state.tripped_by_attempt, state.tripped_by_offset) == ("dlv_int_1_19", 1, 19)
    assert state.reason == "20 attempts in a row failed, the last one with status_503: attempt 1 of dlv_int_1_19"
    assert has_turned(state_of(before, INTEGRATION), state)


def test_a_request_in_flight_that_succeeds_after_the_twentieth_does_not_undo_the_pause():
    """Only a person activates; else what is paused would depend on the order of two answers."""
    state = state_of(folded(*failures(20), delivered(20)), INTEGRATION)

    assert (state.state, state.consecutive_failures) == ("paused", 0)


def test_a_booking_is_failing_after_three_an_integration_is_not():
    row = folded(*failures(3), config=BOOKING)
    state = state_of(row, BOOKING)

    assert (state.state, state.since_ms) == ("failing", NOON_MS)
    assert state.reason == "3 attempts in a row failed, the last one with status_503"
    assert state_of(folded(*failures(2), config=BOOKING), BOOKING).state == "active"
    assert state_of(folded(*failures(19)), INTEGRATION).state == "active"


def test_without_auto_pause_it_fails_on():
    config = make_integration(profile="booking", auto_pause=False)
    state = state_of(folded(*failures(50), config=config), config)

    assert (state.state, state.consecutive_failures) == ("failing", 50)


def test_auto_pause_turned_on_later_pauses_at_the_next_failure():
    off = make_integration(auto_pause=False)
    row = folded(*failures(30), config=off)

    assert state_of(row, INTEGRATION).state == "active"
    row = folded(make_result(30), row=row, start=30)
    assert (row.tripped_by_offset, row.tripped_failures, row.armed_from) == (30, 31, 30)


def test_it_remembers_since_which_result_it_may_be_paused():
    row = folded(*failures(5))
    assert row.armed_from == 0
    row = folded(make_result(5), row=row, start=5, config=make_integration(auto_pause=False))
    assert row.armed_from is None
    assert folded(*failures(3, 6), row=row, start=6).armed_from == 6


def test_a_late_failure_of_the_old_epoch_does_not_undo_an_activation():
    """The activation races with the twentieth failure's result, which comes after it, and after results of the new."""
    row = folded(*failures(19))
    activated = make_integration(epoch=2)

    assert state_of(row, activated).state == "active"
    late = folded(make_result(19), row=row, start=19)
    state = state_of(late, activated)
    assert late.tripped_by_offset == 19, "in its own epoch it did trip"
    assert (state.state, state.epoch, state.consecutive_failures) == ("active", 2, 0)

    later = folded(make_result(20, epoch=2), make_result(21, epoch=1), row=late, start=20)
    state = state_of(later, activated)
    assert (state.state, state.epoch, state.consecutive_failures) == ("active", 2, 1)
    assert state.ended == 0


def test_a_configuration_that_is_rolled_back_keeps_its_epoch():
    """And were it to go down all the same, what is published does not."""
    row = folded(*failures(20, epoch=3))

    assert state_of(row, make_integration(epoch=2)).epoch == 3


def test_the_rate_is_of_deliveries_at_their_outcome_old_epochs_included():
    row = folded(
        make_result(0),
        make_result(0, attempt=2),
        delivered(0, attempt=3),
        make_result(1, outcome="rejected", epoch=0),
        make_result(2, outcome="blocked", attempt=0),
        make_result(3, outcome="discarded", attempt=0),
        delivered(4),
        delivered(4, finished_at_ms=NOON_MS + 9_999),
    )
    state = state_of(row, INTEGRATION)

    assert (state.delivered, state.ended) == (2, 4)
    assert (state.last_delivery_id, state.last_attempt, state.last_at_ms) == ("dlv_int_1_4", 1, NOON_MS + 4_000)


def test_a_discarded_delivery_is_the_last_one_and_not_in_the_rate():
    state = state_of(folded(delivered(0), make_result(1, outcome="discarded", attempt=0)), INTEGRATION)

    assert (state.last_outcome, state.delivered, state.ended) == ("discarded", 1, 1)


def test_the_window_slides_with_the_results_time():
    row = folded(delivered(0), make_result(1, outcome="rejected", finished_at_ms=NOON_MS + DAY_MS // 2))
    assert (sum(row.delivered), sum(row.ended)) == (1, 2)
    row = folded(delivered(2, finished_at_ms=NOON_MS + DAY_MS), row=row, start=2)
    assert (sum(row.delivered), sum(row.ended)) == (1, 2), "the first one is a day old"
    row = folded(delivered(3, finished_at_ms=NOON_MS), row=row, start=3)
    assert (sum(row.delivered), sum(row.ended)) == (1, 2), "one that comes a day late is not in the window"


def test_what_an_epoch_became_is_told_once():
    rows = [None]
    for offset, result in enumerate([*failures(3), delivered(3), *failures(25, 4)]):
        rows.append(fold(rows[-1], result, offset, rules_of(BOOKING)))
    told = [(at, kind) for at, pair in enumerate(itertools.pairwise(rows)) for kind in turned(*pair)]

    assert told == [(2, "failing"), (23, "paused")]


def test_a_booking_that_recovers_and_fails_again_is_told_again_an_hour_later_whatever_the_batches():
    """Three failures and a success, again and again."""
    hour_ms = 3_600_000
    log = []
    for start_ms in (0, 60_000, hour_ms + 5_000, hour_ms + 60_000):
        times = [NOON_MS + start_ms + number * 1_000 for number in range(4)]
        log += [make_result(len(log) + at, finished_at_ms=ms) for at, ms in enumerate(times[:3])]
        log.append(delivered(len(log), finished_at_ms=times[3]))
    row, told, ids = None, [], []
    for offset, result in enumerate(log):
        new = fold(row, result, offset, rules_of(BOOKING))
        for kind in turned(row, new):
            told.append((offset, kind))
            ids.append(event_of(kind, new, BOOKING, NOON_MS, "rec_1").event_id)
        row = new

    assert told == [(2, "failing"), (10, "failing")], "not twice an hour"
    assert len(set(ids)) == 2


def test_a_row_of_an_older_release_is_told_again_after_its_next_success():
    row = msgspec.structs.replace(folded(*failures(3), delivered(3), config=BOOKING), has_failed=True)
    row = msgspec.structs.replace(row, failing_told_at_ms=None)
    still = folded(*failures(3, 4), row=row, start=4, config=BOOKING)
    assert turned(row, still) == []
    well = folded(delivered(7), row=still, start=7, config=BOOKING)
    assert turned(well, folded(*failures(3, 8), row=well, start=8, config=BOOKING)) == ["failing"]


def test_the_event_tells_what_happened_and_when():
    row = folded(*failures(20))
    event = event_of("paused", row, INTEGRATION, NOON_MS + DAY_MS, "rec_1")

    assert (event.type, event.app, event.id_space, event.id_supplied) == (
        "tenterhook.integration.paused", "demo", "secret", True,
    )  # fmt: skip
    assert (event.occurred_at_ms, event.accepted_at_ms) == (NOON_MS + 19_000, NOON_MS + DAY_MS)
    assert json.loads(event.payload) == {
        "integration": "int_1",
        "name": "CRM",
        "profile": "integration",
        "status": "paused",
        "consecutiveFailures": 20,
        "reason": "status_503",
        "since": "2026-01-02T12:00:19.000Z",
        "by": None,
        "delivery": "dlv_int_1_19",
        "attempt": 1,
        "epoch": 1,
    }


def test_rules_are_those_of_the_profile():
    assert rules_of(INTEGRATION) == Rules(failing_after=None, paused_after=20, auto_pause=True)
    assert rules_of(BOOKING) == Rules(failing_after=3, paused_after=20, auto_pause=True)
