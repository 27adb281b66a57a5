"""The history's file: whole or not at all, thrown away where it cannot be used, and emptied of what is too old."""

import sqlite3
import stat
from dataclasses import replace

import pytest

from services.history import query, tables
from services.history.query import Wanted
from services.history.store import SLICE, Store
from services.runtime.serving import StartupError
from streams import codec
from streams.records import Marker
from tests.breaking import NOON_MS, make_result
from tests.histories import DELIVERED, attempts_in, count_in, delivered, everything_in, put, raws, reader_of, rows_in

DAY_MS = 86_400_000


@pytest.fixture
def store(tmp_path):
    made = Store(tmp_path / "history")
    yield made
    made.close()


def test_what_is_no_result_is_passed_over_and_what_cannot_be_read_is_counted(store):
    marker = Marker(source_topic="deliveries", source_partition=0, generation=1, owner="w", at_ms=0)
    records = [(0, 0, codec.encode(marker)), (0, 1, b"poison"), (0, 2, None), (0, 3, codec.encode(delivered(1)))]
    store.fold(records, {0: 4})

    assert (store.unreadable, store.positions()) == (1, {0: 4})
    assert [row.delivery_id for row in rows_in(store.path)] == ["dlv_int_1_1"]


def test_a_batch_that_fails_leaves_nothing_of_itself(store, monkeypatch):
    put(store, delivered(1, "int_a"))
    before = everything_in(store.path)
    monkeypatch.setattr(tables, "MOVE", "INSERT INTO nowhere VALUES (?,?)")
    with pytest.raises(sqlite3.OperationalError):
        store.fold(raws([delivered(2, "int_b", type="new")], start=1), {0: 2})
    monkeypatch.undo()

    assert (everything_in(store.path), store.positions()) == (before, {0: 1})
    put(store, delivered(2, "int_b", type="new"))  # with names that were taken back
    assert [row.integration for row in rows_in(store.path)] == ["int_a", "int_b"]


def test_what_was_folded_is_there_when_it_is_opened_again(tmp_path):
    store = Store(tmp_path)
    store.start_over("topic_1")
    put(store, make_result(1), delivered(2))
    before = everything_in(store.path)
    store.close()
    again = Store(tmp_path)
    put(again, make_result(1, attempt=2, **DELIVERED))
    rows, topic_id = {row.delivery_id: row for row in rows_in(again.path)}, again.topic_id
    again.close()

    assert [row.outcome for row in before[0]] == [None, "delivered"]
    assert (again.path, topic_id) == (store.path, "topic_1")
    assert (rows["dlv_int_1_1"].outcome, rows["dlv_int_1_1"].attempts) == ("delivered", 2)


def test_it_begins_anew_in_another_file_and_knows_of_which_log(store, tmp_path):
    put(store, delivered(1))
    first = store.path
    store.start_over("topic_2")

    assert (store.positions(), rows_in(store.path), store.topic_id) == ({}, [], "topic_2")
    assert store.path != first
    assert {file.name for file in store.path.parent.iterdir()} >= {store.path.name, "lock"}
    assert not first.exists()


@pytest.mark.parametrize("content", [b"no database at all, and long enough to be looked at" * 99, b""])
def test_a_file_that_cannot_be_used_is_thrown_away(tmp_path, content):
    (tmp_path / "results-000007.sqlite").write_bytes(content)
    store = Store(tmp_path)
    put(store, delivered(1))
    found = rows_in(store.path)
    store.close()

    assert len(found) == 1
    assert [file.name for file in tmp_path.glob("results-*.sqlite")] == ["results-000008.sqlite"]


def test_a_file_of_another_version_is_thrown_away(tmp_path, monkeypatch):
    store = Store(tmp_path)
    put(store, delivered(1))
    store.close()
    monkeypatch.setattr(tables, "VERSION", tables.VERSION + 1)
    other = Store(tmp_path)
    found, positions = rows_in(other.path), other.positions()
    other.close()

    assert (found, positions) == ([], {})


