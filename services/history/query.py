"""
Questions to the history. Each takes a connection that only reads, and blocks for some milliseconds.

Every filter alone has an index, and the common pairs have one; what is left of a question is tested row by row. A page
looks at so many rows at most: where few of them fit, it comes short, and goes on from where it stopped looking.
"""

import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal

import msgspec

from services.history import cursor as cursors
from services.history import tables
from services.history.cursor import Cursor
from services.history.fold import HOUR_MS, Row
from services.history.packed import DELIVERY, EVENT, packed_id, unpacked_record
from streams import codec
from streams.records import Cause, Outcome, Result

#: Rows that one page may look at: 20 ms where every one has to be fetched.
LOOKED_AT: Final = 10_000
#: Deliveries that repeat one, as shown with it; the newest.
MOST_REPEATS: Final = 100
DAY_HOURS: Final = 24

_NEVER: Final = 2**63 - 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """Which deliveries of an app are listed; None: all."""

    app: str
    integration: str | None = None
    #: `open`: another attempt follows. What has no result yet is not in the history.
    outcome: Outcome | Literal["open"] | None = None
    type: str | None = None
    cause: Cause | None = None
    #: Id of an event.
    event: str | None = None
    #: With an outcome: that ended at this time or later, and before that one. Without, or where they are open: whose
    #: first attempt started then. Milliseconds since 1970 UTC.
    since_ms: int | None = None
    until_ms: int | None = None

    @property
    def is_by_end(self) -> bool:
        """Whether it is about when they ended: hours after their first attempt, where they were tried many times."""
        return self.outcome not in (None, "open") and (self.since_ms, self.until_ms) != (None, None)


@dataclass(frozen=True, slots=True)
class Page:
    """A part of a list, newest first."""

    items: list[Row]
    #: Where the next part begins; None where there is none. A part may be short, or empty, and have a next one.
    next: str | None


@dataclass(frozen=True, slots=True)
class Told:
    """All that is known of one delivery."""

    row: Row
    #: Every result of it, in the order of the log. Two of one attempt: a request was in flight at a crash.
    results: list[Result]
    #: The deliveries that repeat it, newest first.
    repeated_by: list[Row]


class Bucket(msgspec.Struct, frozen=True, kw_only=True):
    """How the deliveries of an integration ended in one hour."""

    #: Its beginning, milliseconds since 1970 UTC.
    start_ms: int
    delivered: int = 0
    rejected: int = 0
    exhausted: int = 0
    blocked: int = 0
    discarded: int = 0

    @property
    def ended(self) -> int:
        """Those that count in a success rate: all but the discarded ones."""
        return self.delivered + self.rejected + self.exhausted + self.blocked


def page(file: sqlite3.Connection, wanted: Wanted, *, limit: int, cursor: str | None = None) -> Page:
    """
    Deliveries that began at the cursor or before, newest first; where it is about their end, those that ended then.

    Args:
        limit: so many at most.
        cursor: `Page.next` of the part before this one.

    Raises:
        BadCursor: it is not of this list.
    """
    question = repr(wanted)
    after = None if cursor is None else cursors.decoded(cursor, question)
    plan = _planned(file, wanted)
    if plan is None:
        return Page([], None)
    found: list[int] = []
    looked_at, last, is_over = 0, after, True
    for place, at_ms, *columns in file.execute(plan.statement(after), plan.arguments(after)):
        if len(found) == limit or looked_at == LOOKED_AT:
            is_over = False
            break
        looked_at, last = looked_at + 1, Cursor(at_ms, place)
        if columns == plan.rest:
            found.append(place)
    rows = [_row_at(file, place) for place in found]
    goes_on = None if is_over or last is None else cursors.encoded(last, question)
    return Page([row for row in rows if row is not None], goes_on)


def cursor_behind(row: Row, wanted: Wanted) -> str:
    """Where the list goes on behind this row of a page of it."""
    ended_at_ms = row.ended_at_ms if wanted.is_by_end else None
    at_ms = row.began_at_ms if ended_at_ms is None else ended_at_ms
    return cursors.encoded(Cursor(at_ms, row.place), repr(wanted))


def delivery(file: sqlite3.Connection, app: str, id_: str) -> Told | None:
    """All of one delivery; None where the app has none of that id that is kept."""
    packed = packed_id(id_, DELIVERY)
    found = file.execute(f"{tables.ROW} WHERE id = ?", (packed,)).fetchone()
    row = None if found is None else tables.row_of(found)
    if row is None or row.app != app:
        return None
    repeats = file.execute(
        f"{tables.ROW} INDEXED BY by_of WHERE of = ? ORDER BY began_at DESC, place DESC LIMIT ?", (packed, MOST_REPEATS)
    )
    return Told(row, _results(file, row), [each for each in map(tables.row_of, repeats) if each.app == app])


def rates(
    file: sqlite3.Connection, app: str, integrations: Sequence[str], *, now_ms: int, hours: int = DAY_HOURS
) -> dict[str, list[Bucket]]:
    """By integration, how its deliveries ended in each of the last hours: oldest first, the last one is under way."""
    last = now_ms // HOUR_MS
    app_number = _number(file, app)
    told = {}
    for integration in integrations:
        counts = {
            hour: rest
            for hour, *rest in file.execute(
                "SELECT hour, delivered, rejected, exhausted, blocked, discarded FROM hours "
                "WHERE integration = ? AND hour BETWEEN ? AND ? AND app = ?",
                (_number(file, integration), last - hours + 1, last, app_number),
            )
        }
        told[integration] = [_bucket(hour, counts.get(hour)) for hour in range(last - hours + 1, last + 1)]
    return told


