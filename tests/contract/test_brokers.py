"""
What any broker must do for tenterhook: the same promises on the embedded one, on Apache Kafka and on a container.

What only Apache Kafka promises (lasting data, replicas, settings of topics) stands in the classes below.
"""

import asyncio
import gc
import random
import socket
import time
from contextlib import suppress
from dataclasses import replace

import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.errors import MessageSizeTooLargeError
from aiokafka.structs import OffsetAndMetadata

from schemas.profiles import MAX_BODY_BYTES
from services.cli.brokers import BrokerFailed
from services.cli.brokers.embedded import EmbeddedBroker
from services.runtime.liveness import ANSWER_S, broker_answers, keeper_answers
from streams import codec, follower, reading, topics
from streams.connection import IDLE_MS, BrokerAway, Connection, brokers_at, coordinator_answers, wait_for_broker
from streams.features import features_of
from streams.follower import Follower
from streams.producer import MAX_REQUEST_BYTES, open_producer
from streams.quarantine import Quarantine
from streams.topics import (
    APP_CONFIG,
    AUDIT,
    DELIVERIES,
    EVENTS,
    INTEGRATION_CONFIG,
    QUARANTINE,
    RESULTS,
    Partitions,
    TopicMismatch,
    ensure,
)
from tests.records import make_delivery
from tests.waiting import eventually

FEW = Partitions(by_app=2, by_integration=4)


@pytest.fixture
async def ready(connection):
    """The connection, its topics made."""
    await ensure(connection, FEW)
    return connection


@pytest.fixture
async def producer(ready):
    producer = await open_producer(ready, client_id="test")
    yield producer
    await producer.stop()


async def records_of(connection: Connection, topic: topics.Topic, partition: int = 0, *, count: int):
    """The first records of a partition, as many as asked for."""
    consumer = AIOKafkaConsumer(bootstrap_servers=connection.bootstrap, group_id=None, auto_offset_reset="earliest")
    place = TopicPartition(connection.topic(topic), partition)
    await consumer.start()
    try:
        consumer.assign([place])
        await consumer.seek_to_beginning(place)
        found = []
        async with asyncio.timeout(20):
            while len(found) < count:
                found += (await consumer.getmany(timeout_ms=1_000)).get(place, [])
        return found
    finally:
        await consumer.stop()


async def until(holds) -> None:
    """Returns when it holds."""
    async with asyncio.timeout(20):
        while not holds():  # noqa: ASYNC110 - no event tells
            await asyncio.sleep(0.01)


class Seen:
    """What a follower applied."""

    def __init__(self):
        self.records = []
        self.at_s = {}

    def apply(self, key, value, offset):
        self.records.append((key, value, offset))
        self.at_s[offset] = time.perf_counter()

    def clear(self):
        self.records.clear()


@pytest.fixture
async def following(ready):
    """Followers that are stopped at the end."""
    started = []

    async def follow(topic, apply, **options):
        one = Follower(ready, topic, apply, **options)
        started.append(one)
        await one.start()
        return one

    yield follow
    for one in started:
        await one.stop()


