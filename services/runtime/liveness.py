"""
Whether a service makes progress that follows topics: not where something in its process stands still that a start anew
would mend.

Each wait of such a service has a bound that it keeps by itself: a request waits some 10 s for the log, and what opens
the log or follows a topic ends or begins anew within a minute. So what outlasts `STUCK_S` has been forgotten. That the
broker is away, or takes no records, is nothing of that kind: each try ends then, and `/health/ready` tells.
"""

import asyncio
import time
from collections.abc import Callable, Coroutine, Sequence
from typing import Any, Final, Protocol

import structlog

from streams.connection import BrokerAway, Connection, brokers_at, coordinator_answers
from streams.engine.progress import LOOK_S, STUCK_S, Progress, Seen
from streams.topics import Topic

#: Of a question to the broker; two, one after the other, and `LOOK_S` must be less than what counts as a freeze.
ANSWER_S: Final = 5.0
#: How long the other addresses may take once one has answered, within the time that all have.
OTHERS_S: Final = 1.0

log = structlog.get_logger(__name__)


class Opening(Protocol):
    """What a service has to open before it does its work, and may have to open again."""

    @property
    def missing(self) -> str | None:
        """What keeps it from being open; None where it is."""

    @property
    def tries(self) -> int:
        """Another number whenever opening has begun anew or got on."""


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
    """Of one process. `watch` must run."""

    def __init__(
        self,
        service: str,
        opening: Opening,
        followers: Sequence[Following],
        broker_answers: Callable[[], Coroutine[Any, Any, bool]],
        *,
        waiting: tuple[str, Callable[[], int | None]] = ("", lambda: None),
    ) -> None:
        """
        Args:
            followers: which begin when *opening* was open once.
            broker_answers: whether one does now; asked while something is not as it should be.
            waiting: what it means where something waits too long, and the number of what waits longest; None where
                nothing does.
        """
        self._stuck_event, self._moves_event = f"{service}.stuck", f"{service}.moves"
        self._opening = opening
        self._followers = followers
        self._broker_answers = broker_answers
        self._waiting = waiting
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
            log.error(self._stuck_event, what=what, seconds=round(stuck[what]))
        for what in self._stuck.keys() - stuck.keys():
            log.warning(self._moves_event, what=what)
        self._stuck = stuck

    async def _seen(self) -> dict[str, Seen]:
        """What should move now, each with a number that changes when it does."""
        found = {}
        waits, oldest = self._waiting[0], self._waiting[1]()
        if oldest is not None:
            found[waits] = _at(oldest)
        silent = [each for each in self._followers if not each.is_live]
        missing = self._opening.missing
        if (silent or missing is not None) and await _soon(self._broker_answers()):
            if missing is not None:
                found[f"{missing}, though the broker answers"] = _at(self._opening.tries)
            else:
                answered = await asyncio.gather(*(_soon(_is_there(each)) for each in silent))
                for each in (each for each, is_there in zip(silent, answered, strict=True) if is_there):
                    found[f"{each.topic.name} is not read, though the broker has it"] = _at(each.position)
        return found


async def broker_answers(connection: Connection) -> bool:
    """Whether one does now."""
    return await _at_any_address(connection, brokers_at)


async def keeper_answers(connection: Connection, service: str) -> bool:
    """Whether the broker does now that keeps the consumer group of this service."""
    group = f"{connection.prefix}{service}"
    return await _at_any_address(connection, lambda address: coordinator_answers(address, group))


async def _at_any_address(connection: Connection, asked: Callable[[Connection], Coroutine[Any, Any, object]]) -> bool:
    """Asks all beside each other: one that is silent takes as long as there is time for all."""
    answers = [asyncio.create_task(_is_true(asked(address))) for address in connection.by_address]
    until_s = time.monotonic() + ANSWER_S - OTHERS_S
    try:
        for answer in asyncio.as_completed(answers):
            if await answer:
                # Who is cut off while it asks leaves its connection open: aiokafka closes it where it gets an answer.
                await asyncio.wait(answers, timeout=max(0.0, min(OTHERS_S, until_s - time.monotonic())))
                return True
        return False
    finally:
        for each in answers:
            _cut_off(each)


async def _is_true(answer: Coroutine[Any, Any, object]) -> bool:
    try:
        return bool(await answer)
    except BrokerAway:
        return False


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
        _cut_off(asking)


def _cut_off(asking: asyncio.Task[bool]) -> None:
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
