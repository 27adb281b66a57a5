"""
Deliveries and attempts as HTTP shows them: JSON in camelCase. Pure.

Secrets were masked when the result was made, in the URL, in headers and in what the receiver echoed; nothing here opens
any.
"""

import base64
import codecs
from typing import Any

from services.history.fold import Row
from services.history.query import Bucket, Page, Told
from services.runtime.times import iso
from streams.records import Result


def page_json(page: Page) -> dict[str, Any]:
    """A part of a list."""
    return {"items": [row_json(row) for row in page.items], "next": page.next}


def row_json(row: Row) -> dict[str, Any]:
    """A delivery as a list shows it."""
    return {
        "id": row.delivery_id,
        "app": row.app,
        "integration": row.integration,
        "event": row.type,
        "eventId": row.event_id,
        "recordId": row.record_id,
        "cause": row.cause,
        "of": row.of,
        "outcome": row.outcome or "open",
        "attempt": row.attempts,
        "repeats": row.repeats,
        "status": row.status,
        "reason": row.reason,
        "acceptedAt": iso(row.accepted_at_ms),
        "beganAt": iso(row.began_at_ms),
        "lastAt": iso(row.last_at_ms),
        "endedAt": _iso(row.ended_at_ms),
        "nextDueAt": _iso(row.next_due_at_ms),
    }


def delivery_json(told: Told) -> dict[str, Any]:
    """A delivery with every attempt, and those that repeat it."""
    seen: set[int] = set()
    attempts = []
    for result in told.results:
        attempts.append(attempt_json(result, is_repeat=result.attempt in seen))
        if result.attempt:
            seen.add(result.attempt)
    return row_json(told.row) | {"attempts": attempts, "repeatedBy": [row_json(row) for row in told.repeated_by]}


def attempt_json(result: Result, *, is_repeat: bool = False) -> dict[str, Any]:
    """
    One attempt. Number 0: the delivery ended without one, and `reason` says why.

    Args:
        is_repeat: whether this attempt has a result already: its request was made twice, around a crash.
    """
    body, is_base64 = body_text(result.response_body, is_cut=result.response_truncated)
    return {
        "number": result.attempt,
        "isRepeat": is_repeat,
        "outcome": result.outcome,
        "reason": result.reason,
        "detail": result.detail,
        "startedAt": iso(result.started_at_ms),
        "finishedAt": iso(result.finished_at_ms),
        "url": result.url,
        "requestHeaders": result.request_headers,
        "status": result.status,
        "responseHeaders": result.response_headers,
        "responseBody": body,
        "responseBodyIsBase64": is_base64,
        "truncated": result.response_truncated,
        "timing": {
            "dnsMs": _ms(result.dns_us),
            "connectMs": _ms(result.connect_us),
            "tlsMs": _ms(result.tls_us),
            "waitMs": _ms(result.wait_us),
            "readMs": _ms(result.read_us),
            "totalMs": result.finished_at_ms - result.started_at_ms,
        },
        "nextDueAt": _iso(result.next_due_at_ms),
        "configVersion": result.config_version,
        "epoch": result.epoch,
    }


def body_text(body: bytes, *, is_cut: bool) -> tuple[str, bool]:
    """
    An answer's body as text; as base64, and True, where it is not UTF-8.

    A body that was cut off may end inside a character: what is left of that one is left out.
    """
    try:
        return codecs.getincrementaldecoder("utf-8")().decode(body, final=not is_cut), False
    except UnicodeDecodeError:
        return base64.b64encode(body).decode(), True


def bucket_json(bucket: Bucket) -> dict[str, Any]:
    """An hour of an integration. `successRate` is None where nothing ended that counts."""
    return {
        "startAt": iso(bucket.start_ms),
        "delivered": bucket.delivered,
        "rejected": bucket.rejected,
        "exhausted": bucket.exhausted,
        "blocked": bucket.blocked,
        "discarded": bucket.discarded,
        "successRate": round(bucket.delivered / bucket.ended, 3) if bucket.ended else None,
    }


def _iso(at_ms: int | None) -> str | None:
    return None if at_ms is None else iso(at_ms)


def _ms(microseconds: int | None) -> float | None:
    return None if microseconds is None else microseconds / 1_000
