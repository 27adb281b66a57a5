"""What a result adds to the metrics."""

from services.runtime import metrics
from streams.records import Result


def count_result(result: Result) -> None:
    """A result that is on the log."""
    status = "none" if result.status is None else f"{result.status // 100}xx"
    metrics.ATTEMPTS.inc(result.outcome or "retry", status)
    if not result.attempt:
        return
    metrics.ATTEMPT_SECONDS.observe((result.finished_at_ms - result.started_at_ms) / 1_000)
    if result.reason in metrics.FAILURE.values:
        metrics.UNANSWERED.inc(result.reason)
    if result.attempt == 1 and result.cause == "live":
        metrics.DELAY.observe(max(0, result.started_at_ms - result.accepted_at_ms) / 1_000)
