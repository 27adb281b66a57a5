"""
What may be asked of replays, and how one is shown: JSON in, records out, and back.

Pure. A replay that is asked for is a row on topic `replays` (`streams.replays`); a dispatcher carries it out.
"""

from collections.abc import Mapping
from typing import Any, Final

from services.admin.fields import Fields, Refusal, kind, text_fault
from services.admin.rules import Refused
from services.runtime import kinds
from services.runtime.problems import Problem
from services.runtime.times import iso
from streams.records import IntegrationConfig, Replay
from streams.replays import RUNNING

#: Events a second where nothing was said: beside live traffic, an endpoint hardly notices.
DEFAULT_RATE: Final = 20
MAX_RATE: Final = 1_000
MAX_TYPES: Final = 100
MAX_EVENT_IDS: Final = 1_000
_MAX_CHARS: Final = 200
#: The last millisecond of the year 9999, UTC: later times, and such before the year 1, cannot be shown.
_LAST_MS: Final = 253_402_300_799_999


def asked(body: Any, config: IntegrationConfig, *, replay: str, who: str, now_ms: int) -> Replay:
    """
    The replay that this JSON body asks for: `{"from", "until"?, "types"?, "eventIds"?, "rate"?}`.

    Without `until` it goes up to now. `dryRun` is the caller's to look at.

    Args:
        config: of the integration that gets the events.
        replay: its id, `rpl_` and a UUIDv7 in hex.

    Raises:
        Refused: with the name of every field that has to change.
    """
    if not isinstance(body, Mapping):
        raise Refused([Refusal("", f"the body must be an object, not {kind(body)}")])
    fields = Fields(dict(body))
    from_ms = _time(fields, "from")
    until_ms = _time(fields, "until", otherwise=now_ms)
    fields.flag("dryRun", default=False)
    if fields.has("sample"):  # which a dry run has taken out before
        fields.refuse("sample", "is for a dry run alone: leave it out, or send dryRun: true with it")
    wanted = Replay(
        id=replay,
        app=config.app,
        integration=config.id,
        from_ms=from_ms,
        until_ms=until_ms,
        types=_texts(fields, "types", most=MAX_TYPES),
        event_ids=_texts(fields, "eventIds", most=MAX_EVENT_IDS),
        rate=fields.number("rate", DEFAULT_RATE, least=1, most=MAX_RATE),
        state=RUNNING,
        asked_by=who,
        created_at_ms=now_ms,
        updated_by=who,
        updated_at_ms=now_ms,
    )
    if until_ms > now_ms:
        fields.refuse("until", "is still to come: what is accepted from now on is delivered anyway")
    elif from_ms >= until_ms:
        fields.refuse("from", "must be before `until`")
    fields.nothing_else()
    if fields.refusals:
        raise Refused(fields.refusals)
    return wanted


def cancelled(replay: Replay, *, who: str, now_ms: int) -> Replay:
    """
    The row that cancels a replay.

    Args:
        replay: as it stands (`Replays.get`).

    Raises:
        Problem: it has ended.
    """
    if replay.state != RUNNING:
        raise Problem(
            kinds.REPLAY_ENDED,
            f"The replay {replay.id} is {replay.state}: there is nothing to cancel.",
        )
    # In the row of who asks, not in the worker's: progress stays in that one.
    return Replay(
        id=replay.id,
        app=replay.app,
        integration=replay.integration,
        from_ms=replay.from_ms,
        until_ms=replay.until_ms,
        types=replay.types,
        event_ids=replay.event_ids,
        rate=replay.rate,
        state="cancelled",
        asked_by=replay.asked_by,
        created_at_ms=replay.created_at_ms,
        updated_by=who,
        updated_at_ms=now_ms,
    )


def replay_json(replay: Replay, share: float) -> dict[str, Any]:
    """
    A replay as HTTP and the command show it.

    Args:
        share: of its range that is done, 0 to 1.
    """
    return {
        "id": replay.id,
        "integration": replay.integration,
        "from": iso(replay.from_ms),
        "until": iso(replay.until_ms),
        "types": replay.types or None,
        "eventIds": replay.event_ids or None,
        "rate": replay.rate,
        "status": replay.state,
        "reason": replay.reason,
        "progress": {
            "share": round(share, 4),
            "ended": sum(replay.outcomes.values()),
            "outcomes": dict(sorted(replay.outcomes.items())),
            "reachedAt": None if replay.reached_ms is None else iso(replay.reached_ms),
        },
        "createdBy": replay.asked_by,
        "createdAt": iso(replay.created_at_ms),
        "updatedAt": iso(replay.updated_at_ms),
    }


def _time(fields: Fields, name: str, *, otherwise: int | None = None) -> int:
    """Milliseconds since 1970 UTC. Required where there is nothing to take *otherwise*."""
    if not fields.has(name):
        if otherwise is None:
            fields.refuse(name, "is required: a time in ISO 8601 with its zone, 2026-01-02T03:04:05Z")
        return otherwise or 0
    at_ms = fields.time_ms(name)
    if at_ms is None:
        return otherwise or 0
    if not 0 <= at_ms <= _LAST_MS:
        fields.refuse(name, "must be a time from 1970 to 9999")
        return otherwise or 0
    return at_ms


def _texts(fields: Fields, name: str, *, most: int) -> list[str]:
    found = []
    for at, value in enumerate(fields.list(name, most=most)):
        fault = text_fault(value, most=_MAX_CHARS) if isinstance(value, str) else f"must be a text, not {kind(value)}"
        if fault:
            fields.refuse(f"{name}.{at}", fault)
        else:
            found.append(value)
    return list(dict.fromkeys(found))
