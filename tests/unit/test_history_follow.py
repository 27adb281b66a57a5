"""What the reader of results says of the history's file, and for how long."""

import sqlite3
from types import SimpleNamespace

import pytest
from structlog.testing import capture_logs

from services.history import follow
from services.history.follow import ResultsFollower
from services.history.store import Store
from streams.connection import Connection
from streams.features import APACHE_KAFKA
from tests.histories import delivered, raws


class Over(BaseException):
    """Nothing more is to come."""


class Topic:
    """As aiokafka's consumer, of one partition; what fetches bring comes from the test."""

    def __init__(self, batches):
        self._client = SimpleNamespace(_conns={})
        self.batches, self.at, self.starts = batches, 0, 0
        #: What the follower said of itself at each fetch.
        self.troubles = []
        self.follower = None

    async def start(self):
        self.starts += 1
        if self.starts > 9:
            raise Over(self.follower.trouble)  # else it would try for ever

    async def stop(self):
        pass

    def assign(self, partitions):
        [self.partition] = partitions

    def seek(self, _, offset):
        self.at = offset

    async def beginning_offsets(self, partitions):
        return dict.fromkeys(partitions, 0)

    async def end_offsets(self, partitions):
        return dict.fromkeys(partitions, self.at)

    async def offsets_for_times(self, times):
        return dict.fromkeys(times, SimpleNamespace(offset=0))

    async def position(self, _):
        return self.at

    async def getmany(self, **_):
        self.troubles.append(self.follower.trouble)
        if not self.batches:
            raise Over
        batch = [
            SimpleNamespace(partition=partition, offset=offset, value=value)
            for partition, offset, value in self.batches.pop(0)
        ]
        self.at += len(batch)
        return {self.partition: batch} if batch else {}


@pytest.fixture
def run(tmp_path, monkeypatch):
    """Follow a topic until its last batch; some calls of the store fail, each once."""

    async def run(batches, failing):
        store, topic = Store(tmp_path), Topic(batches)

        async def on_thread(do, *arguments):
            name = getattr(do, "__name__", "")
            if errors := failing.get(name):
                raise errors.pop(0)
            return do(*arguments)

        async def features(_):
            return APACHE_KAFKA

        async def topic_id(_):
            return "topic_1"

        monkeypatch.setattr(follow, "AIOKafkaConsumer", lambda **_: topic)
        monkeypatch.setattr(follow, "features_of", features)
        monkeypatch.setattr(follow, "FetchWaits", lambda *_: SimpleNamespace(saw=lambda **_: None))
        monkeypatch.setattr(follow, "_PAUSES_S", (0, 0))
        topic.follower = ResultsFollower(Connection("nobody:1", "t."), 1, store, on_thread, since_ms=lambda: 0)
        topic.follower._topic_id = topic_id
        with capture_logs() as said, pytest.raises(Over):
            await topic.follower.run()
        told = [line["event"] for line in said if line["event"] != "follower.interrupted"]
        positions = store.positions()
        store.close()
        return told, topic.troubles, positions

    return run


async def test_a_file_that_could_not_be_read_for_once_is_not_said_to_be_unwritable_until_something_comes(run):
    told, troubles, _ = await run([[], []], {"positions": [sqlite3.OperationalError("disk I/O error")]})

    assert told == ["history.not_read"]
    assert troubles == [None, None, None]


async def test_one_that_could_not_be_written_is_in_trouble_until_something_is(run):
    batch = raws([delivered(1)])
    full = sqlite3.OperationalError("database or disk is full")
    told, troubles, positions = await run([batch, [], batch, []], {"fold": [full]})

    assert told == ["history.not_written", "history.written"]
    assert [trouble and "cannot be written" in trouble for trouble in troubles] == [None, True, True, None, None]
    assert positions == {0: 1}