def test_a_file_that_was_made_without_an_index_gets_it_and_keeps_what_it_has(tmp_path, monkeypatch):
    with monkeypatch.context() as former:
        former.setattr(tables, "TABLES", tuple(each for each in tables.TABLES if each not in tables.BY_END))
        store = Store(tmp_path)
    put(store, delivered(1))
    store.close()
    again = Store(tmp_path)
    wanted = Wanted(app="demo", outcome="delivered", since_ms=0)
    with reader_of(again) as file:
        found = [query.page(file, each, limit=10) for each in (wanted, replace(wanted, integration="int_1"))]
    again.close()

    assert [[row.delivery_id for row in each.items] for each in found] == [["dlv_int_1_1"]] * 2


def test_a_folder_is_one_process_s(store):
    with pytest.raises(StartupError, match="TENTERHOOK_HISTORY__DIRECTORY"):
        Store(store.path.parent)


def test_a_folder_that_cannot_be_made_is_said(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(StartupError, match="cannot be kept"):
        Store(tmp_path / "file" / "history")


def test_nobody_else_may_read_it(store):
    put(store, delivered(1))
    modes = {stat.S_IMODE(file.stat().st_mode) for file in store.path.parent.glob("results-*")}

    assert modes == {0o600}
    assert stat.S_IMODE(store.path.parent.stat().st_mode) == 0o700


def test_nothing_of_an_answer_outlives_its_delivery(store):
    """What results are compressed with stays, so nothing of what a receiver said may be in it."""
    secret = b"said by a receiver"
    put(store, delivered(1, response_body=secret, response_headers={"X-Said": secret.decode()}, detail=secret.decode()))
    swept(store, NOON_MS + 9 * DAY_MS)
    with reader_of(store) as file:
        [(pattern,)] = file.execute("SELECT pattern FROM patterns").fetchall()

    assert secret not in pattern
    assert b"X-Said" in pattern


# -- retention


def swept(store: Store, before_ms: int) -> int:
    """How many slices it took."""
    after: int | None = -1
    slices = 0
    while after is not None:
        after = store.sweep(before_ms, after)
        slices += 1
        assert slices < 100
    return slices


def test_a_delivery_goes_with_all_of_its_attempts_when_its_last_result_is_too_old(store):
    old = [make_result(1), make_result(1, attempt=2, **DELIVERED)]
    long_open = [make_result(2), make_result(2, attempt=2, finished_at_ms=NOON_MS + 3 * DAY_MS)]
    young = [delivered(3, started_at_ms=NOON_MS + 3 * DAY_MS, finished_at_ms=NOON_MS + 3 * DAY_MS)]
    put(store, *old, *long_open)
    put(store, *young, partition=1)
    swept(store, NOON_MS + 2 * DAY_MS)

    assert [row.delivery_id for row in rows_in(store.path)] == ["dlv_int_1_2", "dlv_int_1_3"]
    assert (count_in(store.path, "attempts"), len(attempts_in(store.path))) == (3, 3)
    assert count_in(store.path, "hours") == 1
    assert store.positions() == {0: 4, 1: 1}


def test_old_ones_are_found_in_every_partition_a_slice_at_a_time(store):
    for partition in range(3):
        old = [delivered(number, f"int_{partition}") for number in range(SLICE + 10)]
        put(store, *old, delivered(99_000_000, f"int_{partition}"), partition=partition)
    slices = swept(store, NOON_MS + 2 * DAY_MS)

    assert [row.delivery_id for row in rows_in(store.path)] == [f"dlv_int_{each}_99000000" for each in range(3)]
    assert slices >= 4


def test_what_is_young_is_not_looked_at(store):
    put(store, *(delivered(number) for number in range(3 * SLICE)))
    put(store, delivered(0, "int_old", finished_at_ms=1, started_at_ms=1), partition=7)

    assert swept(store, NOON_MS - DAY_MS) <= 3
    assert count_in(store.path, "deliveries") == 3 * SLICE
