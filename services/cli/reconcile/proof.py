"""
Holds the log against itself: accepted = outcomes + open + quarantined, or what is missing and what is there twice.

Pure: records in, findings out. It counts *pairs*: an event and an integration that selected it when it was fanned
out, as the event's receipt says; only what fan-out made, no retries, replays and tests.

Memory: 9 bytes an event of one partition of `events`, then 30 bytes a pair, and some 300 bytes a pair of one partition
of `deliveries`, since each of those is proved by itself.
"""

import struct
from array import array
from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Final, Literal, get_args

from streams.delivery_ids import LIVE_RUN, delivery_id
from streams.late_results import LateResults
from streams.records import Delivery, Event, FanOutReceipt, HandOver, LaneRow, Marker, Outcome, Result
from streams.takeover import Generations

Kind = Literal["no_receipt", "no_delivery", "no_outcome", "two_outcomes", "stray_outcome"]

#: What each finding says, for people.
MEANING: Final[dict[Kind, str]] = {
    "no_receipt": "the event was passed by fan-out, and has no receipt",
    "no_delivery": "the integration was selected, and no delivery was appended for it",
    "no_outcome": "the delivery was taken, waits nowhere, and has no outcome",
    "two_outcomes": "the delivery has two outcomes, and no frozen worker explains it; the first one counts",
    "stray_outcome": "there is an outcome, and no event that was fanned out to this integration",
}

#: What a late outcome says, for people.
LATE: Final = "a worker that had lost its partition wrote an outcome too; the first one counts, and nothing is wrong"

#: All times.
FIRST_MS: Final = 0
LAST_MS: Final = 2**62

#: Findings that are kept; all are counted.
MAX_LISTED: Final = 1_000

#: Delivery id as bytes, partition and offset of the event, number of the integration.
_PAIR: Final = struct.Struct(">16sHQI")

#: An outcome: offset of its result, number of the attempt, place in `_OUTCOMES`, generation of who made it, start, end.
_SAID: Final = struct.Struct(">qiBqqq")
#: Bytes of the offset.
_PLACE: Final = 8
_OUTCOMES: Final[tuple[Outcome, ...]] = get_args(Outcome)

_ACCEPTED, _HAS_RECEIPT = 1, 2
#: In the place of the record id of an event that cannot be read here: its receipt may be any.
_UNREAD: Final = 0
_HAS_DELIVERY, _IS_OPEN, _HAS_OUTCOME, _IS_LATE = 1, 2, 4, 8


@dataclass(frozen=True, slots=True)
class Finding:
    """One pair, or event, that is not as it must be."""

    kind: Kind
    #: Where the event stands on `events`; None where nothing tells.
    partition: int | None
    offset: int | None
    integration: str | None = None
    delivery: str | None = None


@dataclass(frozen=True, slots=True)
class Said:
    """A result with an outcome."""

    #: Where it stands on `delivery-results`.
    partition: int
    offset: int
    attempt: int
    outcome: Outcome
    #: Of the owner who made it.
    generation: int


@dataclass(frozen=True, slots=True)
class LateOutcome:
    """An outcome by a worker that had lost the partition, of a pair that has another one. Nothing is wrong with it."""

    #: Where the event stands on `events`.
    partition: int
    offset: int
    integration: str
    delivery: str
    late: Said
    #: By who had the partition; where nobody of those has said anything, the first one.
    other: Said


@dataclass(slots=True)
class Report:
    """What was counted. The first five are events, the rest are pairs."""

    accepted: int = 0
    fanned_out: int = 0
    #: Repeats of an event id: they have a receipt that selects nobody.
    repeats: int = 0
    waiting: int = 0
    quarantined_events: int = 0
    pairs: int = 0
    outcomes: Counter[str] = field(default_factory=Counter)
    open: int = 0
    quarantined: int = 0
    counts: Counter[Kind] = field(default_factory=Counter)
    findings: list[Finding] = field(default_factory=list)
    late_outcomes: int = 0
    #: The first thousand.
    late: list[LateOutcome] = field(default_factory=list)

    def found_late(self, outcome: LateOutcome) -> None:
        """Count it; it fails nothing."""
        self.late_outcomes += 1
        if len(self.late) < MAX_LISTED:
            self.late.append(outcome)

    def found(self, finding: Finding) -> None:
        """Count it, and keep the first thousand."""
        self.counts[finding.kind] += 1
        if len(self.findings) < MAX_LISTED:
            self.findings.append(finding)

    @property
    def missing(self) -> int:
        """Pairs that have no outcome and wait nowhere."""
        return self.pairs - self.outcomes.total() - self.open - self.quarantined

    @property
    def is_proven(self) -> bool:
        """Whether nothing is missing, and nothing is there twice but what a worker wrote late."""
        return not self.counts


