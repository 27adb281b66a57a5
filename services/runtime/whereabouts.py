"""
Where the tasks of a process stand, for whoever wonders why it does nothing: `kill -USR1` has it logged.

File, line and function of each await, outermost first, and nothing of what they hold.
"""

import asyncio
import gc
from collections import Counter
from collections.abc import Iterable, Iterator
from inspect import isasyncgen
from itertools import starmap
from pathlib import PurePath
from types import CodeType
from typing import Any, Final, NamedTuple

import structlog

#: A dispatcher may have thousands of tasks, which stand at a few places.
MOST_PLACES: Final = 100

#: Code and the line in it.
_Line = tuple[CodeType, int]

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
    counts: Counter[tuple[_Line, ...]] = Counter()
    names: dict[tuple[_Line, ...], str] = {}
    for task in tasks:
        lines = tuple(_lines(task.get_coro()))
        counts[lines] += 1
        names.setdefault(lines, task.get_name())
    # Told when they are counted: of ten thousand tasks the telling would take longer than all else.
    return [
        Place(count, names[lines], " > ".join(starmap(_told, lines)))
        for lines, count in counts.most_common(MOST_PLACES)
    ]


def _lines(awaited: Any) -> Iterator[_Line]:
    """Of what waits, what that waits for, and so on: coroutines and generators."""
    while awaited is not None:
        kind = next((each for each in ("cr", "gi", "ag") if hasattr(awaited, f"{each}_frame")), None)
        if kind is None:
            # What asks an async generator for its next value tells nobody which one that is.
            awaited = next(filter(isasyncgen, gc.get_referents(awaited)), None)
            continue
        if (frame := getattr(awaited, f"{kind}_frame")) is not None:
            yield frame.f_code, frame.f_lineno
        awaited = getattr(awaited, "gi_yieldfrom" if kind == "gi" else f"{kind}_await")


def _told(code: CodeType, line: int) -> str:
    return f"{PurePath(code.co_filename).name}:{line} {code.co_name}"
