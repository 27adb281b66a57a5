"""Questions to the history: which deliveries a list holds, in which order, and where it goes on."""

from typing import Any

import pytest

from services.cli.delivery_rows import Rows
from services.cli.delivery_rows import Wanted as Listed
from services.history import query
from services.history.cursor import BadCursor
from services.history.fold import HOUR_MS
from services.history.query import Bucket, Page, Wanted
from services.history.store import Store
from tests.breaking import NOON_MS, make_result
from tests.histories import BLOCKED, DELIVERED, EXHAUSTED, delivered, put, reader_of

OF_DEMO = Wanted(app="demo")


@pytest.fixture
def store(tmp_path):
    made = Store(tmp_path / "history")
    yield made
    made.close()


def asked(store: Store, wanted: Wanted = OF_DEMO, **options: Any) -> Page:
    with reader_of(store) as file:
        return query.page(file, wanted, limit=options.pop("limit", 100), **options)


def ids(page: Page) -> list[str]:
    return [row.delivery_id for row in page.items]


def walked(store: Store, wanted: Wanted = OF_DEMO, *, limit: int, between: Any = lambda: None) -> list[list[str]]:
    """The ids of every page to the last one."""
    pages, cursor = [], None
    while True:
        page = asked(store, wanted, limit=limit, cursor=cursor)
        pages.append(ids(page))
        cursor = page.next
        if cursor is None:
            return pages
        between()


@pytest.mark.parametrize("wanted", [OF_DEMO, Wanted(app="demo", outcome="exhausted", since_ms=0)])
def test_a_list_goes_on_behind_any_row_of_a_page(store, wanted):
    # Of one millisecond, and the longer it was tried the earlier it began.
    at = {"started_at_ms": NOON_MS, "finished_at_ms": NOON_MS}
    put(store, *(make_result(number, **EXHAUSTED | at) for number in range(3)), *_tried_twice(7), *_tried_twice(3))
    page = asked(store, wanted)

    for number, row in enumerate(page.items, 1):
        assert asked(store, wanted, cursor=query.cursor_behind(row, wanted)).items == page.items[number:]
    assert len(page.items) == 5


def _tried_twice(number):
    ended = make_result(number, attempt=2, **EXHAUSTED | {"finished_at_ms": NOON_MS + 100_000 - number})
    return make_result(number), ended


#: One of each kind, by name; the number is the order in which they began.
KINDS = {
    "delivered": delivered(1, "int_a"),
    "delivered_b": delivered(2, "int_b", type="call_started"),
    "open": make_result(3, "int_a"),
    "blocked": make_result(4, "int_a", **BLOCKED),
    "retry": delivered(5, "int_a", cause="retry", of="dlv_int_a_1", event_id="evt_1"),
    "replay": make_result(6, "int_b", cause="replay", outcome="exhausted"),
    "other_app": delivered(7, "int_c", app="other", event_id="evt_1"),
}


@pytest.mark.parametrize(
    ("filters", "names"),
    [
        ({}, "replay retry blocked open delivered_b delivered"),
        ({"integration": "int_a"}, "retry blocked open delivered"),
        ({"integration": "int_c"}, ""),
        ({"integration": "never seen"}, ""),
        ({"outcome": "delivered"}, "retry delivered_b delivered"),
        ({"outcome": "open"}, "open"),
        ({"outcome": "rejected"}, ""),
        ({"integration": "int_a", "outcome": "blocked"}, "blocked"),
        ({"integration": "int_b", "outcome": "delivered"}, "delivered_b"),
        ({"type": "call_started"}, "delivered_b"),
        ({"type": "call_ended", "outcome": "delivered"}, "retry delivered"),
        ({"type": "call_ended", "outcome": "exhausted"}, "replay"),
        ({"type": "call_started", "integration": "int_b"}, "delivered_b"),
        ({"cause": "live"}, "blocked open delivered_b delivered"),
        ({"cause": "replay"}, "replay"),
        ({"cause": "retry", "integration": "int_b"}, ""),
        ({"cause": "retry", "outcome": "delivered"}, "retry"),
        ({"event": "evt_1"}, "retry delivered"),
        ({"event": "evt_1", "cause": "retry"}, "retry"),
        ({"event": "evt_none"}, ""),
        ({"since_ms": NOON_MS + 4_000 - 20}, "replay retry blocked"),
        ({"until_ms": NOON_MS + 4_000 - 20}, "open delivered_b delivered"),
        ({"since_ms": NOON_MS + 2_000, "until_ms": NOON_MS + 3_000}, "open"),
        # With an outcome, times are those of the end.
        ({"outcome": "delivered", "since_ms": KINDS["delivered_b"].finished_at_ms}, "retry delivered_b"),
        ({"outcome": "delivered", "until_ms": KINDS["retry"].finished_at_ms}, "delivered_b delivered"),
        ({"outcome": "delivered", "since_ms": KINDS["retry"].finished_at_ms, "cause": "retry"}, "retry"),
        ({"outcome": "delivered", "since_ms": 0, "integration": "int_b"}, "delivered_b"),
        ({"outcome": "delivered", "since_ms": 0, "type": "call_started"}, "delivered_b"),
        ({"outcome": "delivered", "since_ms": KINDS["retry"].finished_at_ms, "event": "evt_1"}, "retry"),
        ({"outcome": "open", "since_ms": KINDS["open"].started_at_ms}, "open"),
        ({"outcome": "open", "since_ms": KINDS["open"].started_at_ms + 1}, ""),
    ],
)
def test_a_list_holds_what_is_asked_for_and_nothing_of_another_app(store, filters, names):
    for partition, result in enumerate(KINDS.values()):
        put(store, result, partition=partition)
    wanted = [KINDS[name].delivery_id for name in names.split()]

    assert ids(asked(store, Wanted(app="demo", **filters))) == wanted
    assert [each for page in walked(store, Wanted(app="demo", **filters), limit=1) for each in page] == wanted


