"""Repeats, and events of one id that are under way at the same time; over a log that tests hold up and let go on."""

import asyncio

import pytest

from services.ingest import once as once_module
from services.ingest.append import unavailable
from services.ingest.once import Accepted, Candidate, Once
from services.ingest.repeats import AcceptedIds
from services.runtime.problems import Problem
from tests.logs import make_event


class Log:
    """Takes events; acknowledges, or fails, when told to."""

    def __init__(self):
        self.appended = []
        self.going_on = asyncio.Event()
        self.going_on.set()
        #: Contents that are not stored.
        self.refused = set()

    async def append(self, event, trace=None):
        [problem] = await self.append_all([event])
        if problem is not None:
            raise problem

    async def append_all(self, events, trace=None):
        self.appended += events
        await self.going_on.wait()
        return [unavailable() if event.payload in self.refused else None for event in events]


def candidate(event_id="a", payload=b"1", at_ms=1_000, *, supplied=True):
    event = make_event(event_id=event_id, payload=payload, accepted_at_ms=at_ms, id_supplied=supplied)
    return Candidate(event, occurred_at_given=False)


async def outcome(appending):
    try:
        return await appending
    except Problem as problem:
        return problem.code


def codes(told):
    return [each.code if isinstance(each, Problem) else each for each in told]


async def rest():
    """Let everything run that can."""
    for _ in range(10):
        await asyncio.sleep(0)


async def test_a_repeat_is_told_the_time_of_the_first_and_is_not_appended():
    once = Once(log := Log(), AcceptedIds())

    first = await once.append(candidate(at_ms=1_000))
    again = await once.append(candidate(at_ms=2_000))

    assert first == Accepted("a", 1_000, duplicate=False)
    assert again == Accepted("a", 1_000, duplicate=True)
    assert len(log.appended) == 1


async def test_another_event_of_the_id_is_refused_and_not_appended():
    once = Once(log := Log(), AcceptedIds())
    await once.append(candidate(payload=b"1"))

    with pytest.raises(Problem) as caught:
        await once.append(candidate(payload=b"2"))

    assert (caught.value.status, caught.value.code) == (409, "id_reused")
    assert len(log.appended) == 1


async def test_ids_that_we_made_are_never_repeats():
    once = Once(log := Log(), AcceptedIds())

    told = [await once.append(candidate(supplied=False)) for _ in range(2)]

    assert [each.duplicate for each in told] == [False, False]
    assert len(log.appended) == 2


async def test_what_was_not_stored_is_not_remembered():
    once = Once(log := Log(), AcceptedIds())
    log.refused = {b"1"}

    failed = await outcome(once.append(candidate(payload=b"1")))
    other = await outcome(once.append(candidate(payload=b"2", at_ms=2_000)))

    assert failed == "broker_unavailable"
    assert other == Accepted("a", 2_000, duplicate=False)


@pytest.mark.parametrize(
    ("first", "second", "told"),
    [
        (b"1", b"1", [Accepted("a", 1_000, duplicate=False), Accepted("a", 1_000, duplicate=True)]),
        (b"1", b"2", [Accepted("a", 1_000, duplicate=False), "id_reused"]),
        (b"no", b"2", ["broker_unavailable", Accepted("a", 2_000, duplicate=False)]),
        (b"no", b"no", ["broker_unavailable", "broker_unavailable"]),
    ],
)
async def test_a_second_one_waits_for_the_end_of_the_first(first, second, told):
    once = Once(log := Log(), AcceptedIds())
    log.refused = {b"no"}
    log.going_on.clear()
    both = [
        asyncio.ensure_future(outcome(once.append(candidate(payload=first, at_ms=1_000)))),
        asyncio.ensure_future(outcome(once.append(candidate(payload=second, at_ms=2_000)))),
    ]
    await rest()

    assert len(log.appended) == 1
    log.going_on.set()
    assert await asyncio.gather(*both) == told


async def test_others_do_not_wait():
    once = Once(log := Log(), AcceptedIds())
    log.going_on.clear()
    appending = [asyncio.ensure_future(once.append(candidate(event_id))) for event_id in "abc"]
    await rest()

    assert [event.event_id for event in log.appended] == ["a", "b", "c"]
    log.going_on.set()
    await asyncio.gather(*appending)
    assert once._under_way == {}


