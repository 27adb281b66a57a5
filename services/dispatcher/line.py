"""
One integration on one partition: its lane and, while it is *detached*, how far it is on the log.

Pure. The deliveries of a detached line are not kept in memory and do not hold the committed position back: they are
passed over as they come, and read again from the log when the lane has room. What has to be known for that stands in
a lane row: everything below its *frontier* is finished, but for those it lists as open.
"""

from typing import Final, Literal

from services.dispatcher.copies import Copies
from services.dispatcher.lane import ENDED, Entry, Found, Handed, Lane
from services.dispatcher.owners import Before, Owners
from services.dispatcher.pacing import NextStart
from streams.engine.alarm import Alarm
from streams.engine.processor import Batch
from streams.records import LaneRow, OpenDelivery

Reason = Literal["paused", "behind", "blocked", "other"]

#: What an attached lane may have in line; above it the line is detached.
ATTACHED_RECORDS: Final = 1_000
ATTACHED_BYTES: Final = 4_194_304

#: What a detached lane has in memory at most, read ahead of its turn.
AHEAD_RECORDS: Final = 400
AHEAD_BYTES: Final = 524_288

#: What all detached lanes of a worker have together, and what each may have whatever their number.
ALL_AHEAD_BYTES: Final = 67_108_864
LEAST_AHEAD_BYTES: Final = 16_384

#: It is read for again when so few are left: enough for the time that takes, and no reading for a line that stands.
LOW_RECORDS: Final = 60

#: Unfinished below the frontier, at most: keys that fail, and what is parked behind them. Above it the line waits as
#: a whole. A row of so many is some 170 KB.
MOST_OPEN: Final = 10_000


