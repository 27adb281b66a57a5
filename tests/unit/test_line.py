"""One integration on one partition: what it answers for on the log, and what a takeover puts into it."""

from typing import Any

import pytest

from services.dispatcher.lane import ENDED, Entry, Found, Handed, Pace
from services.dispatcher.line import ATTACHED_RECORDS, Line
from services.dispatcher.owners import Owners
from services.dispatcher.recorded import Recorded
from streams.engine.processor import ReadAt
from streams.records import HandOver, LaneRow, OpenDelivery, Result
from tests.handing import result_of
from tests.records import make_delivery

KEY, NONE = Pace("key", 10), Pace("none", 10)


def line_of(*opened: OpenDelivery, frontier: int = 10) -> Line:
    return Line.of_row(row_of(*opened, frontier=frontier), 0, 2)


def row_of(*opened: OpenDelivery, frontier: int = 10, **changes: Any) -> LaneRow:
    fields: dict[str, Any] = {"reason": "paused", "held": 0, "generation": 1}
    return LaneRow(integration="int_1", app="demo", frontier=frontier, open=list(opened), **fields | changes)


def result_at(offset: int, **changes: Any) -> Result:
    result: Any = result_of(make_delivery(), ReadAt(0, offset, 1), **changes)
    return result


def test_what_stood_before_something_that_has_ended_is_open_and_is_not_read_again():
    line = line_of()
    line.put(Entry(10, 1), None, None)
    assert not line.put(Entry(11, 1), ENDED, None)
    line.fed(11, 1)
    line.put(Entry(12, 1), None, None)
    line.fed(12, 1)
    assert line.frontier() == 12
    line.unload()
    assert (line.read_from, [each.offset for each in line.row(Owners(), None).open]) == (12, [10])


def test_a_request_that_is_handed_over_outweighs_the_failure_before_it():
    line = line_of()
    line.reopen(OpenDelivery(offset=3, attempt=1), Found(2, 500, None, 40), Handed(2, 900, 41, 1))
    entry = line.lane.start(KEY, 10_000)
    assert entry is not None
    assert (entry.attempt, entry.until_ms, line.floor()) == (2, 900, 41)


def test_all_below_is_open_before_what_comes_is_worked_on():
    line = line_of()
    line.put(Entry(10, 1), None, None)
    line.fed(10, 1)
    line.attach(5)
    assert (line.until, line.frontier(), line.is_busy) == (11, 11, False)
    assert [each.offset for each in line.row(Owners(), None).open] == [10]
    assert line.passes(10)
    assert not line.passes(11)


def test_what_is_parked_behind_a_key_counts_against_the_bound():
    line = Line("int_1", 0, "demo", 2)
    for offset in range(ATTACHED_RECORDS + 2):
        line.put(Entry(offset, 1, key=1), None, None)
    assert line.lane.start(KEY, 0) is not None
    assert line.lane.start(KEY, 0) is None
    assert line.lane.queued == 0
    assert line.is_over_bound


def test_what_was_found_leads_to_its_result_until_it_is_asked_for():
    recorded = Recorded(("events", 1), {})
    recorded.begin({0: "5;0;0;0"}, {0: [row_of(frontier=10, until=20, floor=3)]}, 1)
    recorded.note(result_at(12), 0, 7, {0: 100})
    recorded.note(result_at(25), 0, 8, {0: 100})  # committed over, and above `until`: not read again
    hand_over = HandOver(
        delivery_id="dlv_1", integration="int_1", attempt=2, source_partition=0, source_offset=12,
        source_generation=1, until_ms=9,
    )  # fmt: skip
    recorded.note_hand_over(hand_over, 0, 9, {0: 100})
    assert recorded.hold({0: "5;0;0;0"}) == 1
    assert recorded.left_floor("int_1") == 7
    assert recorded.find(0, 12) == ENDED
    assert recorded.handed(0, 12) is None
    assert recorded.left_floor("int_1") is None


