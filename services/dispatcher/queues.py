"""
What waits, over all lines: by percentile, the worst few, what is held, what is behind a cursor.

Two questions are told apart. What waits for an endpoint that fails or is slow is its owner's matter, and no further
dispatcher helps it; what waits for us is a reason to wake somebody, or to start another dispatcher. From here the
second is seen by its breadth: many lines wait at once, of which the breaker does not say that they fail.

Pure: lines in, numbers out.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from math import ceil
from typing import Final, NamedTuple

from services.dispatcher.line import Reason
from services.runtime import metrics
from services.runtime.metric import Sample

_PERCENTILES: Final = tuple((name, int(name)) for name in metrics.PERCENTILE.values)
_REASONS: Final[tuple[Reason, ...]] = ("paused", "behind", "blocked", "other")

#: What one line counts for, at most, where dispatchers are scaled by the backlog. A line has one partition and so one
#: dispatcher, however many there are: only many of them are a reason for another.
SHARED_OF_A_LINE: Final = 1_000


class Queue(NamedTuple):
    """The line of one integration at one moment."""

    integration: str
    #: Deliveries that have not started.
    waiting: int
    #: When the oldest of them came onto the log, in milliseconds since 1970 UTC; None where that is not known.
    since_ms: int | None
    #: Whether the integration is paused, and holds them.
    is_held: bool
    #: Why it is detached; None where it is not.
    detached: Reason | None
    #: Deliveries that wait for their next attempt in the line, and when the first of them is due, in milliseconds since
    #: 1970 UTC; None where there is none.
    kept: int = 0
    due_ms: int | None = None


def samples(queues: Iterable[Queue], is_failing: Callable[[str], bool], now_ms: int) -> Iterator[Sample]:
    """
    The metrics of all lines of a worker.

    Args:
        queues: the lines that there are: integrations with something under way or waiting, or a moment ago.
        is_failing: whether attempts of the integration fail one after another, as the breaker says.
    """
    waiting: dict[str, tuple[float, int]] = {}
    held, oldest_s, backlog, shared = [], 0.0, 0, 0
    ages, depths, sound = [], [], 0
    detached: dict[Reason, int] = dict.fromkeys(_REASONS, 0)
    queues = list(queues)
    for queue in queues:
        age_s = max(0, now_ms - queue.since_ms) / 1_000 if queue.since_ms and queue.waiting else 0.0
        if queue.detached is not None:
            detached[queue.detached] += 1
        if queue.is_held:
            held += [queue.waiting] if queue.waiting else []
            oldest_s = max(oldest_s, age_s)
            continue
        if queue.waiting:
            waiting[queue.integration] = age_s, queue.waiting
            backlog += queue.waiting if queue.detached is not None else 0
        if is_failing(queue.integration):
            continue
        sound += 1
        if queue.waiting:
            ages.append(age_s)
            depths.append(float(queue.waiting))
            # Blocked: by a delivery that has failed and waits for its time.
            shared += min(queue.waiting, SHARED_OF_A_LINE) if queue.detached in ("behind", "other") else 0
    ages.sort()
    depths.sort()
    yield metrics.QUEUED.of(sum(depth for _, depth in waiting.values()))
    yield metrics.QUEUED_INTEGRATIONS.of(len(ages))
    for name, percent in _PERCENTILES:
        yield metrics.QUEUE_AGE.of(percentile(ages, sound, percent), name)
        yield metrics.QUEUE_DEPTH.of(percentile(depths, sound, percent), name)
    yield from _worst(waiting)
    yield metrics.HELD.of(sum(held))
    yield metrics.HELD_INTEGRATIONS.of(len(held))
    yield metrics.HELD_OLDEST.of(oldest_s)
    for reason, count in detached.items():
        yield metrics.DETACHED.of(count, reason)
    yield from _in_line([queue for queue in queues if not queue.is_held], now_ms)
    yield metrics.BACKLOG.of(backlog)
    yield metrics.SHARED_BACKLOG.of(shared)


def _worst(waiting: Mapping[str, tuple[float, int]]) -> Iterator[Sample]:
    for integration, (age_s, depth) in waiting.items():
        if age_s >= metrics.WORST_AGE_S:
            yield metrics.WORST_AGE.of(age_s, integration)
        if depth >= metrics.WORST_DEPTH_DELIVERIES:
            yield metrics.WORST_DEPTH.of(depth, integration)


def _in_line(queues: Sequence[Queue], now_ms: int) -> Iterator[Sample]:
    """Retries that wait there."""
    overdue_ms = max((now_ms - queue.due_ms for queue in queues if queue.due_ms is not None), default=0)
    yield metrics.KEPT_RETRIES.of(sum(queue.kept for queue in queues))
    yield metrics.KEPT_OVERDUE.of(max(0, overdue_ms) / 1_000)


def percentile(ascending: Sequence[float], of: int, percent: int) -> float:
    """
    The smallest value that *percent* of all values do not exceed; those that are not listed are 0.

    Args:
        ascending: values above 0, sorted.
        of: how many there are with the zeros; at least as many as are listed counts.
    """
    count = max(of, len(ascending))
    rank = ceil(count * percent / 100) - 1 - (count - len(ascending))
    return ascending[rank] if rank >= 0 else 0.0