class Line:
    """See the module's docstring."""

    def __init__(self, integration: str, partition: int, app: str, generation: int) -> None:
        self.integration = integration
        self.partition = partition
        self.app = app
        #: In which its partition was taken over. Its rows carry that, however late they are written.
        self.generation = generation
        self.lane = Lane()
        #: Rings when too many of its attempts fail for faults of ours; then nothing of it is sent.
        self.alarm = Alarm()
        self.is_detached = False
        #: Whether its row is on the log; until then what is passed over is not finished.
        self.is_durable = False
        self.reason: Reason = "other"
        #: Its records on the log below this offset have come into the lane.
        self.read_from = 0
        #: Records from this offset on are worked on as they come again; None: all are passed over.
        self.until: int | None = None
        #: How many of its records came by and will be read (again), counted up to an offset, and since when the first
        #: waits. Copies that nobody sends are among them: those are told when they are read, and never read twice.
        self.held = 0
        self.held_to = 0
        self.held_since_ms: int | None = None
        #: Passed over, and counted by no row on the log yet: not finished before one does.
        self.passing: list[tuple[Batch, int]] = []
        self.passing_bytes = 0
        #: Whether the row on the log says where results of what is in flight are to be found.
        self.is_busy = False
        #: Whether the row on the log is behind.
        self.is_dirty = False
        #: How many of its deliveries have ended since that row.
        self.ended_since_saved = 0
        #: On the monotonic clock: when the row was written, when something was last in flight, when it was last read
        #: for, and when it was looked through for what is about to fall out of the log.
        self.saved_s = self.active_s = self.served_s = 0.0
        self.expired_s = float("-inf")
        #: While it is detached.
        self.next_start = NextStart()
        #: Its share of what is read ahead.
        self.ahead_bytes = AHEAD_BYTES
        #: How often it was detached: a row that was begun before says nothing of what is passed over since.
        self.detached_times = 0
        #: What came onto the log before this time is about to fall out of it, and is discarded; 0: nothing.
        self.expires_before_ms = 0
        #: Owners below where it began to be read: see `Recorded.is_late`.
        self.before = Before()
        #: Retries that came by.
        self.copies = Copies()

    @classmethod
    def of_row(cls, row: LaneRow, partition: int, generation: int) -> "Line":
        """As its row says, for the next owner; the open deliveries come with `reopen`."""
        line = cls(row.integration, partition, row.app, generation)
        line.is_detached = line.is_durable = True
        line.reason = row.reason
        line.read_from, line.until = row.frontier, row.until
        line.held, line.held_to, line.held_since_ms = row.held, row.held_to, row.oldest_at_ms
        line.before = Before(row.frontier, Owners.read(row.marked, row.marked_retries, row.marked_newer))
        line.copies = Copies(row.retried)
        return line

    def reopen(self, opened: OpenDelivery, found: Found | None, handed: Handed | None) -> None:
        """One of the row's open deliveries, in the order of the log, with what was found of it since."""
        entry = Entry(opened.offset, self.held_since_ms or 0, key=opened.key)
        entry.attempt, entry.due_at_ms = opened.attempt or None, opened.due_at_ms
        entry.is_reopened = True
        if found is None and handed is None and opened.due_at_ms is not None:
            self.lane.keep(entry, opened.attempt, opened.due_at_ms)
        else:
            self.put(entry, found, handed)

    def put(self, entry: Entry, found: Found | None, handed: Handed | None) -> bool:
        """
        Into the line, behind what is there, with what a predecessor said of it on the log.

        Gives whether there is anything to do with it.
        """
        if found is not None or handed is not None:
            self.lane.open_queued()
            entry.is_reopened = True
        if found == ENDED:
            return False
        if handed is not None and (found is None or found.attempt <= handed.attempt):
            entry.attempt, entry.until_ms, entry.ends = handed.attempt, handed.until_ms, handed.at
            entry.awaits = handed.generation
        elif found is not None and found.slot is None:
            self.lane.keep(entry, found.attempt, found.due_at_ms)
            return True
        elif found is not None:
            entry.found, entry.ends = found, found.at
        self.lane.add(entry)
        return True

    def leave_out(self) -> Literal[False]:
        """
        What has come now is a copy that nobody sends: there is nothing to do with it.

        Nor is it read again, by whoever: what stands before it in line is open. A second reading might not know it for
        what it is any more, and would take one from `held` that no pause puts back.
        """
        self.lane.open_queued()
        return False

    # -- passing over ----------------------------------------------------------------------------------------

    def passes(self, offset: int) -> bool:
        """Whether the record at this offset is passed over, since it will be read again."""
        return self.is_detached and (self.until is None or offset < self.until)

    def pass_over(self, offset: int, at_ms: int) -> bool:
        """Count it among those that wait on the log; whether the next row has to be there before it is finished."""
        is_counted = offset >= self.held_to
        if is_counted:
            self.held += 1
            self.held_to = offset + 1
            if self.held_since_ms is None:
                self.held_since_ms = at_ms
        waits = is_counted or not self.is_durable
        self.is_dirty |= waits
        return waits

    # -- detaching and attaching -----------------------------------------------------------------------------

    @property
    def is_over_bound(self) -> bool:
        """Whether an attached lane holds more than it may."""
        return self.lane.queued + self.lane.parked > ATTACHED_RECORDS or self.lane.queued_bytes > ATTACHED_BYTES

    def detach(self, reason: Reason, live: int) -> None:
        """
        From now on its records are passed over. What was tracked otherwise is in `passing`, for when the row is saved.

        Args:
            live: the first offset of the partition that has not come by.
        """
        self.passing += self.lane.untrack()
        self.reason = reason
        self.detached_times += 1
        self.is_detached, self.is_durable, self.is_dirty = True, False, True
        # Beyond what has come by, after a takeover: the predecessor had got further than was committed.
        self.read_from, self.until = max(live, self.read_from), None
        self.held_to = self.read_from
        self.unload(AHEAD_RECORDS if reason == "behind" else 0)

    def unload(self, most: int = 0) -> None:
        """Keep so many of those that have not started in memory; the others are read again."""
        dropped = self.lane.unload(most)
        if dropped:
            self.held += len(dropped)
            self.read_from, self.held_since_ms = dropped[0].offset, dropped[0].at_ms
            self.is_dirty = True

    def is_caught_up(self, live: int) -> bool:
        """Whether all that came by has come into the lane, and little of it waits there."""
        return (
            self.is_durable
            and self.until is None
            and self.read_from >= live
            and self.lane.queued <= AHEAD_RECORDS // 4
            and not self.lane.is_waiting
        )

    def attach(self, live: int) -> None:
        """
        Records from here on are worked on as they come; the row stays until all below has ended.

        All below is open then, and in the row: who takes it over has it in line before what comes. Nothing starts
        before the row is on the log.
        """
        self.lane.open_queued()
        self.is_busy = False
        self.until = self.held_to = max(live, self.read_from)
        self.held, self.held_since_ms = 0, None
        self.is_dirty = True

    def is_done(self, live: int) -> bool:
        """Whether the row has nothing more to say: all that it answers for has ended, and has come by."""
        return (
            self.is_durable
            and self.until is not None
            and self.until <= live
            and all(entry.batch is not None for entry in self.lane.entries())
        )

    # -- reading ahead ---------------------------------------------------------------------------------------

    def has_room(self) -> bool:
        """Whether one more may be read."""
        return (
            self.lane.ahead < AHEAD_RECORDS
            and self.lane.queued_bytes < self.ahead_bytes
            and self.lane.opened + self.lane.queued < MOST_OPEN
        )

    def wants(self, live: int) -> bool:
        """Whether it is worth beginning to read for it: not for each record that leaves."""
        has_few = self.lane.ahead <= LOW_RECORDS and self.lane.queued_bytes <= self.ahead_bytes // 4
        return has_few and self.takes(live)

    def takes(self, live: int) -> bool:
        """Whether reading for it goes on, once it has begun: until it has what it has room for."""
        return self.read_from < self._end(live) and self.has_room()

    def _end(self, live: int) -> int:
        """Where there is nothing more of it: what has come by since it held its last one is others'."""
        if self.until is not None:
            return self.until
        return live if self.held else min(live, self.held_to)

    def pass_others(self, live: int) -> None:
        """Where there is nothing more of it, it has got to what came by last."""
        if self.is_detached and self.until is None and self.read_from >= self._end(live):
            self.read_from = max(self.read_from, live)

    def make_room(self) -> None:
        """Nothing of it may start, and more is to be read: what was read so far is open, and needs no payload here."""
        if self.lane.ahead > LOW_RECORDS or self.lane.queued_bytes > self.ahead_bytes // 4:
            self.lane.open_queued()
            self.lane.unload(0)
            self.is_dirty = True

    def feed(self, entry: Entry) -> None:
        """The next of its records, read again."""
        self.lane.add(entry)
        self.fed(entry.offset, entry.at_ms)

    def fed(self, offset: int, at_ms: int) -> None:
        """A record of it was read again, and is in the lane or needs no work."""
        self.read_from = offset + 1
        self.held = max(0, self.held - 1)
        self.held_since_ms = at_ms if self.held else None
        self.is_dirty = True

    def pass_gap(self, offset: int, at_ms: int | None = None) -> None:
        """
        What stood below this offset has fallen out of the log: none of it waits any more.

        Args:
            at_ms: when what stands there came onto the log; None: that is not known.
        """
        if offset <= self.read_from:
            return
        self.read_from = offset
        if not self.held:
            return
        # How many of those that fell out were its own nobody knows; it cannot hold more than there are.
        self.held = min(self.held, max(0, self.held_to - offset))
        known = (each for each in (self.held_since_ms, at_ms) if each is not None)
        self.held_since_ms = max(known, default=None) if self.held else None
        self.is_dirty = True

    def is_expiring(self, entry: Entry) -> bool:
        """Whether it is about to fall out of the log."""
        return entry.at_ms < self.expires_before_ms

    def oldest_at_ms(self) -> int | None:
        """When the oldest that a row answers for came onto the log, or before; None where there is none."""
        known = (at_ms for at_ms in (self.lane.oldest_on_log_ms(), self.held_since_ms) if at_ms is not None)
        return min(known, default=None)

    @property
    def waiting(self) -> int:
        """How many have not started, here and on the log."""
        return self.lane.queued + self.lane.parked + self.held

    def waits_since_ms(self) -> int | None:
        """When the oldest of those came onto the log; None where that is not known."""
        known = (at_ms for at_ms in (self.lane.oldest_at_ms(), self.held_since_ms) if at_ms)
        return min(known, default=None)

    # -- the row ---------------------------------------------------------------------------------------------

    def frontier(self) -> int:
        """Everything below is finished or open."""
        head = self.lane.head()
        if head is not None and head.batch is None:
            return head.offset
        return self.read_from if self.until is None else min(self.read_from, self.until)

    def row(self, marked: Owners, floor: int | None) -> LaneRow:
        """What stands on the log of it; *floor*: see the schema."""
        queued = self.lane.queued_on_log()
        return LaneRow(
            integration=self.integration,
            app=self.app,
            generation=self.generation,
            reason=self.reason,
            frontier=self.frontier(),
            open=self.lane.open_deliveries(),
            until=self.until,
            floor=floor,
            held=self.held + queued,
            oldest_at_ms=self.oldest_at_ms(),
            held_to=self.held_to,
            marked=marked.events,
            marked_retries=marked.retries,
            marked_newer=marked.named(),
            retried=self.copies.below(self.frontier()),
        )

    def floor(self) -> int | None:
        """Where results begin that a successor has to find; None where there are none to be found."""
        floors = [entry.ends for entry in self.lane.running.values() if entry.batch is None]
        floors += [entry.ends for entry in self.lane.reopened() if entry.batch is None and entry.is_known]
        return min(floors, default=None)


def share_of(lines: int) -> int:
    """Bytes that each of so many detached lines may have read ahead."""
    return min(max(ALL_AHEAD_BYTES // max(lines, 1), LEAST_AHEAD_BYTES), AHEAD_BYTES)
