"""
Whether partitions with work make progress: a service that is up and makes none has to be started anew.

Pure: what is seen goes in with the time, what stands still comes out.
"""

from collections.abc import Hashable, Mapping
from dataclasses import dataclass
from typing import Final, Generic, NamedTuple, TypeVar

P = TypeVar("P", bound=Hashable)

#: Longer than any legal wait for one record: a request (10 s), its result on a cluster that elects a leader, a
#: configuration that a follower reads on a new connection (30 s).
STUCK_S: Final = 120.0

#: Between two looks. When much more has passed, this process was frozen, and is given its time anew.
LOOK_S: Final = 5.0
_FROZEN_S: Final = 4 * LOOK_S


class Seen(NamedTuple):
    """A partition at one moment."""

    #: First offset not finished, first not taken, and how many are taken and not finished: one of them moves.
    committable: int
    position: int
    unfinished: int
    #: Whether there is anything to do: taken and not finished, or on the log and not taken.
    has_work: bool


@dataclass(slots=True)
class _Watched:
    seen: Seen
    moved_at_s: float


class Progress(Generic[P]):
    """The partitions of one worker, looked at every `LOOK_S`."""

    def __init__(self, stuck_s: float = STUCK_S) -> None:
        self._stuck_s = stuck_s
        self._watched: dict[P, _Watched] = {}
        self._looked_at_s: float | None = None

    def look(self, now_s: float, partitions: Mapping[P, Seen]) -> dict[P, float]:
        """
        Partitions that have had work for too long and did not move, and for how many seconds.

        Args:
            now_s: on a monotonic clock.
            partitions: all that should move now; those not in it are forgotten.
        """
        was_frozen = self._looked_at_s is None or now_s - self._looked_at_s > _FROZEN_S
        self._looked_at_s = now_s
        before = {} if was_frozen else self._watched
        self._watched = {}
        for partition, seen in partitions.items():
            last = before.get(partition)
            moved = last is None or last.seen != seen or not seen.has_work
            self._watched[partition] = _Watched(seen, now_s if last is None or moved else last.moved_at_s)
        return {
            partition: now_s - watched.moved_at_s
            for partition, watched in self._watched.items()
            if now_s - watched.moved_at_s >= self._stuck_s
        }
