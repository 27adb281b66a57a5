"""Times as HTTP and commands show and read them."""

from datetime import UTC, datetime, timedelta
from typing import Any, Final

_BEGAN: Final = datetime(1970, 1, 1, tzinfo=UTC)


def iso(at_ms: int) -> str:
    """Milliseconds since 1970 UTC as ISO 8601 with milliseconds: `2026-01-02T03:04:05.678Z`."""
    seconds, millis = divmod(at_ms, 1000)
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%dT%H:%M:%S}.{millis:03}Z"


def read_ms(given: Any) -> int | None:
    """A text in ISO 8601 with its zone, in milliseconds since 1970 UTC; None where it is none, or has no zone."""
    try:
        at = datetime.fromisoformat(given) if isinstance(given, str) else None
    except ValueError:
        at = None
    return None if at is None or at.tzinfo is None else (at - _BEGAN) // timedelta(milliseconds=1)
