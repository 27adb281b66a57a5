"""
Which results came too late to count for the lanes: those of an owner who had lost the partition.

Pure. Each owner of a partition of `deliveries` says on `delivery-results` that it has taken it over (`Marker`). What a
predecessor writes behind that, it began before it was replaced without knowing: it had frozen, or its broker was away.
The successor makes that attempt itself, and two results of it may follow. What was handed over in time (`HandOver`) it
waits for instead, so that counts.
"""

from streams.records import HandOver, Marker, Result


def is_late(generation: int, owner: int, handed: int | None) -> bool:
    """
    Whether a result came too late.

    Args:
        generation: of the owner who made it.
        owner: generation of the newest owner whose marker stands before it; 0 where none is known.
        handed: generation of who had handed the request over; None where nobody had.
    """
    return generation < owner and handed != generation


class LateResults:
    """The same from one partition of `delivery-results` alone: tell all records of it, in their order."""

    def __init__(self) -> None:
        self._owner = 0
        #: By offset of the delivery: generation of who handed it over last.
        self._handed: dict[int, int] = {}

    def saw_marker(self, marker: Marker) -> None:
        """The newest in log order counts, not the highest: a group that was deleted starts counting anew."""
        self._owner = marker.generation

    def saw_hand_over(self, note: HandOver) -> None:
        """A successor has read it if it stands before that one's marker; it may say it again to its own successor."""
        if note.source_generation >= self._owner:
            self._handed[note.source_offset] = note.source_generation

    def has(self, result: Result) -> bool:
        """Whether the result that stands here came too late."""
        return is_late(result.source_generation, self._owner, self._handed.get(result.source_offset))
