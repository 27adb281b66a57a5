"""
How long to wait between two fetches: each costs half a millisecond of CPU, here and on the broker, whether it brings
one record or a hundred.

Pure; times are seconds of the monotonic clock. It goes by what came lately, and not by what is unfinished: two hundred
retries that wait for their time, or requests to endpoints that hang, are no work, and are not to make others wait.
"""

from typing import Final

#: So many records a second are no rush, where they come evenly.
STEADY_PER_S: Final = 1_000
#: Beyond that, so many at once are none: a few events that go to a hundred integrations each.
BURST: Final = 300
#: What came beyond that is remembered at most so far: a rush is over 0.3 s after its last record.
_REMEMBERED: Final = 2 * BURST

#: Between two fetches in a rush.
RUSH_S: Final = 0.005

#: A fetch of fewer records is one that brought little: see `linger_s` of `SafeApp`.
FEW_RECORDS: Final = 200


class Spacing:
    """Of one worker. *linger_s*: see `SafeApp`."""

    def __init__(self, linger_s: float = 0.0) -> None:
        self._linger_s = linger_s
        self._beyond = 0.0
        self._at_s = float("-inf")

    def after(self, records: int, now_s: float) -> float:
        """Seconds to wait after a fetch that brought so many; 0 for none."""
        self._beyond = min(max(0.0, self._beyond - (now_s - self._at_s) * STEADY_PER_S) + records, _REMEMBERED)
        self._at_s = now_s
        if self._linger_s and 0 < records < FEW_RECORDS:
            return self._linger_s
        return RUSH_S if self._beyond > BURST else 0.0
