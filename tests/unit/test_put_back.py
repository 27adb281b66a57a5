"""What a takeover of a retry line finds, and the floor that tells its successor where to look."""

from aiokafka import ConsumerRecord

from services.dispatcher.put_back import IDLE, Floor, Origin, PutBacks, ReadBack
from streams import codec
from streams.records import Marker
from tests.records import make_delivery

LINE, TOPIC = "retry.5s", "tenterhook.retry.5s"


def record(offset: int, value: bytes, key: bytes | None, headers=(), partition: int = 0):
    return ConsumerRecord("deliveries", partition, offset, 0, 0, key, value, None, 0, 0, headers)


def put_back(offset: int, origin: Origin, partition: int = 0):
    return record(offset, codec.encode(make_delivery()), b"int_1", (origin.header(),), partition)


def marker(offset: int, generation: int, sources: list[int], topic: str = TOPIC):
    found = Marker(
        source_topic=topic,
        source_partition=sources[0],
        source_partitions=sources,
        generation=generation,
        owner="w",
        at_ms=0,
    )
    return record(offset, codec.encode(found), None)


def read_back(floors: dict[int, Floor], starts: dict[int, int], *records) -> set[tuple[int, int]]:
    back = ReadBack(line=LINE, topic=TOPIC, floors=floors, starts=starts)
    for each in records:
        back.see(each)
    return back.found


def test_what_is_read_again_and_stands_above_the_floor_is_found():
    floor = Floor(3, (10,))
    found = read_back(
        {1: floor},
        {1: 100},
        put_back(9, Origin(LINE, 1, 101, 3)),  # below the floor
        put_back(10, Origin(LINE, 1, 99, 3)),  # committed over
        put_back(11, Origin(LINE, 1, 100, 3)),
        put_back(12, Origin("retry.20s", 1, 102, 3)),
        put_back(13, Origin(LINE, 2, 103, 3)),  # not ours to look for
        record(14, codec.encode(make_delivery()), b"int_1"),
    )
    assert found == {(1, 100)}


def test_what_a_replaced_reader_put_back_late_is_not_found():
    found = read_back(
        {1: Floor(3, (0,)), 2: Floor(3, (0,))},
        {1: 0, 2: 0},
        put_back(1, Origin(LINE, 1, 1, 2)),  # older than the floor's owner
        put_back(2, Origin(LINE, 1, 2, 3)),
        marker(3, 9, [1], topic="tenterhook.events"),
        marker(4, 4, [1, 2]),
        put_back(5, Origin(LINE, 1, 3, 3)),
        put_back(6, Origin(LINE, 2, 4, 3)),
        put_back(7, Origin(LINE, 2, 5, 4)),
    )
    assert found == {(1, 2), (2, 5)}


def test_headers_and_records_of_others_are_passed_over():
    strange = [("tenterhook-retry", b"a/b"), ("tenterhook-retry", b"\xff"), ("other", b"retry.5s/1/0/3")]
    records = [record(n, b"", b"int_1", (header,)) for n, header in enumerate(strange)] + [record(9, b"?", None)]
    assert read_back({1: Floor(0, (0,))}, {1: 0}, *records) == set()


def test_a_floor_is_stored_and_read():
    floor = Floor(3, (1, 22, 333))
    assert Floor.parse(str(floor), 3) == floor
    assert Floor.parse(IDLE, 3) is None
    for text in ("", "nonsense", str(floor)[:-4], "x;1,2,3"):
        assert Floor.parse(text, 3) == Floor(0, (0, 0, 0))
    assert len(str(Floor(2**31, (2**45,) * 256))) < 4_096


def test_the_floor_is_that_of_the_oldest_put_back_not_committed_over():
    put_backs = PutBacks()
    assert put_backs.floor(0) == IDLE
    put_backs.begin(10, "a")
    put_backs.begin(5, "b")
    put_backs.begin(20, "c")
    assert put_backs.floor(3) == "a"
    assert put_backs.floor(10) == "a"
    assert put_backs.floor(11) == "c"
    assert put_backs.floor(21) == IDLE


def test_a_floor_of_idle_wants_a_commit_before_the_next_put_back():
    put_backs = PutBacks()
    put_backs.begin(1, "a")
    put_backs.is_covered = True
    put_backs.floor(1)
    assert put_backs.is_covered
    put_backs.floor(2)
    assert not put_backs.is_covered


def test_a_predecessors_floor_is_kept_until_what_it_led_to_is_committed_over():
    put_backs = PutBacks("theirs", last_found=7)
    put_backs.begin(9, "ours")
    assert put_backs.floor(7) == "theirs"
    assert put_backs.floor(8) == "ours"


def test_behind_one_that_waits_long_no_memory_is_taken_for_those_that_went():
    put_backs = PutBacks()
    for number in range(1, 10_000):
        put_backs.begin(number, f"floor {number}")
    assert len(put_backs._together) < 100
    assert put_backs.floor(0) == "floor 1"
    assert put_backs.floor(9_999) != IDLE
    assert put_backs.floor(10_000) == IDLE
