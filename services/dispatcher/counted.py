"""What a result adds to the metrics."""

from collections.abc import Callable
from typing import Final

from services.runtime import metrics
from streams.records import Result

#: For how long an attempt says something of its integration.
UNANSWERED_FOR_MS: Final = 900_000


class Silent:
    """Integrations whose newest attempt got no answer. Whatever answers, with whatever status, is none of them."""

    def __init__(self) -> None:
        self._at_ms: dict[str, int] = {}

    def take(self, result: Result) -> None:
        """An attempt has ended."""
        if result.reason in metrics.FAILURE.values and result.reason not in _OURS:
            self._at_ms[result.integration] = result.finished_at_ms
        else:
            self._at_ms.pop(result.integration, None)

    def count(self, now_ms: int, is_ours: Callable[[str], bool]) -> int:
        """
        How many there are, of those that an attempt was made for within a quarter of an hour.

        Args:
            is_ours: whether an integration is on a partition that this worker has. Of others somebody else knows the
                newest attempt, and counts them; they are forgotten.
        """
        self._at_ms = {
            each: at_ms for each, at_ms in self._at_ms.items() if now_ms - at_ms <= UNANSWERED_FOR_MS and is_ours(each)
        }
        return len(self._at_ms)


#: Without a request: the guard lets none out.
_OURS: Final = frozenset({"address_refused", "url_refused"})

#: Of this process.
SILENT: Final = Silent()


def count_result(result: Result) -> None:
    """A result that is on the log."""
    status = "none" if result.status is None else f"{result.status // 100}xx"
    metrics.ATTEMPTS.inc(result.outcome or "retry", status)
    if not result.attempt:
        return
    metrics.ATTEMPT_SECONDS.observe((result.finished_at_ms - result.started_at_ms) / 1_000)
    SILENT.take(result)
    if result.reason in metrics.FAILURE.values:
        metrics.UNANSWERED.inc(result.reason)
    if result.attempt == 1 and result.cause == "live":
        metrics.DELAY.observe(max(0, result.started_at_ms - result.accepted_at_ms) / 1_000)
