"""
The events by which an app learns that an integration of it is failing or paused. Pure.

A pause happens once in an epoch of an integration. Failing is told again where it has recovered since, at most once an
hour. The id is made of that, so that one that was appended twice around a crash is recognised. An event about failed
deliveries that fails itself leads to few others: none of a pause, and those of failing go to no subscription, which
alone can be failing.
"""

import hashlib
from typing import Final

import msgspec

from schemas.catalogue import FAILING_TYPE, PAUSED_TYPE
from services.breaker.fold import State
from services.runtime.times import iso
from streams.records import BreakerRow, Event, IntegrationConfig

_TYPES: Final[dict[State, str]] = {"failing": FAILING_TYPE, "paused": PAUSED_TYPE}


def turned(before: BreakerRow | None, after: BreakerRow) -> list[State]:
    """
    What an integration became by a result, that is to be told: two rows that follow each other, so that nothing depends
    on how results come in batches.
    """
    is_same = before is not None and before.epoch == after.epoch
    had_failed = is_same and before is not None and before.has_failed
    was_paused = is_same and before is not None and before.tripped_by_offset is not None
    found: list[State] = []
    if after.has_failed and not had_failed:
        found.append("failing")
    if after.tripped_by_offset is not None and not was_paused:
        found.append("paused")
    return found


def event_of(state: State, row: BreakerRow, config: IntegrationConfig, now_ms: int, record_id: str) -> Event:
    """
    The event that tells it.

    Args:
        row: with which the integration came into that state.
        now_ms: when the event is appended.
        record_id: another one each time: of two records with one event id, fan-out takes the first.
    """
    since_ms = (row.tripped_at_ms if state == "paused" else row.failing_since_ms) or now_ms
    made_of = f"{row.integration}:{row.epoch}:{state}"
    if state == "failing":
        made_of += f":{row.failing_told_at_ms}"
    digest = hashlib.sha256(made_of.encode()).hexdigest()[:32]
    payload = {
        "integration": row.integration,
        "name": config.name,
        "profile": config.profile,
        "status": state,
        "consecutiveFailures": (row.tripped_failures if state == "paused" else row.failures) or 0,
        "reason": row.tripped_reason if state == "paused" else row.failure_reason,
        "since": iso(since_ms),
        "delivery": row.tripped_by_delivery,
        "attempt": row.tripped_by_attempt,
        "epoch": row.epoch,
    }
    if state == "paused":
        payload["by"] = None  # a person pauses with a name: `services.admin.commands`
    return Event(
        record_id=record_id,
        app=row.app,
        event_id=f"evt_{digest}",
        id_space="secret",
        id_supplied=True,
        type=_TYPES[state],
        payload=msgspec.json.encode(payload),
        occurred_at_ms=since_ms,
        accepted_at_ms=now_ms,
        ordering_key=row.integration,
    )
