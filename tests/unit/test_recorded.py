"""What a takeover reads of results: which of them came too late to count, and which attempts it remembers."""

from typing import Any

from services.dispatcher.lane import ENDED
from services.dispatcher.owners import Owners
from services.dispatcher.recorded import Recorded
from streams.engine.processor import ReadAt
from streams.records import HandOver
from tests.handing import result_of
from tests.records import make_delivery

STARTS = {0: 10}


def begun(floor: str, lately: int) -> Recorded:
    """As a takeover of generation 8 begins, with a look back to the offset *lately*."""
    recorded = Recorded(("events", 1), {})
    recorded.begin({0: floor}, {}, 8, {0: lately})
    return recorded


def note(recorded: Recorded, offset: int, source_offset: int, generation: int, **changes: Any) -> None:
    """A result at *offset*, of the delivery at *source_offset*, by the owner of this generation."""
    delivery = make_delivery(delivery_id=f"dlv_{source_offset}", attempt=changes.pop("attempt", 1))
    result = result_of(delivery, ReadAt(0, source_offset, generation), **changes)
    recorded.note(result, 0, offset, STARTS)


def test_a_late_result_of_a_frozen_owner_does_not_count_however_far_a_takeover_looks_back():
    recorded = begun("100;0;0;7", lately=50)

    note(recorded, 60, 11, 6)  # before its successor had marked, as far as is known
    note(recorded, 120, 12, 6)
    note(recorded, 121, 13, 7)

    assert recorded.find(0, 11) == ENDED
    assert recorded.find(0, 12) is None
    assert recorded.find(0, 13) == ENDED


def test_a_marker_that_is_read_says_more_than_what_was_stored():
    recorded = begun("100;0;0;7", lately=50)

    recorded.note_owner(7, 0)
    note(recorded, 90, 11, 6)
    recorded.note_owner(5, 0)  # a group that was deleted counts anew
    note(recorded, 120, 12, 5)

    assert recorded.find(0, 11) is None
    assert recorded.find(0, 12) == ENDED


def test_an_attempt_under_way_elsewhere_is_remembered_where_its_record_is_known():
    recorded = begun("100;0;0;7", lately=100)

    for source_offset, delivery_id, attempt in ((11, "dlv_11", 2), (12, "", 2), (13, "dlv_13", 1), (5, "dlv_5", 3)):
        note = HandOver(
            delivery_id=delivery_id, integration="int_1", attempt=attempt, source_partition=0,
            source_offset=source_offset, source_generation=7, until_ms=9,
        )  # fmt: skip
        recorded.note_hand_over(note, 0, 120, STARTS)

    assert recorded.retried == {("dlv_11", 2): ("int_1", 11, 9), ("dlv_5", 3): ("int_1", 5, 9)}


def test_what_was_made_late_is_remembered_as_made():
    """Also of a request that was handed over, where nobody reads any more that it was."""
    recorded = begun("100;0;0;7", lately=110)

    note(recorded, 120, 12, 6, attempt=2)

    assert recorded.find(0, 12) is None
    assert {attempt: came.offset for attempt, came in recorded.retried.items()} == {("dlv_12", 2): 12}


def test_a_floor_says_where_its_owner_had_marked():
    before = Recorded(("events", 1), {})
    before.begin({0: "5;0;0;3"}, {}, 7, {}, {0: 40})
    floor = before.floor(0, before.ends(0, 100), 0)

    recorded = begun(floor, lately=50)
    note(recorded, 60, 11, 6)
    note(recorded, 61, 12, 7)
    assert recorded.find(0, 11) is None, "its successor had marked below"
    assert recorded.find(0, 12) == ENDED

    recorded = begun(floor, lately=30)
    note(recorded, 39, 11, 6)
    assert recorded.find(0, 11) == ENDED

    # An older release reads it as a source that nobody asks for, and passes it on under an owner of its own.
    assert Owners.read(0, 0, floor.split(";", 4)[4]).event_owner("e0") == 0
    recorded = begun(floor.replace(";7;", ";8;"), lately=50)
    note(recorded, 60, 11, 6)
    assert recorded.find(0, 11) == ENDED
