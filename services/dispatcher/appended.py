"""
What fan-out has appended already, as a takeover finds it, and the floor from which it has to look.

Pure: records in, what counts out.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from aiokafka import ConsumerRecord

from services.dispatcher.event_ids import FROM_THE_BEGINNING, IdsFloor
from streams import codec
from streams.records import Delivery, FanOutReceipt, Marker
from streams.takeover import Generations

#: Partition and offset of an event.
Place = tuple[int, int]


@dataclass(frozen=True, slots=True)
class Floor:
    """Where the effects of one partition's unfinished events begin, and whose markers stand below that."""

    #: Of the owner that stored it; its markers stand below everything here.
    generation: int
    #: Offset in the partition's own partition of `fan-out`.
    receipts: int
    #: Offset in each partition of `deliveries`.
    deliveries: tuple[int, ...]
    #: Of the partition's event ids.
    ids: IdsFloor = FROM_THE_BEGINNING

    def __str__(self) -> str:
        """As it is stored with a commit: below 4 KiB for 256 partitions of any length."""
        return f"{self.generation};{self.receipts};{','.join(map(str, self.deliveries))};{self.ids}"

    @classmethod
    def parse(cls, text: str, partitions: int) -> "Floor":
        """What was stored; zeros, which read all that is kept, where nothing of that form is."""
        try:
            generation, receipts, ends, ids = text.split(";")
            floor = cls(int(generation), int(receipts), tuple(map(int, ends.split(","))), IdsFloor.parse(ids))
        except ValueError:
            return cls(0, 0, (0,) * partitions)
        return floor if len(floor.deliveries) == partitions else cls(0, 0, (0,) * partitions)


class Appended:
    """Receipts and deliveries that are on the log, of events that are not finished."""

    def __init__(self) -> None:
        self._receipts: dict[Place, FanOutReceipt] = {}
        self._deliveries: dict[Place, set[str]] = {}

    def clear(self) -> None:
        """Forget all: another assignment."""
        self._receipts.clear()
        self._deliveries.clear()

    def finish(self, place: Place) -> None:
        """Forget an event."""
        self._receipts.pop(place, None)
        self._deliveries.pop(place, None)

    def receipt(self, place: Place) -> FanOutReceipt | None:
        """The receipt of the event that counts: the first one."""
        return self._receipts.get(place)

    def put(self, place: Place, receipt: FanOutReceipt) -> None:
        """A receipt of the event; the first one stays."""
        self._receipts.setdefault(place, receipt)

    def deliveries(self, place: Place) -> set[str]:
        """Ids of the event's deliveries; add those that follow."""
        return self._deliveries.setdefault(place, set())

    def places(self) -> set[Place]:
        """Events of which there is something."""
        return self._receipts.keys() | self._deliveries.keys()


class ReadBack:
    """Sorts what a takeover reads on `fan-out` and `deliveries` into `Appended`, each partition in order."""

    def __init__(
        self,
        into: Appended,
        *,
        events: str,
        receipts: str,
        floors: Mapping[int, Floor],
        starts: Mapping[int, int],
    ) -> None:
        """
        Args:
            events: name of the topic whose owners count.
            receipts: name of the topic of receipts.
            floors: by partition of `events`.
            starts: by partition of `events`, the first offset that will be read.
        """
        self._into = into
        self._events = events
        self._receipts = receipts
        self._floors = floors
        self._starts = starts
        self._generations = Generations()

    def see(self, record: "ConsumerRecord[Any, Any]") -> None:
        """One record; what is unreadable is its reader's to put aside."""
        try:
            found = codec.decode(record.value)
        except codec.Unreadable:
            return
        if isinstance(found, Marker):
            if found.source_topic == self._events and self._is_above_floor(found.source_partition, record):
                place = record.topic, record.partition
                self._generations.saw(place, found.source_partition, found.generation)
        elif isinstance(found, FanOutReceipt | Delivery) and self._counts(found, record):
            self._keep(found)

    def _is_above_floor(self, partition: int, record: "ConsumerRecord[Any, Any]") -> bool:
        """Whether effects of this partition's unfinished events can stand here; partitions have their own floors."""
        floor = self._floors.get(partition)
        if floor is None:
            return False
        lowest: int = floor.receipts if record.topic == self._receipts else floor.deliveries[record.partition]
        return int(record.offset) >= lowest

    def _counts(self, found: FanOutReceipt | Delivery, record: "ConsumerRecord[Any, Any]") -> bool:
        partition = found.source_partition
        if not self._is_above_floor(partition, record) or found.source_offset < self._starts[partition]:
            return False
        return not self._generations.is_late(
            (record.topic, record.partition),
            partition,
            found.source_generation,
            before=self._floors[partition].generation,
        )

    def _keep(self, found: FanOutReceipt | Delivery) -> None:
        place = found.source_partition, found.source_offset
        if isinstance(found, FanOutReceipt):
            self._into.put(place, found)
        elif found.cause == "live":
            self._into.deliveries(place).add(found.delivery_id)