def _bucket(hour: int, counts: list[int] | None) -> Bucket:
    delivered, rejected, exhausted, blocked, discarded = counts or (0, 0, 0, 0, 0)
    return Bucket(
        start_ms=hour * HOUR_MS,
        delivered=delivered,
        rejected=rejected,
        exhausted=exhausted,
        blocked=blocked,
        discarded=discarded,
    )


def _results(file: sqlite3.Connection, row: Row) -> list[Result]:
    number = _number(file, row.integration)
    found = file.execute(tables.PATTERN, (number,)).fetchone()
    records = file.execute(
        "SELECT place, record FROM attempts WHERE place = ?1 UNION ALL "
        "SELECT place, record FROM attempts WHERE delivery = ?1 AND delivery <> place ORDER BY place",
        (row.place,),
    )
    return [codec.decode_as(Result, unpacked_record(record, found[0])) for _, record in records]


def _row_at(file: sqlite3.Connection, place: int) -> Row | None:
    """The row there; None where it has just been deleted."""
    found = file.execute(f"{tables.ROW} WHERE place = ?", (place,)).fetchone()
    return None if found is None else tables.row_of(found)


def _number(file: sqlite3.Connection, name: str) -> int | None:
    """What stands for the name; None where nothing of it is kept."""
    found = file.execute("SELECT number FROM names WHERE text = ?", (name,)).fetchone()
    return None if found is None else int(found[0])


@dataclass(frozen=True, slots=True)
class _Plan:
    """How a question is answered: by which index, and what is tested row by row."""

    index: str
    #: Columns that the index begins with, and their values.
    by: dict[str, Any]
    #: The others.
    tested: dict[str, Any]
    #: The column that the list goes by, newest first.
    time: Literal["began_at", "ended_at"]
    #: The first and the last millisecond.
    since_ms: int
    last_ms: int

    @property
    def rest(self) -> list[Any]:
        return list(self.tested.values())

    def statement(self, after: Cursor | None) -> str:
        columns = ", ".join(("place", self.time, *self.tested))
        equal = " AND ".join(f"{column} = ?" for column in self.by)
        # Said by name, so that the plan does not hang on statistics that nobody has taken.
        return (
            f"SELECT {columns} FROM deliveries INDEXED BY {self.index} WHERE {equal} "  # noqa: S608 # names of ours
            f"{'AND cause > 0 ' if 'cause' in self.by else ''}"
            f"{'AND ended_at IS NOT NULL ' if self.time == 'ended_at' else ''}"
            f"AND {self.time} BETWEEN ? AND ? "
            f"{'' if after is None else f'AND ({self.time}, place) < (?, ?) '}"
            f"ORDER BY {self.time} DESC, place DESC"
        )

    def arguments(self, after: Cursor | None) -> tuple[Any, ...]:
        # The cursor's time bounds the index; which of its millisecond have been shown is tested row by row.
        last_ms = self.last_ms if after is None else min(self.last_ms, after.at_ms)
        return (*self.by.values(), self.since_ms, last_ms, *(after or ()))


def _planned(file: sqlite3.Connection, wanted: Wanted) -> _Plan | None:
    """The plan; None where something that is asked for was never seen."""
    all_: dict[str, Any] = {"app": _number(file, wanted.app)}
    if wanted.event is not None:
        all_["event"] = packed_id(wanted.event, EVENT)
    if wanted.integration is not None:
        all_["integration"] = _number(file, wanted.integration)
    if wanted.type is not None:
        all_["type"] = _number(file, wanted.type)
    if wanted.outcome is not None:
        all_["outcome"] = tables.OUTCOME_NUMBER[None if wanted.outcome == "open" else wanted.outcome]
    if wanted.cause is not None:
        all_["cause"] = tables.CAUSE_NUMBER[wanted.cause]
    if None in all_.values():
        return None
    index, by = _index(wanted)
    since_ms = -_NEVER if wanted.since_ms is None else wanted.since_ms
    last_ms = _NEVER if wanted.until_ms is None else wanted.until_ms - 1
    tested = {column: value for column, value in all_.items() if column not in by}
    time: Literal["began_at", "ended_at"] = "ended_at" if wanted.is_by_end else "began_at"
    return _Plan(index, {column: all_[column] for column in by}, tested, time, since_ms, last_ms)


def _index(wanted: Wanted) -> tuple[str, tuple[str, ...]]:
    """The index that leaves the fewest rows, and the columns that it begins with: what is rare goes first."""
    if wanted.event is not None:
        return "by_event", ("event",)
    if wanted.is_by_end:
        of = "app" if wanted.integration is None else "integration"
        return f"by_{of}_ended", (of, "outcome")
    if wanted.cause not in (None, "live"):
        return "by_app_cause", ("app", "cause")
    if wanted.integration is not None:
        columns = ("integration",) if wanted.outcome is None else ("integration", "outcome")
    elif wanted.type is not None and wanted.outcome in (None, "delivered"):
        columns = ("app", "type")
    else:
        columns = ("app",) if wanted.outcome is None else ("app", "outcome")
    return "_".join(("by", *columns)), columns
