"""Who may start beside whom in the line of one integration, and what a lane keeps in memory."""

from typing import Any

import pytest

from services.dispatcher.lane import PARKED_BYTES, Entry, Found, Lane, Pace, key_of
from tests.records import make_delivery

INTEGRATION, STRICT = Pace("integration", 10), Pace("strict", 10)
KEY, NONE = Pace("key", 10), Pace("none", 2)

#: In place of a batch that has to be finished.
TRACKED: Any = object()


def entry_of(offset: int, key: int = 0, **changes: Any) -> Entry:
    fields: dict[str, Any] = {"key": key, "delivery": make_delivery(), "size": 10}
    return Entry(offset, 1_000 + offset, **fields | changes)


def lane_of(*keys: int) -> Lane:
    """A lane with deliveries of these keys, at offsets from 0 on."""
    lane = Lane()
    for offset, key in enumerate(keys):
        lane.add(entry_of(offset, key))
    return lane


def started(lane: Lane, pace: Pace, now_ms: int = 0) -> list[int]:
    """Offsets of all that may start now, which run then."""
    offsets = []
    while (entry := lane.start(pace, now_ms)) is not None:
        offsets.append(entry.offset)
    return offsets


def end(lane: Lane, *offsets: int) -> None:
    for offset in offsets:
        lane.end(lane.running[offset])


def opened(lane: Lane) -> list[int]:
    return [each.offset for each in lane.open_deliveries()]


@pytest.mark.parametrize("pace", [INTEGRATION, STRICT])
def test_a_kept_line_has_one_in_flight_whatever_max_in_flight_says(pace):
    lane = lane_of(1, 2)
    assert started(lane, pace) == [0]
    end(lane, 0)
    assert started(lane, pace) == [1]


def test_without_an_order_up_to_max_in_flight_go_at_once():
    lane = lane_of(1, 1, 1)
    assert started(lane, NONE) == [0, 1]
    end(lane, 1)
    assert started(lane, NONE) == [2]


def test_a_running_key_holds_only_itself():
    lane = lane_of(1, 1, 2, 1)
    assert started(lane, KEY) == [0, 2]
    end(lane, 0)
    assert started(lane, KEY) == [1]
    end(lane, 2)
    assert started(lane, KEY) == []
    end(lane, 1)
    assert started(lane, KEY) == [3]
    assert (lane.queued, lane.parked, lane.opened) == (0, 0, 1)


def test_deliveries_without_a_key_are_one_key():
    assert key_of(make_delivery()) == key_of(make_delivery(ordering_key="")) == 0
    assert started(lane_of(0, 0, 1), KEY) == [0, 2]


def test_what_was_parked_by_key_keeps_its_order_when_the_ordering_changes():
    lane = lane_of(1, 1, 1)
    assert started(lane, KEY) == [0]
    assert started(lane, Pace("none", 10)) == []
    end(lane, 0)
    assert started(lane, Pace("none", 10)) == [1]


@pytest.mark.parametrize("pace", [STRICT, INTEGRATION])
def test_nothing_overtakes_what_keeps_its_place(pace):
    lane = lane_of(0, 0)
    assert started(lane, pace) == [0]
    lane.keep(lane.running[0], 2, 500)
    assert started(lane, pace, 499) == []
    assert lane.next_due_ms == 500
    assert started(lane, pace, 500) == [0]
    assert lane.running[0].attempt == 2
    end(lane, 0)
    assert started(lane, pace, 500) == [1]
    assert lane.next_due_ms is None


def test_a_key_that_fails_holds_itself_and_nothing_else():
    lane = lane_of(1, 1, 2, 1, 2)
    assert started(lane, KEY) == [0, 2]
    lane.keep(lane.running[0], 2, 500)
    end(lane, 2)
    assert started(lane, KEY, 499) == [4]
    assert started(lane, KEY, 500) == [0]
    end(lane, 0, 4)
    assert started(lane, KEY, 500) == [1]
    end(lane, 1)
    assert started(lane, KEY, 500) == [3]


def test_those_that_keep_their_place_come_back_by_due_time():
    lane = lane_of(1, 2, 3)
    assert started(lane, KEY) == [0, 1, 2]
    for offset, due_at_ms in ((0, 300), (1, 100), (2, 200)):
        lane.keep(lane.running[offset], 2, due_at_ms)
    assert started(lane, KEY, 250) == [1, 2]
    assert lane.next_due_ms == 300


def test_what_keeps_its_place_leaves_its_payload():
    lane = lane_of(0)
    assert started(lane, STRICT) == [0]
    entry = lane.running[0]
    lane.keep(entry, 2, 500)
    assert (entry.delivery, entry.size) == (None, 0)


def test_max_in_flight_may_grow_and_shrink():
    lane = lane_of(*range(6))
    assert started(lane, Pace("key", 3)) == [0, 1, 2]
    assert started(lane, Pace("key", 1)) == []
    end(lane, 0, 1)
    assert started(lane, Pace("key", 1)) == []
    end(lane, 2)
    assert started(lane, Pace("key", 1)) == [3]
    assert started(lane, Pace("key", 9)) == [4, 5]


