"""A connection that is closed under a request: whoever asks again is answered, and nobody waits for ever."""

import asyncio
import socket
import struct

import pytest
import uvloop
from aiokafka import TopicPartition
from aiokafka.conn import AIOKafkaConnection
from aiokafka.errors import KafkaConnectionError
from aiokafka.protocol.admin import ApiVersionRequest

from streams import takeover, topics
from streams.connection import Connection
from streams.producer import open_producer
from tests.logs import PARTITIONS

#: Kafka's numbers of what is asked.
FETCH, METADATA = 1, 3

#: So that the system sends a reset in place of an end.
AT_ONCE = struct.pack("ii", 1, 0)


@pytest.fixture
def close_under(monkeypatch):
    """Arms it: the next request of that kind finds its connection closed, as uvloop says it; a list of what met it."""
    write, armed, met = asyncio.StreamWriter.write, [], []

    def write_or_raise(self, data):
        asked = int.from_bytes(data[4:6])
        if asked in armed:
            armed.remove(asked)
            met.append(asked)
            raise RuntimeError(f"unable to perform operation on {self.transport!r}; the handler is closed")
        write(self, data)

    monkeypatch.setattr(asyncio.StreamWriter, "write", write_or_raise)

    def arm(asked):
        armed.append(asked)
        return met

    return arm


async def test_a_takeover_reads_back_through_it(embedded_connection: Connection, close_under):
    await topics.ensure(embedded_connection, PARTITIONS)
    place = TopicPartition(embedded_connection.topic(topics.DELIVERIES), 0)
    producer = await open_producer(embedded_connection, client_id="test")
    for value in (b"a", b"b"):
        await producer.send_and_wait(place.topic, value, partition=0)
    await producer.stop()
    seen, met = [], close_under(FETCH)

    reading = takeover.read_back(embedded_connection, {place: (0, 2)}, lambda record: seen.append(record.value))
    await asyncio.wait_for(reading, 10)

    assert seen == [b"a", b"b"]
    assert met == [FETCH]


async def test_a_producer_asks_again_who_leads_what_through_it(embedded_connection: Connection, close_under):
    await topics.ensure(embedded_connection, PARTITIONS)
    producer = await open_producer(embedded_connection, client_id="test")
    try:
        met = close_under(METADATA)
        learned = [await asyncio.wait_for(producer.client.force_metadata_update(), 10) for _ in range(2)]
        sending = producer.send_and_wait(embedded_connection.topic(topics.DELIVERIES), b"a", partition=0)
        sent = await asyncio.wait_for(sending, 10)
    finally:
        await asyncio.wait_for(producer.stop(), 10)

    assert learned == [False, True]
    assert sent.offset == 0
    assert met == [METADATA]


def test_what_is_sent_after_a_reset_and_before_aiokafka_hears_of_it_is_a_broken_connection(monkeypatch):
    """With uvloop's own transport and a connection that is really reset; without it asyncio says nothing."""
    Connection("localhost:1")  # as whoever makes a client has one

    async def looked_up(_self): ...

    monkeypatch.setattr(AIOKafkaConnection, "_do_version_lookup", looked_up)

    async def sent_in_between() -> None:
        with socket.create_server(("127.0.0.1", 0)) as server:
            connection = AIOKafkaConnection(*server.getsockname())
            await connection.connect()
            accepted, _ = server.accept()
        accepted.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, AT_ONCE)
        accepted.close()
        while connection._reader.exception() is None:  # noqa: ASYNC110  # turn by turn: it is a matter of one
            await asyncio.sleep(0)
        assert connection.connected(), "aiokafka does not know yet"
        try:
            with pytest.raises(KafkaConnectionError, match="the handler is closed"):
                connection.send(ApiVersionRequest())
            assert not connection.connected()
        finally:
            connection.close()

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(sent_in_between())


async def test_a_request_that_the_broker_does_not_have_leaves_the_connection_as_it_is(embedded_connection: Connection):
    class Unheard(ApiVersionRequest):
        def prepare(self, versions):
            raise NotImplementedError("no version of it")

    host, _, port = embedded_connection.bootstrap.partition(":")
    connection = AIOKafkaConnection(host, int(port))
    await connection.connect()
    try:
        with pytest.raises(NotImplementedError):
            await connection.send(Unheard())
        assert connection.connected()
    finally:
        connection.close()
