"""
Which record won an event id that a client supplied: the first by offset, for 24 hours by the records' own timestamps.

Pure: records in, decisions out. The receipts are the truth; this table is a fold of them, kept for one partition of
`events`. So that a takeover need not read a day of receipts, the ids are saved to the topic `event-ids` every
`SAVE_EVERY` receipts, packed; what was saved is read in one go, and the receipts from there on (docs/why/event-ids.md).
"""

import struct
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import Final

from streams.records import Event, FanOutReceipt, WonIds

#: An id seen before is a repeat for so long, by `accepted_at_ms` of the two records.
VALID_MS: Final = 86_400_000

#: Kept for an hour longer: events of several ingest processes stand in line by arrival, not by their clocks.
KEPT_MS: Final = VALID_MS + 3_600_000

#: Ids are forgotten an hour at a time.
_SLICE_MS: Final = 3_600_000

#: Receipts between two saves: what a takeover reads on `fan-out` of each partition, 20 ms of work.
SAVE_EVERY: Final = 2_000

#: Ids in one record of `event-ids`: 1.2 MB, of the 3 MiB that a producer takes.
_IDS_PER_RECORD: Final = 20_000

_RECORD_BYTES: Final = 36
#: 16 bytes of hash; when the winner was accepted; its record id, filled up with zeros.
_PACKED: Final = struct.Struct(f">16s{8 + _RECORD_BYTES}s")
_WINNER: Final = struct.Struct(f">q{_RECORD_BYTES}s")


def key_of(app: str, id_space: str, event_id: str) -> bytes:
    """What an id is kept under. 128 bits: two ids that met would cost somebody an event."""
    return blake2b(f"{app}\0{id_space}\0{event_id}".encode(), digest_size=16).digest()


