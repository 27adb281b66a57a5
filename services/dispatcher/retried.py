"""Which attempts of deliveries that waited have come by. Pure."""

from collections.abc import Mapping
from typing import Final, NamedTuple

from streams.records import Delivery

#: How long (delivery, attempt)s of retries are remembered at least: a record written twice comes back twice at the same
#: time, or when the one who wrote the first is missed.
REMEMBER_S: Final = 120.0
REMEMBER: Final = 100_000


class Came(NamedTuple):
    """An attempt that came by."""

    integration: str
    #: On `deliveries`; and when it came onto the log, or somewhat later.
    offset: int
    at_ms: int


class Retried:
    """Tells a retry record that was written again after a crash. *now_s*: of the monotonic clock."""

    def __init__(self, remember_s: float = REMEMBER_S, window_ms: int = 0) -> None:
        """
        Args:
            window_ms: a second copy comes onto the log within this time of the first.
        """
        self._remember_s = remember_s
        self._window_ms = window_ms
        #: By delivery and attempt, and when it came; the oldest first.
        self._came: dict[tuple[str, int], tuple[Came, float]] = {}
        #: The same by integration.
        self._of: dict[str, dict[tuple[str, int], Came]] = {}

    def begin(self, known: Mapping[tuple[str, int], Came], now_s: float) -> None:
        """Only what a takeover has found, by delivery and attempt."""
        self._came, self._of = {}, {}
        for attempt, came in known.items():
            self._note(attempt, came, now_s)

    def is_repeated(self, delivery: Delivery, offset: int, at_ms: int, now_s: float) -> bool:
        """Whether this attempt came by already, elsewhere; *at_ms*: when its record came onto the log."""
        if delivery.attempt == 1:
            return False
        attempt = delivery.delivery_id, delivery.attempt
        if (known := self._came.get(attempt)) is not None:
            return known[0].offset != offset
        self._note(attempt, Came(delivery.integration, offset, at_ms), now_s)
        return False

    def of(self, integration: str, since_ms: int | None) -> dict[tuple[str, int], Came]:
        """
        By delivery and attempt, those of it that may stand again among what came onto the log since then.

        Args:
            since_ms: None: that is not known.
        """
        came, first_ms = self._of.get(integration, {}), (since_ms or 0) - self._window_ms
        return {attempt: each for attempt, each in came.items() if each.at_ms >= first_ms}

    def forget(self, now_s: float) -> None:
        """What is too old to come twice, and what is too much."""
        while self._came:
            attempt, (came, at_s) = next(iter(self._came.items()))
            if now_s - at_s < self._remember_s and len(self._came) <= REMEMBER:
                return
            del self._came[attempt]
            of = self._of[came.integration]
            del of[attempt]
            if not of:
                del self._of[came.integration]

    def _note(self, attempt: tuple[str, int], came: Came, now_s: float) -> None:
        self._came[attempt] = came, now_s
        self._of.setdefault(came.integration, {})[attempt] = came
