"""
Whether ingest makes progress: not where something stands still in this process that a start anew would mend.

Each wait of ingest has a bound that it keeps by itself: an event waits some 10 s for the log, and what opens the log or
follows a topic ends or begins anew within a minute. So what outlasts `STUCK_S` has been forgotten. That the broker is
away, or takes no events, is nothing of that kind: each try ends then, and `/health/ready` tells.
"""

import asyncio
import time
from collections.abc import Callable, Coroutine, Sequence
from typing import Any, Final, Protocol

import structlog

from streams.engine.progress import LOOK_S, STUCK_S, Progress, Seen
from streams.topics import Topic

#: Of a question to the broker; two, one after the other, and `LOOK_S` must be less than what counts as a freeze.
ANSWER_S: Final = 5.0

log = structlog.get_logger(__name__)


class Appending(Protocol):
    """As much of `EventLog` as is looked at."""

    @property
    def oldest(self) -> int | None:
        """The number of the append that is under way for longest; None where none is."""

    @property
    def is_open(self) -> bool:
        """Whether there is a producer."""

    @property
    def tries(self) -> int:
        """How often it was begun to open one."""


class Following(Protocol):
    """As much of `Follower` as is looked at."""

    topic: Topic
    position: int

    @property
    def is_live(self) -> bool:
        """Whether the broker has answered it lately."""

    async def end(self) -> int:
        """Where the topic ends, asked on another connection."""


class Liveness:
    """Of one ingest process. `watch` must run."""

    def __init__(
        self,
        events: Appending,
        followers: Sequence[Following],
        broker_answers: Callable[[], Coroutine[Any, Any, bool]],
    ) -> None:
        """
        Args:
            broker_answers: whether one does now; asked while something is not as it should be.
        """
        self._events = events
        self._followers = followers
        self._broker_answers = broker_answers
        self._progress: Progress[str] = Progress(STUCK_S)
        self._stuck: dict[str, float] = {}

    @property
    def stuck(self) -> str | None:
        """What makes no progress, and for how long; None while all does."""
        told = "; ".join(f"{what} for {seconds:.0f} s" for what, seconds in self._stuck.items())
        return f"no progress: {told}" if told else None

    async def watch(self) -> None:
        """Look until cancelled."""
        while True:
            await self.look(time.monotonic())
            await asyncio.sleep(LOOK_S)

    async def look(self, now_s: float) -> None:
        """
        See what has moved since the last look.

        Args:
            now_s: on a monotonic clock.
        """
        stuck = self._progress.look(now_s, await self._seen())
        for what in stuck.keys() - self._stuck.keys():
            log.error("ingest.stuck", what=what, seconds=round(stuck[what]))
        for what in self._stuck.keys() - stuck.keys():
            log.warning("ingest.moves", what=what)
        self._stuck = stuck

    async def _seen(self) -> dict[str, Seen]:
        """What should move now, each with a number that changes when it does."""
        found = {}
        if (oldest := self._events.oldest) is not None:
            found["an event waits for the log"] = _at(oldest)
        silent = [each for each in self._followers if not each.is_live]
        if (silent or not self._events.is_open) and await _soon(self._broker_answers()):
            if not self._events.is_open:
                # Whatever follows topics has not begun before it was open once.
                found["the log is not opened, though the broker answers"] = _at(self._events.tries)
            else:
                answered = await asyncio.gather(*(_soon(_is_there(each)) for each in silent))
                for each in (each for each, is_there in zip(silent, answered, strict=True) if is_there):
                    found[f"{each.topic.name} is not read, though the broker has it"] = _at(each.position)
        return found


def _at(number: int) -> Seen:
    return Seen(committable=number, position=0, unfinished=0, has_work=True)


async def _is_there(follower: Following) -> bool:
    await follower.end()
    return True


async def _soon(answer: Coroutine[Any, Any, bool]) -> bool:
    """Whether it is true within `ANSWER_S`. What is late is cut off, and not waited for: over TLS that takes 30 s."""
    asking = asyncio.create_task(answer)
    try:
        await asyncio.wait((asking,), timeout=ANSWER_S)
        return asking.done() and asking.result()
    except Exception as error:  # noqa: BLE001 - whatever keeps a broker from answering, it does not answer
        log.debug("liveness.no_answer", reason=repr(error))
        return False
    finally:
        if not asking.done():
            asking.cancel()
            _CUT_OFF.add(asking)
            asking.add_done_callback(_note)


#: Asked for, and ending by themselves: nobody else holds them.
_CUT_OFF: Final[set["asyncio.Task[bool]"]] = set()


def _note(asking: "asyncio.Task[bool]") -> None:
    """What came of it, for nobody else asks."""
    _CUT_OFF.discard(asking)
    if not asking.cancelled() and (error := asking.exception()) is not None:
        log.debug("liveness.no_answer", reason=repr(error))
