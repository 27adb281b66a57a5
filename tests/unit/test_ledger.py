"""What may be committed, whatever order records finish in."""

import pytest

from streams.ledger import Ledger


def ledger_with(*offsets: int, start: int = 0) -> Ledger:
    ledger = Ledger(start)
    ledger.take((offset, 10) for offset in offsets)
    return ledger


def test_nothing_taken_commits_where_it_started():
    assert Ledger(7).committable == 7


@pytest.mark.parametrize(
    ("start", "taken", "finished", "committable"),
    [
        # The rows of "Out-of-order acks lose messages": what Faust 0.15.3 commits is 8, 4, 14, 14 and 10.
        (0, range(8), (5, 6, 7), 0),
        (0, range(4), (1, 2, 3), 0),
        (10, range(10, 14), (11, 12, 13), 10),
        (10, range(10, 14), (10, 12, 13), 11),
        (5, (5, 8, 9), (5, 9), 8),
        (10, range(10, 14), (12, 13), 10),
        (0, range(3), (0, 1, 2), 3),
    ],
)
def test_the_first_unfinished_record_holds_the_commit(start, taken, finished, committable):
    ledger = ledger_with(*taken, start=start)
    for offset in finished:
        ledger.finish(offset)

    assert ledger.committable == committable


def test_finishing_twice_changes_nothing():
    ledger = ledger_with(0, 1)
    ledger.finish(0)
    ledger.finish(0)
    ledger.finish(99)

    assert (ledger.committable, ledger.unfinished_records, ledger.unfinished_bytes) == (1, 1, 10)


def test_an_offset_is_taken_once():
    ledger = ledger_with(0, 1)

    with pytest.raises(ValueError, match="taken already"):
        ledger.take([(1, 10)])


def test_the_floor_is_that_of_the_oldest_unfinished_record():
    ledger = Ledger(0)
    ledger.take([(0, 1), (1, 1)], "a")
    ledger.take([(2, 1)], "b")
    ledger.take([(3, 1)], "c")
    floors = [ledger.floor("now")]
    for offset in (1, 2, 0, 3):
        ledger.finish(offset)
        floors.append(ledger.floor("now"))

    assert floors == ["a", "a", "a", "c", "now"]
