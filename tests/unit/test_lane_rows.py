"""Rows of detached integrations, folded."""

from typing import Any

import pytest

from streams import codec
from streams.lane_rows import MARKER_KEY, LaneRows, row_key
from streams.records import LaneRow, Marker


def make_row(integration: str = "int_1", generation: int = 1, **changes: Any) -> LaneRow:
    fields: dict[str, Any] = {
        "integration": integration,
        "app": "demo",
        "generation": generation,
        "reason": "paused",
        "frontier": 0,
        "open": [],
        "held": 1,
    }
    return LaneRow(**fields | changes)


class Partition:
    """Appends to one partition of the fold."""

    def __init__(self, rows: LaneRows, number: int = 0) -> None:
        self._rows = rows
        self._number = number
        self._next = 0

    def _append(self, key: bytes | None, value: bytes | None) -> None:
        self._rows.apply(self._number, key, value, self._next)
        self._next += 1

    def row(self, row: LaneRow) -> None:
        self._append(row_key(row.integration, row.generation), codec.encode(row))

    def tombstone(self, integration: str, generation: int) -> None:
        self._append(row_key(integration, generation), None)

    def marker(self, generation: int) -> None:
        marker = Marker(source_topic="deliveries", source_partition=0, generation=generation, owner="w", at_ms=0)
        self._append(MARKER_KEY, codec.encode(marker))

    def raw(self, key: bytes | None, value: bytes | None) -> None:
        self._append(key, value)


@pytest.fixture
def rows():
    return LaneRows()


@pytest.fixture
def log(rows):
    return Partition(rows)


def held(rows: LaneRows) -> dict[str, tuple[int, int]]:
    return {row.integration: (row.generation, row.held) for row in rows.all()}


def test_the_latest_row_of_a_generation_counts(rows, log):
    log.marker(4)
    log.row(make_row(generation=4, held=1))
    log.row(make_row(generation=4, held=2))
    log.row(make_row("int_2", 4))

    assert held(rows) == {"int_1": (4, 2), "int_2": (4, 1)}
    assert (rows.get("int_1").held, rows.get("int_9")) == (2, None)


def test_a_row_of_before_a_marker_stays_until_its_owner_writes_another(rows, log):
    log.row(make_row(generation=4, held=1))
    log.marker(5)
    assert held(rows) == {"int_1": (4, 1)}

    log.row(make_row(generation=5, held=2))
    assert held(rows) == {"int_1": (5, 2)}


def test_what_a_replaced_owner_writes_late_is_passed_over(rows, log):
    log.row(make_row(generation=4, held=1))
    log.marker(5)
    log.row(make_row(generation=4, held=9))
    log.tombstone("int_1", 4)
    log.row(make_row("int_2", 4))

    assert held(rows) == {"int_1": (4, 1)}


def test_the_higher_generation_counts_where_compaction_took_the_marker_between(rows, log):
    log.row(make_row(generation=5, held=2))
    log.row(make_row(generation=4, held=9))

    assert held(rows) == {"int_1": (5, 2)}


def test_a_tombstone_deletes_the_row_of_its_generation_alone(rows, log):
    log.row(make_row(generation=5))
    log.tombstone("int_1", 4)
    assert held(rows) == {"int_1": (5, 1)}

    log.tombstone("int_1", 5)
    log.tombstone("int_1", 5)
    assert held(rows) == {}


def test_an_owner_that_took_a_row_over_and_ended_it_leaves_none(rows, log):
    log.row(make_row(generation=4))
    log.marker(5)
    log.row(make_row(generation=5))
    log.tombstone("int_1", 4)
    log.tombstone("int_1", 5)

    assert held(rows) == {}


def test_a_group_that_counts_anew_is_followed(rows, log):
    log.marker(9)
    log.row(make_row(generation=9, held=9))
    log.marker(1)
    log.row(make_row(generation=1, held=1))
    log.tombstone("int_1", 9)

    assert held(rows) == {"int_1": (1, 1)}


def test_markers_are_of_their_partition_alone(rows, log):
    other = Partition(rows, 1)
    log.marker(7)
    other.row(make_row("int_2", 3))

    assert held(rows) == {"int_2": (3, 1)}


def test_a_cleared_partition_is_forgotten_with_its_marker_and_no_other(rows, log):
    other = Partition(rows, 1)
    log.marker(7)
    log.row(make_row("int_1", 7))
    other.row(make_row("int_2", 3))

    rows.clear(0)
    assert held(rows) == {"int_2": (3, 1)}

    log.row(make_row("int_1", 2))
    assert held(rows) == {"int_1": (2, 1), "int_2": (3, 1)}


@pytest.mark.parametrize(
    ("key", "value"),
    [
        (None, None),
        (b"int_1", codec.encode(make_row())),
        (b"int_1/x", None),
        (b"\xff/1", None),
        (b"int_1/2", codec.encode(make_row(generation=1))),
        (b"int_2/1", codec.encode(make_row(generation=1))),
        (b"int_1/1", b"garbage"),
        (MARKER_KEY, codec.encode(make_row())),
    ],
)
def test_an_unreadable_record_is_counted_and_leaves_what_was_there(rows, log, key, value):
    log.row(make_row(held=3))
    log.raw(key, value)

    assert (held(rows), rows.unreadable) == ({"int_1": (1, 3)}, 1)


def test_a_marker_s_tombstone_changes_nothing(rows, log):
    log.marker(5)
    log.raw(MARKER_KEY, None)
    log.row(make_row(generation=4))

    assert (held(rows), rows.unreadable) == ({}, 0)
