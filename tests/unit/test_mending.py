"""Mending a partition: what is held at once of it, and that nobody waits for ever for a broker that tells nothing."""

import asyncio
from types import SimpleNamespace

import pytest
from aiokafka import OffsetAndMetadata, TopicPartition

from services.cli import log_access
from services.cli.errors import Failed
from services.cli.log_access import ask_log
from streams import mending
from streams.connection import Connection
from streams.engine.standing import noted_short
from streams.features import APACHE_KAFKA
from streams.mending import Lost
from tests.committing import coordinator

NOWHERE = Connection("127.0.0.1:9", "t.")
EVENTS = TopicPartition("t.events", 0)


def record(offset):
    return SimpleNamespace(
        topic=EVENTS.topic, partition=0, offset=offset, key=b"a", value=b"%d" % offset, timestamp=offset, headers=()
    )


class Reader:
    """As aiokafka's consumer, of one partition with 25 records; or of one that nobody leads."""

    #: As many as the partition has.
    records = 25

    def __init__(self, **options):
        self._client = SimpleNamespace(
            _conns={}, fetch_all_metadata=lambda: _told(SimpleNamespace(partitions_for_topic=lambda _: {0}))
        )
        self._coordinator = coordinator(None)
        self.at = 0

    async def start(self):
        pass

    async def stop(self):
        pass

    def assign(self, partitions):
        pass

    def pause(self, *partitions):
        pass

    def seek(self, _, offset):
        self.at = offset

    async def getmany(self, timeout_ms, max_records):
        await asyncio.sleep(0)
        start, self.at = self.at, min(self.at + max_records, self.records)
        return {EVENTS: [record(offset) for offset in range(start, self.at)]}

    async def position(self, _):
        return self.at


class Producer:
    def __init__(self):
        self.sent = []

    async def send(self, topic, value, **fields):
        self.sent.append(int(value))
        acknowledged = asyncio.get_running_loop().create_future()
        acknowledged.set_result(None)
        return acknowledged


async def _told(what):
    return what


@pytest.fixture(autouse=True)
def _no_broker(monkeypatch):
    async def features(_):
        return APACHE_KAFKA

    async def one(_):
        return 1

    monkeypatch.setattr(mending, "AIOKafkaConsumer", Reader)
    monkeypatch.setattr(mending, "features_of", features)
    monkeypatch.setattr(log_access, "brokers_at", one)
    monkeypatch.setattr(mending, "_CHUNK", 10)
    monkeypatch.setattr(mending, "_ANSWER_S", 0.01)


#: It is moved to where it ends: fillers are nothing to be looked at here.
LOST = Lost(EVENTS, "t.dispatcher", OffsetAndMetadata(53, noted_short("", 25)), 0, 25)


async def test_what_was_not_moved_is_moved_some_at_a_time_in_order():
    producer, said = Producer(), []

    assert await mending._move(NOWHERE, producer, LOST, {0, 1, 2, 11}, said.append) == 21

    assert producer.sent == [*range(3, 11), *range(12, 25)]
    assert said == [7, 9, 5]


async def test_a_partition_that_nobody_leads_is_not_waited_for_for_ever(monkeypatch):
    monkeypatch.setattr(Reader, "records", 12)
    producer = Producer()

    with pytest.raises(TimeoutError, match=r"t\.events 0 from offset 12 on"):
        await mending._move(NOWHERE, producer, LOST, (), lambda _: None)

    assert producer.sent == [*range(12)]


def test_a_group_whose_commits_nobody_tells_is_not_waited_for_for_ever():
    with pytest.raises(Failed, match=r"what group t\.dispatcher has read was not told"):
        ask_log(NOWHERE, mending.lost_partitions(NOWHERE, ["dispatcher"]))


async def test_a_new_leader_that_says_less_than_it_has_for_a_moment_is_asked_again(monkeypatch):
    told = [{EVENTS: 25}, {EVENTS: 60}]

    class Elected(Reader):
        def __init__(self, **options):
            super().__init__(**options)
            self._coordinator = coordinator(lambda: {EVENTS: OffsetAndMetadata(53, "")})

        async def beginning_offsets(self, _):
            return {EVENTS: 0}

        async def end_offsets(self, _):
            return told.pop(0)

    monkeypatch.setattr(mending, "AIOKafkaConsumer", Elected)
    monkeypatch.setattr(mending, "_ANSWER_S", 10.0)
    monkeypatch.setattr(mending, "ASK_AGAIN_S", 0.0)
    monkeypatch.setattr(mending.reading, "look_at", lambda *_: None)

    assert await mending.lost_partitions(NOWHERE, ["dispatcher"]) == []
    told[:] = [{EVENTS: 25}, {EVENTS: 25}]
    assert [each.partition for each in await mending.lost_partitions(NOWHERE, ["dispatcher"])] == [EVENTS]