def _named(record_id: str) -> bytes:
    """The record's id in at most 36 bytes. Ours fit (`rec_` and 32 digits); of a longer one, a hash."""
    name = record_id.encode()
    return name if len(name) <= _RECORD_BYTES else blake2b(name, digest_size=_RECORD_BYTES // 2).hexdigest().encode()


@dataclass(frozen=True, slots=True)
class IdsFloor:
    """Where a successor starts to read, stored with each commit."""

    #: Offset on `event-ids` of the oldest record that holds an id still valid.
    chunk: int
    #: Offset on `fan-out` from which receipts have to be read where no saved record tells a later one.
    receipts: int
    #: Of the owner whose marker stands below that.
    generation: int

    def __str__(self) -> str:
        """As stored."""
        return f"{self.chunk}.{self.receipts}.{self.generation}"

    @classmethod
    def parse(cls, text: str) -> "IdsFloor":
        """
        What was stored.

        Raises:
            ValueError: it is not of that form.
        """
        chunk, receipts, generation = map(int, text.split("."))
        return cls(chunk, receipts, generation)


#: Reads all that is kept.
FROM_THE_BEGINNING: Final = IdsFloor(0, 0, 0)


@dataclass(slots=True)
class _Slice:
    """Winners of about an hour, by key: packed time and record id."""

    first_ms: int
    newest_ms: int
    winners: dict[bytes, bytes] = field(default_factory=dict)


class EventIds:
    """
    The ids of one partition of `events`.

    At a takeover: `see_marker` and `see_saved` for what stands on `event-ids`, in order; then `see_owner` and
    `see_receipt` for what stands on `fan-out` from `receipts_from` on; then `taken_over`. Records of a frozen
    predecessor are passed over: its marker's successor stands before them.
    """

    def __init__(self, floor: IdsFloor = FROM_THE_BEGINNING) -> None:
        self._slices: deque[_Slice] = deque()
        self._newest_ms = 0
        #: Saved records that hold valid ids: offset, and the newest time in each.
        self._chunks: deque[tuple[int, int]] = deque()
        self._chunks_from = floor.chunk
        self._saver = 0
        #: Receipts below are in saved records; and the generation of the owner whose marker stands below.
        self.receipts_from = floor.receipts
        self._receipts_generation = floor.generation
        self._owner = 0
        self._unsaved: list[tuple[bytes, bytes]] = []
        self._receipts_unsaved = 0

    def __len__(self) -> int:
        """How many ids are kept."""
        return sum(len(each.winners) for each in self._slices)

    # -- at a takeover ---------------------------------------------------------------------------------------

    def see_marker(self, generation: int) -> None:
        """An owner's marker on `event-ids`. The newest in log order counts: a group that was deleted counts anew."""
        self._saver = generation

    def see_saved(self, offset: int, saved: WonIds) -> None:
        """A record of `event-ids`."""
        if saved.source_generation < self._saver:
            return  # by a frozen predecessor, of receipts that do not count
        self._saver = saved.source_generation
        if saved.ids:
            self._chunks.append((offset, saved.newest_ms))
            self._slice(saved.newest_ms).winners.update(_PACKED.iter_unpack(saved.ids))
        if saved.receipts_until is not None:
            self.receipts_from, self._receipts_generation = saved.receipts_until, saved.source_generation

    def see_owner(self, offset: int, generation: int) -> None:
        """An owner's marker on `fan-out`."""
        if offset >= self.receipts_from:
            self._owner = generation

    def see_receipt(self, offset: int, receipt: FanOutReceipt) -> None:
        """A receipt, in order."""
        is_late = receipt.source_generation < (self._owner or self._receipts_generation)
        if offset < self.receipts_from or is_late:
            return
        self._receipts_unsaved += 1
        if receipt.id_space is not None and receipt.repeat_of is None:
            key = key_of(receipt.app, receipt.id_space, receipt.event_id)
            winner = self._winner(key, receipt.accepted_at_ms)
            if winner is None or winner[1] != _named(receipt.record_id):
                self._win(key, receipt.record_id, receipt.accepted_at_ms)

    def taken_over(self, marker_offset: int) -> None:
        """All is seen. *marker_offset*: of our own marker on `event-ids`, where reading starts if nothing is valid."""
        self._chunks_from = marker_offset

    # -- at work ---------------------------------------------------------------------------------------------

    def decide(self, event: Event) -> str | None:
        """
        The record that this event repeats; None where it is the first, or the same record once more.

        Asked in the order of `events`, for events with a supplied id. The first one is remembered as the winner.
        """
        key = key_of(event.app, event.id_space, event.event_id)
        winner = self._winner(key, event.accepted_at_ms)
        if winner is None:
            self._win(key, event.record_id, event.accepted_at_ms)
            return None
        _, name = winner
        return None if name == _named(event.record_id) else name.decode()

    def count(self, receipts: int) -> None:
        """So many more receipts are on the broker."""
        self._receipts_unsaved += receipts

    @property
    def is_due(self) -> bool:
        """Whether it is time to save."""
        return self._receipts_unsaved >= SAVE_EVERY

    def to_save(self, partition: int, generation: int, receipts_until: int) -> Iterator[WonIds]:
        """
        Records for `event-ids`, in order; call `saved` with the offset of each when it is on the broker.

        Only the last one says up to where receipts are saved: should the others be all that gets there, a successor
        reads those receipts too.
        """
        rest, self._unsaved, self._receipts_unsaved = self._unsaved, [], 0
        while True:
            part, rest = rest[:_IDS_PER_RECORD], rest[_IDS_PER_RECORD:]
            yield WonIds(
                source_partition=partition,
                source_generation=generation,
                receipts_until=None if rest else receipts_until,
                newest_ms=max((_WINNER.unpack(winner)[0] for _, winner in part), default=0),
                ids=b"".join(_PACKED.pack(*each) for each in part),
            )
            if not rest:
                return

    def saved(self, offset: int, saved: WonIds) -> None:
        """A record made by `to_save` is on the broker, there."""
        if saved.ids:
            self._chunks.append((offset, saved.newest_ms))
        if saved.receipts_until is not None:
            self.receipts_from, self._receipts_generation = saved.receipts_until, saved.source_generation

    @property
    def floor(self) -> IdsFloor:
        """Where a successor has to start."""
        chunk = self._chunks[0][0] if self._chunks else self._chunks_from
        return IdsFloor(chunk, self.receipts_from, self._receipts_generation)

    # -- the table -------------------------------------------------------------------------------------------

    def _winner(self, key: bytes, at_ms: int) -> tuple[int, bytes] | None:
        """When the winner was accepted, and its name; None where there is none, or none any more."""
        for each in reversed(self._slices):
            found = each.winners.get(key)
            if found is not None:
                accepted_at_ms, name = _WINNER.unpack(found)
                return None if at_ms - accepted_at_ms >= VALID_MS else (accepted_at_ms, name.rstrip(b"\0"))
        return None

    def _win(self, key: bytes, record_id: str, at_ms: int) -> None:
        winner = _WINNER.pack(at_ms, _named(record_id))
        self._slice(at_ms).winners[key] = winner
        self._unsaved.append((key, winner))

    def _slice(self, at_ms: int) -> _Slice:
        """The one that takes ids of that time; what is older than `KEPT_MS` is forgotten."""
        self._newest_ms = max(self._newest_ms, at_ms)
        if not self._slices or at_ms - self._slices[-1].first_ms >= _SLICE_MS:
            self._slices.append(_Slice(at_ms, at_ms))
            kept_from_ms = self._newest_ms - KEPT_MS
            while len(self._slices) > 1 and self._slices[0].newest_ms < kept_from_ms:
                self._slices.popleft()
            while self._chunks and self._chunks[0][1] < kept_from_ms:
                self._chunks.popleft()
        self._slices[-1].newest_ms = max(self._slices[-1].newest_ms, at_ms)
        return self._slices[-1]
