"""
What the log says of deliveries that are read again: which have ended, which failed and go on, which are under way
elsewhere, and which came too late to count.

Pure: records in, answers out.
"""

from bisect import bisect_left, insort
from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Any, Final, NamedTuple

from aiokafka import ConsumerRecord

from services.dispatcher.lane import ENDED, Found, Handed
from services.dispatcher.owners import Before, Owners
from services.dispatcher.retried import Came
from streams import codec
from streams.late_results import is_late
from streams.records import Delivery, HandOver, LaneRow, Marker, Result
from streams.takeover import Held
from streams.topics import SLOT_TENTHS

#: Begins the name under which a floor says where its owner's marker stands. No source's name does.
_MARKER: Final = "m"

#: Answers about places behind all markers that are kept, at most.
_MOST_REMEMBERED: Final = 10_000

#: Beyond every offset.
_NEVER: Final = 2**63 - 1

#: A source of deliveries: name of the topic, and its partition.
Source = tuple[str, int]


class _Of(NamedTuple):
    delivery_id: str
    integration: str
    found: Found
    #: Where its result stands in its partition, and when its attempt had failed or ended.
    at: int
    at_ms: int


class _UnderWay(NamedTuple):
    integration: str
    handed: Handed


class _Left:
    """What was found of an integration, results and requests under way, and not asked for yet."""

    __slots__ = ("count", "floor")

    def __init__(self, floor: int) -> None:
        self.count = 0
        #: The first of it stands there in its partition of results, or behind.
        self.floor = floor


class _Row(NamedTuple):
    partition: int
    frontier: int
    until: int | None
    opened: frozenset[int]


class ResultsEnd(NamedTuple):
    """Where results ended, as far as was seen, and whose they were there."""

    end: int
    #: The owner whose marker stands last below.
    owner: int
    #: Where that marker stands; None where an older release stored it.
    marked_at: int | None = None


class _Floor(NamedTuple):
    """What is stored with a commit of `deliveries`; see `Recorded.floor`."""

    results: ResultsEnd
    #: Of the sources, as their markers stand below on `deliveries`.
    owners: Owners

    def __str__(self) -> str:
        end, owner, marked_at = self.results
        # Among the sources that are named, where older releases pass over it. With the owner in its name, since they
        # may store it again beside an owner of their own.
        names = [] if marked_at is None else [f"{_MARKER}{owner}={marked_at}"]
        if named := self.owners.named():
            names.append(named)
        text = f"{end};{self.owners.events};{self.owners.retries};{owner}"
        return f"{text};{','.join(names)}" if names else text

    @classmethod
    def parse(cls, text: str) -> "_Floor":
        """What was stored; zeros, which read all that is kept, where nothing of that form is."""
        first, _, rest = text.partition(";")
        try:
            events, retries, owner, *named = rest.split(";", 3)
            owners = Owners.read(int(events), int(retries), "".join(named))
            results = ResultsEnd(int(first), int(owner), owners.newer.get(f"{_MARKER}{owner}"))
        except ValueError:
            return cls(ResultsEnd(0, 0), Owners())
        newer = {name: number for name, number in owners.newer.items() if not name.startswith(_MARKER)}
        return cls(results, owners._replace(newer=newer))


class _Marked:
    """Markers of each source on one partition of `deliveries`: where they stand, and their generations."""

    def __init__(self) -> None:
        self._marks: dict[Source, list[tuple[int, int]]] = {}
        #: Where the newest of all stands.
        self._newest = -1
        #: Of places behind all of them, by where a reading began and by the identity of what was known there, which
        #: stands beside the answer so that no other comes to have it. Every row and every commit asks.
        self._behind_all: dict[tuple[int, int], tuple[Owners, Owners]] = {}

    def put(self, source: Source, offset: int, generation: int) -> None:
        marks = self._marks.setdefault(source, [])
        if (offset, generation) in marks:
            return
        insort(marks, (offset, generation))
        self._newest = max(self._newest, offset)
        self._behind_all.clear()

    def owners(self, offset: int, before: Before, of: Callable[[], Owners]) -> Owners:
        """
        Those below the offset of all sources: what *of* gives, which is asked once for all places behind all marks.

        Args:
            before: all that it goes by beside the offset and the marks.
        """
        if offset <= self._newest:
            return of()
        # All that began behind all marks are alike: there is none that they would go by.
        key = min(before.offset, self._newest + 1), id(before.owners)
        if (known := self._behind_all.get(key)) is None:
            if len(self._behind_all) >= _MOST_REMEMBERED:
                self._behind_all.clear()
            owners = of()
            # The very same where they say the same, since lines that go on from there ask with what they got.
            known = self._behind_all[key] = before.owners, before.owners if owners == before.owners else owners
        return known[1]

    def before(self, source: Source, offset: int, since: int, otherwise: int) -> int:
        """
        Generation of the newest one below the offset: in log order, as a group that was deleted counts anew.

        Args:
            since: from where on all were seen; what is known from further back, of a line that is read there, is older
                than *otherwise*.
            otherwise: generation of the newest one below *since*.
        """
        marks = self._marks.get(source)
        at = bisect_left(marks, (offset, -1)) if marks else 0
        return marks[at - 1][1] if marks and at and marks[at - 1][0] >= since else otherwise