@dataclass(frozen=True, slots=True)
class Span:
    """Which events are counted, by when they were accepted; milliseconds since 1970 UTC."""

    since_ms: int = FIRST_MS
    until_ms: int = LAST_MS

    def has(self, accepted_at_ms: int) -> bool:
        """Whether it counts."""
        return self.since_ms <= accepted_at_ms < self.until_ms


def packed(delivery: str) -> bytes | None:
    """The 128 bits of a delivery's id; None where it is no such id."""
    try:
        found = bytes.fromhex(delivery.removeprefix("dlv_"))
    except ValueError:
        return None
    return found if len(found) == 16 else None  # noqa: PLR2004


class Pairs:
    """The pairs of all receipts, by partition of `deliveries`."""

    def __init__(self, partitions: int) -> None:
        self._packed = [bytearray() for _ in range(partitions)]
        self._numbers: dict[str, int] = {}
        self._names: list[str] = []

    def add(self, partition: int, receipt: FanOutReceipt, integration: str) -> None:
        """One of the receipt; *partition*: of `deliveries`, the integration's."""
        number = self._numbers.setdefault(integration, len(self._names))
        if number == len(self._names):
            self._names.append(integration)
        named = packed(delivery_id(receipt.record_id, integration, LIVE_RUN)) or b""
        self._packed[partition] += _PAIR.pack(named, receipt.source_partition, receipt.source_offset, number)

    def of(self, partition: int) -> Iterator[tuple[bytes, int, int, str]]:
        """Delivery id, partition and offset of the event, integration."""
        for named, source, offset, number in _PAIR.iter_unpack(self._packed[partition]):
            yield named, source, offset, self._names[number]

    def drop(self, partition: int) -> None:
        """Give its memory back: it is proved."""
        self._packed[partition] = bytearray()


class EventsProof:
    """One partition of `events`, and its receipts. See all events first, then all receipts, each in order."""

    def __init__(
        self,
        partition: int,
        beginning: int,
        end: int,
        *,
        committed: int | None,
        quarantined: Collection[int],
        events: str,
        report: Report,
        span: Span,
    ) -> None:
        """
        Args:
            beginning: first offset of the partition.
            end: offset behind the last event that counts.
            committed: offset below which fan-out has finished all events; None: none.
            quarantined: offsets of events that were put aside.
            events: name of the topic whose owners' markers count.
        """
        self._partition = partition
        self._beginning = beginning
        self._seen = bytearray(max(0, end - beginning))
        #: Of each event's record id: a partition that has lost its records gives their offsets to others.
        self._ids = array("q", bytes(8 * len(self._seen)))
        self._committed = committed or 0
        self._quarantined = quarantined
        self._events = events
        self._report = report
        self._span = span
        self._generations = Generations()

    def see_event(self, offset: int, event: Event | None, written_ms: int) -> None:
        """An event; None where it cannot be read. *written_ms*: the record's own time."""
        if self._span.has(event.accepted_at_ms if event else written_ms):
            self._seen[offset - self._beginning] = _ACCEPTED
            self._ids[offset - self._beginning] = hash(event.record_id) if event else _UNREAD
            self._report.accepted += 1

    def see_marker(self, marker: Marker) -> None:
        """A marker on `fan-out`."""
        if marker.source_topic == self._events:
            for source in marker.sources:
                self._generations.saw(self._partition, source, marker.generation)

    def see_receipt(self, receipt: FanOutReceipt) -> Iterator[str]:
        """The integrations of a receipt that counts: the first one of its event, and not of a replaced owner."""
        at = receipt.source_offset - self._beginning
        is_known = receipt.source_partition == self._partition and 0 <= at < len(self._seen)
        if not is_known or self._seen[at] != _ACCEPTED or self._ids[at] not in (_UNREAD, hash(receipt.record_id)):
            return
        if self._generations.is_late(self._partition, receipt.source_partition, receipt.source_generation):
            return
        self._seen[at] = _ACCEPTED | _HAS_RECEIPT
        if receipt.source_offset in self._quarantined:
            # Fan-out wrote the receipt, and came no further with all that follows from it.
            self._report.quarantined_events += 1
        else:
            self._report.fanned_out += 1
            self._report.repeats += receipt.repeat_of is not None
        yield from receipt.integrations

    def end(self) -> None:
        """All is seen: judge the events that have no receipt."""
        at = self._seen.find(_ACCEPTED)
        while at >= 0:
            offset = self._beginning + at
            if offset in self._quarantined:
                self._report.quarantined_events += 1
            elif offset >= self._committed:
                self._report.waiting += 1
            else:
                self._report.found(Finding("no_receipt", self._partition, offset))
            at = self._seen.find(_ACCEPTED, at + 1)


