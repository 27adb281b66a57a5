"""What a Faust agent of ours is made of: batches in, acknowledged effects out."""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol, runtime_checkable

from aiokafka import ConsumerRecord

from streams.ledger import Ledger
from streams.quarantine import Code


class ReadAt(NamedTuple):
    """Where a record was read, and under which generation of the group."""

    partition: int
    offset: int
    generation: int


@dataclass(slots=True)
class Batch:
    """Records of one partition, in order, as raw bytes. Every one has to be finished, some time, in any order."""

    partition: int
    #: Group generation under which they were read; what they cause carries it.
    generation: int
    records: list["ConsumerRecord[bytes | None, bytes | None]"]
    _ledger: Ledger
    _on_finished: Callable[[], None] = field(default=lambda: None)

    def finish(self, offset: int) -> None:
        """What this record caused is on the log: it may be committed over."""
        self._ledger.finish(offset)
        self._on_finished()

    def of(self, records: list["ConsumerRecord[bytes | None, bytes | None]"]) -> "Batch":
        """A batch of these records of the same partition and generation, in order: fewer, or more."""
        return Batch(self.partition, self.generation, records, self._ledger, self._on_finished)

    def alone(self, record: "ConsumerRecord[bytes | None, bytes | None]") -> "Batch":
        """A batch of this record only."""
        return self.of([record])

    def unfinished(self) -> list["ConsumerRecord[bytes | None, bytes | None]"]:
        """Those not finished yet."""
        return [record for record in self.records if self._ledger.is_open(record.offset)]

    @property
    def unfinished_of_all(self) -> tuple[int, int]:
        """How many records of its partition are taken and not finished, of all batches; and their bytes."""
        return self._ledger.unfinished_records, self._ledger.unfinished_bytes


async def _committed(_partition: int) -> bool:
    return True


@dataclass(frozen=True, slots=True)
class Assignment:
    """What a processor is given."""

    generation: int
    #: Partition of its topic to the floor stored with that one's last commit ('' for none).
    floors: Mapping[int, str]
    #: Partition to the first offset that will be read.
    starts: Mapping[int, int]
    #: Commits this partition now, with its floor as it is then; True where that is stored. Not before records are read.
    commit: Callable[[int], Awaitable[bool]] = _committed


class Processor(Protocol):
    """
    Work on one topic. The consumer calls it; a Faust agent carries the batches.

    Order of calls: `take_over` for all partitions of an assignment, then `process` for batches of each
    partition in order (partitions beside each other), then `settle` before they are given up.
    """

    async def take_over(self, assignment: Assignment) -> None:
        """
        Find out what predecessors did with records that will be read again. No batch comes before this returns.

        Raises anything: it is tried again after a while.
        """

    async def process(self, batch: Batch) -> None:
        """
        Work on a batch. Returning means taken, not finished: records may be finished later.

        An exception quarantines the records of the batch that raise alone too, and none else.
        """

    def floor(self, partition: int) -> str:
        """Where the topics that it appends to end by now, at least: see `Ledger.floor`. Below 4 KiB."""

    async def settle(self, timeout_s: float) -> None:
        """
        Start nothing more, wait for what is in flight, at most so long, and forget the rest.

        `process` is not called again before `take_over`.
        """


@runtime_checkable
class KeepsFloors(Protocol):
    """A processor that decides at each commit what its floor is, from what it knows of its own records."""

    def floor_at(self, partition: int, committable: int) -> str:
        """
        What a successor has to know that starts at *committable*: stored with the commit of that offset.

        Asked also without a commit following. `floor` means nothing then.
        """


@runtime_checkable
class Waits(Protocol):
    """
    A processor that keeps records unfinished on purpose, until they are due.

    Nobody suspects a record of it that has stood first for long.
    """

    def waiting(self, partition: int) -> int:
        """How many of the partition's unfinished records wait for their time. Of the others one should go on."""


def floor_of(processor: Processor, partition: int, ledger: Ledger) -> str:
    """What is stored with a commit of the partition as far as its ledger says now."""
    if isinstance(processor, KeepsFloors):
        return processor.floor_at(partition, ledger.committable)
    return ledger.floor(processor.floor(partition))


#: Puts a record that cannot be finished aside: (record, code, reason); returns when it is on the log.
PutAside = Callable[[Any, Code, str], Any]
