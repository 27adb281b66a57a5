"""Times, spans and shares for people. Pure."""

from services.console.forms import seconds


def utc(iso: str) -> str:
    """A time of the API's JSON for people: `2026-01-02 03:04:05 UTC`."""
    return f"{iso[:10]} {iso[11:19]} UTC"


def span(ms: int) -> str:
    """A duration in its largest unit that still tells something: `250 ms`, `5 s`, `3 min`, `2 h`, `4 d`."""
    if ms < 1_000:  # noqa: PLR2004
        return f"{ms} ms"
    for unit_ms, most, unit in ((1_000, 120, "s"), (60_000, 120, "min"), (3_600_000, 48, "h")):
        if ms < unit_ms * most:
            return f"{ms // unit_ms} {unit}" if unit != "s" else f"{seconds(ms // 100 * 100)} s"
    return f"{ms // 86_400_000} d"


def percent(share: float) -> str:
    """A share from 0 to 1 as `98.3 %`; never `100 %` of what is less."""
    return f"{int(share * 1000 + 1e-6) / 10:g} %"
