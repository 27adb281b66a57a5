"""Ingest that stands still is not live; one whose broker is away, or refuses, is. The clock comes in."""

import asyncio

import pytest
from aiokafka.errors import KafkaError
from structlog.testing import capture_logs

from services.ingest import append
from services.ingest.append import EventLog
from services.runtime import liveness
from services.runtime.liveness import Liveness
from services.runtime.problems import Problem
from streams import topics
from streams.connection import Connection
from streams.engine.progress import LOOK_S, STUCK_S
from tests.logs import make_event

LOOKS = int(STUCK_S / LOOK_S)


class Producer:
    """Never lets go of a record that is given to it, unless it is told to."""

    def __init__(self):
        self.may_go = asyncio.Event()

    async def send(self, topic, value, key, headers=None):
        await self.may_go.wait()
        acknowledged = asyncio.get_running_loop().create_future()
        acknowledged.set_result(None)
        return acknowledged


class Following:
    """Reads, or not, a topic whose end the broker tells, or not."""

    topic = topics.APP_CONFIG
    position = 7
    is_live = True
    error: Exception | None = None

    async def end(self):
        if self.error is not None:
            raise self.error
        return 9


class Looked:
    """An open log, a follower and a broker, and what was seen of them, a look each `LOOK_S`."""

    def __init__(self):
        self.log = EventLog(Connection("nobody:1", "t."), topics.Partitions(2, 2))
        self.producer = self.log._producer = Producer()
        self.log.opened.set()
        self.follower, self.is_there, self.now_s = Following(), True, 1_000.0
        self.liveness = Liveness(
            "ingest",
            self.log,
            [self.follower],
            self._answers,
            waiting=("an event waits for the log", lambda: self.log.oldest),
        )

    async def _answers(self):
        return self.is_there

    async def look(self, times=LOOKS + 1, gap_s=LOOK_S):
        for _ in range(times):
            self.now_s += gap_s
            await self.liveness.look(self.now_s)
        return self.liveness.stuck


@pytest.fixture
async def looked():
    return Looked()


async def test_while_nothing_is_asked_of_it_or_all_goes_on_it_is_live(looked):
    assert await looked.look() is None
    for number in range(LOOKS + 1):
        appending = asyncio.ensure_future(looked.log.append(make_event(number)))
        await asyncio.sleep(0)
        assert await looked.look(1) is None
        looked.producer.may_go.set()
        await appending
        looked.producer.may_go.clear()
    assert looked.log.oldest is None


@pytest.mark.parametrize("is_batch", [False, True], ids=["one", "batch"])
async def test_an_event_that_waits_past_every_bound_makes_it_not_live_once_and_no_longer(looked, is_batch, monkeypatch):
    monkeypatch.setattr(append, "DEADLINE_S", 3600.0)  # a bound that does not hold
    event = make_event(1)
    appending = asyncio.ensure_future(looked.log.append_all([event]) if is_batch else looked.log.append(event))
    await asyncio.sleep(0)
    with capture_logs() as said:
        assert await looked.look(LOOKS) is None
        assert await looked.look(1) == "no progress: an event waits for the log for 120 s"
        assert await looked.look(3) == "no progress: an event waits for the log for 135 s"
        looked.producer.may_go.set()
        await appending
        assert await looked.look(1) is None
    assert [line["event"] for line in said] == ["ingest.stuck", "ingest.moves"]


async def test_an_event_that_is_given_up_in_time_does_not(looked, monkeypatch):
    monkeypatch.setattr(append, "DEADLINE_S", 0.0)
    looked.producer.may_go.set()
    looked.producer.send = _never_acknowledged
    for number in range(LOOKS + 1):
        with pytest.raises(Problem):
            await looked.log.append(make_event(number))
        assert await looked.look(1) is None


async def _never_acknowledged(*_args, **_names):
    return asyncio.get_running_loop().create_future()


async def test_a_follower_that_reads_nothing_of_what_the_broker_has(looked):
    looked.follower.is_live = False
    told = "no progress: app-config is not read, though the broker has it for 120 s"
    assert await looked.look() == told
    looked.follower.position += 1
    assert await looked.look(1) is None


async def test_a_log_that_nobody_opens(looked):
    looked.log._producer = None
    assert await looked.look() == "no progress: the log is not opened, though the broker answers for 120 s"
    looked.log.tries += 1
    assert await looked.look(1) is None


@pytest.mark.parametrize("broken", ["log", "follower"])
async def test_a_broker_that_is_away_leaves_it_live(looked, broken):
    looked.is_there = False
    if broken == "log":
        looked.log._producer = None
    looked.follower.is_live = False
    assert await looked.look(10 * LOOKS) is None
    looked.is_there = True
    assert await looked.look(LOOKS) is None, "its time begins when the broker is back"


@pytest.mark.parametrize("error", [KafkaError(), TimeoutError(), ValueError("a bug in the client")])
async def test_a_partition_that_the_broker_does_not_serve_leaves_it_live(looked, error):
    looked.follower.is_live, looked.follower.error = False, error
    assert await looked.look(10 * LOOKS) is None


@pytest.mark.parametrize("broken", ["log", "follower"])
async def test_a_look_ends_in_time_though_what_is_asked_takes_long_to_be_cut_off(looked, broken, monkeypatch):
    """Else the next one comes so late that the process seems to have been frozen, and gets its time anew each time."""
    monkeypatch.setattr(liveness, "ANSWER_S", 0.001)
    may_end, ended = asyncio.Event(), asyncio.Event()

    async def asked():
        try:
            await asyncio.Event().wait()
        finally:
            await may_end.wait()  # as for the end of a TLS connection
            ended.set()

    looked.follower.is_live = False
    if broken == "log":
        looked.liveness._broker_answers = asked
    else:
        looked.follower.end = asked
    await asyncio.wait_for(looked.look(2), 5)
    assert not ended.is_set()
    may_end.set()
    await asyncio.wait_for(ended.wait(), 5)


async def test_a_process_that_was_frozen_gets_its_time_anew(looked):
    looked.follower.is_live = False
    assert await looked.look(5, gap_s=10 * STUCK_S) is None