class TestAnyBroker:
    async def test_who_keeps_a_group_can_be_reached(self, ready):
        # The first that asks has Kafka make the topic of groups.
        await eventually(lambda: coordinator_answers(ready, f"{ready.prefix}group"))

    async def test_an_address_that_is_silent_keeps_nobody_from_hearing_another(self, ready):
        await eventually(lambda: keeper_answers(ready, "group"))
        with socket.create_server(("127.0.0.1", 0)) as silent:
            address = f"127.0.0.1:{silent.getsockname()[1]}"
            both = replace(ready, bootstrap=f"{address},{ready.bootstrap}, {address}")
            async with asyncio.timeout(ANSWER_S - 1):
                assert await broker_answers(both)
                assert await keeper_answers(both, "group")

    async def test_several_addresses_that_answer_leave_no_connection_open(self, ready):
        await eventually(lambda: keeper_answers(ready, "group"))
        several = replace(ready, bootstrap=",".join([ready.bootstrap] * 3))

        for _ in range(10):
            assert await broker_answers(several)
            assert await keeper_answers(several, "group")

        gc.collect()  # a connection that was left open warns, which fails the test

    async def test_a_silent_connection_is_closed_and_the_next_record_gets_another(self, ready):
        assert IDLE_MS < 240_000, "what stands between forgets it before"
        producer = await open_producer(ready, client_id="test", connections_max_idle_ms=200)
        try:
            await producer.send_and_wait(ready.topic(EVENTS), b"before", partition=0)
            connections = dict(producer.client._conns)
            await until(lambda: not any(each.connected() for each in connections.values()))

            async with asyncio.timeout(5):
                after = await producer.send_and_wait(ready.topic(EVENTS), b"after", partition=0)
        finally:
            await producer.stop()

        assert connections, "there was none to close"
        assert after.offset == 1

    async def test_records_of_a_partition_come_in_the_order_they_were_sent(self, ready, producer):
        name = ready.topic(EVENTS)
        sent = [await producer.send(name, b"%d" % number, partition=0) for number in range(500)]
        acknowledged = await asyncio.gather(*sent)

        found = await records_of(ready, EVENTS, count=500)

        assert [record.value for record in found] == [b"%d" % number for number in range(500)]
        assert [record.offset for record in found] == [metadata.offset for metadata in acknowledged]

    async def test_key_headers_and_tombstones_arrive_as_they_were(self, ready, producer):
        await producer.send_and_wait(ready.topic(AUDIT), b"value", key=b"key", headers=[("name", b"\x00")])
        await producer.send_and_wait(ready.topic(AUDIT), None, key=b"key")

        first, second = await records_of(ready, AUDIT, count=2)

        assert (first.key, first.value, first.headers) == (b"key", b"value", (("name", b"\x00"),))
        assert (second.key, second.value) == (b"key", None)

    async def test_a_key_goes_to_the_partition_that_murmur2_says(self, ready, producer):
        keys = [f"int_{number:04x}".encode() for number in range(40)]
        acknowledged = [await producer.send_and_wait(ready.topic(DELIVERIES), b"", key=key) for key in keys]

        assert [metadata.partition for metadata in acknowledged] == [(murmur2(key) & 0x7FFFFFFF) % 4 for key in keys]

    async def test_a_commit_keeps_its_metadata_and_a_member_resumes_there(self, any_broker, ready, producer):
        for number in range(5):
            await producer.send_and_wait(ready.topic(EVENTS), b"%d" % number, partition=1)
        place, group = TopicPartition(ready.topic(EVENTS), 1), ready.prefix + "group"
        options = {"bootstrap_servers": ready.bootstrap, "group_id": group, "enable_auto_commit": False}

        async with AIOKafkaConsumer(**options) as first:
            first.assign([place])
            await first.commit({place: OffsetAndMetadata(3, "floor=17")})
        async with AIOKafkaConsumer(**options) as second:
            second.assign([place])
            kept = (await second._coordinator.fetch_committed_offsets([place]))[place]
            async with asyncio.timeout(20):
                record = await second.getone()

        # The embedded broker forgets the metadata: there a takeover reads all that is kept, which is little.
        assert kept == OffsetAndMetadata(3, "" if any_broker.kind == "embedded" else "floor=17")
        assert (record.offset, record.value) == (3, b"3")

    async def test_making_topics_twice_and_by_several_at_once_changes_nothing(self, connection, producer_of):
        await asyncio.gather(*(ensure(connection, FEW) for _ in range(3)))
        producer = await producer_of(connection)
        await producer.send_and_wait(connection.topic(EVENTS), b"kept", partition=0)
        await ensure(connection, FEW)

        assert [record.value for record in await records_of(connection, EVENTS, count=1)] == [b"kept"]

    async def test_another_partition_count_is_refused_with_what_to_do(self, ready):
        with pytest.raises(TopicMismatch) as refused:
            await ensure(ready, Partitions(by_app=2, by_integration=8))

        message = str(refused.value)
        assert f"topic {ready.topic(DELIVERIES)} has 4 partitions, and these settings want 8" in message
        assert f"topic {ready.topic(RESULTS)} has 4" in message
        assert ready.topic(EVENTS) not in message
        assert "TENTERHOOK_PARTITIONS__BY_INTEGRATION=4" in message

    async def test_a_delivery_with_the_largest_payload_passes(self, ready, producer):
        delivery = make_delivery(payload=random.Random(7).randbytes(MAX_BODY_BYTES))
        await producer.send_and_wait(ready.topic(DELIVERIES), codec.encode(delivery), partition=2)

        (record,) = await records_of(ready, DELIVERIES, 2, count=1)

        assert codec.decode(record.value) == delivery

    async def test_the_largest_record_passes_and_a_larger_one_is_refused_before_it_is_sent(self, ready, producer):
        await producer.send_and_wait(ready.topic(AUDIT), bytes(MAX_REQUEST_BYTES - 200))
        with pytest.raises(MessageSizeTooLargeError):
            await producer.send_and_wait(ready.topic(AUDIT), bytes(MAX_REQUEST_BYTES + 1))
        await producer.send_and_wait(ready.topic(AUDIT), b"the producer still works")

        found = await records_of(ready, AUDIT, count=2)

        assert [len(record.value) for record in found] == [MAX_REQUEST_BYTES - 200, 24]

    async def test_a_quarantined_record_is_kept_as_it_was(self, ready, producer):
        await producer.send_and_wait(ready.topic(EVENTS), b"\xff", key=b"app", headers=[("h", b"1")], partition=1)
        (record,) = await records_of(ready, EVENTS, 1, count=1)

        await Quarantine(producer, ready, "fan-out", lambda: 1_700_000_000_000).put(record, "record.unreadable", "why")

        (kept,) = await records_of(ready, QUARANTINE, count=1)
        found = codec.decode(kept.value)
        assert (found.topic, found.partition, found.offset) == (ready.topic(EVENTS), 1, 0)
        assert (found.key, found.value, found.headers[0].name, found.headers[0].value) == (b"app", b"\xff", "h", b"1")
        assert (found.code, found.reason, found.agent, found.at_ms) == (
            "record.unreadable",
            "why",
            "fan-out",
            1_700_000_000_000,
        )

    async def test_a_record_that_fits_nowhere_is_quarantined_without_its_value(self, ready, producer, producer_of):
        foreign = await producer_of(ready, max_request_size=2 * MAX_REQUEST_BYTES)
        await foreign.send_and_wait(ready.topic(EVENTS), bytes(MAX_REQUEST_BYTES), partition=1)
        (record,) = await records_of(ready, EVENTS, 1, count=1)

        await Quarantine(producer, ready, "fan-out", lambda: 0).put(record, "record.unreadable", "why")

        (kept,) = await records_of(ready, QUARANTINE, count=1)
        found = codec.decode(kept.value)
        assert (found.offset, found.value) == (0, None)
        assert found.reason == f"why (its {MAX_REQUEST_BYTES} bytes fit in no record)"


