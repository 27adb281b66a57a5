"""How often a record stood first when a worker died, as commits carry it."""

import pytest

from streams.engine.standing import Standing, read, written


def test_a_worker_that_settled_leaves_no_mark():
    assert written(None, 7, "floor") == "floor"
    assert read("floor") == (0, "floor")


def test_each_worker_that_dies_with_the_same_record_first_counts():
    stored, counts = "floor", []
    for _ in range(4):
        unclean, floor = read(stored)
        counts.append(unclean)
        stored = written(Standing(7, unclean), 7, floor)
    assert counts == [0, 1, 2, 3]


def test_progress_forgets():
    assert read(written(Standing(7, 2), 8, "floor")) == (1, "floor")


@pytest.mark.parametrize("metadata", ["", "3;14;1,2", "u|x", "ux|y", "u1", "5|u1|"])
def test_what_else_stands_there_is_a_floor(metadata):
    assert read(metadata) == (0, metadata)


@pytest.mark.parametrize(("prefix", "count"), [("", 0), ("u2|", 3)])
@pytest.mark.parametrize("short", ["", "short|", "short:9|"])
def test_what_the_next_release_notes_of_the_last_record_is_passed_over(short, prefix, count):
    assert read(f"{short}at1234:1795450000000|{prefix}3;14;1,2") == (count, "3;14;1,2")


def test_a_floor_may_have_bars_of_its_own():
    assert read(written(Standing(7, 0), 7, "a|b")) == (1, "a|b")