def test_what_the_command_lists_since_a_time_is_what_is_sent_again_since_then(store):
    """A booking is tried for 7.7 hours: it may have begun long before the time since which it is exhausted."""
    ends = {"early": NOON_MS - 1, "late": NOON_MS, "later": NOON_MS + 2_000}
    log = [make_result(number, started_at_ms=NOON_MS - 25 * HOUR_MS - number) for number in range(3)]
    log += [
        make_result(number, attempt=8, **EXHAUSTED, started_at_ms=at_ms - 20, finished_at_ms=at_ms)
        for number, at_ms in enumerate(ends.values())
    ]
    log.append(delivered(9, started_at_ms=NOON_MS))
    put(store, *log)
    rows = Rows(Listed("exhausted", since_ms=NOON_MS), 10)
    for each in log:
        rows.see(each)

    wanted = Wanted(app="demo", outcome="exhausted", since_ms=NOON_MS)
    assert ids(asked(store, wanted)) == [each.delivery_id for each in reversed(rows.newest_last())]
    assert ids(asked(store, wanted)) == ["dlv_int_1_2", "dlv_int_1_1"]
    assert walked(store, wanted, limit=1) == [["dlv_int_1_2"], ["dlv_int_1_1"]]


@pytest.mark.parametrize("filters", [{}, {"integration": "int_1"}, {"outcome": "delivered"}, {"type": "call_ended"}])
def test_pages_are_the_list_in_pieces_while_new_ones_come_in(store, filters):
    put(store, *(delivered(number) for number in range(25)))
    coming = iter(range(100, 200))
    pages = walked(store, Wanted(app="demo", **filters), limit=10, between=lambda: put(store, delivered(next(coming))))

    assert [len(page) for page in pages] == [10, 10, 5]
    assert [each for page in pages for each in page] == [f"dlv_int_1_{number}" for number in reversed(range(25))]


def test_pages_do_not_move_when_a_delivery_of_an_earlier_one_ends(store):
    put(store, *(make_result(number) for number in range(10)))
    ends = iter([7, 2])
    pages = walked(store, limit=4, between=lambda: put(store, make_result(next(ends), **DELIVERED | {"attempt": 2})))

    assert [each for page in pages for each in page] == [f"dlv_int_1_{number}" for number in reversed(range(10))]


def test_deliveries_that_began_in_the_same_millisecond_come_once_each(store):
    for partition in range(3):
        its = (delivered(number, f"int_{partition}", started_at_ms=NOON_MS) for number in range(4))
        put(store, *its, partition=partition)
    found = [each for page in walked(store, limit=5) for each in page]

    assert (len(found), len(set(found))) == (12, 12)


def test_a_page_that_has_looked_at_enough_comes_short_and_goes_on(store, monkeypatch):
    monkeypatch.setattr(query, "LOOKED_AT", 10)
    put(store, *(delivered(number, type="rare" if number in (3, 28) else "call_ended") for number in range(30)))
    pages = walked(store, Wanted(app="demo", type="rare", integration="int_1"), limit=10)

    assert pages == [["dlv_int_1_28"], [], ["dlv_int_1_3"]]


@pytest.mark.parametrize("text", ["", "x", "AAAA", "ÄÖ", "=" * 32])
def test_what_is_no_cursor_is_refused(store, text):
    put(store, delivered(1))
    with pytest.raises(BadCursor):
        asked(store, cursor=text)


def test_a_cursor_of_another_list_is_refused(store):
    put(store, delivered(1), delivered(2))
    cursor = asked(store, limit=1).next
    with pytest.raises(BadCursor, match="other filters"):
        asked(store, Wanted(app="demo", outcome="delivered"), cursor=cursor)


