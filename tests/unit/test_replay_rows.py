"""Topic `replays` as it is folded, and which deliveries of a replay count at a takeover."""

import msgspec
from aiokafka import ConsumerRecord

from services.dispatcher.owners import Before, Owners
from services.dispatcher.recorded import Recorded
from services.dispatcher.replay_log import ReadBack
from streams import codec
from streams.records import Marker
from streams.replays import Replays, row_key
from tests.records import make_delivery, make_replay

TOPIC = "tenterhook.replays"


def folded(*rows) -> Replays:
    replays = Replays()
    for offset, row in enumerate(rows):
        key, value = row if isinstance(row, tuple) else (row_key(row), codec.encode(row))
        replays.apply(key, value, offset)
    return replays


def row(generation: int, **changes):
    return make_replay(generation=generation, **changes)


def test_what_was_asked_for_stands_until_a_worker_says_how_far_it_is():
    assert folded(make_replay()).get("rpl_1") == make_replay()
    assert folded(make_replay(), row(3, events_next=9)).get("rpl_1").events_next == 9
    # The embedded broker counts generations from 0.
    assert folded(make_replay(), row(0, events_next=9)).keys("rpl_1") == {b"rpl_1", b"rpl_1/0"}
    assert folded(row(3)).get("rpl_1") is None


def test_of_the_rows_of_progress_the_highest_generation_counts_wherever_it_stands():
    late = row(2, events_next=99)

    assert folded(make_replay(), row(3, events_next=9), late).progress("rpl_1").generation == 3
    assert folded(make_replay(), row(2), row(3), (b"rpl_1/2", None)).progress("rpl_1").generation == 3
    assert folded(make_replay(), row(3), (b"rpl_1/3", None)).progress("rpl_1") is None
    assert folded(make_replay(), row(2), row(3)).keys("rpl_1") == {b"rpl_1", b"rpl_1/2", b"rpl_1/3"}


def test_cancelled_counts_as_soon_as_it_is_asked_for_and_ended_stays_ended():
    cancelled = make_replay(state="cancelled")

    assert folded(make_replay(), row(3), cancelled).get("rpl_1").state == "cancelled"
    assert folded(make_replay(), row(3, state="done"), cancelled).get("rpl_1").state == "done"
    assert folded(make_replay(), cancelled).is_cancelled("rpl_1")
    assert not folded(make_replay()).is_cancelled("rpl_1")


def test_what_cannot_be_read_is_counted_and_changes_nothing():
    replays = folded(make_replay(), (b"rpl_1", b"x"), (b"rpl_1/x", None), (b"rpl_2", codec.encode(make_replay())))

    assert replays.unreadable == 3
    assert replays.all() == (make_replay(),)


def record(offset: int, value, key: bytes | None = b"int_1"):
    return ConsumerRecord("deliveries", 0, offset, 0, 0, key, codec.encode(value), None, 0, 0, ())


def marker(offset: int, generation: int, topic: str = TOPIC):
    value = Marker(source_topic=topic, source_partition=0, generation=generation, owner="w", at_ms=0)
    return record(offset, value, None)


def replayed(offset: int, event: int, generation: int, **changes):
    fields = {"cause": "replay", "run": "rpl_1", "source_offset": event, "source_generation": generation}
    return record(offset, make_delivery(**fields | changes))


def found(progress, *records) -> dict[int, int]:
    """By offset of the event, where its delivery stands."""
    back = ReadBack(progress, TOPIC)
    for each in records:
        back.see(each)
    return {event: at for event, (_, at) in back.appended.items()}


def test_a_takeover_finds_what_its_replay_appended_and_nothing_else():
    assert found(
        row(2, events_next=5),
        replayed(0, 4, 1),
        replayed(1, 5, 1),
        replayed(2, 6, 1, run="rpl_2"),
        replayed(3, 7, 1, cause="retry"),
        record(4, make_delivery(source_offset=8)),
        replayed(5, 9, 1),
    ) == {5: 1, 9: 5}


def test_what_a_frozen_worker_appended_behind_its_successor_s_marker_does_not_count():
    late = [replayed(0, 5, 1), marker(1, 2), replayed(2, 6, 1), marker(3, 1, "tenterhook.events"), replayed(4, 6, 2)]

    assert found(row(2), *late) == {5: 0, 6: 4}
    assert found(row(3, marked=2), replayed(2, 6, 1), replayed(4, 6, 2)) == {6: 4}


def test_the_lanes_set_the_same_aside():
    recorded = Recorded(("tenterhook.events", 1), {}, TOPIC)
    recorded.begin({0: "0;0;0;0"}, {}, 1)
    value = Marker(source_topic=TOPIC, source_partition=0, generation=2, owner="w", at_ms=0)
    recorded.mark(0, 10, value)
    of_first = make_delivery(cause="replay", run="rpl_1", source_generation=1)
    of_second = msgspec.structs.replace(of_first, source_generation=2)
    by_hand = msgspec.structs.replace(of_first, cause="retry")

    assert not recorded.is_late(0, 9, of_first)
    assert recorded.is_late(0, 11, of_first)
    assert not recorded.is_late(0, 11, of_second)
    assert not recorded.is_late(0, 11, by_hand)
    assert recorded.is_late(0, 0, of_first, before=Before(0, Owners(0, 2)))
    assert recorded.marked(0) == Owners(0, 2)
