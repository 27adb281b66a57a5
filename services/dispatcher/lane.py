"""
The line of one integration: which of its deliveries may start now.

Pure. Deliveries come in the order of the app's events; what may start beside what is the integration's
`ordering`. A delivery that failed under `strict` or `key` keeps its place until it is due again. A lane never looks
at another one.
"""

import heapq
import zlib
from collections import deque
from collections.abc import Iterator
from itertools import chain, takewhile
from typing import Final, NamedTuple

from schemas.profiles import Ordering
from streams.engine.processor import Batch
from streams.records import Delivery, OpenDelivery
from streams.trace_context import TraceContext

#: Orderings that have one request in flight for the whole integration.
ONE_AT_A_TIME: Final = frozenset({"integration", "strict"})

#: What is parked behind its key stays in memory up to so many bytes a lane; more is read again when its turn comes.
PARKED_BYTES: Final = 131_072


class Pace(NamedTuple):
    """How an integration wants its requests."""

    ordering: Ordering
    #: Requests at once, where the ordering allows several.
    max_in_flight: int


class Found(NamedTuple):
    """What the log says of a delivery that is read again: an attempt failed, and another follows."""

    attempt: int
    due_at_ms: int
    #: Of the retry topic that takes it; None where it keeps its place in the line.
    slot: int | None
    #: Where the result that says so stands in its partition; 0 where that is not asked.
    at: int = 0


#: A delivery that needs no more work.
ENDED: Final = Found(0, 0, None)


class Handed(NamedTuple):
    """A request that a worker before us still makes."""

    attempt: int
    #: After this time its result is not coming.
    until_ms: int
    #: Where that is said, in its partition of results.
    at: int
    #: Of who makes it. Another's result of the same attempt, of one that froze, is not the one waited for.
    generation: int


class Entry:
    """One delivery in line."""

    __slots__ = (
        "at_ms", "attempt", "awaits", "batch", "delivery", "due_at_ms", "ends", "found", "is_reopened", "key", "offset",
        "room", "size", "started_s", "taken_s", "trace", "until_ms",
    )  # fmt: skip

    def __init__(
        self,
        offset: int,
        at_ms: int,
        *,
        key: int = 0,
        delivery: Delivery | None = None,
        size: int = 0,
        batch: Batch | None = None,
    ) -> None:
        #: Of its record on `deliveries`, and when that came onto the log.
        self.offset = offset
        self.at_ms = at_ms
        #: Hash of its ordering key.
        self.key = key
        #: None: read it again when its turn comes. Memory must not grow with what waits.
        self.delivery = delivery
        #: What its record carries, where that is known of it.
        self.trace: TraceContext | None = None
        self.size = size
        #: A batch of this record alone, which has to be finished; None where a lane row answers for it.
        self.batch = batch
        #: Bytes of its partition's room that it takes until then, also when its payload is gone.
        self.room = size
        #: Number of its next attempt, where that is not the one in its record.
        self.attempt: int | None = None
        self.due_at_ms: int | None = None
        #: It has not started, and its lane row has it among those that are open, below the frontier: it was started
        #: before, or something behind it was.
        self.is_reopened = False
        #: It failed, and only its retry record is to be written.
        self.found: Found | None = None
        #: A worker before us makes its request: wait for the result, until then.
        self.until_ms: int | None = None
        #: That worker's generation.
        self.awaits = 0
        #: What is known of it stands from here on in its partition of results: where that ended when it was started,
        #: as far as was known; or what a takeover found.
        self.ends = 0
        #: On the monotonic clock: when it came into this lane, and when it was last started.
        self.taken_s = self.started_s = 0.0

    @property
    def is_known(self) -> bool:
        """Whether the log says of it what a successor has to find there, too."""
        return self.found is not None or self.until_ms is not None


def key_of(delivery: Delivery) -> int:
    """
    What deliveries of one ordering key share; 0 for those without one, which are one key among themselves.

    Two keys of one hash wait for each other, once in four billion pairs.
    """
    return zlib.crc32(delivery.ordering_key.encode()) if delivery.ordering_key else 0