class Recorded:
    """The lanes' memory of their predecessors, for the partitions of one assignment."""

    def __init__(self, events: Source, retries: Mapping[str, str], replays: str = "replays") -> None:
        """
        Args:
            events: name of the topic whose owners append first attempts, and how many partitions it has.
            retries: the retry topics, whose readers append the later ones: name without prefix to the full one.
            replays: name of the topic whose owner appends what is replayed.
        """
        self._events = [(events[0], number) for number in range(events[1])]
        self._retries = [(name, slot) for name in retries.values() for slot in range(len(SLOT_TENTHS))]
        # Its owner marks when retry readers do, under the same generation, and counts as one of them.
        self._replays = (replays, 0)
        self._retries.append(self._replays)
        self._retry_topics = retries
        self._names = {source: f"e{source[1]}" for source in self._events}
        self._names |= {
            (full, slot): f"{name}/{slot}" for name, full in retries.items() for slot in range(len(SLOT_TENTHS))
        }
        self._names[self._replays] = "replays/0"
        #: By (partition, offset) of a delivery that will be read again: whose it is, and what became of it.
        self._found: dict[tuple[int, int], _Of] = {}
        #: The same of requests under way.
        self._handed: dict[tuple[int, int], _UnderWay] = {}
        #: By integration.
        self._left: dict[str, _Left] = {}
        #: By partition: the owner whose marker stands last on its results, as far as they were seen.
        self._owners: dict[int, int] = {}
        #: The same as it was stored.
        self._stored: dict[int, ResultsEnd] = {}
        #: By partition, where our own marker stands on its results.
        self._own_marks: dict[int, int] = {}
        #: (delivery, attempt) of later attempts that have a result or are under way, and where they were read.
        self.retried: dict[tuple[str, int], Came] = {}
        self._generation = 0
        self._held = Held()
        self._rows: dict[str, _Row] = {}
        self._marked: dict[int, _Marked] = {}
        #: By partition: the first delivery that this assignment reads, and the owners below it.
        self._marked_before: dict[int, Before] = {}

    # -- at a takeover ---------------------------------------------------------------------------------------

    def begin(
        self,
        floors: Mapping[int, str],
        rows: Mapping[int, Iterable[LaneRow]],
        generation: int,
        lately: Mapping[int, int] | None = None,
        marked: Mapping[int, int] | None = None,
        reads_from: Mapping[int, int] | None = None,
    ) -> dict[int, int]:
        """
        Forget what was; by partition, the offset from which its results have to be seen.

        Args:
            generation: of this assignment.
            lately: by partition, where the results of the last while begin, for `retried`.
            marked: by partition, where our own marker stands on its results.
            reads_from: by partition, the first delivery that will be read again.
        """
        for memory in (self._found, self._handed, self._left, self._owners, self.retried, self._marked):
            memory.clear()
        self._held.clear()
        self._rows.clear()
        self._generation = generation
        self._own_marks = dict(marked or {})
        parsed = {partition: _Floor.parse(floor) for partition, floor in floors.items()}
        self._marked_before = {
            partition: Before((reads_from or {}).get(partition, 0), floor.owners) for partition, floor in parsed.items()
        }
        starts = {
            partition: min(floor.results.end, (lately or {}).get(partition, floor.results.end))
            for partition, floor in parsed.items()
        }
        for partition, of_partition in rows.items():
            for row in of_partition:
                opened = frozenset(each.offset for each in row.open)
                self._rows[row.integration] = _Row(partition, row.frontier, row.until, opened)
                if row.floor is not None:
                    starts[partition] = min(starts[partition], row.floor)
        # Whoever stored the floor had marked below it, maybe below what is read too.
        self._stored = {partition: floor.results for partition, floor in parsed.items()}
        return starts

    def see(self, record: "ConsumerRecord[Any, Any]", starts: Mapping[int, int]) -> None:
        """A record of `delivery-results`; *starts*: by partition, the first delivery that will be read again."""
        try:
            seen = codec.decode(record.value)
        except codec.Unreadable:
            return  # ops tooling's to complain about; it is no result of ours
        if isinstance(seen, Result):
            self.note(seen, record.partition, record.offset, starts)
        elif isinstance(seen, HandOver):
            self.note_hand_over(seen, record.partition, record.offset, starts)
        elif isinstance(seen, Marker):
            self.note_owner(seen.generation, record.partition)

    def note_owner(self, generation: int, partition: int) -> None:
        """A marker of the partition's owner, said there."""
        self._owners[partition] = generation

    def note_hand_over(self, seen: HandOver, partition: int, offset: int, starts: Mapping[int, int]) -> None:
        """A request under way, said there."""
        place = partition, seen.source_offset
        if seen.attempt > 1 and seen.delivery_id:
            came = Came(seen.integration, seen.source_offset, seen.until_ms)
            self.retried.setdefault((seen.delivery_id, seen.attempt), came)
        known = self._found.get(place)
        has_come = known is not None and (known.found == ENDED or known.found.attempt > seen.attempt)
        if not has_come and self._is_read_again(seen.integration, partition, seen.source_offset, starts):
            handed = Handed(seen.attempt, seen.until_ms, offset, seen.source_generation)
            self._handed[place] = _UnderWay(seen.integration, handed)

    def note(self, result: Result, partition: int, offset: int, starts: Mapping[int, int]) -> None:
        """
        A result there.

        Behind a successor's marker it counts where the request was handed over. Otherwise its worker had frozen, and
        the successor makes the attempt itself: what comes of that is what counts.
        """
        handed = self._handed.get((partition, result.source_offset))
        maker = None if handed is None else handed.handed.generation
        came = Came(result.integration, result.source_offset, result.finished_at_ms)
        if is_late(result.source_generation, self._owner(partition, offset), maker):
            if result.attempt > 1:  # no other copy of it is sent: the successor makes this one
                self.retried.setdefault((result.delivery_id, result.attempt), came)
            return
        if result.attempt > 1:
            self.retried[result.delivery_id, result.attempt] = came
        if not self._is_read_again(result.integration, partition, result.source_offset, starts):
            return
        place = partition, result.source_offset
        found = found_of(result)
        known = self._found.get(place)
        if known is None or (known.found != ENDED and (found == ENDED or found.attempt > known.found.attempt)):
            self._found[place] = _Of(result.delivery_id, result.integration, found, offset, result.finished_at_ms)
        if place in self._handed and (found == ENDED or self._handed[place].handed.attempt <= result.attempt):
            del self._handed[place]

    def _owner(self, partition: int, offset: int) -> int:
        """Generation of the newest owner whose marker stands below this offset of results; 0 where it is not known."""
        stored = self._stored[partition]
        since = stored.end if stored.marked_at is None else stored.marked_at
        return self._owners.get(partition, stored.owner if offset >= since else 0)

    def _is_read_again(self, integration: str, partition: int, offset: int, starts: Mapping[int, int]) -> bool:
        row = self._rows.get(integration)
        if row is not None and offset < row.frontier:
            return offset in row.opened  # also where it comes by again: then it is passed over, and nobody asks
        return offset >= starts[partition] or (row is not None and (row.until is None or offset < row.until))

    @property
    def failed_since_ms(self) -> int | None:
        """When the first attempt failed whose retry record may be missing; None where there is none."""
        failed = (known.at_ms for known in self._found.values() if known.found.slot is not None)
        return min(failed, default=None)

    def have_retries(self, written: Collection[tuple[str, int]]) -> None:
        """The retry records of these deliveries and attempts are on the log: nothing more is to be done here."""
        for place, known in self._found.items():
            if known.found.slot is not None and (known.delivery_id, known.found.attempt) in written:
                self._found[place] = known._replace(found=ENDED)

    def hold(self, floors: Mapping[int, str]) -> int:
        """All is seen: how much there is; the floors that led to it are held."""
        self._held.hold(floors, self._found)
        self._held.hold(floors, self._handed)
        # What stands open in a row may end here before it comes by, and when it has come by the row may go: whoever
        # reads it again then has to find that.
        self._held.hold(floors, ((row.partition, row.frontier - 1) for row in self._rows.values()))
        found = [(known.integration, known.at) for known in self._found.values()]
        handed = [(under_way.integration, under_way.handed.at) for under_way in self._handed.values()]
        for integration, at in found + handed:
            left = self._left.setdefault(integration, _Left(at))
            left.count += 1
            left.floor = min(left.floor, at)
        return len(self._found)

    def left_floor(self, integration: str) -> int | None:
        """Where what was found of it stands, at the earliest, as long as not all has been asked for."""
        left = self._left.get(integration)
        return None if left is None else left.floor

    def places(self) -> dict[tuple[int, int], int]:
        """Partition and offset of the requests under way elsewhere, and the generation of who makes each."""
        return {place: under_way.handed.generation for place, under_way in self._handed.items()}

    # -- at work ---------------------------------------------------------------------------------------------

    def ends(self, partition: int, end: int) -> ResultsEnd:
        """Where results end; as a predecessor said, as long as that is held."""
        own = ResultsEnd(end, self._generation, self._own_marks.get(partition))
        return _Floor.parse(self._held.floor(partition, str(_Floor(own, Owners())))).results

    def floor(self, partition: int, ends: ResultsEnd, committable: int) -> str:
        """
        What a successor has to know that starts at *committable*.

        With the owners whose markers stand below it on `deliveries`, since those are not read again.

        Args:
            ends: as they were when the oldest unfinished delivery was taken.
        """
        return str(_Floor(ends, self.marked(partition, committable)))

    def marked(self, partition: int, offset: int | None = None, before: Before | None = None) -> Owners:
        """
        The owners whose markers stand below this offset; the owner of replays counts among those of retry topics.

        Args:
            offset: None: all that were seen.
            before: as in `is_late`.
        """
        below = 2**63 if offset is None else offset
        known = self._known(partition, below, before)
        marks = self._marked.get(partition)
        if marks is None:
            return known.owners
        return marks.owners(below, known, lambda: self._owners_below(marks, below, known))

    def _owners_below(self, marks: _Marked, below: int, known: Before) -> Owners:
        named, (since, owners) = self._names, known
        return Owners.of(
            {named[each]: marks.before(each, below, since, owners.event_owner(named[each])) for each in self._events},
            {named[each]: marks.before(each, below, since, owners.retry_owner(named[each])) for each in self._retries},
        )

    def _known(self, partition: int, offset: int, before: Before | None) -> Before:
        """What was stored for the nearest place that is not behind the offset; nothing is known where there is none."""
        own = self._marked_before.get(partition, Before())
        stored = [each for each in (own if before is None else before, own) if each.offset <= offset]
        return max(stored, key=lambda each: each.offset, default=Before())

    def passed(self, partition: int, offset: int) -> None:
        """Deliveries up to this offset are taken."""
        self._held.passed(partition, offset)

    def mark(self, partition: int, offset: int, marker: Marker) -> None:
        """A marker read on `deliveries`."""
        marks = self._marked.setdefault(partition, _Marked())
        for source in marker.sources:
            marks.put((marker.source_topic, source), offset, marker.generation)

    def find(self, partition: int, offset: int, delivery_id: str | None = None) -> Found | None:
        """What became of the delivery that was read there: ENDED, another attempt, or nothing. Asked once."""
        known = self._found.pop((partition, offset), None)
        if known is None:
            return None
        self._was_asked(known.integration)
        if delivery_id is not None and known.delivery_id != delivery_id:
            return None
        if known.found.slot is not None and (known.delivery_id, known.found.attempt) in self.retried:
            return ENDED  # the attempt that follows was made: no other retry record of it
        return known.found if known.found == ENDED else known.found._replace(at=known.at)

    def handed(self, partition: int, offset: int) -> Handed | None:
        """The request for the delivery read there that a predecessor still makes. Asked once."""
        under_way = self._handed.pop((partition, offset), None)
        if under_way is None:
            return None
        self._was_asked(under_way.integration)
        return under_way.handed

    def _was_asked(self, integration: str) -> None:
        left = self._left.get(integration)
        if left is not None:
            left.count -= 1
            if not left.count:
                del self._left[integration]

    def is_late(self, partition: int, offset: int, delivery: Delivery, before: Before | None = None) -> bool:
        """
        Whether an owner appended it that had been replaced; its successor appends it too.

        Args:
            before: where this reading began, and the owners below; None: where this assignment's began.
        """
        is_replay = delivery.cause == "replay"
        if delivery.cause != "live" and delivery.retry_line is None and not is_replay:
            return False  # a person asked for it
        since, earlier = self._known(partition, offset, before)
        source: Source
        if is_replay:
            source, generation = self._replays, delivery.source_generation
            otherwise = earlier.retry_owner(self._names[source])
        elif delivery.retry_line is not None:
            name, slot = delivery.retry_line, delivery.retry_partition or 0
            source, generation = (self._retry_topics.get(name, name), slot), delivery.retry_generation or 0
            otherwise = earlier.retry_owner(f"{name}/{slot}")
        else:
            source, generation = (self._events[0][0], delivery.source_partition), delivery.source_generation
            otherwise = earlier.event_owner(f"e{delivery.source_partition}")
        marks = self._marked.get(partition)
        newest = marks.before(source, offset, since, otherwise) if marks else otherwise
        return generation < newest


def found_of(result: Result) -> Found:
    """What a result says of its delivery."""
    if result.outcome is not None or result.next_attempt is None:
        return ENDED
    return Found(result.next_attempt, result.next_due_at_ms or 0, result.next_slot)
