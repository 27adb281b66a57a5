"""
Which retry topic a waiting delivery stands in, and when it leaves it.

Pure. A retry topic is a line, its partition a jitter slot, and every record of a partition waits the same time there:
so each partition is sorted by the time of leaving, and only its head has to be looked at. (Simulated with a random due
time a record instead: 117 s too late on average in a line of 10 minutes; `docs/why/delay-lines.md`.)
"""

from bisect import bisect_right
from typing import Final, NamedTuple

from streams.topics import RETRIES, RETRY_DELAYS_S, SLOT_TENTHS, Topic

#: What is due this much before the end of the wait that was meant for it still takes that line, and leaves it when it
#: is due. That is the time a result needs to get onto the broker before the retry record is written. Whoever stands
#: behind such a record may wait for it, so much at most.
NEAR_MS: Final = 250


class Place(NamedTuple):
    """A partition of a retry topic."""

    line: Topic
    partition: int
    #: How long records stay there, at most.
    wait_ms: int


def wait_ms(delay_s: int, partition: int) -> int:
    """How long a record waits in this partition of the retry topic of that delay, in milliseconds."""
    return delay_s * 100 * SLOT_TENTHS[partition]


#: Every partition of every retry topic, by its wait.
PLACES: Final = tuple(
    sorted(
        (
            Place(line, partition, wait_ms(delay_s, partition))
            for line, delay_s in zip(RETRIES, RETRY_DELAYS_S, strict=True)
            for partition in range(len(SLOT_TENTHS))
        ),
        key=lambda place: place.wait_ms,
    )
)
_WAITS_MS: Final = [place.wait_ms for place in PLACES]

#: What is due sooner than any line takes waits in memory.
SHORTEST_MS: Final = PLACES[0].wait_ms


def place_for(remaining_ms: int, slot: int | None = None) -> Place:
    """
    Where a delivery waits that is due in so many milliseconds: the longest wait that is not too long for it.

    A wait of its own slot that ends within NEAR_MS after the due time goes first: the one that `backoff` meant. What is
    due sooner than the shortest wait gets the shortest line; `leave_at_ms` lets it out when it is due.
    """
    for place in PLACES:
        if place.partition == slot and 0 <= place.wait_ms - remaining_ms <= NEAR_MS:
            return place
    return PLACES[max(0, bisect_right(_WAITS_MS, remaining_ms) - 1)]


def leave_at_ms(place_wait_ms: int, written_at_ms: int, due_at_ms: int | None) -> int:
    """When a record leaves its line: after the line's wait, or when it is due, whichever comes first."""
    waited_ms = written_at_ms + place_wait_ms
    return waited_ms if due_at_ms is None else min(waited_ms, due_at_ms)
