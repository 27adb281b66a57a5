"""Which attempts of deliveries that waited have come by. Pure."""

from collections.abc import Mapping
from typing import Final

from streams.records import Delivery

#: How long (delivery, attempt)s of retries are remembered at least: a record written twice comes back twice at the same
#: time, or when the one who wrote the first is missed.
REMEMBER_S: Final = 120.0
REMEMBER: Final = 100_000


class Retried:
    """Tells a retry record that was written again after a crash. *now_s*: of the monotonic clock."""

    def __init__(self, remember_s: float = REMEMBER_S) -> None:
        self._remember_s = remember_s
        #: Offset on `deliveries` and when it came, by delivery and attempt; the oldest first.
        self._came: dict[tuple[str, int], tuple[int, float]] = {}

    def begin(self, known: Mapping[tuple[str, int], int], now_s: float) -> None:
        """Only what a takeover has found: offsets by delivery and attempt."""
        self._came = {key: (offset, now_s) for key, offset in known.items()}

    def is_repeated(self, delivery: Delivery, offset: int, now_s: float) -> bool:
        """Whether this attempt came by already, elsewhere."""
        if delivery.attempt == 1:
            return False
        at, _ = self._came.setdefault((delivery.delivery_id, delivery.attempt), (offset, now_s))
        return at != offset

    def forget(self, now_s: float) -> None:
        """What is too old to come twice, and what is too much."""
        while self._came:
            key, (_, at_s) = next(iter(self._came.items()))
            if now_s - at_s < self._remember_s and len(self._came) <= REMEMBER:
                return
            del self._came[key]
