"""The delivery history of a log on a real broker: read, followed, gone on with, read anew when the log is another."""

import asyncio
import sqlite3
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from aiokafka import TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, RecordsToDelete
from structlog.testing import capture_logs

from services.history.query import Wanted
from services.history.read_model import History
from services.runtime.clock import now_ms
from services.runtime.problems import Problem
from services.runtime.settings import HistorySettings
from streams import codec, topics
from streams.connection import Connection
from streams.producer import open_producer
from streams.records import HandOver, Marker, Result
from tests.admins import admin_at, client_of, furnish
from tests.breaking import make_result
from tests.histories import DELIVERED, everything_in, told_by
from tests.logs import PARTITIONS
from tests.waiting import eventually

DEMO = Wanted(app="demo")
MARKER = Marker(source_topic="deliveries", source_partition=0, generation=1, owner="w", at_ms=0)
HAND_OVER = HandOver(
    delivery_id="dlv_1", integration="int_1", attempt=1, source_partition=0, source_offset=0, source_generation=1,
    until_ms=0,
)  # fmt: skip


def recent(number: int, integration: str = "int_1", **changes: Any) -> Result:
    """Of now, so that it is within retention."""
    return make_result(number, integration, started_at_ms=now_ms(), finished_at_ms=now_ms(), **DELIVERED | changes)


async def put(connection: Connection, *records: Any, partition: int = 0) -> None:
    producer = await open_producer(connection, client_id="test")
    try:
        topic = connection.topic(topics.RESULTS)
        sent = [
            await producer.send(topic, each if isinstance(each, bytes) else codec.encode(each), partition=partition)
            for each in records
        ]
        await asyncio.gather(*sent)
    finally:
        await producer.stop()


@asynccontextmanager
async def followed(connection: Connection, directory: Path) -> AsyncIterator[History]:
    history = History(connection, HistorySettings(directory=directory), PARTITIONS.by_integration, now_ms=now_ms)
    history.start()
    try:
        await asyncio.wait_for(history.caught_up(), 30)
        yield history
    finally:
        await history.stop()


async def listed(history: History) -> list[str]:
    return sorted(row.delivery_id for row in (await history.page(DEMO, limit=1_000)).items)


async def lists(history: History, *ids: str, within_s: float = 20) -> None:
    async def does() -> bool:
        try:
            return await listed(history) == sorted(ids)
        except Problem:
            return False

    await eventually(does, within_s)


async def test_what_is_there_and_what_comes_is_in_it_and_the_rest_is_passed_over(connection, tmp_path):
    await topics.ensure(connection, PARTITIONS)
    await put(connection, MARKER, recent(1, outcome=None), b"poison", HAND_OVER, recent(2))
    await put(connection, recent(3, "int_2"), partition=2)
    async with followed(connection, tmp_path) as history:
        at_start = await listed(history)
        await put(connection, recent(1, attempt=2), MARKER)
        await eventually(lambda: history.lag == 0)

        async def has_ended() -> bool:
            told = await history.delivery("demo", "dlv_int_1_1")
            return told is not None and len(told.results) == 2 and told.row.outcome == "delivered"

        await eventually(has_ended)
        trouble, unreadable = history.trouble, history._store.unreadable

    assert at_start == ["dlv_int_1_1", "dlv_int_1_2", "dlv_int_2_3"]
    assert (trouble, unreadable) == (None, 1)


async def test_at_the_next_start_it_has_what_came_meanwhile(connection, tmp_path):
    await topics.ensure(connection, PARTITIONS)
    await put(connection, *(recent(number) for number in range(20)))
    async with followed(connection, tmp_path) as history:
        before = await listed(history)
    await put(connection, recent(20), partition=1)
    async with followed(connection, tmp_path) as history:
        after = await listed(history)

    assert (len(before), len(after)) == (20, 21)


async def test_a_broker_that_forgot_everything_is_read_into_an_empty_file(embedded_connection, tmp_path):
    """It gives topics no ids: what another life of it said cannot be told from what this one says."""
    await topics.ensure(embedded_connection, PARTITIONS)
    await put(embedded_connection, recent(1))
    async with followed(embedded_connection, tmp_path):
        pass
    other = Connection(embedded_connection.bootstrap, embedded_connection.prefix + "other.")
    await topics.ensure(other, PARTITIONS)
    await put(other, recent(2), recent(3))
    async with followed(other, tmp_path) as history:
        assert await listed(history) == ["dlv_int_1_2", "dlv_int_1_3"]


@pytest.mark.kafka
async def test_it_goes_on_in_the_same_file_where_topics_have_ids(kafka_connection, tmp_path):
    await topics.ensure(kafka_connection, PARTITIONS)
    await put(kafka_connection, recent(1))
    async with followed(kafka_connection, tmp_path) as history:
        first = history._store.path
    await put(kafka_connection, recent(2))
    async with followed(kafka_connection, tmp_path) as history:
        assert history._store.path == first
        assert await listed(history) == ["dlv_int_1_1", "dlv_int_1_2"]


@pytest.mark.kafka
async def test_a_file_that_was_lost_is_made_anew_and_says_the_same(kafka_connection, tmp_path):
    await topics.ensure(kafka_connection, PARTITIONS)
    its = [recent(number, outcome=None if number % 3 else "delivered") for number in range(300)]
    await put(kafka_connection, *its)
    await put(kafka_connection, *(recent(number, "int_2") for number in range(300)), partition=1)
    async with followed(kafka_connection, tmp_path / "a") as history:
        kept = everything_in(history._store.path)
    async with followed(kafka_connection, tmp_path / "b") as history:
        anew = everything_in(history._store.path)

    assert anew == kept
    assert kept[0][:300] == told_by((0, offset, codec.encode(each)) for offset, each in enumerate(its))[0]


