"""Delivery histories for tests: results as records of a log, stores filled with them, and what stands in the tables."""

import sqlite3
from collections.abc import Iterable, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from services.history import tables
from services.history.fold import Row, place_of
from services.history.packed import unpacked_record
from services.history.store import Raw, Store
from streams import codec
from streams.records import Result
from tests.breaking import make_result

EXHAUSTED = {"outcome": "exhausted", "reason": "status_500", "status": 500}
DELIVERED = {"outcome": "delivered", "reason": "status_200", "status": 200}
BLOCKED = {"outcome": "blocked", "attempt": 0, "reason": "address_refused", "status": None}


def raws(results: Sequence[Result], *, partition: int = 0, start: int = 0) -> list[Raw]:
    """The results as they stand one after another in a partition."""
    return [(partition, start + number, codec.encode(result)) for number, result in enumerate(results)]


def delivered(number: int, integration: str = "int_1", **changes: Any) -> Result:
    """A delivery that went well at once; *number* makes its id and its time."""
    return make_result(number, integration, **DELIVERED | changes)


def put(store: Store, *results: Result, partition: int = 0) -> None:
    """Fold them in behind what is there."""
    start = store.positions().get(partition, 0)
    store.fold(raws(results, partition=partition, start=start), {partition: start + len(results)})


@contextmanager
def reader_of(store: Store) -> Any:
    """A connection as the read model's threads have."""
    file = sqlite3.connect(f"{store.path.as_uri()}?mode=ro", uri=True)
    try:
        yield file
    finally:
        file.close()


def rows_in(path: Path) -> list[Row]:
    """Every delivery, by place."""
    return [tables.row_of(columns) for columns in _asked(path, f"{tables.ROW} ORDER BY place")]


def attempts_in(path: Path) -> list[tuple[int, int, bytes]]:
    """Place, place of the delivery's first result, and the bytes, by place."""
    found = _asked(
        path,
        "SELECT attempts.place, delivery, attempts.record, pattern FROM attempts JOIN deliveries "
        "ON deliveries.place = delivery JOIN patterns USING (integration) ORDER BY attempts.place",
    )
    return [(place, delivery, unpacked_record(record, pattern)) for place, delivery, record, pattern in found]


def count_in(path: Path, table: str) -> int:
    [(count,)] = _asked(path, f"SELECT count(*) FROM {table}")
    return int(count)


def hours_in(path: Path) -> dict[tuple[str, str, int], tuple[int, ...]]:
    """By app, integration and hour, how many ended in each way, in the order of `OUTCOMES`."""
    found = _asked(
        path,
        "SELECT (SELECT text FROM names WHERE number = app), (SELECT text FROM names WHERE number = integration), "
        "hour, delivered, rejected, exhausted, blocked, discarded FROM hours",
    )
    return {(app, integration, hour): tuple(counts) for app, integration, hour, *counts in found}


def everything_in(path: Path) -> Any:
    """All that a history says, in a form that can be compared."""
    return rows_in(path), attempts_in(path), hours_in(path)


def told_by(log: Iterable[Raw]) -> Any:
    """
    The same, computed naively over the whole log, which holds nothing but results.

    It knows no folding: each delivery is looked at as the list of its results.
    """
    kept = sorted((place_of(partition, offset), value) for partition, offset, value in log if value is not None)
    by_delivery: dict[str, list[tuple[int, Result, bytes]]] = {}
    for place, value in kept:
        result = codec.decode_as(Result, value)
        by_delivery.setdefault(result.delivery_id, []).append((place, result, value))
    rows, attempts, hours = [], [], {}
    for its in by_delivery.values():
        row = _row_told_by([(place, result) for place, result, _ in its])
        rows.append(row)
        attempts += [(place, row.place, value) for place, _, value in its]
        if row.outcome is not None and row.ended_at_ms is not None:
            key = row.app, row.integration, row.ended_at_ms // 3_600_000
            counts = hours.setdefault(key, [0] * 5)
            counts[tables.OUTCOME_NUMBER[row.outcome] - 1] += 1
    return (
        sorted(rows, key=lambda row: row.place),
        sorted(attempts),
        {key: tuple(counts) for key, counts in hours.items()},
    )


def _row_told_by(its: list[tuple[int, Result]]) -> Row:
    first_place, first = its[0]
    results = [result for _, result in its]
    end = next((number for number, result in enumerate(results) if result.outcome is not None), None)
    counting = results if end is None else results[: end + 1]
    attempts = max(result.attempt for result in counting)
    last = results[end] if end is not None else next(result for result in counting if result.attempt == attempts)
    again = [
        result
        for number, result in enumerate(counting)
        if 1 <= result.attempt <= max((before.attempt for before in counting[:number]), default=0)
    ]
    return Row(
        place=first_place,
        last_place=its[-1][0],
        delivery_id=first.delivery_id,
        integration=first.integration,
        app=first.app,
        record_id=first.record_id,
        event_id=first.event_id,
        type=first.type,
        cause=first.cause,
        of=first.of,
        outcome=last.outcome,
        attempts=attempts,
        repeats=len(again) + len(results) - len(counting),
        status=last.status,
        reason=last.reason,
        accepted_at_ms=first.accepted_at_ms,
        began_at_ms=first.started_at_ms,
        last_at_ms=last.finished_at_ms,
        ended_at_ms=None if end is None else last.finished_at_ms,
        next_due_at_ms=None if end is not None else last.next_due_at_ms,
    )


def _asked(path: Path, statement: str) -> list[Any]:
    file = sqlite3.connect(path)
    try:
        return file.execute(statement).fetchall()
    finally:
        file.close()
