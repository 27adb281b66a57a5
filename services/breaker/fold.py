"""
The breaker's count and numbers as a pure fold over the results of one integration, in the order of the log.

A row holds everything; a result at or below the row's offset is a replay and changes nothing, so that the same log
always gives the same row, in whatever batches and however often it is read. Time is the results' time.

What counts (docs/breaker.md):

- every attempt that failed, also where another one follows, of every cause; a success sets the count back to 0;
- no delivery that ended without an attempt, `blocked` or `discarded`: the endpoint was not asked;
- nothing of an older epoch than the row's; one of a newer epoch starts from zero.

The success rate and the last delivery are about deliveries, and know no epochs.
"""

import hashlib
from dataclasses import dataclass
from typing import Final, Literal

import msgspec

from schemas.profiles import PAUSED_AFTER, PROFILES
from streams.records import BreakerRow, IntegrationConfig, IntegrationState, Result
from streams.success_rate import PIECE_MS, PIECES

State = Literal["active", "failing", "paused"]

#: One that recovers and fails again is told to be failing again, at most so often.
TOLD_AGAIN_MS: Final = 3_600_000

#: Deliveries that are remembered so that each is counted once: a repeated result follows the first one closely.
RECENT: Final = 16


@dataclass(frozen=True, slots=True)
class Rules:
    """When an integration is failing and when it is paused."""

    #: Failed attempts in a row; None: never failing.
    failing_after: int | None
    paused_after: int = PAUSED_AFTER
    #: Whether it may be paused.
    auto_pause: bool = True


def rules_of(config: IntegrationConfig) -> Rules:
    """Those of the integration's profile and its setting."""
    return Rules(PROFILES[config.profile].failing_after, auto_pause=config.auto_pause)


def fold(row: BreakerRow | None, result: Result, offset: int, rules: Rules) -> BreakerRow:
    """
    The row with one more result in it; the same row where the result is in it already.

    Args:
        row: of the result's integration; None where there was no result of it yet.
        offset: where the result stands.
    """
    if row is None:
        row = BreakerRow(
            integration=result.integration,
            app=result.app,
            epoch=result.epoch,
            failures=0,
            window=[],
            delivered=[],
            ended=[],
            recent=[],
            applied_offset=-1,
        )
    if offset <= row.applied_offset:
        return row
    changes = {"applied_offset": offset}
    return msgspec.structs.replace(row, **changes | _counted(row, result, offset, rules) | _ended(row, result))


def is_failure(result: Result) -> bool:
    """Whether it is an attempt that failed."""
    return result.attempt >= 1 and result.outcome in (None, "rejected", "exhausted")


def _counted(row: BreakerRow, result: Result, offset: int, rules: Rules) -> dict[str, object]:
    """What changes of the count."""
    if result.epoch < row.epoch:
        return {}
    changed: dict[str, object] = {}
    if result.epoch > row.epoch:
        changed = _clean(result.epoch)
        row = msgspec.structs.replace(row, **changed)
    if row.tripped_by_offset is None:
        armed_from = (offset if row.armed_from is None else row.armed_from) if rules.auto_pause else None
        changed["armed_from"] = armed_from
    if result.outcome == "delivered":
        return changed | {"failures": 0, "failing_since_ms": None, "failure_reason": None, "has_failed": False}
    if not is_failure(result):
        return changed
    failures = row.failures + 1
    changed |= {"failures": failures, "failure_reason": result.reason}
    if row.failing_since_ms is None:
        changed["failing_since_ms"] = result.finished_at_ms
    if rules.failing_after is not None and failures >= rules.failing_after and _may_be_told(row, result):
        changed |= {"has_failed": True, "failing_told_at_ms": result.finished_at_ms}
    if failures >= rules.paused_after and rules.auto_pause and row.tripped_by_offset is None:
        changed |= {
            "tripped_by_delivery": result.delivery_id,
            "tripped_by_attempt": result.attempt,
            "tripped_by_offset": offset,
            "tripped_at_ms": result.finished_at_ms,
            "tripped_failures": failures,
            "tripped_reason": result.reason,
        }
    return changed


def _may_be_told(row: BreakerRow, result: Result) -> bool:
    """Whether its failing is news: not told already, not paused, and not told within the hour."""
    if row.has_failed or row.tripped_by_offset is not None:
        return False
    return row.failing_told_at_ms is None or result.finished_at_ms - row.failing_told_at_ms >= TOLD_AGAIN_MS


