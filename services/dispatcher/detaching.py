"""
When a line leaves the order of the log, and when it comes back.

It is *detached* (`line.py`) when it is paused, behind its endpoint, or blocked by a delivery that waits in its place;
and attached again when it has caught up with what comes. Looked at whenever something changes, and all the time.
"""

import asyncio
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Final

import structlog

from services.dispatcher.catch_up import CatchUp
from services.dispatcher.line import Line, Reason, share_of
from services.dispatcher.owners import Before
from services.dispatcher.pacing import Pacing
from services.dispatcher.quiet import let_by
from services.dispatcher.recorded import Recorded
from services.dispatcher.retried import Retried
from services.dispatcher.runs import Deliverer, Runs
from services.dispatcher.saving import Saving
from services.dispatcher.standing import RETENTION_MARGIN_MS
from streams import topics
from streams.engine.app import Bounds
from streams.engine.processor import Batch

log = structlog.get_logger("dispatcher.lanes")

#: A row is written at most so often; a large one more seldom, by its open deliveries.
SAVE_EVERY_S: Final = 1.0
SAVE_EVERY_OPEN_S: Final = 0.001
#: And so often while fewer deliveries have ended since: who takes the line over finds their results on the log. A
#: thousand lines with slow endpoints wrote a row for each delivery otherwise.
SAVE_FEW_S: Final = 10.0
FEW: Final = 100

#: What lines work on as it comes has its place in the room of their partition until it has ended: of all lines together
#: no more than this part of it. Then the longest are detached, however short each is: endpoints that hang, behind
#: several integrations, would have all of it otherwise, and others none.
TRACKED_SHARE: Final = 0.5

#: What was passed over is finished when a row counts it, and has its place there until then: of all lines together no
#: more than this part of it, nor of both than that. Then rows are written at once.
PASSING_SHARE: Final = 0.5
FULL_SHARE: Final = 0.75

#: Lines that are looked at in one go, and rows that may be begun then: a thousand, with the rows that they write, held
#: everybody else up for 40 ms. Most of that are the rows; who has to wait with its own is looked at again soon.
LOOKED_AT: Final = 100
ROWS_A_LOOK: Final = 10

#: For how long such a look waits at most for others who are in the middle of something; all together take no more than
#: twice the time that they take otherwise.
LETS_BY_S: Final = 0.05

#: A row says that nothing is in flight when that has been so for this long: each way costs a write.
IDLE_S: Final = 2.0

#: A delivery that fails and is due later than this does not hold the committed position back.
BLOCKED_MS: Final = 2_000

#: Nor does one that has waited for its turn for so long.
BEHIND_S: Final = 10.0

#: Nor does one that has run for so long, which takes far longer than a request may: it waits for a key, as a rule.
RUNS_S: Final = 30.0

#: How often a line is looked through for what is about to fall out of the log: `RETENTION_MARGIN_MS` is far longer.
EXPIRE_EVERY_S: Final = 60.0


