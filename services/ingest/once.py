"""
Appends what was not accepted here before, and tells of a repeat what its first was told.

What is remembered is what the broker has confirmed. While an event is under way, another one of its id waits for the
end of that: neither can be told to be a repeat, or a misuse, of something that may never have been stored.
"""

import asyncio
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Final, NamedTuple

from services.ingest.append import EventLog
from services.ingest.repeats import AcceptedIds, Seen, content_of, id_reused, name_of
from services.runtime.problems import Problem
from streams.records import Event
from streams.trace_context import TraceContext

#: How long an event waits for another one of its id that is under way. An append takes milliseconds; where it takes
#: this long the broker is in trouble, and both waits together must stay within what a sender, and a stop, can wait for.
OTHERS_S: Final = 1.0


class Accepted(NamedTuple):
    """What the sender hears of an event that is on the log."""

    event_id: str
    accepted_at_ms: int
    #: Whether it was there before, and so was not appended again.
    duplicate: bool


class Candidate:
    """An event that is to be on the log, and what tells it from others of its id."""

    __slots__ = ("content", "event", "name")

    def __init__(self, event: Event, *, occurred_at_given: bool) -> None:
        self.event = event
        #: None where the sender has named no id: then nobody can repeat it.
        self.name: bytes | None = None
        self.content = b""
        if event.id_supplied:
            self.name = name_of(event)
            self.content = content_of(event, occurred_at_given=occurred_at_given)


class Once:
    """The log, and the ids that this process has put there."""

    def __init__(self, log: EventLog, ids: AcceptedIds) -> None:
        self._log = log
        self._ids = ids
        #: By name, the end of the append that began last.
        self._under_way: dict[bytes, asyncio.Future[None]] = {}

    async def append(self, candidate: Candidate, trace: TraceContext | None = None) -> Accepted:
        """
        Store an event, unless it is a repeat. *trace*: what it is appended in.

        Raises:
            Problem: 409 `id_reused`, 503 `broker_unavailable` or `overloaded`; after a 503 it may still be stored.
        """
        event, name = candidate.event, candidate.name
        if name is None:
            await self._log.append(event, trace)
            return _accepted(event)
        await self._others_end((name,))
        if (seen := self._seen(candidate, name)) is not None:
            return _repeated(candidate, seen)
        with self._append_under_way((name,)):
            await self._log.append(event, trace)
            self._remember(candidate)
        return _accepted(event)

    async def append_all(
        self, candidates: Sequence[Candidate], trace: TraceContext | None = None
    ) -> list[Accepted | Problem]:
        """Store events of one app in this order, without those that are repeats. Of each, what `append` would tell."""
        await self._others_end({each.name for each in candidates if each.name is not None})
        told: dict[int, Accepted | Problem] = {}
        new: list[int] = []
        #: Where in the batch a name stands first.
        firsts: dict[bytes, int] = {}
        for at, candidate in enumerate(candidates):
            name = candidate.name
            if name is not None and (seen := self._seen(candidate, name)) is not None:
                told[at] = _told(candidate, seen)
            elif name is None or firsts.setdefault(name, at) == at:
                new.append(at)
        with self._append_under_way(firsts):
            problems = await self._log.append_all([candidates[at].event for at in new], trace)
            for at, problem in zip(new, problems, strict=True):
                if problem is None:
                    self._remember(candidates[at])
                told[at] = problem or _accepted(candidates[at].event)
        for at, candidate in enumerate(candidates):
            if at not in told and candidate.name is not None:
                first = firsts[candidate.name]
                told[at] = _told_after(candidate, candidates[first], told[first])
        return [told[at] for at in range(len(candidates))]

    def _seen(self, candidate: Candidate, name: bytes) -> Seen | None:
        return self._ids.find(name, candidate.content, now_ms=candidate.event.accepted_at_ms)

    def _remember(self, candidate: Candidate) -> None:
        if candidate.name is not None:
            self._ids.add(candidate.name, candidate.content, accepted_at_ms=candidate.event.accepted_at_ms)

    async def _others_end(self, names: Iterable[bytes]) -> None:
        """
        Wait for those of the same names that are under way now; once, and `OTHERS_S` at most.

        Whoever takes longer, or has begun meanwhile, is not waited for: then both are appended, and fan-out decides.
        Nobody waits while others wait for it, so two batches cannot wait for each other.
        """
        if not self._under_way:
            return
        ends = {end for name in names if (end := self._under_way.get(name)) is not None}
        if ends:
            await asyncio.wait(ends, timeout=OTHERS_S)

    @contextmanager
    def _append_under_way(self, names: Iterable[bytes]) -> Iterator[None]:
        end: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        names = tuple(names)
        for name in names:
            self._under_way[name] = end
        try:
            yield
        finally:
            for name in names:
                if self._under_way.get(name) is end:
                    del self._under_way[name]
            end.set_result(None)


def _accepted(event: Event) -> Accepted:
    return Accepted(event.event_id, event.accepted_at_ms, duplicate=False)


def _repeated(candidate: Candidate, seen: Seen) -> Accepted:
    if not seen.same:
        raise id_reused()
    return Accepted(candidate.event.event_id, seen.accepted_at_ms, duplicate=True)


def _told(candidate: Candidate, seen: Seen) -> Accepted | Problem:
    try:
        return _repeated(candidate, seen)
    except Problem as problem:
        return problem


def _told_after(candidate: Candidate, first: Candidate, outcome: Accepted | Problem) -> Accepted | Problem:
    """Of an event whose id stands in its batch before."""
    if isinstance(outcome, Problem):
        return outcome
    return _told(candidate, Seen(outcome.accepted_at_ms, same=candidate.content == first.content))
