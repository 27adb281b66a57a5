"""
Which records of a partition are taken and not finished, and how far it is safe to commit.

Pure. One ledger a partition and assignment; the consumer feeds it, processors finish in any order.
Kafka's committed offset is the next one to process, so what may be committed is the first offset that is
not finished, however many behind it are. (Faust's own bookkeeping commits past such a head:
`docs/why/own-consumer.md`.)
"""

from collections import deque
from collections.abc import Iterable


class Ledger:
    """Offsets of one partition, taken in rising order (gaps are compaction's or a transaction's), finished in any."""

    def __init__(self, start: int) -> None:
        #: First offset not taken yet.
        self.position = start
        #: Bytes of what is taken and not finished.
        self.unfinished_bytes = 0
        self._open: dict[int, int] = {}
        self._floors: deque[tuple[int, str]] = deque()

    def take(self, offsets_and_sizes: Iterable[tuple[int, int]], floor: str = "") -> None:
        """
        Count records as taken.

        Args:
            offsets_and_sizes: offset and size in bytes of each, in rising order, none below `position`.
            floor: what a successor has to know to find what these records will have caused: see `floor`.

        Raises:
            ValueError: an offset below `position`: it was taken before, and finishing it twice would hide another.
        """
        first = True
        for offset, size in offsets_and_sizes:
            if offset < self.position:
                raise ValueError(f"offset {offset} was taken already; the next one is {self.position}")
            if first and (not self._floors or self._floors[-1][1] != floor):
                self._floors.append((offset, floor))
            first = False
            self._open[offset] = size
            self.unfinished_bytes += size
            self.position = offset + 1

    def finish(self, offset: int) -> None:
        """The record needs no more work. Finishing what is not open (again, or of another time) changes nothing."""
        size = self._open.pop(offset, None)
        if size is not None:
            self.unfinished_bytes -= size

    def is_open(self, offset: int) -> bool:
        """Whether the record is taken and not finished."""
        return offset in self._open

    @property
    def unfinished_records(self) -> int:
        """How many are taken and not finished."""
        return len(self._open)

    @property
    def committable(self) -> int:
        """The first offset that is not finished; what a successor has to start from."""
        return next(iter(self._open), self.position)

    def floor(self, current: str) -> str:
        """
        The floor that the oldest unfinished record was taken under, or *current* where none is open.

        A floor says where the topics that a processor appends to ended at a time before the record was
        taken; so everything that any unfinished record caused stands at or above it.
        """
        if not self._open:
            self._floors.clear()
            return current
        oldest = self.committable
        while len(self._floors) > 1 and self._floors[1][0] <= oldest:
            self._floors.popleft()
        return self._floors[0][1]
