"""
What a scenario asks for besides the claims: bounds in seconds, and that there was something to judge. Pure.

Bounds in seconds are of a machine that has nothing else to do, so that they are asked for by those who start a preset
for them, and not by the suite.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Final

from tests.chaos.claims import judged_whole, silences, tripped
from tests.chaos.observed import Observed


@dataclass(frozen=True, slots=True)
class Bounds:
    """What is asked for; by itself nothing."""

    #: So many retries at least are judged with nothing taken off.
    least_judged: int = 0
    #: So often at least the API acknowledged a pause of one that is paused at times.
    least_pauses: int = 0
    #: So often at least the breaker paused an integration.
    least_tripped: int = 0
    #: By kind of fault: the longest silence of a steady integration from each of its faults on, in seconds.
    silent_s: Mapping[str, float] = field(default_factory=dict)


NO_BOUNDS: Final = Bounds()


def missed(bounds: Bounds, seen: Observed, steady: tuple[str, ...]) -> list[str]:
    """
    A sentence for each that is not kept.

    Args:
        steady: integrations that get requests all the time while all is well.
    """
    return list(_missed(bounds, seen, steady))


def told(bounds: Bounds, seen: Observed, steady: tuple[str, ...]) -> list[str]:
    """Each fault that has a bound, with how long it took until all were delivered to again."""
    return [
        f"{'ok ' if each.seconds <= most_s else 'NOT'} {each.fault}: {each.seconds:.1f} s of at most {most_s:g}"
        f" ({each.integration})"
        for each in silences(seen, steady)
        if (most_s := bounds.silent_s.get(each.fault.partition(" ")[0])) is not None
    ]


def _missed(bounds: Bounds, seen: Observed, steady: tuple[str, ...]) -> Iterator[str]:
    if (judged := judged_whole(seen)) < bounds.least_judged:
        yield f"{judged} retries were judged with nothing taken off, of at least {bounds.least_judged}"
    at_times = {each.name for each in seen.destinations.values() if each.is_paused_at_times}
    paused = sum(each.status == "paused" and each.integration in at_times for each in seen.changed)
    if paused < bounds.least_pauses:
        yield f"{paused} pauses were acknowledged, of at least {bounds.least_pauses}"
    if (by_breaker := tripped(seen)) < bounds.least_tripped:
        yield f"the breaker paused an integration {by_breaker} times, of at least {bounds.least_tripped}"
    for kind, most_s in bounds.silent_s.items():
        of_kind = [each for each in silences(seen, steady) if each.fault.partition(" ")[0] == kind]
        if not of_kind:
            yield f"there was no {kind} to measure"
        for each in of_kind:
            if each.seconds > most_s:
                what = f"after {each.fault} {each.integration}"
                yield f"{what} got nothing for {each.seconds:.1f} s, of at most {most_s:g}"
