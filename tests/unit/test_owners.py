"""Who owned each source last: kept for the next owner of the lanes, by commit and by row."""

from hypothesis import given
from hypothesis import strategies as st

from services.dispatcher.line import Line
from services.dispatcher.owners import Before, Owners
from services.dispatcher.recorded import Recorded, ResultsEnd
from streams.records import Marker
from tests.records import make_delivery

EVENTS, RETRIES = "tenterhook.events", "tenterhook.retry.5s"
GENERATIONS = st.integers(0, 2**31)
NAMES_OF_RETRIES = st.sampled_from(["5s/0", "5s/4", "20480s/2", "replays/0"])


def begun(floor: str, start: int = 0) -> Recorded:
    recorded = Recorded((EVENTS, 2), {"5s": RETRIES})
    recorded.begin({0: floor}, {}, 9, reads_from={0: start})
    return recorded


def marked(recorded: Recorded, offset: int, topic: str, source: int, generation: int) -> None:
    marker = Marker(
        source_topic=topic, source_partition=source, generation=generation, owner="w", at_ms=0, source_partitions=[]
    )
    recorded.mark(0, offset, marker)


@given(
    st.dictionaries(st.integers(0, 99).map("e{}".format), GENERATIONS),
    st.dictionaries(NAMES_OF_RETRIES, GENERATIONS),
)
def test_what_is_stored_says_of_each_source_what_was_known(events, retries):
    known = Owners.of(events, retries)
    owners = Owners.read(known.events, known.retries, known.named())

    assert {name: owners.event_owner(name) for name in events} == events
    assert {name: owners.retry_owner(name) for name in retries} == retries


#: Where a marker is read, of which source, and its generation.
MARKS = st.tuples(st.integers(0, 6), st.sampled_from([(EVENTS, 0), (EVENTS, 1), (RETRIES, 0)]), st.integers(3, 9))
KNOWN = st.builds(
    Owners,
    st.integers(0, 4),
    st.integers(0, 4),
    st.dictionaries(st.sampled_from(["e0", "e1", "e7", "5s/0", "replays/0"]), st.integers(5, 7)),
)


@given(
    st.sampled_from(["", "0;3;2;3", "0;3;2;3;e1=4"]),
    st.integers(0, 5),
    st.lists(st.builds(Before, st.integers(0, 8), KNOWN), max_size=2),
    st.lists(MARKS | st.none(), min_size=1, max_size=8),
)
def test_what_is_remembered_of_owners_is_what_is_found_anew(floor, start, places, steps):
    """Whatever is read between two questions, also from further back; and where one goes on with an answer."""
    recorded, read = begun(floor, start), []
    for step in steps:
        if step is None:
            recorded.begin({0: floor}, {}, 9, reads_from={0: start})
            read.clear()
        else:
            read.append(step)
            marked(recorded, step[0], *step[1], step[2])
        for offset in (None, 9, *range(8), None):
            for before in (None, *places[-4:]):
                anew = begun(floor, start)
                for at, source, generation in read:
                    marked(anew, at, *source, generation)
                said = recorded.marked(0, offset, before)
                assert said == anew.marked(0, offset, before)
        places = [*places, Before(step[0] if step else 8, said)]


def test_who_is_gone_does_not_leave_its_answer_to_another():
    recorded = begun("")
    marked(recorded, 1, EVENTS, 0, 1)
    for number in range(1_000, 1_100):
        known = Owners(number, number, {"e7": 5})  # each where the one before was
        assert recorded.marked(0, None, Before(5, known)).events == number
        del known


def test_where_a_rebalance_has_marked_all_nothing_is_named():
    assert Owners.of({"e0": 7, "e1": 7}, {"5s/0": 7}).named() == ""


def test_it_stays_within_what_kafka_stores_with_a_commit():
    events = {f"e{number}": 2**20 + number for number in range(256)}
    retries = {f"20480s/{number}": 2**20 + number for number in range(41)}
    known = Owners.of(events, retries)

    assert len(known.newer) == 255 + 40
    assert len(known.named()) < 4_000


def test_who_takes_over_between_two_markers_of_one_rebalance_sets_aside_what_a_frozen_owner_appends():
    first = begun("0;261;261;261")
    marked(first, 10, EVENTS, 0, 262)  # partition 1 of `events` is marked at 20, after the commit
    floor = first.floor(0, ResultsEnd(5, 262), 15)

    late, fresh = (make_delivery(source_partition=0, source_generation=number) for number in (261, 262))
    of_other = make_delivery(source_partition=1, source_generation=261)
    second = begun(floor)
    assert second.is_late(0, 16, late), "its source has had another owner since"
    assert not second.is_late(0, 16, fresh)
    assert not second.is_late(0, 17, of_other), "the owner of its source is still that one"
    marked(second, 20, EVENTS, 1, 262)
    assert second.is_late(0, 21, of_other)


def test_a_row_says_the_same_to_the_line_s_next_owner():
    recorded = begun("0;261;261;261")
    marked(recorded, 10, RETRIES, 3, 262)
    line = Line("int_1", 0, "demo", 262)
    line.detach("behind", 15)

    taken = Line.of_row(line.row(recorded.marked(0, 15), None), 0, 263)
    late = make_delivery(retry_line="5s", retry_partition=3, retry_generation=261, attempt=2)
    assert recorded.is_late(0, 16, late, taken.before)
    assert not recorded.is_late(0, 16, make_delivery(source_generation=261), taken.before)


def test_markers_that_a_line_far_behind_reads_say_nothing_of_what_is_read_ahead_of_it():
    """Between the two places nobody of this assignment has read."""
    recorded = Recorded((EVENTS, 2), {"5s": RETRIES})
    recorded.begin({0: "0;262;262;262"}, {}, 263, reads_from={0: 1_000})
    far_behind = Line("int_1", 0, "demo", 263)
    far_behind.before = Before(10, Owners(250, 250))
    ahead = Line("int_2", 0, "demo", 263)
    ahead.before = Before(500, Owners(261, 261))
    marked(recorded, 20, EVENTS, 0, 251)  # read for the first

    def is_late(offset, generation, before):
        return recorded.is_late(0, offset, make_delivery(source_partition=0, source_generation=generation), before)

    assert is_late(30, 250, far_behind.before)
    assert not is_late(30, 251, far_behind.before)
    assert is_late(510, 260, ahead.before)
    assert not is_late(510, 261, ahead.before)
    assert is_late(1_010, 261, None)
    assert not is_late(1_010, 262, None)
    assert recorded.marked(0, 510, ahead.before).event_owner("e0") == 261
    assert recorded.marked(0).event_owner("e0") == 262
    # Of a line that came with its row nothing is late for what is stored behind it.
    assert not is_late(505, 261, ahead.before)
    assert recorded.marked(0, 505, ahead.before).event_owner("e0") == 261
    # Nor where nobody knows more than what was read further back.
    assert not is_late(400, 251, ahead.before)


def test_a_floor_of_an_older_release_is_read_as_it_was_meant():
    recorded = begun("5;261;260;259")

    assert recorded.marked(0) == Owners(261, 260)
    assert recorded.floor(0, ResultsEnd(5, 259), 0) == "5;261;260;259"
