"""
The bodies of the two profiles, and times as receivers get them.

Pure: the time comes in as an argument.
"""

from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Final

import msgspec

from schemas.profiles import ProfileName
from streams.records import Delivery, Event

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_to_json: Final = msgspec.json.Encoder().encode


def envelope(event: Event | Delivery, profile: ProfileName, *, attempt: int, at: str) -> bytes:
    """
    The envelope, with the payload's bytes as they came in.

    Args:
        attempt: its number, counted from 1.
        at: when it is made, as `iso_ms` gives it.

    Source: product/booking-webhooks.txt, "Delivery"; for the other profile the contract, "What a receiver gets".
    """
    if profile == "booking":
        head = b'{"event":%b' % _to_json(event.type)
    else:
        head = b'{"event":%b,"id":%b,"appId":%b,"occurredAt":"%b"' % (
            _to_json(event.type),
            _to_json(event.event_id),
            _to_json(event.app),
            iso_ms(event.occurred_at_ms).encode(),
        )
    return b'%b,"deliveredAt":"%b","attempt":%d,"payload":%b}' % (head, at.encode(), attempt, event.payload or b"null")


def iso_ms(at_ms: int) -> str:
    """Milliseconds since 1970 UTC as ISO-8601 in UTC with milliseconds: `2026-11-22T05:19:23.042Z`."""
    second, ms = divmod(at_ms, 1000)
    return f"{_iso_second(second)}.{ms:03}Z"


@lru_cache(maxsize=1024)
def _iso_second(at_s: int) -> str:
    """Remembered, since the many attempts of one second share it: 3.6 µs otherwise."""
    return (_EPOCH + timedelta(seconds=at_s)).isoformat()[:19]