# -- one delivery


def told(store: Store, id_: str, app: str = "demo") -> Any:
    with reader_of(store) as file:
        return query.delivery(file, app, id_)


def test_a_delivery_is_told_with_every_result_as_it_was_and_those_that_repeat_it(store):
    its = [
        make_result(1, response_body=b"\xff\x00" * 4_000, request_headers={"Authorization": "Bearer ***"}),
        make_result(1, attempt=1, reason="timeout"),
        make_result(1, attempt=2, **DELIVERED),
    ]
    repeats = [delivered(number, of="dlv_int_1_1", cause="retry", record_id="rec_1") for number in (5, 6)]
    put(store, its[0], delivered(2), *its[1:], *repeats)
    found = told(store, "dlv_int_1_1")

    assert found.results == its
    assert (found.row.outcome, found.row.repeats) == ("delivered", 1)
    assert [row.delivery_id for row in found.repeated_by] == ["dlv_int_1_6", "dlv_int_1_5"]
    assert told(store, "dlv_int_1_6").row.of == "dlv_int_1_1"


def test_a_delivery_of_another_app_is_not_told(store):
    put(store, delivered(1), delivered(2, app="other"))

    assert told(store, "dlv_int_1_2") is None
    assert told(store, "dlv_int_1_2", app="other").row.app == "other"
    assert told(store, "dlv_none") is None


# -- rates


def rates(store: Store, *integrations: str, now_ms: int, **options: Any) -> Any:
    with reader_of(store) as file:
        return query.rates(file, "demo", integrations, now_ms=now_ms, **options)


def test_deliveries_are_counted_in_the_hour_in_which_they_ended_once_each(store):
    put(store, delivered(1), delivered(2), delivered(2), make_result(3), make_result(4, **BLOCKED))
    put(store, make_result(3, attempt=2, **DELIVERED | {"finished_at_ms": NOON_MS + HOUR_MS}))
    put(store, delivered(5, "int_2", app="other"), partition=1)
    found = rates(store, "int_1", "int_2", "int_none", now_ms=NOON_MS + HOUR_MS + 5)

    assert {name: len(buckets) for name, buckets in found.items()} == {"int_1": 24, "int_2": 24, "int_none": 24}
    assert found["int_1"][-2:] == [
        Bucket(start_ms=NOON_MS, delivered=2, blocked=1),
        Bucket(start_ms=NOON_MS + HOUR_MS, delivered=1),
    ]
    assert found["int_1"][0] == Bucket(start_ms=NOON_MS - 22 * HOUR_MS)
    assert all(bucket.ended == 0 for name in ("int_2", "int_none") for bucket in found[name])


def test_rates_can_be_asked_for_fewer_hours(store):
    put(store, delivered(1))

    assert rates(store, "int_1", now_ms=NOON_MS, hours=1) == {"int_1": [Bucket(start_ms=NOON_MS, delivered=1)]}
    assert rates(store, "int_1", now_ms=NOON_MS - HOUR_MS, hours=1) == {"int_1": [Bucket(start_ms=NOON_MS - HOUR_MS)]}


# -- plans


def test_no_first_page_reads_or_sorts_a_whole_table(store):
    """Every question goes by an index from its newest end, but that for an event, which is about few."""
    put(store, delivered(1), make_result(2, cause="replay"))
    some = {"integration": "int_1", "outcome": "open", "type": "call_ended", "cause": "replay", "since_ms": 1}
    questions = [{name: some[name] for name in names} for names in _subsets(list(some))]
    questions += [each | {"outcome": "exhausted"} for each in questions if "outcome" in each]
    with reader_of(store) as file:
        for question in questions:
            plan = query._planned(file, Wanted(app="demo", **question))
            steps = file.execute(f"EXPLAIN QUERY PLAN {plan.statement(None)}", plan.arguments(None)).fetchall()
            assert ["SEARCH" in step[3] and plan.index in step[3] for step in steps] == [True], (question, steps)


@pytest.mark.parametrize("filters", [{}, {"outcome": "delivered"}, {"integration": "int_1", "until_ms": NOON_MS * 2}])
def test_a_page_far_down_takes_as_many_steps_as_the_first(store, filters):
    put(store, *(delivered(number) for number in range(3_000)))
    steps: list[int] = []
    cursor = None
    with reader_of(store) as file:
        for _ in range(10):
            steps.append(0)
            file.set_progress_handler(lambda: steps.append(steps.pop() + 1), 10)
            cursor = query.page(file, Wanted(app="demo", **filters), limit=250, cursor=cursor).next

    assert max(steps) < 1.2 * steps[0]


def _subsets(names: list[str]) -> list[list[str]]:
    return [[name for bit, name in enumerate(names) if number >> bit & 1] for number in range(2 ** len(names))]