@dataclass(frozen=True, slots=True)
class Open:
    """What is known to wait, of one partition of `deliveries`."""

    #: Offset below which the lanes have finished all, or hold it in a row; None: nothing.
    committed: int | None
    #: By integration.
    rows: Mapping[str, LaneRow]
    #: Ids of deliveries that stand on a retry topic and have not left it.
    retrying: Collection[bytes]
    #: Ids of deliveries that were put aside.
    quarantined: Collection[bytes]

    def waits(self, delivery: Delivery, offset: int) -> bool:
        """Whether the delivery at this offset is still to be worked on."""
        if offset >= (self.committed or 0):
            return True
        row = self.rows.get(delivery.integration)
        if row is None:
            return False
        is_held = offset >= row.frontier and (row.until is None or offset < row.until)
        return is_held or any(one.offset == offset for one in row.open)


class DeliveriesProof:
    """One partition of `deliveries`, and its results. See all deliveries first, then all results, each in order."""

    def __init__(
        self,
        partition: int,
        *,
        pairs: Pairs,
        known: Open,
        fanned_out: Mapping[int, int | None],
        kept: Mapping[int, tuple[int, int]],
        put_aside: Mapping[int, Collection[int]],
        span_of_deliveries: tuple[int, int],
        events: str,
        report: Report,
        span: Span,
    ) -> None:
        """
        Args:
            fanned_out: by partition of `events`, the offset below which fan-out has finished all.
            kept: by partition of `events`, its first offset and the one behind the last that counts.
            put_aside: by partition of `events`, offsets of events that were put aside.
            span_of_deliveries: first offset of this partition of `deliveries`, and the one behind the last that counts.
            events: name of the topic whose owners' markers count.
        """
        self._partition = partition
        self._known = known
        self._fanned_out = fanned_out
        self._kept = kept
        self._end = span_of_deliveries[1]
        #: Whether nothing of these deliveries, and nothing of the events, has fallen out of retention yet.
        self._is_whole = span_of_deliveries[0] == 0
        self._are_events_whole = all(first == 0 for first, _ in kept.values())
        self._events = events
        self._report = report
        self._span = span
        self._generations = Generations()
        self._put_aside = put_aside
        #: Outcomes that a pair may have beside its own: an event that is put back is a second record, with the same
        #: deliveries, and what was appended of the first is delivered too.
        self._more: Counter[bytes] = Counter()
        self._pairs: list[tuple[bytes, int, int, str]] = []
        self._at: dict[bytes, int] = {}
        for pair in pairs.of(partition):
            at = self._at.setdefault(pair[0], len(self._pairs))
            if at == len(self._pairs):
                self._pairs.append(pair)
                continue
            _, source, offset, _ = self._pairs[at]
            self._more[pair[0]] += self._is_put_aside(source, offset)
            self._pairs[at] = pair
        pairs.drop(partition)
        self._flags = bytearray(len(self._pairs))
        #: Where the events of deliveries stand that no receipt led to: there should be none.
        self._unselected: dict[str, tuple[int, int]] = {}
        #: Deliveries of events that were accepted after the reading began.
        self._after: set[str] = set()
        self._late = LateResults()
        #: The first outcome that was not late, else the first: to tell another one from the same record stored twice.
        self._first: dict[bytes, bytes] = {}
        report.pairs += len(self._pairs)

    def see_marker(self, marker: Marker) -> None:
        """A marker on `deliveries`."""
        if marker.source_topic == self._events:
            for source in marker.sources:
                self._generations.saw(self._partition, source, marker.generation)

    def see_delivery(self, offset: int, delivery: Delivery) -> None:
        """A delivery, of its first attempt or put back for a later one."""
        is_late = delivery.retry_line is None and self._generations.is_late(
            self._partition, delivery.source_partition, delivery.source_generation
        )
        if delivery.cause != "live" or is_late:
            return
        at = self._find(delivery.delivery_id)
        if at is not None:
            self._flags[at] |= _HAS_DELIVERY | (_IS_OPEN if self._known.waits(delivery, offset) else 0)
            return
        first, end = self._kept.get(delivery.source_partition, (0, 0))
        if delivery.source_offset >= end:
            self._after.add(delivery.delivery_id)
        elif self._span.has(delivery.accepted_at_ms) and first <= delivery.source_offset:
            self._unselected[delivery.delivery_id] = delivery.source_partition, delivery.source_offset

    def see_note(self, note: Marker | HandOver) -> None:
        """A worker's note on `delivery-results`, before the results behind it."""
        if isinstance(note, Marker):
            self._late.saw_marker(note)
        else:
            self._late.saw_hand_over(note)

    def see_result(self, offset: int, result: Result) -> None:
        """A result, of an attempt or of the end."""
        if result.cause != "live" or result.outcome is None:
            return
        at = self._find(result.delivery_id)
        if at is None:
            self._see_stray(result)
            return
        said = _SAID.pack(
            offset,
            result.attempt,
            _OUTCOMES.index(result.outcome),
            result.source_generation,
            result.started_at_ms,
            result.finished_at_ms,
        )
        named, is_late = self._pairs[at][0], self._late.has(result)
        first = self._first.setdefault(named, said)
        if first is said:
            self._flags[at] |= _HAS_OUTCOME | (_IS_LATE if is_late else 0)
            self._report.outcomes[result.outcome] += 1
        elif first[_PLACE:] == said[_PLACE:]:
            return  # the same record stored twice
        elif is_late:
            self._found_late(at, said, first)
        elif self._flags[at] & _IS_LATE:
            self._found_late(at, first, said)
            self._first[named] = said
            self._flags[at] &= ~_IS_LATE
        elif self._more[named]:
            self._more[named] -= 1
        else:
            self._found("two_outcomes", result, self._pairs[at][1:3])

    def end(self) -> None:
        """All is seen: judge every pair."""
        for (named, source, offset, integration), flags in zip(self._pairs, self._flags, strict=True):
            has_delivery, has_outcome = flags & _HAS_DELIVERY, flags & _HAS_OUTCOME
            kind: Kind | None = None
            if has_outcome:
                kind = None if has_delivery or not self._is_whole else "no_delivery"
            elif named in self._known.quarantined or (not has_delivery and self._is_put_aside(source, offset)):
                self._report.quarantined += 1
            elif flags & _IS_OPEN or named in self._known.retrying:
                self._report.open += 1
            elif not has_delivery and offset >= (self._fanned_out.get(source) or 0):
                self._report.open += 1  # its event is being fanned out
            else:
                kind = "no_outcome" if has_delivery else "no_delivery"
            if kind is not None:
                self._report.found(Finding(kind, source, offset, integration, f"dlv_{named.hex()}"))

    def _is_put_aside(self, source: int, offset: int) -> bool:
        """Whether the event there was."""
        return offset in self._put_aside.get(source, ())

    def _find(self, delivery: str) -> int | None:
        named = packed(delivery)
        return None if named is None else self._at.get(named)

    def _see_stray(self, result: Result) -> None:
        """An outcome that belongs to no pair. Its delivery tells where the event was, as long as that is kept."""
        place = self._unselected.get(result.delivery_id)
        is_from_nowhere = (
            self._is_whole
            and self._are_events_whole
            and result.source_offset < self._end
            and self._span.has(result.accepted_at_ms)
        )
        if place is not None:
            self._found("stray_outcome", result, place)
        elif is_from_nowhere and result.delivery_id not in self._after:
            self._found("stray_outcome", result, (None, None))

    def _found_late(self, at: int, late: bytes, other: bytes) -> None:
        named, source, offset, integration = self._pairs[at]
        self._report.found_late(
            LateOutcome(source, offset, integration, f"dlv_{named.hex()}", self._said(late), self._said(other))
        )

    def _said(self, said: bytes) -> Said:
        offset, attempt, outcome, generation, *_ = _SAID.unpack(said)
        return Said(self._partition, offset, attempt, _OUTCOMES[outcome], generation)

    def _found(self, kind: Kind, result: Result, place: tuple[int | None, int | None]) -> None:
        self._report.found(Finding(kind, *place, result.integration, result.delivery_id))