class TestFollowing:
    async def test_a_follower_has_applied_all_that_was_there_when_it_starts(self, ready, producer, following):
        for number in range(1_200):
            await producer.send(ready.topic(APP_CONFIG), b"%d" % number, key=b"k")
        await producer.flush()
        seen = Seen()
        one = await following(APP_CONFIG, seen.apply)

        assert one.position == 1_200
        assert seen.records == [(b"k", b"%d" % number, number) for number in range(1_200)]

    async def test_a_follower_of_an_empty_topic_is_ready_at_once(self, following):
        one = await following(APP_CONFIG, Seen().apply)

        assert (one.position, one.is_live, await one.end(), await one.catch_up()) == (0, True, 0, 0)

    @pytest.mark.alone
    async def test_a_record_wakes_who_waits_for_it(self, ready, producer, following):
        seen = Seen()
        one = await following(INTEGRATION_CONFIG, seen.apply)
        late_s = []
        for number in range(12):
            await asyncio.sleep(random.Random(number).uniform(0, 0.06))
            sent_s = time.perf_counter()
            await producer.send_and_wait(ready.topic(INTEGRATION_CONFIG), b"v", key=b"k")
            await one.reach(number + 1)
            late_s.append(seen.at_s[number] - sent_s)

        # A reader that polled by the fetch's wait of 5 s would be late by seconds; a machine under load by some 0.1 s.
        assert sorted(late_s)[6] < 0.25

    async def test_after_catching_up_all_acknowledged_records_are_applied(self, ready, producer, following):
        seen = Seen()
        one = await following(INTEGRATION_CONFIG, seen.apply)

        for number in range(30):
            metadata = await producer.send_and_wait(ready.topic(INTEGRATION_CONFIG), b"%d" % number, key=b"k")
            reached = await asyncio.gather(*(one.catch_up() for _ in range(5)))

            assert min(reached) > metadata.offset
            assert seen.records[-1] == (b"k", b"%d" % number, metadata.offset)

    async def test_the_end_is_after_the_last_record_also_where_a_batch_held_several(self, ready, producer, following):
        one = await following(AUDIT, Seen().apply)
        for number in (1, 7, 600):
            sent = [await producer.send(ready.topic(AUDIT), b"v" * 100) for _ in range(number)]
            last = [await each for each in sent][-1]

            assert await one.end() == last.offset + 1
            assert await one.end() == last.offset + 1

    async def test_a_record_that_cannot_be_applied_does_not_stop_the_next(self, ready, producer, following):
        seen = []

        def apply(key, value, offset):
            if value == b"bad":
                raise RuntimeError("cannot")
            seen.append(value)

        one = await following(APP_CONFIG, apply)
        for value in (b"1", b"bad", b"2"):
            await producer.send_and_wait(ready.topic(APP_CONFIG), value, key=b"k")
        await one.catch_up()

        assert seen == [b"1", b"2"]

    async def test_a_stopped_follower_goes_on_where_it_was_when_it_is_started_again(self, ready, producer, following):
        seen = Seen()
        await producer.send_and_wait(ready.topic(APP_CONFIG), b"1", key=b"k")
        one = await following(APP_CONFIG, seen.apply)
        await one.stop()
        was_live = one.is_live
        await producer.send_and_wait(ready.topic(APP_CONFIG), b"2", key=b"k")
        await one.start()

        assert (was_live, one.is_live) == (False, True)
        assert [value for _, value, _ in seen.records] == [b"1", b"2"]

    async def test_who_waits_is_cancelled_when_the_follower_stops(self, following):
        one = await following(APP_CONFIG, Seen().apply)
        waiting = asyncio.create_task(one.reach(1))
        await asyncio.sleep(0)
        await one.stop()
        await asyncio.wait((waiting,))

        assert waiting.cancelled()


