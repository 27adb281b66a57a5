"""The topic of schemas on every broker: who starts adds what is missing, and who meets a new id finds its schema."""

import asyncio
import struct

import pytest
from aiokafka import AIOKafkaProducer

from streams import codec, schema_topic, topics
from streams.codec import Unreadable
from streams.connection import Connection
from streams.follower import Follower
from streams.records import SharedSchema
from streams.topics import SCHEMAS, Partitions, TopicMismatch
from tests.breaking import make_result
from tests.later import id_of, text_of, written

FEW = Partitions(by_app=2, by_integration=4)


async def add(connection: Connection, *schemas: SharedSchema) -> None:
    producer = AIOKafkaProducer(bootstrap_servers=connection.bootstrap, acks="all")
    await producer.start()
    try:
        for each in schemas:
            await producer.send_and_wait(connection.topic(SCHEMAS), codec.encode(each), key=str(each.id).encode())
    finally:
        await producer.stop()


async def test_who_starts_adds_what_is_missing_and_reads_what_newer_ones_have_added(connection: Connection):
    await asyncio.gather(*(topics.ensure(connection, FEW) for _ in range(3)))
    told: dict[int, set[str]] = {}

    def see(_key, value, _offset):
        found = codec.decode_as(SharedSchema, value)
        told.setdefault(found.id, set()).add(found.text)

    follower = Follower(connection, SCHEMAS, see)
    await follower.start()
    before = follower.position
    assert told == {number: {text} for number, (_, text) in codec.released().items()}

    record = written("result", make_result())
    with pytest.raises(Unreadable, match="is unknown"):
        codec.decode(record)
    await topics.ensure(connection, FEW)  # as a start does, which forgets that there is none
    await add(connection, SharedSchema(id=id_of("result"), text=text_of("result")))
    # In the middle of the loop, before any follower can have told.
    assert codec.decode(record) == make_result()

    # Nobody adds what is there; and a start has read it.
    await topics.ensure(connection, FEW)
    codec.use_topic(lambda _: pytest.fail("is known"))
    await follower.catch_up()
    await follower.stop()
    assert (follower.position, len(told)) == (before + 1, len(codec.released()) + 1)


@pytest.mark.kafka
async def test_a_release_with_another_schema_under_an_id_does_not_start(kafka_connection: Connection, monkeypatch):
    await topics.ensure(kafka_connection, FEW)
    number, name = id_of("result"), "result"
    await add(kafka_connection, SharedSchema(id=number, text=text_of("result")))
    own = codec.released()
    monkeypatch.setattr(codec, "released", lambda: {**own, number: (name, text_of("delivery"))})

    with pytest.raises(TopicMismatch, match=f"another schema under the id {number}"):
        await topics.ensure(kafka_connection, FEW)


def test_where_nobody_can_be_asked_what_is_new_is_unreadable_after_a_bounded_time(monkeypatch):
    monkeypatch.setattr(schema_topic, "_ANSWER_S", 0.2)
    connection = Connection("127.0.0.1:9")
    schema_topic.use(connection, connection.topic(SCHEMAS))

    with pytest.raises(Unreadable, match="cannot be read"):
        codec.decode(written("result", make_result()))


async def test_a_record_there_whose_own_schema_is_unknown_is_passed_over(connection: Connection):
    await topics.ensure(connection, FEW)
    unknown = struct.pack(">bI", 0, codec.FIRST_COMMITTED_ID + 999) + b"\x00"
    producer = AIOKafkaProducer(bootstrap_servers=connection.bootstrap, acks="all")
    await producer.start()
    await producer.send_and_wait(connection.topic(SCHEMAS), unknown, key=b"999")
    await producer.stop()
    await add(connection, SharedSchema(id=id_of("result"), text=text_of("result")))

    # What is met there while it is read is not looked for there again, and so on without end.
    assert codec.decode(written("result", make_result())) == make_result()
    with pytest.raises(Unreadable, match="is unknown"):
        codec.decode(unknown)
