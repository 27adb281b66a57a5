"""
A row a delivery, folded from `delivery-results`: where it comes from, how it went so far, how it ended.

Pure. Results of one delivery stand in one partition, so their places have an order:

- the first outcome counts; what comes after it is a repeat and changes nothing but the count of repeats;
- a second result of an attempt is a repeat too, unless it ends the delivery: the first one's wait goes on;
- a result at or below the last one that was folded is a replay and changes nothing.
"""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final, NamedTuple

import msgspec

from streams.records import Cause, Outcome, Result

#: Bits of an offset in a place: 8,900 years of a partition with 1,000 results a second.
_OFFSET_BITS: Final = 48

HOUR_MS: Final = 3_600_000


def place_of(partition: int, offset: int) -> int:
    """Where a record stands, in one number: a partition's places follow each other, and are those of no other one."""
    return partition << _OFFSET_BITS | offset


def partition_of(place: int) -> int:
    """The partition of a place."""
    return place >> _OFFSET_BITS


class Row(msgspec.Struct, frozen=True, kw_only=True):
    """One delivery that has a result."""

    #: Of its first result. The same in every process, and after every rebuild from the same log.
    place: int
    #: Of the last result that was folded.
    last_place: int
    delivery_id: str
    integration: str
    app: str
    record_id: str
    event_id: str
    type: str
    cause: Cause
    #: The delivery that this one repeats.
    of: str | None
    #: None while another attempt follows.
    outcome: Outcome | None
    #: Number of the highest attempt made; 0 where it ended without one.
    attempts: int
    #: Results beyond the first of each attempt, and behind the outcome: requests that were in flight at a crash.
    repeats: int
    #: HTTP status and reason of the last result that counts.
    status: int | None
    reason: str
    #: Of the event.
    accepted_at_ms: int
    #: When its first attempt started. Lists go by it, since it never changes.
    began_at_ms: int
    #: When the last result that counts was written.
    last_at_ms: int
    #: When it ended.
    ended_at_ms: int | None
    #: When the next attempt is due; None where none follows.
    next_due_at_ms: int | None


def fold(row: Row | None, result: Result, place: int) -> Row:
    """
    The row with one more result in it; the same row where the result is in it already.

    Args:
        row: of the result's delivery; None where there was no result of it yet.
    """
    if row is None:
        return Row(
            place=place,
            last_place=place,
            delivery_id=result.delivery_id,
            integration=result.integration,
            app=result.app,
            record_id=result.record_id,
            event_id=result.event_id,
            type=result.type,
            cause=result.cause,
            of=result.of,
            outcome=result.outcome,
            attempts=result.attempt,
            repeats=0,
            status=result.status,
            reason=result.reason,
            accepted_at_ms=result.accepted_at_ms,
            began_at_ms=result.started_at_ms,
            last_at_ms=result.finished_at_ms,
            ended_at_ms=None if result.outcome is None else result.finished_at_ms,
            next_due_at_ms=None if result.outcome is not None else result.next_due_at_ms,
        )
    if place <= row.last_place:
        return row
    is_repeat = row.outcome is not None or 1 <= result.attempt <= row.attempts
    repeats = row.repeats + is_repeat
    if row.outcome is not None or (is_repeat and result.outcome is None):
        return msgspec.structs.replace(row, last_place=place, repeats=repeats)
    return msgspec.structs.replace(
        row,
        last_place=place,
        outcome=result.outcome,
        attempts=max(row.attempts, result.attempt),
        repeats=repeats,
        status=result.status,
        reason=result.reason,
        last_at_ms=result.finished_at_ms,
        ended_at_ms=None if result.outcome is None else result.finished_at_ms,
        next_due_at_ms=None if result.outcome is not None else result.next_due_at_ms,
    )


class Ended(NamedTuple):
    """That a delivery ended: what the hourly counts are made of."""

    app: str
    integration: str
    #: Hours since 1970 UTC.
    hour: int
    outcome: Outcome


class Taken(NamedTuple):
    """A result of the log."""

    result: Result
    place: int
    #: As it is on the wire.
    value: bytes


class Attempt(NamedTuple):
    """A result to be kept with its delivery."""

    taken: Taken
    #: Of the delivery's first result.
    delivery: int


@dataclass(slots=True)
class Folded:
    """What a batch of results makes of the rows."""

    #: By delivery: those that were not there.
    made: dict[str, Row] = field(default_factory=dict)
    #: By delivery: those that were, and are not as they were.
    changed: dict[str, Row] = field(default_factory=dict)
    attempts: list[Attempt] = field(default_factory=list)
    ended: Counter[Ended] = field(default_factory=Counter)


def fold_all(rows: Mapping[str, Row], batch: Iterable[Taken]) -> Folded:
    """
    A batch folded in, those of one partition in their order.

    Args:
        rows: by delivery, those of the batch's that there are.
    """
    folded = Folded()
    for taken in batch:
        result = taken.result
        delivery = result.delivery_id
        into = folded.changed if delivery in rows else folded.made
        before = into.get(delivery) or rows.get(delivery)
        after = fold(before, result, taken.place)
        if after is before:
            continue
        into[delivery] = after
        folded.attempts.append(Attempt(taken, after.place))
        end = _ended(before, after)
        if end is not None:
            folded.ended[end] += 1
    return folded


def _ended(before: Row | None, after: Row) -> Ended | None:
    """The end that a result was; None where it was none, or not the first."""
    if after.outcome is None or after.ended_at_ms is None or (before is not None and before.outcome is not None):
        return None
    return Ended(after.app, after.integration, after.ended_at_ms // HOUR_MS, after.outcome)
