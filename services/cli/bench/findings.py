"""
What a run shows: rates, latency, and whether anything was lost, repeated or out of order.

Pure: it looks at what was recorded, after the run.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from schemas.profiles import Ordering
from services.cli.bench.wire import ORDERING_KEYS

_NS_PER_S: Final = 1_000_000_000
_NS_PER_MS: Final = 1_000_000
_ACCEPTED: Final = 202


@dataclass(frozen=True, slots=True)
class Sent:
    """One event as the load saw it. Times are nanoseconds since 1970."""

    number: int
    sent_ns: int
    answered_ns: int
    #: Of ingest's answer; -1 where there was none.
    status: int


@dataclass(frozen=True, slots=True)
class Arrival:
    """One request as the receiver saw it."""

    arrived_ns: int
    #: Index of the integration.
    integration: int
    number: int
    sent_ns: int


@dataclass(frozen=True, slots=True)
class Spread:
    """Of latencies, in milliseconds."""

    p50: float
    p99: float
    max: float


@dataclass(frozen=True, slots=True)
class Findings:
    """What a run showed."""

    accepted: int
    #: Answers other than 202, and how many; -1 is no answer.
    refused: Mapping[int, int]
    accepted_per_s: float
    #: Of accepted events, each event and integration counted once.
    deliveries: int
    deliveries_per_s: float
    #: From the start of the request to the last arrival, in seconds.
    took_s: float
    #: From the start of the request to the arrival at the receiver.
    latency_ms: Spread
    #: From the start of the request to ingest's answer.
    answer_ms: Spread
    lost: int
    repeated: int
    #: An integration's arrivals that came after one of a later event; None where the order is not known.
    out_of_order: tuple[int, ...] | None


def findings(
    sent: Sequence[Sent],
    arrivals: Sequence[Arrival],
    integrations: int,
    log_order: Sequence[int] | None,
    ordering: Ordering,
) -> Findings:
    """
    What the recordings of one run show.

    Args:
        arrivals: in the order in which they came in.
        integrations: how many each event should reach.
        log_order: numbers of the events in the order in which they stand on the topic `events`; None when unknown.
        ordering: of the integrations; under `key` only events of one key are compared.
    """
    taken = accepted(sent)
    first = first_arrivals(arrivals)
    delivered = [each for each in first if each.number in taken]
    started_ns = min((each.sent_ns for each in sent), default=0)
    answered_ns = max((each.answered_ns for each in sent), default=started_ns)
    ended_ns = max((each.arrived_ns for each in delivered), default=started_ns)
    return Findings(
        accepted=len(taken),
        refused=dict(sorted(Counter(each.status for each in sent if each.status != _ACCEPTED).items())),
        accepted_per_s=_per_s(len(taken), answered_ns - started_ns),
        deliveries=len(delivered),
        deliveries_per_s=_per_s(len(delivered), ended_ns - started_ns),
        took_s=(ended_ns - started_ns) / _NS_PER_S,
        latency_ms=spread_ms(each.arrived_ns - each.sent_ns for each in delivered),
        answer_ms=spread_ms(each.answered_ns - each.sent_ns for each in sent if each.status == _ACCEPTED),
        lost=len(taken) * integrations - len(delivered),
        repeated=len(arrivals) - len(first),
        out_of_order=None if log_order is None else _out_of_order(first, integrations, log_order, ordering),
    )


def accepted(sent: Iterable[Sent]) -> set[int]:
    """Numbers of the events that ingest has answered with 202."""
    return {each.number for each in sent if each.status == _ACCEPTED}


def first_arrivals(arrivals: Iterable[Arrival]) -> list[Arrival]:
    """Without repeats of an event at an integration."""
    first: dict[tuple[int, int], Arrival] = {}
    for each in arrivals:
        first.setdefault((each.integration, each.number), each)
    return list(first.values())


def spread_ms(durations_ns: Iterable[int]) -> Spread:
    """Median, 99th percentile (nearest rank) and maximum; zeros of nothing."""
    ranked = sorted(durations_ns)
    if not ranked:
        return Spread(0.0, 0.0, 0.0)

    def rank(share: int) -> float:
        return ranked[max(0, -(-len(ranked) * share // 100) - 1)] / _NS_PER_MS

    return Spread(rank(50), rank(99), rank(100))


def overtaken(positions: Iterable[int]) -> int:
    """How many come after a later one."""
    latest, count = -1, 0
    for position in positions:
        if position < latest:
            count += 1
        latest = max(latest, position)
    return count


def _out_of_order(
    first: Sequence[Arrival], integrations: int, log_order: Sequence[int], ordering: Ordering
) -> tuple[int, ...]:
    position: dict[int, int] = {}
    for at, number in enumerate(log_order):
        position.setdefault(number, at)
    lines: dict[tuple[int, int], list[int]] = {}
    for each in first:
        if each.number in position:
            key = each.number % ORDERING_KEYS if ordering == "key" else 0
            lines.setdefault((each.integration, key), []).append(position[each.number])
    counts = Counter[int]()
    for (integration, _), positions in lines.items():
        counts[integration] += overtaken(positions)
    return tuple(counts[integration] for integration in range(integrations))


def _per_s(count: int, took_ns: int) -> float:
    return count * _NS_PER_S / took_ns if took_ns > 0 else 0.0
