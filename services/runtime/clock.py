"""The wall clock. Shells read it here; pure code gets `now_ms` as an argument."""

import time


def now_ms() -> int:
    """Milliseconds since 1970 UTC."""
    return time.time_ns() // 1_000_000
