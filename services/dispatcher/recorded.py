"""
What the log says of deliveries that are read again: which of them have their result, and which came too late.

Pure: records in, answers out.
"""

from collections.abc import Mapping
from typing import Any

from aiokafka import ConsumerRecord

from streams import codec
from streams.records import Delivery, Marker, Result
from streams.takeover import Generations, Held


class Recorded:
    """The lanes' memory of their predecessors, for the partitions of one assignment."""

    def __init__(self, events: str, sources: int) -> None:
        """
        Args:
            events: name of the topic whose owners append to `deliveries`.
            sources: its partitions.
        """
        self._events = events
        self._sources = sources
        #: By (partition, offset) of a delivery that will be read again and has its result: its id.
        self._ended: dict[tuple[int, int], str] = {}
        self._held = Held()
        #: Fan-out's owners, by partition of `deliveries`; and the lowest of them where reading began.
        self._marked = Generations()
        self._marked_before: dict[int, int] = {}

    # -- at a takeover ---------------------------------------------------------------------------------------

    def begin(self, floors: Mapping[int, str]) -> dict[int, int]:
        """Forget what was; by partition, the offset from which its results have to be seen."""
        self._ended.clear()
        self._held.clear()
        self._marked.clear()
        parsed = {partition: _parse(floor) for partition, floor in floors.items()}
        self._marked_before = {partition: generation for partition, (_, generation) in parsed.items()}
        return {partition: start for partition, (start, _) in parsed.items()}

    def see(self, record: "ConsumerRecord[Any, Any]", starts: Mapping[int, int]) -> None:
        """A record of `delivery-results`; *starts*: by partition, the first delivery that will be read again."""
        try:
            result = codec.decode(record.value)
        except codec.Unreadable:
            return  # ops tooling's to complain about; it is no result of ours
        if isinstance(result, Result) and result.source_offset >= starts[record.partition]:
            self._ended[record.partition, result.source_offset] = result.delivery_id

    def hold(self, floors: Mapping[int, str]) -> int:
        """All is seen: how many results there are; the floors that led to them are held."""
        self._held.hold(floors, self._ended)
        return len(self._ended)

    # -- at work ---------------------------------------------------------------------------------------------

    def floor(self, partition: int, end: int) -> str:
        """
        What a successor has to know: where results end by now, and whose markers were read on `deliveries`.

        One generation for all partitions of `events`, the lowest: a rebalance marks all of them with the same.
        """
        marked = self._marked.least(partition, self._sources, before=self._marked_before.get(partition, 0))
        return self._held.floor(partition, f"{end};{marked}")

    def passed(self, partition: int, offset: int) -> None:
        """Deliveries up to this offset are taken."""
        self._held.passed(partition, offset)

    def mark(self, partition: int, marker: Marker) -> None:
        """A marker read on `deliveries`."""
        if marker.source_topic == self._events:
            self._marked.saw(partition, marker.source_partition, marker.generation)

    def has_ended(self, partition: int, offset: int, delivery: Delivery) -> bool:
        """Whether the delivery that was read there has its result, whatever that is. Asked once."""
        return self._ended.pop((partition, offset), None) == delivery.delivery_id

    def is_late(self, partition: int, delivery: Delivery) -> bool:
        """Whether an owner of fan-out appended it that had been replaced; its successor appends it too."""
        before = self._marked_before.get(partition, 0)
        return self._marked.is_late(partition, delivery.source_partition, delivery.source_generation, before=before)


def _parse(floor: str) -> tuple[int, int]:
    """What `Recorded.floor` wrote; zeros, which read all that is kept, where nothing of that form is stored."""
    try:
        end, generation = map(int, floor.split(";"))
    except ValueError:
        return 0, 0
    return end, generation
