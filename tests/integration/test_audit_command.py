"""The command over an audit log on a real broker: a whole one is proven, and what was done to one shows."""

import asyncio
import json
import time
from typing import Any

import msgspec
import pytest

from services.admin.audit import FIRST, chained, hash_of_record
from services.cli.audit import audit, list_, verify_
from services.cli.log_access import LogOptions
from services.runtime.times import iso
from streams import codec
from streams.connection import Connection
from streams.producer import open_producer
from streams.records import AuditRecord
from streams.topics import AUDIT, ensure
from tests.admins import PARTITIONS

APPS = ("one", "two")

#: A minute ago: the broker dates records by its own time.
BEGAN_MS = time.time_ns() // 1_000_000 - 60_000


def chains(count: int = 5) -> list[AuditRecord]:
    """The chains of both apps, taking turns."""
    ends, made = dict.fromkeys(APPS, FIRST), []
    for number in range(2 * count):
        app = APPS[number % 2]
        record = chained(
            id=f"aud_{number}",
            app=app,
            at_ms=BEGAN_MS + number * 1_000,
            who="ada",
            ip="192.0.2.1",
            action="integration.update",
            target=f"int_{app}",
            allowed=number != 3,
            details={"version": str(number)},
            previous_hash=ends[app],
        )
        ends[app] = record.hash
        made.append(record)
    return made


async def put(connection: Connection, records: list[AuditRecord], **options: Any) -> None:
    producer = await open_producer(connection, client_id="test", **options)
    try:
        for each in records:
            await producer.send_and_wait(connection.topic(AUDIT), codec.encode(each), key=each.app.encode())
    finally:
        await producer.stop()


def log_at(connection: Connection) -> LogOptions:
    return LogOptions(broker=connection.bootstrap, topic_prefix=connection.prefix)


async def verified(connection: Connection, capsys: Any) -> tuple[int, dict[str, Any]]:
    """Exit code and report."""
    capsys.readouterr()
    code = await asyncio.to_thread(verify_, log=log_at(connection), as_json=True)
    return code, json.loads(capsys.readouterr().out)


def broken(report: dict[str, Any]) -> dict[str, tuple[str | None, int]]:
    """By app: id and offset of the first broken record."""
    return {each["app"]: (each["broken"]["id"], each["broken"]["offset"]) for each in report["apps"] if each["broken"]}


async def test_a_whole_log_is_proven_and_listed(connection: Connection, capsys: Any):
    await ensure(connection, PARTITIONS)
    empty, report = await verified(connection, capsys)
    assert (empty, report) == (0, {"whole": True, "apps": []})

    made = chains()
    await put(connection, made)
    code, report = await verified(connection, capsys)

    assert (code, report["whole"]) == (0, True)
    assert [(each["app"], each["records"], each["end"]) for each in report["apps"]] == [
        ("one", 5, made[-2].hash.hex()),
        ("two", 5, made[-1].hash.hex()),
    ]
    assert await asyncio.to_thread(audit, verify=True, log=log_at(connection)) == 0
    assert "Proven" in capsys.readouterr().out

    since = iso(BEGAN_MS + 2_000)
    await asyncio.to_thread(list_, of="two", since=since, limit=3, log=log_at(connection), as_json=True)
    listed = json.loads(capsys.readouterr().out)
    assert ([each["id"] for each in listed["items"]], listed["leftOut"]) == (["aud_5", "aud_7", "aud_9"], 1)
    await asyncio.to_thread(list_, since=since, log=log_at(connection))
    [refused] = [line for line in capsys.readouterr().out.splitlines() if "version=3" in line]
    assert " no " in refused


def changed(made: list[AuditRecord]) -> list[AuditRecord]:
    return [msgspec.structs.replace(each, who="eve") if each.id == "aud_4" else each for each in made]


def changed_with_its_hash(made: list[AuditRecord]) -> list[AuditRecord]:
    """By somebody who knows how hashes are made."""
    forged = [msgspec.structs.replace(each, who="eve") if each.id == "aud_4" else each for each in made]
    return [msgspec.structs.replace(each, hash=hash_of_record(each)) for each in forged]


def removed(made: list[AuditRecord]) -> list[AuditRecord]:
    return [each for each in made if each.id != "aud_4"]


def first_removed(made: list[AuditRecord]) -> list[AuditRecord]:
    return [each for each in made if each.id != "aud_0"]


def swapped(made: list[AuditRecord]) -> list[AuditRecord]:
    return [*made[:4], made[6], made[5], made[4], *made[7:]]


def put_in(made: list[AuditRecord]) -> list[AuditRecord]:
    return [*made[:5], made[2], *made[5:]]


@pytest.mark.parametrize(
    ("tamper", "first"),
    [
        (changed, ("aud_4", 4)),
        (changed_with_its_hash, ("aud_6", 6)),
        (removed, ("aud_6", 5)),
        (first_removed, ("aud_2", 1)),
        (swapped, ("aud_6", 4)),
        (put_in, ("aud_2", 5)),
    ],
)
async def test_what_was_done_to_a_log_shows_and_the_other_app_is_whole(
    embedded_connection: Connection, capsys: Any, tamper: Any, first: tuple[str, int]
):
    await ensure(embedded_connection, PARTITIONS)
    await put(embedded_connection, tamper(chains()))
    code, report = await verified(embedded_connection, capsys)

    assert (code, report["whole"]) == (1, False)
    assert broken(report) == {"one": first}
    assert await asyncio.to_thread(verify_, log=log_at(embedded_connection)) == 1
    told = capsys.readouterr().out
    assert first[0] in told
    assert "Broken: 1 of 2 chains" in told


async def test_bytes_that_are_no_record_and_a_record_under_a_wrong_key_show(
    embedded_connection: Connection, capsys: Any
):
    await ensure(embedded_connection, PARTITIONS)
    made = chains()
    await put(embedded_connection, made[:4])
    producer = await open_producer(embedded_connection, client_id="test")
    topic = embedded_connection.topic(AUDIT)
    await producer.send_and_wait(topic, codec.encode(made[4]), key=b"two")
    await producer.send_and_wait(topic, b"\0\0", key=b"two")
    await producer.send_and_wait(topic, codec.encode(made[5]), key=b"two")
    await producer.stop()
    code, report = await verified(embedded_connection, capsys)

    assert code == 1
    assert broken(report) == {"one": ("aud_4", 4), "two": (None, 5)}


@pytest.mark.kafka
async def test_what_a_transaction_took_back_does_not_count(kafka_connection: Connection, capsys: Any):
    """An owner that died before it committed has left its records there."""
    await ensure(kafka_connection, PARTITIONS)
    made = chains()
    await put(kafka_connection, made[:6])
    dying = await open_producer(kafka_connection, client_id="test", transactional_id=f"{kafka_connection.prefix}dying")
    await dying.begin_transaction()
    await dying.send_and_wait(kafka_connection.topic(AUDIT), codec.encode(made[2]), key=b"one")
    await dying.abort_transaction()
    await dying.stop()
    await put(kafka_connection, made[6:])
    code, report = await verified(kafka_connection, capsys)

    assert (code, report["whole"]) == (0, True)
    assert sum(each["records"] for each in report["apps"]) == 10