def test_parked_payloads_are_bounded():
    lane = Lane()
    for offset in range(5):
        lane.add(entry_of(offset, key=1, size=PARKED_BYTES // 2 if offset else 10))
    assert started(lane, KEY) == [0]
    kept = [entry for entry in lane.entries() if entry.offset and entry.delivery is not None]
    assert [entry.offset for entry in kept] == [1, 2]
    assert (lane.queued, lane.parked, lane.queued_bytes) == (0, 4, 0)


def test_open_is_what_stands_before_the_head():
    lane = lane_of(1, 1, 2, 3)
    assert started(lane, Pace("key", 2)) == [0, 2]
    lane.keep(lane.running[2], 3, 700)
    found = {each.offset: each for each in lane.open_deliveries()}
    assert {0, 1, 2} == set(found)
    assert (found[2].attempt, found[2].due_at_ms, found[2].key) == (3, 700, 2)
    assert (found[1].attempt, found[1].due_at_ms) == (0, None)
    head = lane.head()
    assert head is not None
    assert head.offset == 3


@pytest.mark.parametrize(
    ("most", "dropped", "with_payload"),
    [(0, [5, 6, 7, 8], [0]), (2, [5, 6, 7, 8], [0, 1, 2]), (5, [6, 7, 8], [0, 1, 2, 3, 4, 5])],
)
def test_unloading_forgets_the_end_of_the_line_and_behind_its_first_the_payloads_of_what_is_open(
    most, dropped, with_payload
):
    lane = lane_of(1, 1, 2, 2, 3)
    lane.open_queued()
    for offset in range(5, 9):
        lane.add(entry_of(offset, 4))
    assert started(lane, INTEGRATION) == [0]
    assert [entry.offset for entry in lane.unload(most)] == dropped
    assert opened(lane) == [0, 1, 2, 3, 4]
    assert lane.queued_bytes == 10 * (len(with_payload) - 1)
    assert [entry.offset for entry in lane.entries() if entry.delivery is not None] == with_payload


def test_what_has_started_elsewhere_goes_on_without_a_request_whatever_is_in_flight():
    lane = lane_of(0, 0)
    lane.open_queued()
    known = entry_of(2)
    known.found, known.is_reopened = Found(2, 900, 1), True
    lane.add(known)
    assert started(lane, INTEGRATION) == [0]
    entry = lane.start_known()
    assert entry is known
    assert lane.start_known() is None
    lane.end(known)
    end(lane, 0)
    assert started(lane, INTEGRATION) == [1]


def test_what_is_about_to_fall_out_of_the_log_goes_oldest_first_and_before_it_is_due():
    lane = lane_of(1, 1, 2, 2)
    assert started(lane, Pace("key", 1)) == [0]
    lane.keep(lane.running[0], 2, 10**9)
    order = []
    while (entry := lane.start_older(1_003)) is not None:
        order.append(entry.offset)
        assert lane.start_older(1_003) is None
        lane.end(entry)
    assert order == [0, 1, 2]
    assert lane.start_older(0) is None


def test_a_lane_tells_since_when_something_waits_behind_its_key_too():
    lane = lane_of(1, 1, 2)
    for entry in lane.entries():
        entry.taken_s = 100.0 + entry.offset
    assert lane.waits_since_s() == 100.0
    assert started(lane, KEY) == [0, 2]
    assert lane.waits_since_s() == 101.0
    end(lane, 0)
    assert started(lane, KEY) == [1]
    assert lane.waits_since_s() is None


def test_a_lane_tells_since_when_something_waits_that_holds_the_committed_position():
    lane = lane_of(1, 2, 3)
    assert lane.tracked_since_s() is None  # read again from the log: a row answers for them

    late, later = (entry_of(offset, 4, batch=object()) for offset in (10, 11))
    late.taken_s, later.taken_s = 5.0, 6.0
    lane.add(late)
    lane.add(later)

    assert lane.tracked_since_s() == 5.0


def test_a_lane_tells_what_a_row_answers_for_though_others_of_it_are_tracked():
    lane = Lane()
    assert (lane.oldest_on_log_ms(), lane.queued_on_log()) == (None, 0)
    for at_ms in (30, 40, 50):
        lane.add(Entry(at_ms, at_ms, batch=TRACKED if at_ms == 30 else None))
    assert (lane.oldest_on_log_ms(), lane.queued_on_log()) == (40, 2)
    kept = Entry(20, 20)
    lane.keep(kept, 2, 1_000)
    assert (lane.oldest_on_log_ms(), lane.queued_on_log()) == (20, 2)
    lane.add(Entry(60, 0))  # when it came is not known
    assert (lane.oldest_on_log_ms(), lane.queued_on_log()) == (20, 3)
    assert lane.start(Pace("none", 9), 1_000) is kept
    assert lane.oldest_on_log_ms() == 20, "it runs"
    lane.end(kept)
    assert lane.oldest_on_log_ms() == 40
    lane.untrack()
    assert (lane.oldest_on_log_ms(), lane.queued_on_log()) == (30, 4)


def test_the_oldest_that_a_row_answers_for_may_be_parked_behind_its_key():
    lane = Lane()
    for offset, (key, at_ms) in enumerate(((1, 30), (1, 40), (2, 50))):
        lane.add(Entry(offset, at_ms, key=key, delivery=make_delivery()))
    assert started(lane, KEY) == [0, 2]
    end(lane, 2)
    lane.running[0].batch = TRACKED
    assert lane.oldest_on_log_ms() == 40