class TestAwayBrokers:
    async def test_nobody_listens(self):
        with pytest.raises(BrokerAway, match=r"127\.0\.0\.1:1: Connect"):
            await brokers_at(Connection("127.0.0.1:1"))
        assert not await coordinator_answers(Connection("127.0.0.1:1"), "group")

    async def test_a_broker_that_starts_later_is_waited_for_with_one_line(self, tmp_path):
        broker, lines = EmbeddedBroker(tmp_path), []
        waiting = asyncio.create_task(wait_for_broker(Connection(broker.bootstrap), say=lines.append))
        await asyncio.sleep(0.4)
        before = list(lines), waiting.done()
        await broker.start()
        try:
            await asyncio.wait_for(waiting, 10)
        finally:
            broker.kill()

        assert before == ([lines[0]], False)
        assert lines[0].startswith(f"waiting for a broker at {broker.bootstrap}: {broker.bootstrap}: Connect")
        assert "TENTERHOOK_BROKER" in lines[0]
        assert lines[1].startswith(f"the broker at {broker.bootstrap} is there")
        assert len(lines) == 2

    async def test_a_broker_that_cannot_start_says_why(self, tmp_path):
        with socket.create_server(("127.0.0.1", 0)) as server:
            port = server.getsockname()[1]
            with pytest.raises(BrokerFailed, match=r"(?s)embedded broker ended with exit code .*in use"):
                await EmbeddedBroker(tmp_path, port=port).start()

    async def test_waiting_ends_when_it_is_told_to_stop(self):
        stop = asyncio.Event()
        waiting = asyncio.create_task(wait_for_broker(Connection("127.0.0.1:1"), say=lambda _: stop.set(), stop=stop))

        await asyncio.wait_for(waiting, 5)

    async def test_what_listens_there_and_is_no_broker_is_said(self):
        async def greet(_, writer):
            writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
            writer.close()

        async with await asyncio.start_server(greet, "127.0.0.1", 0) as server:
            port = server.sockets[0].getsockname()[1]
            with pytest.raises(BrokerAway, match="does not answer as a Kafka broker"):
                await brokers_at(Connection(f"127.0.0.1:{port}"))

    async def test_a_broker_that_comes_back_empty_is_read_from_its_beginning(self, tmp_path, monkeypatch, producer_of):
        monkeypatch.setattr(follower, "_CHECK_S", 0.1)
        broker, seen = EmbeddedBroker(tmp_path), Seen()
        connection = Connection(broker.bootstrap, "t.")
        await broker.start()
        try:
            await ensure(connection, FEW)
            producer = await producer_of(connection)
            for value in (b"1", b"2", b"3"):
                await producer.send_and_wait("t.app-config", value, key=value)
            one = Follower(connection, APP_CONFIG, seen.apply, clear=seen.clear)
            await one.start()
            await empty_again(broker, connection)
            producer = await producer_of(connection)
            await producer.send_and_wait("t.app-config", b"4", key=b"4")
            await until(lambda: seen.records == [(b"4", b"4", 0)])
            position = one.position
            await one.stop()
        finally:
            broker.kill()

        assert position == 1


