"""A takeover that reads back for minutes, or marks many partitions, is seen to get on all the time."""

import asyncio
from types import SimpleNamespace

from aiokafka import TopicPartition

from streams import takeover
from streams.connection import Connection
from streams.records import Marker
from streams.takeover import STEPS, Ends, Steps

A, B = TopicPartition("t.deliveries", 0), TopicPartition("t.deliveries", 1)


class Producer:
    """Takes everything."""

    async def send(self, *_args, **_named):
        taken = asyncio.get_running_loop().create_future()
        taken.set_result(SimpleNamespace(offset=7))
        return taken


class Consumer:
    """Brings a record each second time that it is asked."""

    def __init__(self, **_options):
        self.asked, self.at, self._client = 0, 0, SimpleNamespace(_conns={})

    async def start(self): ...

    async def stop(self): ...

    def assign(self, _): ...

    def seek(self, *_): ...

    def pause(self, _): ...

    async def beginning_offsets(self, partitions):
        return dict.fromkeys(partitions, 0)

    async def position(self, _):
        return self.at

    async def getmany(self, *_partitions, **_named):
        self.asked += 1
        if self.asked % 2:
            return {}
        self.at += 1
        return {A: [SimpleNamespace(offset=self.at - 1)]}


async def counted(work):
    """How many steps that is, in a task of its own as a takeover is."""
    steps = Steps()

    async def take_over():
        STEPS.set(steps)
        await work

    await asyncio.create_task(take_over())
    return steps.taken


async def test_each_marker_is_a_step():
    marker = Marker(source_topic="t.events", source_partition=0, generation=1, owner="w", at_ms=0)
    assert await counted(takeover.mark(Producer(), {A: [marker, marker], B: [marker]}, Ends())) == 3


async def test_each_chunk_that_is_read_back_is_a_step_and_waiting_for_one_is_none(monkeypatch):
    monkeypatch.setattr(takeover, "AIOKafkaConsumer", Consumer)
    read = []
    reading = takeover.read_back(Connection("nobody:1"), {A: (0, 5)}, read.append)
    assert await counted(reading) == 5
    assert len(read) == 5


async def test_where_nobody_counts_the_same_is_done(monkeypatch):
    monkeypatch.setattr(takeover, "AIOKafkaConsumer", Consumer)
    read = []
    await takeover.read_back(Connection("nobody:1"), {A: (0, 2)}, read.append)
    assert len(read) == 2
