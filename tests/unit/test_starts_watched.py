"""A dispatcher or breaker whose start gets no further is not live; one whose broker is away is. The clock comes in."""

import asyncio
import time
from contextlib import AsyncExitStack, suppress
from types import SimpleNamespace

import pytest
from aiokafka.errors import NotEnoughReplicasError
from structlog.testing import capture_logs

from services.breaker import app as breaker
from services.dispatcher import app as dispatcher
from services.runtime import joining
from services.runtime.joining import Joining
from streams import topics
from streams.connection import Connection
from streams.engine.progress import LOOK_S, STUCK_S
from streams.follower import Follower
from tests.admins import admin_settings
from tests.dispatching import KEYRING

LOOKS = int(STUCK_S / LOOK_S)
CONNECTION = Connection("127.0.0.1:1", "t.")
TOLD = "no progress: the group is not joined, though the broker answers for 120 s"


class Looked:
    """What is seen of a start, a look each `LOOK_S`."""

    def __init__(self, health):
        self.health, self.is_there, self.now_s = health, True, 1_000.0
        health._liveness._broker_answers = self._answers

    async def _answers(self):
        return self.is_there

    async def look(self, times=LOOKS + 1, gap_s=LOOK_S):
        for _ in range(times):
            self.now_s += gap_s
            await self.health._liveness.look(self.now_s)
        return self.health.live()


@pytest.fixture(params=["dispatcher", "breaker"])
def looked(request):
    dispatching = request.param == "dispatcher"
    return Looked(dispatcher._Health(CONNECTION) if dispatching else breaker._Health("breaker", CONNECTION))


async def nothing(_):
    """It was not begun."""


async def start(health, stack):
    """As `main` does it, with a broker that answers."""
    settings = admin_settings(CONNECTION)
    if isinstance(health, dispatcher._Health):
        await dispatcher._start(settings, CONNECTION, KEYRING, health, stack)
    else:
        app = SimpleNamespace(add_rows=lambda *_: None)
        await breaker._followed(CONNECTION, topics.Partitions(1, 1), None, app, health, stack)


async def test_a_start_that_hangs_makes_it_not_live_once_and_no_longer(looked, monkeypatch):
    started, may_go = [], asyncio.Event()

    async def begins(follower):
        started.append(follower)

    async def hangs(_):
        await may_go.wait()
        raise ValueError("it is over")

    monkeypatch.setattr(Follower, "start", begins)
    monkeypatch.setattr(Follower, "stop", nothing)
    monkeypatch.setattr(Follower, "catch_up", hangs)
    with capture_logs() as said:
        async with AsyncExitStack() as stack:
            starting = asyncio.ensure_future(start(looked.health, stack))
            await asyncio.sleep(0.01)
            for _ in range(LOOKS):
                started[-1].position += 1  # states are published each second
                assert await looked.look(1) is None
            assert await looked.look(1) == TOLD
            may_go.set()
            with pytest.raises(ValueError, match="it is over"):
                await starting
            looked.health.forget()  # as the stack of a start does, which begins anew after that
            assert await looked.look(LOOKS) is None
    assert [line["event"].partition(".")[2] for line in said if "." in line["event"]] == ["stuck", "moves"]


@pytest.mark.parametrize("app", [dispatcher, breaker])
async def test_a_start_that_ends_and_begins_anew_is_live(app, monkeypatch):
    """Too few replicas take what it has to write before anything else: so does none that a restart would bring."""
    told = []

    class Watched(app._Health):
        def __init__(self, *arguments):
            super().__init__(*arguments)
            told.append(Looked(self))
            told[0].now_s = time.monotonic()  # it is looked at besides, by that clock

    async def takes_nothing(*_, **__):
        raise NotEnoughReplicasError

    async def until_started(_, __, start, *, stop):
        for _ in range(LOOKS + 5):
            async with AsyncExitStack() as opened:
                with suppress(NotEnoughReplicasError):
                    await start(opened)
            told.append(await told[0].look(1))

    monkeypatch.setattr(app, "_Health", Watched)
    monkeypatch.setattr(app, "until_started", until_started)
    monkeypatch.setattr(topics, "ensure", takes_nothing)
    await app.main(admin_settings(CONNECTION, dispatcher={"port": 0}, breaker={"port": 0}), asyncio.Event())

    assert told[1:] == [None] * (LOOKS + 5)


async def test_a_start_that_reads_for_minutes_is_live_and_one_that_stops_in_the_middle_is_not(looked, monkeypatch):
    monkeypatch.setattr(Follower, "start", lambda _: asyncio.Event().wait())
    async with AsyncExitStack() as stack:
        follower = Follower(CONNECTION, topics.INTEGRATION_CONFIG, lambda *_: None)
        starting = asyncio.ensure_future(looked.health.follow(follower, stack))
        await asyncio.sleep(0)
        for _ in range(3 * LOOKS):
            follower.position += 5_000
            assert await looked.look(1) is None
        assert await looked.look(LOOKS) == TOLD
        starting.cancel()


@pytest.mark.parametrize("why", ["away", "frozen"])
async def test_a_broker_that_is_away_or_a_process_that_was_frozen_leaves_it_live(looked, why):
    looked.is_there = why != "away"
    assert await looked.look(5 * LOOKS, gap_s=LOOK_S if why == "away" else STUCK_S) is None
    looked.is_there = True
    assert await looked.look(LOOKS - 1) is None, "its time begins then"


async def test_a_member_is_live_and_one_that_the_group_forgets_for_good_is_not(looked):
    looked.health.app = app = SimpleNamespace(is_confirmed=True, rebalances=1, stuck=None, should_stop=False)
    assert await looked.look() is None
    app.is_confirmed = False
    assert await looked.look(LOOKS) is None
    assert await looked.look(1) == TOLD
    app.is_confirmed = True
    assert await looked.look(1) is None


async def test_it_is_watched_for_the_time_of_the_block_alone(monkeypatch):
    looks = asyncio.Semaphore(0)

    async def answers(_, service):
        assert service == "dispatcher"
        looks.release()
        return False

    monkeypatch.setattr(joining, "keeper_answers", answers)
    health = Joining("dispatcher", CONNECTION)
    async with health.watched():
        await asyncio.wait_for(looks.acquire(), 5)
        watching = [task for task in asyncio.all_tasks() if "Liveness.watch" in repr(task)]
        assert len(watching) == 1
    assert watching[0].cancelled()
