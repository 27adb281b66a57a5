"""Times as HTTP and commands show them."""

from datetime import UTC, datetime


def iso(at_ms: int) -> str:
    """Milliseconds since 1970 UTC as ISO 8601 with milliseconds: `2026-01-02T03:04:05.678Z`."""
    seconds, millis = divmod(at_ms, 1000)
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%dT%H:%M:%S}.{millis:03}Z"