async def test_who_has_waited_once_does_not_wait_again():
    """Two that waited for one that failed: both are appended, neither is told a wrong thing."""
    once = Once(log := Log(), AcceptedIds())
    log.refused = {b"no"}
    log.going_on.clear()
    appending = [asyncio.ensure_future(outcome(once.append(candidate(payload=each)))) for each in (b"no", b"2", b"3")]
    await rest()
    log.going_on.set()
    log.going_on = asyncio.Event()
    await rest()

    assert [event.payload for event in log.appended] == [b"no", b"2", b"3"]
    log.going_on.set()
    assert await asyncio.gather(*appending) == ["broker_unavailable", *[Accepted("a", 1_000, duplicate=False)] * 2]
    # The first of them counts, as it does for fan-out.
    assert await outcome(once.append(candidate(payload=b"2"))) == Accepted("a", 1_000, duplicate=True)
    assert await outcome(once.append(candidate(payload=b"3"))) == "id_reused"


async def test_a_second_one_does_not_wait_for_ever(monkeypatch):
    monkeypatch.setattr(once_module, "OTHERS_S", 0.0)
    once = Once(log := Log(), AcceptedIds())
    log.going_on.clear()
    both = [asyncio.ensure_future(outcome(once.append(candidate(payload=each)))) for each in (b"1", b"2")]
    await rest()

    assert len(log.appended) == 2
    log.going_on.set()
    assert await asyncio.gather(*both) == [Accepted("a", 1_000, duplicate=False)] * 2
    assert once._under_way == {}


async def test_whoever_goes_away_keeps_nobody_waiting():
    once = Once(log := Log(), AcceptedIds())
    log.going_on.clear()
    gone = asyncio.ensure_future(once.append(candidate()))
    waiting = asyncio.ensure_future(once.append(candidate(at_ms=2_000)))
    await rest()
    gone.cancel()
    await rest()
    log.going_on.set()

    assert await waiting == Accepted("a", 2_000, duplicate=False)
    assert once._under_way == {}


async def test_a_batch_has_its_outcomes_in_order():
    once = Once(log := Log(), AcceptedIds())
    log.refused = {b"no"}
    await once.append(candidate("old", b"1", at_ms=500))

    told = await once.append_all(
        [
            candidate("a", b"1"),
            candidate("old", b"1"),
            candidate("old", b"2"),
            candidate("b", b"no"),
            candidate("minted", b"1", supplied=False),
            candidate("minted", b"1", supplied=False),
        ]
    )

    assert codes(told) == [
        Accepted("a", 1_000, duplicate=False),
        Accepted("old", 500, duplicate=True),
        "id_reused",
        "broker_unavailable",
        Accepted("minted", 1_000, duplicate=False),
        Accepted("minted", 1_000, duplicate=False),
    ]
    assert [event.event_id for event in log.appended] == ["old", "a", "b", "minted", "minted"]


async def test_an_id_that_stands_in_a_batch_twice():
    once = Once(log := Log(), AcceptedIds())
    log.refused = {b"no"}

    told = await once.append_all(
        [
            candidate("a", b"1"),
            candidate("b", b"no"),
            candidate("a", b"1"),
            candidate("a", b"2"),
            candidate("b", b"2"),
        ]
    )

    assert codes(told) == [
        Accepted("a", 1_000, duplicate=False),
        "broker_unavailable",
        Accepted("a", 1_000, duplicate=True),
        "id_reused",
        "broker_unavailable",
    ]
    assert len(log.appended) == 2


async def test_two_batches_of_the_same_ids_the_other_way_round_do_not_wait_for_each_other():
    once = Once(log := Log(), AcceptedIds())
    log.going_on.clear()
    there = asyncio.ensure_future(once.append_all([candidate("a"), candidate("b")]))
    back = asyncio.ensure_future(once.append_all([candidate("b"), candidate("a")]))
    await rest()

    assert len(log.appended) == 2
    log.going_on.set()
    assert [each.duplicate for each in await there] == [False, False]
    assert [each.duplicate for each in await back] == [True, True]
    assert once._under_way == {}
