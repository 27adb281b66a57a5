"""Which past events a replay takes, what their deliveries are, how fast they go."""

import pytest

from services.dispatcher.replaying import LAG_S, MAX_OPEN, Course, Pace, Past, Places, delivery_of, share_done, takes
from services.dispatcher.standing import CANCELLED, DELETED, discarded
from streams.delivery_ids import LIVE_RUN, delivery_id
from streams.records import FanOutReceipt
from tests.logs import make_event
from tests.records import make_delivery, make_integration, make_replay

EVENT = make_event(7, event_id="evt_7", accepted_at_ms=1_000, ordering_key="call_1")


def receipt(**changes) -> FanOutReceipt:
    fields = {
        "record_id": EVENT.record_id,
        "app": "demo",
        "event_id": "evt_7",
        "type": "call_ended",
        "config_offset": 1,
        "integrations": [],
        "accepted_at_ms": 1_000,
        "source_partition": 1,
        "source_offset": 40,
        "source_generation": 3,
    }
    return FanOutReceipt(**fields | changes)


@pytest.mark.parametrize(
    ("asked", "config", "is_taken"),
    [
        ({}, {}, True),
        ({"from_ms": 1_000, "until_ms": 1_001}, {}, True),
        ({"from_ms": 1_001}, {}, False),
        ({"until_ms": 1_000}, {}, False),
        ({"app": "other"}, {}, False),
        ({}, {"events": ["call_started"]}, False),
        ({"types": ["call_ended"]}, {"events": []}, True),
        ({"types": ["*"]}, {"events": []}, True),
        ({"types": ["call_started"]}, {}, False),
        ({"types": ["*"]}, {"profile": "booking"}, False),
        ({"event_ids": ["evt_7", "evt_8"]}, {}, True),
        ({"event_ids": ["evt_8"]}, {}, False),
        ({"event_ids": ["evt_7"]}, {"events": []}, False),
    ],
)
def test_taken_is_what_is_in_the_range_and_of_a_type_that_was_asked_for(asked, config, is_taken):
    assert takes(make_replay(**asked), make_integration(**config), EVENT) is is_taken


def test_a_delivery_of_a_replay_is_one_of_its_own_that_keeps_the_event():
    made = delivery_of(make_replay(), Past(1, 40, EVENT, receipt()), config_offset=9, generation=5)

    assert (made.cause, made.run, made.attempt, made.of) == ("replay", "rpl_1", 1, None)
    assert made.delivery_id == delivery_id(EVENT.record_id, "int_1", "rpl_1")
    kept = ("app", "record_id", "event_id", "type", "payload", "occurred_at_ms", "accepted_at_ms", "ordering_key")
    assert {name: getattr(made, name) for name in kept} == {name: getattr(EVENT, name) for name in kept}
    assert (made.source_partition, made.source_offset, made.source_generation, made.config_offset) == (1, 40, 5, 9)


def test_it_points_at_the_live_delivery_where_there_was_one():
    past = Past(1, 40, EVENT, receipt(integrations=["int_0", "int_1"]))

    assert delivery_of(make_replay(), past, config_offset=9, generation=5).of == delivery_id(
        EVENT.record_id, "int_1", LIVE_RUN
    )


def test_the_repeat_of_an_id_is_known_by_its_receipt():
    assert Past(1, 40, EVENT, receipt(repeat_of="rec_0")).is_repeat
    assert not Past(1, 40, EVENT, receipt()).is_repeat
    assert not Past(1, 40, EVENT, None).is_repeat


@pytest.mark.parametrize("late_s", [0, 0.003])
def test_the_pace_is_even_whatever_timers_do_and_a_pause_makes_no_burst(late_s):
    pace, now_s = Pace(100), 100.0
    for began_s in (100.0, 200.0):
        now_s, went = began_s, 0
        while now_s < began_s + 2:
            went += 1
            pace.went(now_s)
            wait_s = pace.wait_s(now_s)
            now_s += wait_s + (late_s if wait_s else 0.001)
        assert 200 <= went <= 200 + 100 * LAG_S + 1


def test_there_is_room_for_few_until_outcomes_come():
    course = Course(make_replay(generation=1, events_until=100))
    for number in range(MAX_OPEN):
        assert course.has_room
        course.begin(make_delivery(delivery_id=f"dlv_{number}", source_offset=number), Places(number, 0, 0))

    assert (course.has_room, course.open) == (False, MAX_OPEN)
    assert course.end("dlv_1", "exhausted")
    assert not course.end("dlv_1", "delivered")
    assert not course.end("dlv_other", "delivered")
    assert (course.has_room, course.open) == (True, MAX_OPEN - 1)


def test_the_row_stands_at_the_oldest_without_an_outcome_and_counts_what_is_below():
    course = Course(make_replay(generation=2, events_until=100, marked=1), marker=(2, 50))
    for number in range(3):
        delivery = make_delivery(delivery_id=f"dlv_{number}", source_offset=10 * number, accepted_at_ms=number)
        course.begin(delivery, Places(50 + number, 60 + number, 70 + number))
    course.end("dlv_1", "delivered")
    before = course.row(Places(99, 99, 99), worker="w", now_ms=5)
    course.end("dlv_0", "rejected")
    after = course.row(Places(99, 99, 99), worker="w", now_ms=6)

    assert (before.events_next, before.deliveries_from, before.results_from, before.quarantine_from) == (0, 50, 60, 70)
    assert (before.outcomes, before.reached_ms, before.marked) == ({}, None, 1)
    assert (after.events_next, after.deliveries_from, after.results_from, after.quarantine_from) == (20, 52, 62, 72)
    assert (after.outcomes, after.reached_ms, after.marked) == ({"rejected": 1, "delivered": 1}, 1, 2)


def test_one_that_is_cancelled_counts_every_outcome_that_is_known():
    course = Course(make_replay(generation=2, events_until=100))
    for number in range(2):
        course.begin(make_delivery(delivery_id=f"dlv_{number}", source_offset=number), Places(0, 0, 0))
    course.end("dlv_1", "delivered")

    row = course.row(Places(9, 9, 9), worker="w", now_ms=5, state="cancelled")
    assert (row.state, row.outcomes) == ("cancelled", {"delivered": 1})


def test_the_share_is_of_positions():
    row = make_replay(generation=1, events_from=100, events_next=150, events_until=300)

    assert share_done(row) == 0.25
    assert share_done(make_replay()) == 0.0
    assert share_done(make_replay(generation=1, events_from=5, events_next=5, events_until=5, state="done")) == 1.0


def test_what_is_in_line_of_a_cancelled_replay_is_discarded():
    delivery = make_delivery(cause="replay", run="rpl_1")

    assert discarded(delivery, make_integration(), is_paused=False, is_cancelled=True) == CANCELLED
    assert discarded(delivery, None, is_paused=False, is_cancelled=True) == DELETED
    assert discarded(delivery, make_integration(), is_paused=False) is None
