"""A batch on its way onto the log, over a producer that tests hold up, let go on, and break."""

import asyncio

import pytest
from aiokafka.errors import KafkaTimeoutError, ProducerClosed

from services.ingest import append
from services.ingest.append import EventLog
from streams import codec, topics
from streams.connection import Connection
from streams.records import Event
from tests.logs import make_event


class Producer:
    """Takes as many as it is told to, and leaves the acknowledgements to the test."""

    def __init__(self):
        self.sent = []
        self.takes = 1_000_000
        self.error = KafkaTimeoutError()

    async def send(self, topic, value, key, headers=None):
        if len(self.sent) >= self.takes:
            raise self.error
        acknowledged = asyncio.get_running_loop().create_future()
        self.sent.append((codec.decode_as(Event, value).event_id, key, acknowledged))
        return acknowledged

    def acknowledge(self, *numbers):
        for number in numbers or range(len(self.sent)):
            self.sent[number][2].set_result(None)


def log_with(producer):
    log = EventLog(Connection("nobody:1", "t."), topics.Partitions(2, 2))
    log._producer = producer
    log.opened.set()
    return log


def events(count, **changes):
    return [make_event(event_id=f"e{number}", **changes) for number in range(count)]


def codes(told):
    return [None if each is None else each.code for each in told]


async def rest():
    for _ in range(5):
        await asyncio.sleep(0)


async def test_all_are_sent_in_order_before_the_first_is_acknowledged():
    log = log_with(producer := Producer())
    appending = asyncio.ensure_future(log.append_all(events(100)))
    await rest()

    assert [(event_id, key) for event_id, key, _ in producer.sent] == [(f"e{number}", b"demo") for number in range(100)]
    producer.acknowledge(*range(99))
    await rest()
    assert not appending.done()
    producer.acknowledge(99)
    assert await appending == [None] * 100
    assert log._unacknowledged_bytes == 0
    assert log.trouble is None


async def test_nothing_to_store_is_stored_at_once():
    assert await log_with(Producer()).append_all([]) == []


async def test_without_a_producer_nothing_is_stored():
    assert codes(await log_with(None).append_all(events(3))) == ["broker_unavailable"] * 3


async def test_from_the_first_that_is_not_taken_on_none_is_tried():
    log = log_with(producer := Producer())
    producer.takes = 2
    appending = asyncio.ensure_future(log.append_all(events(5)))
    await rest()
    producer.acknowledge()

    assert codes(await appending) == [None, None, *["broker_unavailable"] * 3]
    assert len(producer.sent) == 2
    # A batch of the producer's that stays full passes by itself, when the broker is back.
    assert not log._broken.is_set()
    assert log._unacknowledged_bytes == 0


async def test_each_has_its_own_acknowledgement():
    log = log_with(producer := Producer())
    appending = asyncio.ensure_future(log.append_all(events(3)))
    await rest()
    producer.acknowledge(0, 2)
    producer.sent[1][2].set_exception(KafkaTimeoutError())

    assert codes(await appending) == [None, "broker_unavailable", None]


async def test_what_is_not_acknowledged_in_time_may_have_been_stored(monkeypatch):
    monkeypatch.setattr(append, "DEADLINE_S", 0.0)
    log = log_with(producer := Producer())

    told = await log.append_all(events(3))

    assert codes(told) == ["broker_unavailable"] * 3
    assert "may have been stored" in told[0].detail
    assert log._unacknowledged_bytes == 0
    assert log.trouble is not None
    # What aiokafka does later: it passes over those that are done.
    assert all(acknowledged.done() for _, _, acknowledged in producer.sent)


async def test_more_than_memory_is_set_aside_for_is_not_taken(monkeypatch):
    one = len(codec.encode(events(1)[0]))
    monkeypatch.setattr(append, "MAX_UNACKNOWLEDGED_BYTES", 3 * one + 1)
    log = log_with(producer := Producer())
    appending = asyncio.ensure_future(log.append_all(events(5)))
    await rest()
    producer.acknowledge()

    assert codes(await appending) == [None, None, None, "overloaded", "overloaded"]
    assert log._unacknowledged_bytes == 0


@pytest.mark.parametrize("error", [ProducerClosed(), ValueError("ours")])
async def test_a_producer_that_is_dead_is_replaced_and_our_own_faults_are_not_hidden(error):
    log = log_with(producer := Producer())
    appending = asyncio.ensure_future(log.append_all(events(2)))
    await rest()
    for _, _, acknowledged in producer.sent:
        acknowledged.set_exception(error)

    if isinstance(error, ValueError):
        with pytest.raises(ValueError, match="ours"):
            await appending
    else:
        assert codes(await appending) == ["broker_unavailable"] * 2
        assert log._broken.is_set()
    assert log._unacknowledged_bytes == 0


async def test_whoever_goes_away_leaves_nothing_behind():
    log = log_with(producer := Producer())
    appending = asyncio.ensure_future(log.append_all(events(2)))
    await rest()
    producer.sent[0][2].set_exception(KafkaTimeoutError())
    appending.cancel()
    with pytest.raises(asyncio.CancelledError):
        await appending

    assert log._unacknowledged_bytes == 0
    assert producer.sent[1][2].cancelled()