class Detaching:
    """See the module's docstring. *now_s*: of the monotonic clock."""

    def __init__(
        self,
        lines: dict[str, Line],
        *,
        deliverer: Deliverer,
        recorded: Recorded,
        saving: Saving,
        catch_up: CatchUp,
        runs: Runs,
        now_ms: Callable[[], int],
        bounds: Bounds,
        retried: Retried,
        pacing: Pacing,
    ) -> None:
        """
        Args:
            lines: the worker's, by integration; those that are empty are taken out.
            bounds: the room of each partition.
        """
        self._bounds = bounds
        self._lines = lines
        self._deliverer = deliverer
        self._recorded = recorded
        self._retried = retried
        self._pacing = pacing
        self._saving = saving
        self._catch_up = catch_up
        self._runs = runs
        self._now_ms = now_ms
        #: Detached lines, by partition and by the key of their records.
        self.detached: dict[int, dict[bytes, Line]] = {}
        #: By partition, the first offset that has not come by.
        self.live: dict[int, int] = {}
        #: By partition, a batch without records, which knows how much of its room is taken.
        self._rooms: dict[int, Batch] = {}
        #: Rows that may be begun before the next look.
        self._rows_left = ROWS_A_LOOK
        #: Partitions of which a batch is in hand; their lines stay as they are, detached or not.
        self.processing: set[int] = set()

    def begin(self, starts: Mapping[int, int], lines: Iterable[Line]) -> None:
        """Partitions are taken over, with these lines, which have rows; *starts*: where each is read from."""
        self.live = dict(starts)
        self._rooms.clear()
        self.detached = {partition: {} for partition in starts}
        for line in lines:
            self.detached[line.partition][line.integration.encode()] = line

    @property
    def count(self) -> int:
        """Integrations whose deliveries wait on the log."""
        return sum(map(len, self.detached.values()))

    async def review(self, within_s: float) -> None:
        """Look at every line, a few at a time, spread over so long."""
        lines, share = list(self._lines.values()), share_of(self.count)
        parts = len(lines) // LOOKED_AT + 1
        for part in range(parts):
            await asyncio.sleep(within_s / parts)
            await let_by(self._pacing, min(LETS_BY_S, within_s / parts))
            now_s, self._rows_left = time.monotonic(), ROWS_A_LOOK
            # Those first whose rows are the oldest: each has its turn, however many want one.
            for line in sorted(lines[part::parts], key=lambda line: line.saved_s):
                if self._lines.get(line.integration) is line:
                    line.ahead_bytes = share
                    self._try_review(line, now_s)

    def look_at(self, line: Line) -> None:
        """Start what may start; detach the line where it may not, or has too much."""
        if self._deliverer.standing(line.integration) == "hold":
            self.hold(line)
            return
        self._runs.start(line)
        if line.is_detached:
            if line.until is not None and line.is_over_bound:
                self.detach(line, "behind")
            return
        due_at_ms = line.lane.next_due_ms
        if due_at_ms is not None and due_at_ms - self._now_ms() > BLOCKED_MS:
            self.detach(line, "blocked")
        elif line.is_over_bound:
            self.detach(line, "behind")

    def came_in(self, batch: Batch) -> None:
        """Records of its partition came into lines: none takes what others need of its room. *batch*: without any."""
        self._rooms[batch.partition] = batch
        if not self._may_be_short(batch.partition):
            return
        lines = [line for line in self._lines.values() if line.partition == batch.partition and line.lane.tracked]
        part = sum(map(self._part, lines))
        # One with a single delivery stays: its row would take longer than it is worth.
        several = sorted((line for line in lines if line.lane.tracked > 1), key=self._part)
        while part >= TRACKED_SHARE and several:
            line = several.pop()
            part -= self._part(line)
            self.detach(line, "paused" if self._deliverer.standing(line.integration) == "hold" else "behind")
        self.save_if_full(batch.partition)

    def save_if_full(self, partition: int) -> None:
        """Write the rows of its lines now where too much waits for that."""
        if not self._may_be_short(partition):
            return
        lines = [line for line in self._lines.values() if line.partition == partition]
        passing = [line for line in lines if line.passing]
        records, bytes_ = sum(len(line.passing) for line in passing), sum(line.passing_bytes for line in passing)
        part = max(records / self._bounds.unfinished_records, bytes_ / self._bounds.unfinished_bytes)
        if part >= PASSING_SHARE or part + sum(map(self._part, lines)) >= FULL_SHARE:
            for line in passing:
                if not self._saving.is_writing(line):
                    self._saving.soon(line, busy=line.is_busy)

    def _may_be_short(self, partition: int) -> bool:
        """Whether so much of its room is taken that it is worth looking at all lines for whose that is."""
        if (room := self._rooms.get(partition)) is None:
            return False
        records, bytes_ = room.unfinished_of_all
        bounds, share = self._bounds, min(TRACKED_SHARE, PASSING_SHARE)
        return records >= share * bounds.unfinished_records or bytes_ >= share * bounds.unfinished_bytes

    def _part(self, line: Line) -> float:
        """Which part of its partition's room is taken by what it works on as it comes."""
        lane, bounds = line.lane, self._bounds
        return max(lane.tracked / bounds.unfinished_records, lane.tracked_bytes / bounds.unfinished_bytes)

    def was_read(self, line: Line) -> None:
        """It was read again, maybe up to what came by: not for long where others' deliveries keep coming."""
        is_ours = line.is_detached and self._lines.get(line.integration) is line
        if is_ours and self._rows_left and not self._saving.is_writing(line) and self._comes_back(line):
            self._rows_left -= 1

    def hold(self, line: Line) -> None:
        """It is paused: what it has in line goes back to the log."""
        if not line.is_detached:
            if line.lane.queued or line.lane.is_waiting:
                self.detach(line, "paused")
        elif line.until is not None:
            self.detach(line, "paused")
        else:
            line.unload()
            line.is_dirty |= line.reason != "paused"
            line.reason = "paused"

    def detach(self, line: Line, reason: Reason) -> None:
        """Its deliveries are passed over from now on, and read again from where it is."""
        line.detach(reason, self.live[line.partition])
        line.copies.learn(self._retried.of(line.integration, line.oldest_at_ms()))
        frontier = line.frontier()
        line.before = Before(frontier, self._recorded.marked(line.partition, frontier, line.before))
        self.detached[line.partition][line.integration.encode()] = line
        log.info("line.detached", integration=line.integration, reason=reason, held=line.held, open=line.lane.opened)
        self._saving.soon(line, busy=True)
        self._catch_up.wake(line.partition)

    def _try_review(self, line: Line, now_s: float) -> None:
        try:
            self._review(line, now_s)
        except Exception:
            # A bug must not leave every other line without its rows.
            log.exception("line.review_raised", integration=line.integration)

    def _review(self, line: Line, now_s: float) -> None:
        if not line.is_detached and line.lane.is_empty:
            self._lines.pop(line.integration, None)
        elif not line.is_detached:
            if self._rows_left and self._leaves_order(line, now_s):
                self._rows_left -= 1
        elif not self._saving.is_writing(line):
            if self._rows_left and self._moves_on(line, now_s):
                self._rows_left -= 1
            self._expire(line, now_s)

    def _leaves_order(self, line: Line, now_s: float) -> bool:
        """Detach it where what it has in line waits for too long; whether it was."""
        if line.partition in self.processing:
            return False
        since_s, runs_s = line.lane.waits_since_s(), line.lane.runs_since_s()
        if since_s is not None and now_s - since_s > BEHIND_S:
            self.detach(line, "behind")
        elif runs_s is not None and now_s - runs_s > RUNS_S:
            self.detach(line, "blocked")
        return line.is_detached

    def _moves_on(self, line: Line, now_s: float) -> bool:
        """Write its row where that is behind, or where it goes on otherwise from here; whether one is on its way."""
        if line.reason == "paused" and self._deliverer.standing(line.integration) != "hold":
            line.reason, line.is_dirty = "behind", True  # it was activated, here or while nobody had its partition
        if self._is_behind_again(line, now_s):
            self.detach(line, "behind")
        elif line.is_done(self.live[line.partition]):
            self._attach(line)
        elif self._comes_back(line):
            pass
        elif line.is_dirty:
            if now_s - line.saved_s >= _saves_every_s(line):
                self._saving.soon(line, busy=line.is_busy)
        elif line.is_busy and self._saving.floor(line) is None and now_s - line.active_s > IDLE_S:
            self._saving.soon(line, busy=False)
        return self._saving.is_writing(line)

    def _comes_back(self, line: Line) -> bool:
        """
        Have it work on what comes again where it has caught up with that; whether it has.

        Not where it would be taken out again at once: what is next has waited for as long as makes a line fall behind,
        or others lack the room.
        """
        line.pass_others(self.live[line.partition])
        since_s = line.lane.next_since_s()
        if (
            line.partition in self.processing
            or not line.is_caught_up(self.live[line.partition])
            or (since_s is not None and time.monotonic() - since_s > BEHIND_S)
            or self._may_be_short(line.partition)
            or self._deliverer.standing(line.integration) == "hold"
        ):
            return False
        line.attach(self.live[line.partition])
        self._saving.soon(line, busy=True)
        return True

    def _is_behind_again(self, line: Line, now_s: float) -> bool:
        """
        Whether it has fallen behind on its way back.

        What came since would hold the committed position, and with it the room of its partition, for as long as its
        endpoint takes for all that stands before.
        """
        if line.until is None or line.partition in self.processing:
            return False
        since_s, runs_s = line.lane.tracked_since_s(), line.lane.runs_since_s()
        waits = since_s is not None and now_s - since_s > BEHIND_S
        return waits or (runs_s is not None and now_s - runs_s > RUNS_S)

    def _expire(self, line: Line, now_s: float) -> None:
        """What is about to fall out of the log is recorded before it goes, whether or not the line is held."""
        if now_s - line.expired_s < EXPIRE_EVERY_S:
            return
        line.expired_s = now_s
        kept_ms = topics.DELIVERIES.retention_ms or 0
        before_ms = self._now_ms() - kept_ms + RETENTION_MARGIN_MS
        since_ms = line.oldest_at_ms()
        is_expiring = since_ms is not None and since_ms < before_ms
        if is_expiring and not line.expires_before_ms:
            log.error(
                "deliveries.expire",
                integration=line.integration,
                held=line.held,
                since_ms=since_ms,
                hint="they are recorded as discarded; activate the integration, or have more retention",
            )
        line.expires_before_ms = before_ms if is_expiring else 0
        if is_expiring:
            self._catch_up.wake(line.partition)
            self._runs.start(line)

    def _attach(self, line: Line) -> None:
        """Everything below `until` has ended: the row goes, and the line is as any other."""
        self.detached[line.partition].pop(line.integration.encode(), None)
        line.is_detached = line.is_durable = line.is_busy = False
        line.until = None
        log.info("line.attached", integration=line.integration)
        self._saving.remove(line)


def _saves_every_s(line: Line) -> float:
    """How often its row is written. What a paused one holds is asked for: an activation says what becomes of it."""
    has_few = line.reason != "paused" and line.ended_since_saved + len(line.passing) < FEW
    listed = line.lane.opened + line.lane.queued - line.lane.ahead
    return max(SAVE_FEW_S if has_few else SAVE_EVERY_S, SAVE_EVERY_OPEN_S * listed)
