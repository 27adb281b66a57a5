"""When a partition is committed again: with news at once, for its floor alone now and then."""

import asyncio
import logging
from types import SimpleNamespace

import pytest
from aiokafka import TopicPartition
from aiokafka.errors import CommitFailedError
from faust.types import TP
from mode.utils.logging import CompositeLogger

from streams.engine import consumer as engine
from streams.engine.consumer import LedgerConsumer
from streams.engine.shortened import LogShortened
from streams.engine.standing import Standing, is_short
from streams.ledger import Ledger
from streams.trouble import Trouble

AT = TP("events", 0)
#: On the loop's clock.
LONG_AGO = -1_000.0


async def done(*_):
    """Whatever Faust does beside a commit."""


class _Consumer(LedgerConsumer):
    """As much of a consumer as commits need, with Faust's own steps; what the broker takes is kept."""

    def __init__(self, floor: str, *, begins: int = 5, refusals: int = 0) -> None:
        self._ledgers, self._acked, self._acked_index = {AT: Ledger(begins)}, {}, {}
        self._committed_offset, self._stored = {AT: begins}, {}
        self._standing, self._has_settled, self._commits = {}, False, Trouble(engine.log)
        self._committing, self.in_transaction, self.log = asyncio.Lock(), False, CompositeLogger(logging.getLogger())
        self._kafka = SimpleNamespace(commit=self._kept, assignment=lambda: {AT})
        self.app = SimpleNamespace(
            _attachments=SimpleNamespace(publish_for_tp_offset=done),
            producer=SimpleNamespace(flush=done),
            tables=SimpleNamespace(on_commit=lambda _: None),
            monitor=SimpleNamespace(on_tp_commit=lambda _: None),
        )
        self.floor, self.looks, self.refusals, self.kept, self.notes = floor, 0, refusals, [], []
        self._has_exact_ends, self._processors, self._live = True, {}, {AT}

    async def _kept(self, offsets) -> None:
        if self.refusals:
            self.refusals -= 1
            raise CommitFailedError
        self.kept.append(offsets[TopicPartition(*AT)].offset)
        self.notes.append(offsets[TopicPartition(*AT)].metadata)

    def _floor(self, tp: TP) -> str:
        assert tp == AT
        self.looks += 1
        return self.floor

    def move_to(self, offset: int) -> None:
        ledger = self._ledgers[AT]
        ledger.take([(each, 1) for each in range(ledger.position, offset)])
        for each in range(offset):
            ledger.finish(each)

    def looked_long_ago(self) -> None:
        self._stored[AT] = self._stored[AT]._replace(at=LONG_AGO)

    async def tick(self) -> None:
        """As the timer does."""
        await self._commit_tps(list(self._filter_tps_with_pending_acks()), start_new_transaction=True)


async def test_an_offset_that_moved_is_news_at_once():
    consumer = _Consumer("")
    for _ in range(3):
        await consumer.tick()
    consumer.move_to(6)
    for _ in range(3):
        await consumer.tick()

    assert consumer.kept == [5, 6]


async def test_a_commit_that_was_refused_is_made_again_though_nothing_moves():
    consumer = _Consumer("")
    await consumer.tick()
    consumer.move_to(7)
    consumer.refusals = 1
    for _ in range(3):
        await consumer.tick()

    assert consumer.kept == [5, 7]


async def test_so_is_the_first_after_a_takeover():
    consumer = _Consumer("", refusals=1)
    for _ in range(3):
        await consumer.tick()

    assert consumer.kept == [5]


async def test_a_floor_that_moved_is_news_when_it_is_looked_at():
    consumer = _Consumer("stored")
    await consumer.tick()
    consumer.floor = "moved"
    await consumer.tick()
    assert consumer.kept == [5], "not for a while"
    consumer.looked_long_ago()
    consumer.refusals = 1
    await consumer.tick()
    await consumer.tick()

    assert consumer.kept == [5, 5]


async def test_a_floor_that_has_not_moved_is_not_looked_at_again_for_a_while():
    consumer = _Consumer("stored")
    await consumer.tick()
    consumer.looked_long_ago()
    consumer.looks = 0
    for _ in range(10):
        await consumer.tick()
    consumer.floor = "moved"
    await consumer.tick()

    assert consumer.looks == 1
    assert consumer.kept == [5]


async def test_that_records_were_lost_while_they_were_read_stays_noted_though_the_worker_commits_at_its_end():
    consumer = _Consumer("", begins=50)
    consumer.move_to(60)
    consumer._standing[AT] = Standing(60, 0)
    with pytest.raises(LogShortened):
        await consumer._take(AT, [SimpleNamespace(offset=3)], 1)
    consumer._has_settled = True  # it stops, and commits the rest
    await consumer.tick()

    assert is_short(consumer.notes[-1]), "the next worker would believe a log that has grown beyond the commit"
