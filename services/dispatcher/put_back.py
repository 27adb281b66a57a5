"""
What a retry reader has put back onto `deliveries` already: how it is named there, and how a takeover finds it.

Pure: records in, what counts out.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

from aiokafka import ConsumerRecord

from streams import codec
from streams.records import Marker
from streams.takeover import Generations

#: Kafka record header of a delivery that was put back: a takeover reads it instead of the record.
HEADER: Final = "tenterhook-retry"

#: The floor of a reader that has nothing on `deliveries` that it did not finish: nothing has to be read back.
IDLE: Final = "idle"


class Origin(NamedTuple):
    """The retry record that a delivery was put back for, and the group generation of who did it."""

    #: Of the retry topic, without prefix.
    line: str
    partition: int
    offset: int
    generation: int

    def header(self) -> tuple[str, bytes]:
        """As it stands on the record."""
        return HEADER, f"{self.line}/{self.partition}/{self.offset}/{self.generation}".encode()

    @classmethod
    def of(cls, record: "ConsumerRecord[Any, Any]") -> "Origin | None":
        """What the record's header says; None where it was not put back by a retry reader."""
        for name, value in record.headers:
            if name == HEADER:
                try:
                    line, partition, offset, generation = value.decode().split("/")
                    return cls(line, int(partition), int(offset), int(generation))
                except ValueError:
                    return None
        return None


@dataclass(frozen=True, slots=True)
class Floor:
    """Where on `deliveries` the unfinished put-backs of a retry partition begin, and whose markers stand below."""

    #: Of the owner that stored it; its markers stand below everything here.
    generation: int
    #: Offset in each partition of `deliveries`.
    deliveries: tuple[int, ...]

    def __str__(self) -> str:
        """As it is stored with a commit: below 4 KiB for 256 partitions of any length."""
        return f"{self.generation};{','.join(map(str, self.deliveries))}"

    @classmethod
    def parse(cls, text: str, partitions: int) -> "Floor | None":
        """What was stored; None where that is `IDLE`; zeros, which read all that is kept, for everything else."""
        if text == IDLE:
            return None
        everything = cls(0, (0,) * partitions)
        try:
            generation, ends = text.split(";")
            floor = cls(int(generation), tuple(map(int, ends.split(","))))
        except ValueError:
            return everything
        return floor if len(floor.deliveries) == partitions else everything


class ReadBack:
    """Sorts what a takeover reads on `deliveries`, each partition in order; what counts is in `found`."""

    def __init__(self, *, line: str, topic: str, floors: Mapping[int, Floor], starts: Mapping[int, int]) -> None:
        """
        Args:
            line: the retry topic, without prefix.
            topic: its full name, which its owners' markers bear.
            floors: by its partitions, of those that have to be looked for.
            starts: by partition, the first offset that will be read again.
        """
        #: Partition and offset of retry records that were put back and will be read again.
        self.found: set[tuple[int, int]] = set()
        self._line = line
        self._topic = topic
        self._floors = floors
        self._starts = starts
        self._generations = Generations()

    def see(self, record: "ConsumerRecord[Any, Any]") -> None:
        """One record of `deliveries`."""
        origin = Origin.of(record)
        if origin is None:
            if record.key is None:  # as no delivery has none, and decoding each of them is what this costs
                self._mark(record)
        elif origin.line == self._line and self._counts(origin, record):
            self.found.add((origin.partition, origin.offset))

    def _mark(self, record: "ConsumerRecord[Any, Any]") -> None:
        try:
            marker = codec.decode(record.value)
        except codec.Unreadable:
            return  # its reader's to put aside
        if isinstance(marker, Marker) and marker.source_topic == self._topic:
            for source in marker.sources:
                if self._is_above_floor(source, record):
                    self._generations.saw(record.partition, source, marker.generation)

    def _counts(self, origin: Origin, record: "ConsumerRecord[Any, Any]") -> bool:
        if not self._is_above_floor(origin.partition, record) or origin.offset < self._starts[origin.partition]:
            return False
        before = self._floors[origin.partition].generation
        return not self._generations.is_late(record.partition, origin.partition, origin.generation, before=before)

    def _is_above_floor(self, partition: int, record: "ConsumerRecord[Any, Any]") -> bool:
        floor = self._floors.get(partition)
        return floor is not None and int(record.offset) >= floor.deliveries[record.partition]


class PutBacks:
    """
    Of one retry partition: what was put back and is not committed over, and so its floor at any time.

    A commit says `IDLE` where nothing is. So the first put-back after it needs another commit before it, and knows that
    from `is_covered`.
    """

    def __init__(self, inherited: str = IDLE, last_found: int = -1) -> None:
        """
        Args:
            inherited: floor of the predecessor.
            last_found: the highest offset of what its takeover found; as long as that is not committed over, a
                successor has to look where we did.
        """
        #: Whether what is stored with the last commit leads a successor to everything that is put back from now on.
        self.is_covered = False
        self._inherited = inherited
        self._last_found = last_found
        #: Last offset of what was put back together, and the floor then. The first floor is the lowest.
        self._together: list[tuple[int, str]] = []

    def begin(self, last_offset: int, floor: str) -> None:
        """Records up to this one are about to be put back; *floor*: where `deliveries` ends before that."""
        if len(self._together) < _TOGETHER_AT_MOST:
            self._together.append((last_offset, floor))
        else:  # behind one that waits very long: a lower floor than need be is still true
            last, lower = self._together[-1]
            self._together[-1] = max(last, last_offset), lower

    def floor(self, committable: int) -> str:
        """The floor for a successor that starts there."""
        self._together = [each for each in self._together if each[0] >= committable]
        if committable <= self._last_found:
            return self._inherited
        if self._together:
            return self._together[0][1]
        self.is_covered = False
        return IDLE


_TOGETHER_AT_MOST: Final = 64