async def test_a_fetch_that_has_just_failed_does_not_end_who_stops_the_consumer(tmp_path):
    """With nobody at its broker's address any more: a fetch that failed waits before the next one."""
    broker = EmbeddedBroker(tmp_path)
    await broker.start()
    consumer = AIOKafkaConsumer(
        bootstrap_servers=broker.bootstrap, retry_backoff_ms=5_000, request_timeout_ms=1_000, fetch_max_wait_ms=50
    )
    await consumer.start()
    consumer.assign([TopicPartition("some", 0)])
    consumer.seek(TopicPartition("some", 0), 0)
    await consumer.getmany(timeout_ms=100)
    broker.kill()
    fetches = consumer._fetcher._pending_tasks
    await until(lambda: any(map(_sleeps, fetches)))

    stopping = asyncio.create_task(reading.stop(consumer))
    await asyncio.wait((stopping,), timeout=5)

    assert stopping.done()
    assert not stopping.cancelled()
    assert stopping.exception() is None
    assert consumer._client._sync_task is None, "it would go on to connect"


def _sleeps(task: "asyncio.Task[object]") -> bool:
    waits = task.get_coro().cr_await
    return not task.done() and waits is not None and waits.__name__ == "sleep"


async def empty_again(broker: EmbeddedBroker, connection: Connection, times: int = 5) -> None:
    """Started anew, with its topics. It makes what it is asked for, of four partitions: who reads may be first."""
    for _ in range(times):
        broker.kill()
        await broker.start()
        with suppress(TopicMismatch):
            return await ensure(connection, FEW)
    raise AssertionError(f"somebody asked before the topics were made, {times} times")


@pytest.fixture
async def producer_of():
    """Opens producers, and closes them at the end."""
    opened: list[AIOKafkaProducer] = []

    async def open_one(connection: Connection, **options):
        opened.append(await open_producer(connection, client_id="test", **options))
        return opened[-1]

    yield open_one
    for one in opened:
        await one.stop()


def murmur2(data: bytes) -> int:
    """Kafka's hash of a key, from its definition: the low 32 bits, unsigned. Another implementation than aiokafka's."""
    m, mask = 0x5BD1E995, 0xFFFFFFFF
    h = (0x9747B28C ^ len(data)) & mask
    whole = len(data) // 4 * 4
    for at in range(0, whole, 4):
        k = int.from_bytes(data[at : at + 4], "little") * m & mask
        k = (k ^ k >> 24) * m & mask
        h = (h * m & mask) ^ k
    if rest := data[whole:]:
        h = (h ^ int.from_bytes(rest, "little")) * m & mask
    h = (h ^ h >> 13) * m & mask
    return h ^ h >> 15


@pytest.mark.parametrize(
    ("data", "signed"),
    [(b"21", -973932308), (b"foobar", -790332482), (b"a-little-bit-long-string", -985981536), (b"abc", 479470107)],
)
def test_our_murmur2_is_kafka_s(data, signed):
    """Vectors of Apache Kafka's own UtilsTest."""
    assert murmur2(data) == signed & 0xFFFFFFFF