def test_reading_goes_on_until_there_is_no_room_and_begins_again_when_little_is_left():
    line = Line.of_row(row_of(held=900, held_to=1_000), 0, 2)
    line.ahead_bytes = 1_000
    for offset in range(10, 20):
        assert line.takes(1_000)
        assert line.wants(1_000) == (offset < 13), "a quarter"
        line.feed(Entry(offset, 1, size=100))
    assert not line.takes(1_000)
    for _ in range(8):
        assert not line.wants(1_000)
        line.lane.end(line.lane.start(NONE, 0))
    assert line.wants(1_000)


@pytest.mark.parametrize("held", [0, 1])
def test_it_is_not_read_for_where_all_that_has_come_by_since_its_last_one_is_of_others(held):
    """Where it says that it holds more, what it counted is looked through to the end."""
    line = Line.of_row(row_of(held=held, held_to=10), 0, 2)
    assert line.takes(1_000) == line.wants(1_000) == bool(held)
    line.pass_others(1_000)
    assert line.read_from == (10 if held else 1_000)
    line.pass_over(1_000, 7)
    assert line.takes(1_001)
    line.pass_others(1_001)
    assert line.read_from == (10 if held else 1_000), "that one is its own"


def test_one_on_its_way_back_is_read_for_up_to_where_it_works_on_what_comes():
    line = Line.of_row(row_of(until=50, held_to=50), 0, 2)
    assert line.takes(40)
    assert line.takes(1_000)
    line.read_from = 50
    line.pass_others(1_000)
    assert (line.takes(1_000), line.read_from) == (False, 50)


def test_a_line_that_reopened_many_reads_on_while_nothing_of_it_may_start():
    opened = [OpenDelivery(offset=offset, attempt=0, key=1) for offset in range(80)]
    line = Line.of_row(row_of(*opened, frontier=100, held_to=1_000), 0, 2)
    for each in opened:
        line.reopen(each, None, None)
    assert line.wants(1_000)
    for offset in range(100, 200):
        line.feed(Entry(offset, 1, size=100))
    assert not line.wants(1_000)
    line.make_room()
    assert line.wants(1_000)
    assert (line.lane.queued, line.lane.queued_bytes, len(line.row(Owners(), None).open)) == (180, 0, 180)
    assert line.lane.start(KEY, 0) is not None
    line.feed(Entry(200, 1))
    assert (line.lane.queued, line.lane.ahead) == (180, 1)
    for offset in range(201, 250):
        line.feed(Entry(offset, 1, size=10_000))
    assert not line.wants(1_000)
    line.make_room()
    assert line.wants(1_000)


def test_what_has_ended_below_the_frontier_of_a_row_leads_nowhere():
    """It comes by again, since the committed position is lower, and is passed over: nobody asks what became of it."""
    recorded = Recorded(("events", 1), {})
    opened = OpenDelivery(offset=130, attempt=1)
    recorded.begin({0: "60;0;0;0"}, {0: [row_of(opened, frontier=150)]}, 1)
    recorded.note(result_at(120), 0, 60, {0: 100})
    recorded.note(result_at(130), 0, 61, {0: 100})
    recorded.hold({0: "60;0;0;0"})
    assert recorded.left_floor("int_1") == 61
    assert recorded.find(0, 130) == ENDED
    assert recorded.left_floor("int_1") is None
    recorded.passed(0, 148)
    assert recorded.ends(0, 200).end == 60  # whoever takes over from there finds that 120 has ended
    recorded.passed(0, 149)
    assert recorded.ends(0, 200).end == 200


def test_a_request_that_was_handed_over_leads_to_its_note_until_it_is_asked_for():
    """Of a line that is held it is passed over when it comes, and read again as long as something leads to it."""
    recorded = Recorded(("events", 1), {})
    recorded.begin({0: "5;0;0;0"}, {}, 1)
    hand_over = HandOver(
        delivery_id="dlv_1", integration="int_1", attempt=1, source_partition=0, source_offset=112,
        source_generation=1, until_ms=9,
    )  # fmt: skip
    recorded.note_hand_over(hand_over, 0, 9, {0: 100})
    recorded.hold({0: "5;0;0;0"})
    assert recorded.left_floor("int_1") == 9
    assert recorded.handed(0, 112) == Handed(1, 9, 9, 1)
    assert recorded.left_floor("int_1") is None
