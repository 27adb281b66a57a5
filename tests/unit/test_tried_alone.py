"""A record that workers died with, handed over alone: what a rebalance or a refused commit changes of it."""

from types import SimpleNamespace

import pytest
from faust.types import TP

from streams.engine.consumer import LedgerConsumer
from streams.engine.standing import FATAL, Standing
from streams.ledger import Ledger

A = TP("deliveries", 0)


class Trying(LedgerConsumer):
    """The consumer without Faust and without a broker: one suspect partition, at offset 7."""

    def __init__(self, unclean: int) -> None:
        self.app = SimpleNamespace(consumer_generation_id=1)
        self._kafka = SimpleNamespace(seek=lambda _, offset: self.sought.append(offset))
        self._ledgers, self._standing, self._suspects = {A: Ledger(7)}, {A: Standing(7, unclean)}, {A}
        self._processors, self.assignment = {A.topic: None}, lambda: {A}
        self._position = lambda _: 9
        self.flow_active = True
        self.commits, self.aside, self.taken, self.sought = [], [], [], []
        self.refuses = 0
        self.on_aside = lambda: None
        self._put_aside = self._aside

    async def _aside(self, record, code, _reason):
        self.aside.append((record.offset, code))
        self.on_aside()

    async def _commit(self, offsets):
        self.commits.append(self._standing[A])
        self.refuses -= 1
        return self.refuses < 0

    async def _take(self, tp, records, _generation):
        for record in records:
            self.taken.append(record.offset)
            self._ledgers[tp].take([(record.offset, 1)])
            self._ledgers[tp].finish(record.offset)


def records(*offsets):
    return [SimpleNamespace(offset=offset, key=b"", value=b"", headers=()) for offset in offsets]


async def test_it_is_put_aside_after_the_last_death_and_what_follows_is_tried():
    trying = Trying(FATAL - 1)
    assert await trying._try_alone(A, records(7, 8, 9), 1) == []
    assert trying.aside == [(7, "record.fatal")]
    assert trying.taken == [8, 9]
    assert trying._ledgers[A].committable == 10


@pytest.mark.parametrize("successor", [None, Ledger(7)])
async def test_a_partition_that_is_given_up_while_it_is_put_aside_is_left_to_whoever_reads_it_next(successor):
    trying = Trying(FATAL - 1)

    def rebalance():
        trying._ledgers = {} if successor is None else {A: successor}

    trying.on_aside = rebalance
    assert await trying._try_alone(A, records(7, 8), 1) == []
    assert trying.taken == []
    assert successor is None or successor.position == 7


async def test_nobody_died_of_a_commit_that_was_refused():
    trying = Trying(2)
    for _ in range(FATAL):
        trying.refuses = 1
        assert await trying._try_alone(A, records(7, 8), 1) == []
        assert trying._standing[A] == Standing(7, 2)
    assert trying.sought == [7] * FATAL
    assert (trying.aside, trying.taken) == ([], [])

    trying.refuses = 0
    assert await trying._try_alone(A, records(7, 8), 1) == []
    assert trying.taken == [7, 8]


async def test_nothing_more_is_begun_once_the_partition_is_being_given_up():
    trying = Trying(2)
    trying.flow_active = False
    left = records(7, 8)
    assert await trying._try_alone(A, left, 1) == left
    assert (trying.commits, trying.taken) == ([], [])
    assert trying._standing[A] == Standing(7, 2)


async def test_what_was_fetched_of_a_partition_that_is_being_given_up_is_handed_to_nobody():
    """An agent knows batches alone; a record by itself, of a partition without a ledger, ended one."""
    trying = Trying(0)
    trying._ledgers, trying._suspects = {}, set()
    await trying._hand_over(A, records(7, 8), 1)
    assert (trying.taken, trying.sought) == ([], [7])