def _clean(epoch: int) -> dict[str, object]:
    """The count as an activation leaves it."""
    return {
        "epoch": epoch,
        "failures": 0,
        "failing_since_ms": None,
        "failure_reason": None,
        "has_failed": False,
        "failing_told_at_ms": None,
        "armed_from": None,
        "tripped_by_delivery": None,
        "tripped_by_attempt": None,
        "tripped_by_offset": None,
        "tripped_at_ms": None,
        "tripped_failures": None,
        "tripped_reason": None,
    }


def _ended(row: BreakerRow, result: Result) -> dict[str, object]:
    """What changes of the window and the last delivery: something where a delivery ended, once for each."""
    mark = _mark(result.delivery_id)
    if result.outcome is None or mark in row.recent:
        return {}
    changed: dict[str, object] = {
        "recent": [*row.recent, mark][-RECENT:],
        "last_delivery_id": result.delivery_id,
        "last_outcome": result.outcome,
        "last_event_type": result.type,
        "last_status": result.status,
        "last_attempt": result.attempts,
        "last_at_ms": result.finished_at_ms,
    }
    if result.outcome == "discarded":
        return changed
    piece = result.finished_at_ms // PIECE_MS
    pieces = {number: (row.delivered[at], row.ended[at]) for at, number in enumerate(row.window)}
    delivered, ended = pieces.get(piece, (0, 0))
    pieces[piece] = delivered + (result.outcome == "delivered"), ended + 1
    oldest = max(pieces) - PIECES
    kept = sorted(number for number in pieces if number > oldest)
    return changed | {
        "window": kept,
        "delivered": [pieces[number][0] for number in kept],
        "ended": [pieces[number][1] for number in kept],
    }


def _mark(delivery_id: str) -> int:
    """64 bits of a hash, signed as Avro's long."""
    return int.from_bytes(hashlib.blake2b(delivery_id.encode(), digest_size=8).digest(), "big", signed=True)


def state_of(row: BreakerRow, config: IntegrationConfig) -> IntegrationState:
    """
    What is published of the integration: its row as its configuration makes it look.

    Where the configuration is of a newer epoch than every result, it starts clean.
    """
    rules = rules_of(config)
    epoch = max(row.epoch, config.epoch)
    if row.epoch < epoch:
        row = msgspec.structs.replace(row, **_clean(epoch))
    state, reason, since_ms = _judged(row, rules)
    return IntegrationState(
        integration=row.integration,
        app=row.app,
        state=state,
        epoch=epoch,
        reason=reason,
        consecutive_failures=row.failures,
        delivered=sum(row.delivered),
        ended=sum(row.ended),
        last_delivery_id=row.last_delivery_id,
        last_outcome=row.last_outcome,
        last_event_type=row.last_event_type,
        last_status=row.last_status,
        last_attempt=row.last_attempt,
        last_at_ms=row.last_at_ms,
        applied_offset=row.applied_offset,
        since_ms=since_ms,
        tripped_by_delivery=row.tripped_by_delivery,
        tripped_by_attempt=row.tripped_by_attempt,
        tripped_by_offset=row.tripped_by_offset,
        armed_from=row.armed_from,
        window=row.window,
        window_delivered=row.delivered,
        window_ended=row.ended,
    )


def _judged(row: BreakerRow, rules: Rules) -> tuple[State, str | None, int | None]:
    """The state, why, and since when."""
    if row.tripped_by_offset is not None:
        reason = (
            f"{row.tripped_failures} attempts in a row failed, the last one with {row.tripped_reason}: attempt "
            f"{row.tripped_by_attempt} of {row.tripped_by_delivery}"
        )
        return "paused", reason, row.tripped_at_ms
    if rules.failing_after is not None and row.failures >= rules.failing_after:
        reason = f"{row.failures} attempts in a row failed, the last one with {row.failure_reason}"
        return "failing", reason, row.failing_since_ms
    return "active", None, None


def has_turned(before: IntegrationState | None, after: IntegrationState) -> bool:
    """Whether the state is another one, not only its numbers: followers have to hear of it at once."""
    if before is None:
        return after.state != "active"
    return (before.epoch, before.state) != (after.epoch, after.state)
