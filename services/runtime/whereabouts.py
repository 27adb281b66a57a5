"""
Where the tasks of a process stand, for whoever wonders why it does nothing: `kill -USR1` has it logged.

File, line and function of each await, outermost first, and nothing of what they hold.
"""

import asyncio
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import PurePath
from types import FrameType
from typing import Any, Final, NamedTuple

import structlog

#: A dispatcher may have thousands of tasks, which stand at a few places.
MOST_PLACES: Final = 100

log = structlog.get_logger(__name__)


class Place(NamedTuple):
    """Where one task or several stand."""

    tasks: int
    #: Of one of them.
    name: str
    #: As `lanes.py:120 attempt > wire.py:77 read`.
    awaits: str


def log_places() -> None:
    """One line, of all tasks of the running loop."""
    tasks = asyncio.all_tasks()
    log.warning("tasks.listed", tasks=len(tasks), places=[place._asdict() for place in places(tasks)])


def places(tasks: "Iterable[asyncio.Task[Any]]") -> list[Place]:
    """Where these stand, those with most tasks first; at most `MOST_PLACES`."""
    counts: Counter[str] = Counter()
    names: dict[str, str] = {}
    for task in tasks:
        awaits = " > ".join(map(_told, _frames(task.get_coro())))
        counts[awaits] += 1
        names.setdefault(awaits, task.get_name())
    return [Place(count, names[awaits], awaits) for awaits, count in counts.most_common(MOST_PLACES)]


def _frames(awaited: Any) -> Iterator[FrameType]:
    """Of what waits, what that waits for, and so on: coroutines, and generators that are awaited as such."""
    while awaited is not None:
        for kind in ("cr", "gi", "ag"):
            frame = getattr(awaited, f"{kind}_frame", None)
            if frame is not None:
                yield frame
        following = (getattr(awaited, name, None) for name in ("cr_await", "gi_yieldfrom", "ag_await"))
        awaited = next((each for each in following if each is not None), None)


def _told(frame: FrameType) -> str:
    return f"{PurePath(frame.f_code.co_filename).name}:{frame.f_lineno} {frame.f_code.co_name}"
