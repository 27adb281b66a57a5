"""Asking for the end: one round trip for many, and never an answer that was on its way before the question."""

import asyncio
from types import SimpleNamespace

import pytest
from aiokafka import TopicPartition
from aiokafka.errors import KafkaConnectionError

from streams import ends, features
from streams.connection import Connection
from streams.ends import EndOffset

PLACE = TopicPartition("t", 0)


class Broker:
    """Answers a question when it is told to, with how many were asked before and with it."""

    def __init__(self):
        self.questions: list[asyncio.Future[int]] = []
        self.is_away = False
        self.stopped = 0
        self._client = SimpleNamespace(_conns={})

    async def end_offsets(self, partitions):
        if self.is_away:
            raise KafkaConnectionError
        self.questions.append(asyncio.get_running_loop().create_future())
        return {PLACE: await self.questions[-1]}

    async def stop(self):
        self.stopped += 1

    def answer(self, end: int) -> None:
        self.questions[-1].set_result(end)


@pytest.fixture
def broker():
    return Broker()


@pytest.fixture
def asker(broker, monkeypatch):
    monkeypatch.setitem(features._known, "fake", features.APACHE_KAFKA)
    monkeypatch.setattr(ends, "_PAUSES_S", (0, 0))
    asker = EndOffset(Connection("fake"), PLACE)

    async def opened():
        asker._consumer = broker
        return broker

    asker._opened = opened
    return asker


async def settle() -> None:
    """Everything that can run has run."""
    for _ in range(10):
        await asyncio.sleep(0)


async def test_callers_at_the_same_time_share_one_question(broker, asker):
    asked = [asyncio.create_task(asker.ask()) for _ in range(5)]
    await settle()
    broker.answer(7)

    assert await asyncio.gather(*asked) == [7] * 5
    assert len(broker.questions) == 1


async def test_who_comes_while_a_question_is_on_its_way_gets_the_next_answer(broker, asker):
    """The answer on its way may be older than a record that the late caller knows of."""
    early = asyncio.create_task(asker.ask())
    await settle()
    late = [asyncio.create_task(asker.ask()) for _ in range(3)]
    await settle()
    broker.answer(7)
    await settle()
    has_late = [task.done() for task in late]
    broker.answer(8)

    assert await early == 7
    assert has_late == [False] * 3
    assert await asyncio.gather(*late) == [8] * 3
    assert len(broker.questions) == 2


async def test_a_question_starts_after_every_call_that_it_answers(broker, asker):
    """Whatever the order of callers and answers."""
    answers = []

    async def call() -> None:
        before = len(broker.questions)
        answers.append((before, await asker.ask()))

    tasks = []
    for _ in range(40):
        tasks += [asyncio.create_task(call()) for _ in range(2)]
        await asyncio.sleep(0)
        if broker.questions and not broker.questions[-1].done():
            broker.answer(len(broker.questions))
    while not all(task.done() for task in tasks):
        await settle()
        if not broker.questions[-1].done():
            broker.answer(len(broker.questions))

    assert len(answers) == 80
    assert all(answer > before for before, answer in answers)


async def test_a_caller_that_gives_up_takes_nothing_from_the_others(broker, asker):
    gives_up, stays = asyncio.create_task(asker.ask()), asyncio.create_task(asker.ask())
    await settle()
    gives_up.cancel()
    await settle()
    broker.answer(3)

    assert await stays == 3
    assert gives_up.cancelled()


async def test_a_broker_that_is_away_is_asked_until_it_answers(broker, asker):
    broker.is_away = True
    asked = asyncio.create_task(asker.ask())
    await settle()
    broker.is_away = False
    await settle()
    broker.answer(5)

    assert await asked == 5
    assert broker.stopped > 0


async def test_stopping_cancels_who_waits_and_asking_works_again_afterwards(broker, asker):
    waiting = [asyncio.create_task(asker.ask())]
    await settle()
    waiting.append(asyncio.create_task(asker.ask()))
    await settle()
    await asker.stop()
    await asyncio.wait(waiting)
    again = asyncio.create_task(asker.ask())
    await settle()
    broker.answer(9)

    assert [task.cancelled() for task in waiting] == [True, True]
    assert await again == 9