@pytest.mark.kafka
class TestApacheKafka:
    async def test_producers_are_idempotent_there(self, kafka_connection, producer_of):
        assert (await features_of(kafka_connection)).idempotence
        assert (await producer_of(kafka_connection))._txn_manager is not None

    async def test_producers_are_not_where_it_is_switched_off(self, kafka_broker, producer_of):
        off = Connection(kafka_broker.bootstrap, "t.", idempotence="off")

        assert (await producer_of(off))._txn_manager is None

    @pytest.mark.parametrize(
        ("topic", "setting", "value"),
        [
            (EVENTS, "retention.ms", "3600000"),
            (EVENTS, "cleanup.policy", "compact"),
            (INTEGRATION_CONFIG, "cleanup.policy", "delete"),
            (RESULTS, "max.message.bytes", "100000"),
            (RESULTS, "retention.bytes", "1000000"),
        ],
    )
    async def test_a_topic_setting_that_breaks_a_promise_is_refused(
        self, kafka_connection, admin, topic, setting, value
    ):
        name = kafka_connection.topic(topic)
        await make_topic(admin, name, topics.partition_count(topic, FEW), {setting: value})

        with pytest.raises(TopicMismatch, match=rf"topic {name} has {setting}={value}, and must have"):
            await ensure(kafka_connection, FEW)

    async def test_a_topic_setting_that_promises_more_is_accepted(self, kafka_connection, admin):
        more = {"retention.ms": "-1", "max.message.bytes": "8000000", "segment.ms": "9999999"}
        await make_topic(admin, kafka_connection.topic(EVENTS), 2, more)

        await ensure(kafka_connection, FEW)

    async def test_a_replication_that_the_cluster_cannot_have_is_refused(self, kafka_connection, monkeypatch):
        monkeypatch.setattr(topics, "_CREATE_S", 0.3)
        with pytest.raises(TopicMismatch, match="InvalidReplicationFactor"):
            await ensure(kafka_connection, FEW, replication=2)

    async def test_a_transaction_s_marker_at_the_end_does_not_keep_a_follower_waiting(
        self, kafka_connection, producer_of
    ):
        await ensure(kafka_connection, FEW)
        seen = Seen()
        one = Follower(kafka_connection, APP_CONFIG, seen.apply)
        await one.start()
        producer = await producer_of(kafka_connection, transactional_id=kafka_connection.prefix)
        async with producer.transaction():
            await producer.send(kafka_connection.topic(APP_CONFIG), b"1", key=b"k")
        try:
            async with asyncio.timeout(10):
                reached = 0
                while reached < 2:  # the marker is written after the commit was answered
                    reached = await asyncio.wait_for(one.catch_up(), 2)
        finally:
            await one.stop()

        assert (reached, seen.records) == (2, [(b"k", b"1", 0)])

    async def test_nothing_acknowledged_is_lost_or_repeated_when_the_broker_is_killed(
        self, kafka_broker, kafka_connection, producer_of
    ):
        await ensure(kafka_connection, FEW)
        name, seen, acknowledged = kafka_connection.topic(APP_CONFIG), Seen(), []
        one = Follower(kafka_connection, APP_CONFIG, seen.apply)
        await one.start()
        producer = await producer_of(kafka_connection)
        enough = asyncio.Event()

        async def send() -> None:
            while len(acknowledged) < 400 or not enough.is_set():
                value = b"%d" % len(acknowledged)
                metadata = await producer.send_and_wait(name, value, key=b"k")
                acknowledged.append((b"k", value, metadata.offset))

        sending = asyncio.create_task(send())
        await until(lambda: len(acknowledged) >= 100)
        kafka_broker.kill()
        before = len(acknowledged)
        restarting = asyncio.create_task(kafka_broker.start())
        caught_up = asyncio.create_task(one.catch_up())
        await restarting
        enough.set()
        await asyncio.wait_for(sending, 60)
        await asyncio.wait_for(asyncio.gather(caught_up, one.catch_up()), 30)
        live = one.is_live
        await one.stop()

        assert len(acknowledged) >= 400 > before
        assert seen.records == acknowledged
        assert live


@pytest.mark.kafka
class TestThreeBrokers:
    async def test_topics_have_three_replicas_and_outlive_a_broker(
        self, kafka_cluster, cluster_connection, producer_of
    ):
        """Acknowledged means that two have it: killing any one of three loses nothing, and writing goes on."""
        await ensure(cluster_connection, FEW)
        seen, sent = Seen(), []
        one = Follower(cluster_connection, APP_CONFIG, seen.apply)
        await one.start()
        producer = await producer_of(cluster_connection)

        async def send(count: int) -> None:
            for _ in range(count):
                value = b"%d" % len(sent)
                metadata = await producer.send_and_wait(cluster_connection.topic(APP_CONFIG), value, key=b"k")
                sent.append((b"k", value, metadata.offset))

        await send(50)
        leader = producer.client.cluster.leader_for_partition(TopicPartition(cluster_connection.topic(APP_CONFIG), 0))
        kafka_cluster.nodes[leader - 1].kill()
        try:
            await asyncio.wait_for(send(50), 60)
            await asyncio.wait_for(one.catch_up(), 30)
        finally:
            await one.stop()

        assert seen.records == sent


@pytest.fixture
async def admin(kafka_connection):
    from aiokafka.admin import AIOKafkaAdminClient

    admin = AIOKafkaAdminClient(bootstrap_servers=kafka_connection.bootstrap)
    await admin.start()
    yield admin
    await admin.close()


async def make_topic(admin, name: str, partitions: int, settings: dict[str, str]) -> None:
    from aiokafka.admin import NewTopic

    answer = await admin.create_topics([NewTopic(name, partitions, 1, topic_configs=settings)])
    assert [error[1] for error in answer.topic_errors] == [0]
