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
from services.dispatcher.recorded import Recorded
from services.dispatcher.runs import Deliverer, Runs
from services.dispatcher.saving import Saving
from services.dispatcher.standing import RETENTION_MARGIN_MS
from streams import topics
from streams.engine.app import Bounds

log = structlog.get_logger("dispatcher.lanes")

#: A row is written at most so often; a large one more seldom, by its open deliveries.
SAVE_EVERY_S: Final = 1.0
SAVE_EVERY_OPEN_S: Final = 0.001
#: And so often while fewer deliveries have ended since: who takes the line over finds their results on the log. A
#: thousand lines with slow endpoints wrote a row for each delivery otherwise.
SAVE_FEW_S: Final = 10.0
FEW: Final = 100

#: What was passed over is finished when a row counts it, and has its place in the room of its partition until then: of
#: all lines together no more than this part of it. Then rows are written at once.
PASSING_SHARE: Final = 0.5

#: Lines that are looked at in one go: a thousand, with the rows that they write, held everybody else up for 40 ms.
LOOKED_AT: Final = 20

#: A row says that nothing is in flight when that has been so for this long: each way costs a write.
IDLE_S: Final = 2.0

#: A delivery that fails and is due later than this does not hold the committed position back.
BLOCKED_MS: Final = 2_000

#: Nor does one that has waited for its turn for so long.
BEHIND_S: Final = 10.0

#: Nor does one that has run for so long, which takes far longer than a request may: it waits for a key, as a rule.
RUNS_S: Final = 30.0

#: How often a line is looked through for what is about to fall out of the log: `RETENTION_MARGIN_MS` is far longer.
EXPIRE_EVERY_S: Final = 5.0


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
        self._saving = saving
        self._catch_up = catch_up
        self._runs = runs
        self._now_ms = now_ms
        #: Detached lines, by partition and by the key of their records.
        self.detached: dict[int, dict[bytes, Line]] = {}
        #: By partition, the first offset that has not come by.
        self.live: dict[int, int] = {}
        #: Partitions of which a batch is in hand; their lines stay as they are, detached or not.
        self.processing: set[int] = set()

    def begin(self, starts: Mapping[int, int], lines: Iterable[Line]) -> None:
        """Partitions are taken over, with these lines, which have rows; *starts*: where each is read from."""
        self.live = dict(starts)
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
            now_s = time.monotonic()
            for line in lines[part * LOOKED_AT : (part + 1) * LOOKED_AT]:
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

    def save_if_full(self, partition: int) -> None:
        """Write the rows of its lines now where too much waits for that."""
        passing = [line for line in self.detached.get(partition, {}).values() if line.passing]
        records, bytes_ = sum(len(line.passing) for line in passing), sum(line.passing_bytes for line in passing)
        is_full = records >= PASSING_SHARE * self._bounds.unfinished_records
        if is_full or bytes_ >= PASSING_SHARE * self._bounds.unfinished_bytes:
            for line in passing:
                if not self._saving.is_writing(line):
                    self._saving.soon(line, busy=line.is_busy)

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
        frontier = line.frontier()
        line.before = Before(frontier, self._recorded.marked(line.partition, frontier, line.before))
        self.detached[line.partition][line.integration.encode()] = line
        log.info("line.detached", integration=line.integration, reason=reason, held=line.held, open=line.lane.opened)
        self._saving.soon(line, busy=True)
        self._catch_up.wake()

    def _try_review(self, line: Line, now_s: float) -> None:
        try:
            self._review(line, now_s)
        except Exception:
            # A bug must not leave every other line without its rows.
            log.exception("line.review_raised", integration=line.integration)

    def _review(self, line: Line, now_s: float) -> None:
        if not line.is_detached:
            self._review_attached(line, now_s)
            return
        if self._saving.is_writing(line):
            return
        live = self.live[line.partition]
        if self._is_behind_again(line, now_s):
            self.detach(line, "behind")
        elif line.is_done(live):
            self._attach(line)
        elif (
            line.partition not in self.processing
            and line.is_caught_up(live)
            and self._deliverer.standing(line.integration) != "hold"
        ):
            line.attach(live)
            self._saving.soon(line, busy=True)
        elif line.is_dirty:
            if now_s - line.saved_s >= _saves_every_s(line):
                self._saving.soon(line, busy=line.is_busy)
        elif line.is_busy and self._saving.floor(line) is None and now_s - line.active_s > IDLE_S:
            self._saving.soon(line, busy=False)
        self._expire(line, now_s)

    def _review_attached(self, line: Line, now_s: float) -> None:
        since_s = line.lane.waits_since_s()
        if line.lane.is_empty:
            self._lines.pop(line.integration, None)
        elif line.partition in self.processing:
            return
        elif since_s is not None and now_s - since_s > BEHIND_S:
            self.detach(line, "behind")
        elif (runs_s := line.lane.runs_since_s()) is not None and now_s - runs_s > RUNS_S:
            self.detach(line, "blocked")

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
            self._catch_up.wake()
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
    return max(SAVE_FEW_S if has_few else SAVE_EVERY_S, SAVE_EVERY_OPEN_S * line.lane.opened)