@pytest.mark.kafka
async def test_a_topic_that_was_made_again_is_read_into_an_empty_file(kafka_connection, tmp_path):
    """While it is followed, and between two starts; the new one is longer than the old one was."""
    await topics.ensure(kafka_connection, PARTITIONS)
    await put(kafka_connection, recent(1), recent(2))
    async with followed(kafka_connection, tmp_path) as history:
        await made_again(kafka_connection)
        await put(kafka_connection, *(recent(number) for number in (3, 4, 5)))
        await lists(history, "dlv_int_1_3", "dlv_int_1_4", "dlv_int_1_5", within_s=60)
    await made_again(kafka_connection)
    await put(kafka_connection, *(recent(number) for number in (6, 7, 8, 9)))
    async with followed(kafka_connection, tmp_path) as history:
        assert await listed(history) == [f"dlv_int_1_{number}" for number in (6, 7, 8, 9)]


async def made_again(connection: Connection) -> None:
    admin = AIOKafkaAdminClient(bootstrap_servers=connection.bootstrap)
    await admin.start()
    await admin.delete_topics([connection.topic(topics.RESULTS), connection.topic(topics.INSTALLATION)])
    await admin.close()
    await asyncio.sleep(1)
    await topics.ensure(connection, PARTITIONS)


@pytest.mark.kafka
async def test_what_has_fallen_out_of_the_log_stays_and_what_was_missed_is_passed_over(kafka_connection, tmp_path):
    await topics.ensure(kafka_connection, PARTITIONS)
    await put(kafka_connection, recent(1))
    async with followed(kafka_connection, tmp_path):
        pass
    await put(kafka_connection, recent(2), recent(3))
    admin = AIOKafkaAdminClient(bootstrap_servers=kafka_connection.bootstrap)
    await admin.start()
    place = TopicPartition(kafka_connection.topic(topics.RESULTS), 0)
    await admin.delete_records({place: RecordsToDelete(before_offset=2)})
    await admin.close()
    async with followed(kafka_connection, tmp_path) as history:
        assert await listed(history) == ["dlv_int_1_1", "dlv_int_1_3"]


@pytest.mark.kafka
async def test_it_goes_on_when_the_broker_is_back(kafka_broker, kafka_connection, tmp_path):
    await topics.ensure(kafka_connection, PARTITIONS)
    await put(kafka_connection, recent(1))
    async with followed(kafka_connection, tmp_path) as history:
        kafka_broker.kill()
        await kafka_broker.start()
        await put(kafka_connection, recent(2))
        await lists(history, "dlv_int_1_1", "dlv_int_1_2", within_s=30)
        await eventually(lambda: history.trouble is None)


@pytest.mark.kafka
async def test_a_file_that_breaks_under_it_is_made_anew(kafka_connection, tmp_path):
    await topics.ensure(kafka_connection, PARTITIONS)
    await put(kafka_connection, recent(1))
    async with followed(kafka_connection, tmp_path) as history:
        broken = history._store.path
        history._store._file.execute("PRAGMA writable_schema = ON")
        history._store._file.execute("UPDATE sqlite_schema SET rootpage = 99999 WHERE name = 'attempts'")
        history._store._file.execute("PRAGMA writable_schema = RESET")
        await put(kafka_connection, recent(2))
        await lists(history, "dlv_int_1_1", "dlv_int_1_2", within_s=30)
        assert history._store.path != broken


async def test_a_full_disk_is_said_once_stops_nothing_else_and_nothing_is_missing_when_there_is_room(
    embedded_connection, tmp_path, monkeypatch
):
    monkeypatch.setattr("services.history.follow._PAUSES_S", (0.02, 0.1))
    monkeypatch.setattr("services.history.read_model._SWEEP_EVERY_S", 0.02)
    tries = {"fold": 0, "sweep": 0}
    before, later = recent(0), [recent(number) for number in range(1, 1_000)]
    await furnish(embedded_connection)
    await put(embedded_connection, before)
    async with (
        admin_at(embedded_connection, history=HistorySettings(directory=tmp_path)) as admin,
        client_of(admin) as client,
    ):
        history, store = admin.history, admin.history._store
        fold = store.fold

        def counted(*arguments: Any) -> None:
            tries["fold"] += 1
            fold(*arguments)

        def no_room(*_: Any) -> None:
            tries["sweep"] += 1
            raise sqlite3.OperationalError("database or disk is full")

        await lists(history, before.delivery_id)
        # As on a disk on which the file cannot grow.
        await history._written(store._file.execute, "PRAGMA max_page_count = 1")
        with capture_logs() as said:
            monkeypatch.setattr(store, "fold", counted)
            monkeypatch.setattr(store, "sweep", no_room)
            await put(embedded_connection, *later)
            await eventually(lambda: min(tries.values()) >= 5, 30)
            trouble = history.trouble
            up = [(await client.get(path)).status_code for path in ("/health/live", "/health/ready", "/v1/apps/demo")]
            shown = (await client.get("/v1/apps/demo/deliveries")).json()["items"]
            monkeypatch.undo()
            await history._written(store._file.execute, "PRAGMA max_page_count = 1000000")
            await eventually(lambda: history.trouble is None and history.lag == 0, 30)
            told = everything_in(store.path)

    assert "database or disk is full" in trouble
    assert up == [200, 200, 200]
    assert [each["id"] for each in shown] == [before.delivery_id]
    assert told == told_by((0, offset, codec.encode(each)) for offset, each in enumerate([before, *later]))
    warned = [line["event"] for line in said if line["event"].startswith("history.") and line["log_level"] == "warning"]
    assert sorted(warned) == ["history.not_swept", "history.not_written"]
