"""The history of a process: asked while it is written, without a broker, in a folder of its own or a given one."""

import asyncio
import sqlite3
from pathlib import Path

import pytest

from services.history.query import Wanted
from services.history.read_model import DAY_MS, History
from services.runtime.problems import Problem
from services.runtime.settings import HistorySettings
from streams.connection import Connection
from tests.breaking import NOON_MS
from tests.histories import delivered, put, rows_in
from tests.waiting import eventually

NOBODY = Connection("127.0.0.1:1")


def history_in(directory: Path | None, *, now_ms: int = NOON_MS) -> History:
    return History(NOBODY, HistorySettings(directory=directory), 3, now_ms=lambda: now_ms)


async def test_it_answers_from_what_it_has_while_there_is_no_broker(tmp_path):
    history = history_in(tmp_path)
    put(history._store, delivered(1), delivered(2))
    history.start()
    try:
        page = await history.page(Wanted(app="demo"), limit=1)
        rest = await history.page(Wanted(app="demo"), limit=1, cursor=page.next)
        told = await history.delivery("demo", "dlv_int_1_1")
        rates = await history.rates("demo", ["int_1"], hours=1)
        await eventually(lambda: "interrupted" in (history.trouble or ""))
    finally:
        await history.stop()

    assert [row.delivery_id for row in page.items + rest.items] == ["dlv_int_1_2", "dlv_int_1_1"]
    assert told is not None
    assert [bucket.delivered for bucket in rates["int_1"]] == [2]
    assert history.lag is None


async def test_until_it_is_read_to_its_end_a_question_is_told_to_come_again(tmp_path):
    history = history_in(tmp_path)
    try:
        with pytest.raises(Problem) as held:
            history.check_read()
        unread = history.unread
        history._follower.trouble = None
        reading = history.unread
        history._follower.has_caught_up.set()
        history._follower.trouble = "reading is interrupted: the broker is away"
        history.check_read()
    finally:
        await history.stop()

    assert (held.value.status, held.value.code) == (503, "history_unavailable")
    assert held.value.headers["Retry-After"] == "5"
    assert unread == "the delivery history is not followed: it has not begun"
    assert reading == "the delivery history is being read: 0 results to go"
    assert history.unread is None, "later troubles leave what is there to be asked"


@pytest.mark.parametrize(("flag", "is_held_up"), [(None, True), ("was_read", False), ("is_unwritable", False)])
async def test_a_process_is_held_up_by_it_once_at_most_and_by_no_disk(tmp_path, flag, is_held_up):
    history = history_in(tmp_path)
    if flag is not None:
        setattr(history._follower, flag, True)
    assert (history.unread is not None, history.holds_up is not None) == (True, is_held_up)
    await history.stop()


async def test_a_folder_may_be_given_from_where_the_process_runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    history = history_in(Path("data/history #1?"))
    put(history._store, delivered(1))
    page = await history.page(Wanted(app="demo"), limit=1)
    await history.stop()

    assert len(page.items) == 1
    assert (tmp_path / "data" / "history #1?").is_dir()


async def test_a_cursor_that_is_none_is_a_problem_of_the_request(tmp_path):
    history = history_in(tmp_path)
    try:
        with pytest.raises(Problem) as refused:
            await history.page(Wanted(app="demo"), limit=1, cursor="x")
    finally:
        await history.stop()

    assert (refused.value.status, refused.value.code) == (400, "cursor_invalid")


async def test_a_file_that_cannot_be_read_is_a_problem_to_come_again_with(tmp_path, monkeypatch):
    history = history_in(tmp_path)

    def broken(*_: object, **__: object) -> None:
        error = sqlite3.DatabaseError("malformed")
        error.sqlite_errorcode = sqlite3.SQLITE_CORRUPT
        raise error

    monkeypatch.setattr("services.history.query.delivery", broken)
    try:
        with pytest.raises(Problem) as refused:
            await history.delivery("demo", "dlv_1")
    finally:
        await history.stop()

    assert (refused.value.status, refused.value.code) == (503, "history_unavailable")
    assert history._follower._must_start_over


async def test_readers_go_on_with_the_new_file_when_it_begins_anew(tmp_path):
    history = history_in(tmp_path)
    put(history._store, delivered(1))
    try:
        before = await asyncio.gather(*(history.page(Wanted(app="demo"), limit=9) for _ in range(8)))
        await history._written(history._store.start_over, "topic_2")
        await history._written(put, history._store, delivered(2))
        after = await asyncio.gather(*(history.page(Wanted(app="demo"), limit=9) for _ in range(8)))
    finally:
        await history.stop()

    assert {row.delivery_id for page in before for row in page.items} == {"dlv_int_1_1"}
    assert {row.delivery_id for page in after for row in page.items} == {"dlv_int_1_2"}


async def test_what_is_out_of_retention_goes_by_itself(tmp_path):
    history = history_in(tmp_path, now_ms=NOON_MS + 30 * DAY_MS + 1_500)
    put(history._store, delivered(1), delivered(2))
    history.start()
    try:
        await eventually(lambda: len(rows_in(history._store.path)) == 1)
    finally:
        await history.stop()


async def test_without_a_folder_it_has_one_of_its_own_and_removes_it(tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    history = history_in(None)
    put(history._store, delivered(1))
    there = list(tmp_path.iterdir())
    await history.stop()

    assert len(there) == 1
    assert list(tmp_path.iterdir()) == []


async def test_it_can_be_asked_while_it_is_written(tmp_path):
    """Readers see whole batches: of each two deliveries both or none."""
    history = history_in(tmp_path)
    try:

        async def write() -> None:
            for number in range(60):
                await history._written(put, history._store, delivered(2 * number), delivered(2 * number + 1))

        writing = asyncio.create_task(write())
        counts = []
        while not writing.done():
            counts.append(len((await history.page(Wanted(app="demo"), limit=1_000)).items))
        await writing
    finally:
        await history.stop()

    assert all(count % 2 == 0 for count in counts)
    assert counts == sorted(counts)
    assert len(set(counts)) > 1
