"""
The rows of detached lines, written as the lines move: of each line one after another, and none that says too much.

What was passed over before a row was written is finished when that row is on the broker: so what it counts as held is
exact after any death, since who takes the line over counts on from there.
"""

import asyncio
import time
from collections.abc import Callable, Coroutine, Iterable, Sequence
from typing import Any

import structlog
from aiokafka import TopicPartition
from aiokafka.errors import KafkaError

from services.dispatcher.line import Line
from services.dispatcher.recorded import Recorded
from services.dispatcher.rows import Rows
from streams.records import LaneRow
from streams.takeover import Ends

log = structlog.get_logger("dispatcher.lanes")


class Saving:
    """See the module's docstring."""

    def __init__(
        self,
        rows: Rows,
        recorded: Recorded,
        results: Sequence[TopicPartition],
        ends: Ends,
        *,
        on_saved: Callable[[Line], None],
        on_dead: Callable[[KafkaError], None],
    ) -> None:
        """
        Args:
            results: partitions of `delivery-results`, and *ends* where they end.
            on_saved: told when a row of the line, or that it has none, is on the broker.
            on_dead: told when no row can be written any more.
        """
        self._rows = rows
        self._recorded = recorded
        self._results = results
        self._ends = ends
        self._on_saved = on_saved
        self._on_dead = on_dead
        #: The newest write of each line that has one under way.
        self._writing: dict[str, asyncio.Task[None]] = {}
        #: Those that are waited for when the partitions are given up.
        self._last: list[asyncio.Task[None]] = []

    def row(self, line: Line, *, busy: bool) -> LaneRow:
        """As it stands; *busy*: it says where results of what may be in flight begin."""
        marked = self._recorded.marked(line.partition, line.frontier(), line.before)
        floors = [floor for floor in (self.floor(line),) if floor is not None]
        if busy:
            floors.append(self._ends.of(self._results[line.partition]))
        return line.row(marked, min(floors, default=None))

    def floor(self, line: Line) -> int | None:
        """Where results begin that who takes the line over has to find; None where there are none by now."""
        floors = (line.floor(), self._recorded.left_floor(line.integration))
        return min((floor for floor in floors if floor is not None), default=None)

    def is_writing(self, line: Line) -> bool:
        """Whether a row of it is on its way."""
        return line.integration in self._writing

    async def written(self, line: Line) -> None:
        """Returns when the newest one on its way is there; there must be one."""
        await asyncio.wait((self._writing[line.integration],))

    def soon(self, line: Line, *, busy: bool) -> None:
        """Write its row as it stands when that is its turn."""
        self._spawn(line, self._save(line, busy=busy))

    def remove(self, line: Line) -> None:
        """Take its row away: it is as any other line."""
        self._spawn(line, self._rows.remove(line.partition, line.integration, line.generation))

    def leave(self, lines: Iterable[Line]) -> None:
        """Their partitions are given up: begin to write the last row of each that is detached."""
        self._last = [*self._writing.values()]
        self._last += [asyncio.create_task(self._last_save(line)) for line in lines if line.is_detached]

    async def left(self, timeout_s: float) -> None:
        """Wait for the last rows, so long at most."""
        last, self._last = self._last, []
        if last:
            _, late = await asyncio.wait(last, timeout=timeout_s)
            for task in (*late, *self._writing.values()):
                task.cancel()

    async def _last_save(self, line: Line) -> None:
        if (before := self._writing.get(line.integration)) is not None:
            await asyncio.wait((before,))
        if line.is_dirty or line.is_busy:
            try:
                await self._save(line, busy=False)
            except KafkaError as error:
                log.warning("row.unsaved", integration=line.integration, reason=repr(error))

    async def _save(self, line: Line, *, busy: bool) -> None:
        busy = busy or bool(line.lane.running)
        if not busy:
            line.is_busy = False  # from here on: whatever starts now has to say so first
        line.is_dirty, line.saved_s, line.ended_since_saved = False, time.monotonic(), 0
        passing, line.passing, line.passing_bytes = line.passing, [], 0
        detached_times = line.detached_times
        await self._rows.save(line.partition, self.row(line, busy=busy))
        line.is_durable |= line.detached_times == detached_times
        line.is_busy = busy
        for batch, offset in passing:
            batch.finish(offset)

    def _spawn(self, line: Line, writing: Coroutine[Any, Any, None]) -> None:
        async def saved() -> None:
            try:
                if before is not None:
                    await asyncio.wait((before,))
                await writing
            except KafkaError as error:
                log.exception("row.unrecordable", integration=line.integration)
                self._on_dead(error)
                return
            forget(asyncio.current_task())  # who is told may write the next
            self._on_saved(line)

        def forget(ended: asyncio.Task[None] | None) -> None:
            if self._writing.get(line.integration) is ended:
                del self._writing[line.integration]

        before = self._writing.get(line.integration)
        task = asyncio.create_task(saved(), name=f"save {line.integration}")
        self._writing[line.integration] = task
        task.add_done_callback(forget)