class Lane:
    """Queued, running and waiting deliveries of one integration."""

    def __init__(self) -> None:
        self._queue: deque[Entry] = deque()
        #: Passed over because their key is taken, by key, in order.
        self._parked: dict[int, deque[Entry]] = {}
        #: Parked, and free to go since their key has ended.
        self._freed: deque[int] = deque()
        #: Failed, keeping their place, by offset; and the same by due time.
        self._kept: dict[int, Entry] = {}
        self._due: list[tuple[int, int]] = []
        #: Keys of what runs or keeps its place, and how many of each.
        self._taken_keys: dict[int, int] = {}
        self.running: dict[int, Entry] = {}
        #: How many of those queued are reopened; they stand first.
        self._reopened = 0
        #: Bytes of what is queued, and of what is parked.
        self.queued_bytes = 0
        self._parked_bytes = 0
        #: How many have a batch, which is what holds the committed position and takes room of the partition; and bytes.
        self.tracked = 0
        self.tracked_bytes = 0

    # -- coming in -------------------------------------------------------------------------------------------

    def add(self, entry: Entry) -> None:
        """Put it at the end of the line."""
        self._queue.append(entry)
        self._reopened += entry.is_reopened
        self.queued_bytes += entry.size
        self._track(entry)

    def keep(self, entry: Entry, attempt: int, due_at_ms: int) -> None:
        """It failed and keeps its place: its next attempt, not before it is due."""
        if self.running.pop(entry.offset, None) is None:
            self._take_key(entry)
            self._track(entry)
        entry.attempt, entry.due_at_ms = attempt, due_at_ms
        entry.found = entry.until_ms = None
        entry.delivery, entry.size = None, 0  # payloads must not pile up while they wait
        self._kept[entry.offset] = entry
        heapq.heappush(self._due, (due_at_ms, entry.offset))

    def open_queued(self) -> None:
        """
        What is in line belongs to the open ones below the frontier: something behind it was started.

        By a worker before us, whose requests were beside each other, and of whom some have a result.
        """
        self._reopened = len(self._queue)
        for entry in reversed(self._queue):
            if entry.is_reopened:
                return
            entry.is_reopened = True

    # -- starting and ending ---------------------------------------------------------------------------------

    def start_known(self) -> Entry | None:
        """The next for which no request is to be made here, whatever is in flight; None where there is none."""
        for entry in self.reopened():
            if entry.is_known:
                self._queue.remove(entry)
                self._reopened -= 1
                self.queued_bytes -= entry.size
                self._take_key(entry)
                self.running[entry.offset] = entry
                return entry
        return None

    def start_older(self, before_ms: int) -> Entry | None:
        """
        One that came onto the log before that time, due or not; None where there is none.

        Beside others that run only one that keeps its place: the others may have to follow those.
        """
        if not before_ms:
            return None
        firsts = list(self._kept.values())
        if not self.running:
            firsts += [*(parked[0] for parked in self._parked.values()), *list(self._queue)[:1]]
        entry = min(firsts, key=lambda each: each.offset, default=None)
        if entry is None or entry.at_ms >= before_ms:
            return None
        if self._kept.pop(entry.offset, None) is None:
            self._take_key(entry)
            if self._queue and self._queue[0] is entry:
                self._next()
            else:
                self._unpark(entry.key)
        self.running[entry.offset] = entry
        return entry

    def start(self, pace: Pace, now_ms: int) -> Entry | None:
        """The next one that may start, counted as running from now on; None where none may."""
        is_single = pace.ordering in ONE_AT_A_TIME
        if len(self.running) >= (1 if is_single else pace.max_in_flight):
            return None
        entry = self._next_due(now_ms)
        # Under `integration` one that still keeps its place, from another ordering, holds what has its key.
        if entry is None and not (pace.ordering == "strict" and self._kept):
            by_key = pace.ordering == "key" or self._parked or self._kept
            entry = self._next_by_key() if by_key else self._next()
            if entry is not None:
                self._take_key(entry)
        if entry is not None:
            self.running[entry.offset] = entry
        return entry

    def end(self, entry: Entry) -> None:
        """It needs no more work here: it has its outcome, or waits in a retry topic."""
        if self.running.pop(entry.offset, None) is not None:
            self._free_key(entry.key)
            if entry.batch is not None:
                self.tracked -= 1
                self.tracked_bytes -= entry.room

    def untrack(self) -> list[tuple[Batch, int]]:
        """A lane row answers for all of them from now on; batches that had to be finished before, and their offsets."""
        tracked = []
        for entry in self.entries():
            if entry.batch is not None:
                tracked.append((entry.batch, entry.offset))
                entry.batch = None
        self.tracked = self.tracked_bytes = 0
        return tracked

    @property
    def next_due_ms(self) -> int | None:
        """When the first of those that keep their place is due; None where there is none."""
        while self._due and self._due[0][1] not in self._kept:
            heapq.heappop(self._due)
        return self._due[0][0] if self._due else None

    # -- what there is ---------------------------------------------------------------------------------------

    @property
    def kept(self) -> int:
        """How many keep their place until their next attempt is due."""
        return len(self._kept)

    @property
    def queued(self) -> int:
        """How many have not started, parked ones apart."""
        return len(self._queue)

    @property
    def ahead(self) -> int:
        """How many of those were read ahead: no row lists them as open."""
        return len(self._queue) - self._reopened

    @property
    def opened(self) -> int:
        """How many stand below the frontier, unfinished: running, kept, parked."""
        return len(self.running) + len(self._kept) + self.parked

    @property
    def parked(self) -> int:
        """How many wait for their key."""
        return sum(map(len, self._parked.values()))

    @property
    def is_waiting(self) -> bool:
        """Whether anything keeps its place or is parked behind one that does."""
        return bool(self._kept or self._parked)

    @property
    def is_empty(self) -> bool:
        """Whether there is nothing at all."""
        return not (self._queue or self.running or self._kept or self._parked)

    def entries(self) -> Iterator[Entry]:
        """All of them."""
        yield from self.running.values()
        yield from self._kept.values()
        for parked in self._parked.values():
            yield from parked
        yield from self._queue

    def reopened(self) -> Iterator[Entry]:
        """Those in line that a row lists as open; they stand first."""
        return takewhile(lambda entry: entry.is_reopened, self._queue)

    def head(self) -> Entry | None:
        """The first that has not been started, those of a row's open list apart; None where there is none."""
        return next((entry for entry in self._queue if not entry.is_reopened), None)

    def waits_since_s(self) -> float | None:
        """When the first of those that have not started came into this lane; None where there is none."""
        firsts = [parked[0].taken_s for parked in self._parked.values()]
        if self._queue:
            firsts.append(self._queue[0].taken_s)
        return min(firsts, default=None)

    def next_since_s(self) -> float | None:
        """When the next came into this lane, keys that are taken apart; None where none is in line."""
        return self._queue[0].taken_s if self._queue else None

    def runs_since_s(self) -> float | None:
        """When the first of those came into this lane that run and hold the committed position back."""
        if not self.tracked:
            return None
        return min((entry.taken_s for entry in self.running.values() if entry.batch is not None), default=None)

    def tracked_since_s(self) -> float | None:
        """When the first of those that have not started and hold the committed position back came into this lane."""
        if not self.tracked:
            return None
        waiting = chain(self._queue, *self._parked.values())
        return min((entry.taken_s for entry in waiting if entry.batch is not None), default=None)

    def oldest_at_ms(self) -> int | None:
        """When the oldest of those came onto the log, in milliseconds since 1970 UTC; None where that is not known."""
        firsts = [parked[0].at_ms for parked in self._parked.values()]
        if self._queue:
            firsts.append(self._queue[0].at_ms)
        return min((at_ms for at_ms in firsts if at_ms), default=None)

    def oldest_on_log_ms(self) -> int | None:
        """The same of those that a lane row answers for, whether they have started or not."""
        known = (e.at_ms for e in chain(self.running.values(), self._kept.values()) if e.batch is None and e.at_ms)
        firsts = (
            next((e.at_ms for e in line if e.batch is None and e.at_ms), 0)
            for line in (*self._parked.values(), self._queue)
        )
        return min(chain(known, filter(None, firsts)), default=None)

    def open_deliveries(self) -> list[OpenDelivery]:
        """Those below the frontier that a lane row answers for, by offset."""
        parked = (entry for entries in self._parked.values() for entry in entries)
        reopened = self.reopened()
        found = [
            OpenDelivery(offset=e.offset, attempt=e.attempt or 0, due_at_ms=e.due_at_ms, key=e.key)
            for group in (self.running.values(), self._kept.values(), parked, reopened)
            for e in group
            if e.batch is None
        ]
        return sorted(found, key=lambda entry: entry.offset)

    def queued_on_log(self) -> int:
        """How many have not started and a lane row answers for, those that it lists as open apart."""
        if not self.tracked:
            return self.ahead
        return sum(entry.batch is None and not entry.is_reopened for entry in self._queue)

    def unload(self, most: int) -> list[Entry]:
        """
        Forget what has not started and a lane row answers for, but for the first so many: it is read again.

        Gives what was forgotten, in order. What the row lists as open goes on waiting; behind the first so many without
        its payload.
        """
        kept: deque[Entry] = deque()
        dropped: list[Entry] = []
        for entry in self._queue:
            if entry.batch is not None:
                kept.append(entry)
            elif most > 0:
                most -= 1
                kept.append(entry)
            elif entry.is_reopened:
                self.queued_bytes -= entry.size
                entry.delivery, entry.size = None, 0
                kept.append(entry)
            else:
                dropped.append(entry)
                self.queued_bytes -= entry.size
        self._queue = kept
        for parked in self._parked.values():
            for entry in parked:
                if entry.batch is None:
                    self._parked_bytes -= entry.size
                    entry.delivery, entry.size = None, 0
        return dropped

    # -- inside ----------------------------------------------------------------------------------------------

    def _track(self, entry: Entry) -> None:
        if entry.batch is not None:
            self.tracked += 1
            self.tracked_bytes += entry.room

    def _next_due(self, now_ms: int) -> Entry | None:
        due_at_ms = self.next_due_ms
        if due_at_ms is None or due_at_ms > now_ms:
            return None
        _, offset = heapq.heappop(self._due)
        return self._kept.pop(offset)

    def _next(self) -> Entry | None:
        if not self._queue:
            return None
        entry = self._queue.popleft()
        self._reopened -= entry.is_reopened
        self.queued_bytes -= entry.size
        return entry

    def _next_by_key(self) -> Entry | None:
        while self._freed:
            key = self._freed.popleft()
            if key in self._taken_keys or key not in self._parked:
                continue
            return self._unpark(key)
        while (following := self._next()) is not None:
            if following.key not in self._taken_keys and following.key not in self._parked:
                return following
            self._park(following)
        return None

    def _unpark(self, key: int) -> Entry:
        parked = self._parked[key]
        entry = parked.popleft()
        if not parked:
            del self._parked[key]
        self._parked_bytes -= entry.size
        return entry

    def _park(self, entry: Entry) -> None:
        if self._parked_bytes + entry.size > PARKED_BYTES:
            entry.delivery, entry.size = None, 0
        self._parked_bytes += entry.size
        self._parked.setdefault(entry.key, deque()).append(entry)

    def _take_key(self, entry: Entry) -> None:
        self._taken_keys[entry.key] = self._taken_keys.get(entry.key, 0) + 1

    def _free_key(self, key: int) -> None:
        left = self._taken_keys[key] - 1
        if left:
            self._taken_keys[key] = left
            return
        del self._taken_keys[key]
        if key in self._parked:
            self._freed.append(key)
