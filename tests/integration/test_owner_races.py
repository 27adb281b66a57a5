"""What a process may rely on when a change returns, and what it waits for before it decides one."""

import asyncio
import time

import msgspec
import pytest

from schemas.profiles import INTEGRATION
from services.admin import changes
from services.admin.audit import FIRST, chained
from services.admin.changes import integration_writes
from services.admin.tokens import Caller
from services.runtime.problems import Problem
from streams import codec
from streams.connection import Connection
from streams.producer import open_producer
from streams.records import AuditRecord, Command, CommandReply
from streams.topics import AUDIT, COMMAND_REPLIES, COMMANDS, CONFIG_HISTORY, INTEGRATION_CONFIG
from tests.admins import admin_at, furnish, put_apps
from tests.apps import make_app
from tests.owning import raw_records, whole
from tests.records import make_integration
from tests.waiting import eventually

pytestmark = [pytest.mark.kafka, pytest.mark.slow]

CALLER = Caller("ada", "admin", b"")
BODY = {"name": "CRM", "url": "https://crm.example/hooks", "events": ["call_ended"]}


def made_audit(action: str, version: int, before: bytes) -> AuditRecord:
    """The record of a change of `int_1` that somebody has made."""
    return chained(
        id=f"aud_{version}",
        app="demo",
        at_ms=1,
        who="eve",
        ip=None,
        action=action,
        target="int_1",
        allowed=True,
        details={"version": str(version)},
        previous_hash=before,
    )


async def test_when_a_change_returns_every_view_shows_it(kafka_connection: Connection):
    """A commit is confirmed before it is visible, and visible in one topic before it is in another."""
    await furnish(kafka_connection)
    await put_apps(kafka_connection, make_app("many", max_active=100))
    async with admin_at(kafka_connection) as one, admin_at(kafka_connection) as other:
        for process in (one, other) * 15:
            app = process.config.apps.get("many")
            assert app is not None
            made = (await process.commands.create(app, INTEGRATION, BODY, CALLER, None))["id"]

            assert process.config.integrations.get(made) is not None
            assert process.config.versions.get(made, 1) is not None
            # And whoever asks the broker from now on, in another process.
            elsewhere = other if process is one else one
            await elsewhere.config.catch_up()
            assert elsewhere.config.integrations.get(made) is not None
            assert (await elsewhere.commands.patch(app, INTEGRATION, made, {"name": "x"}, '"1"', CALLER))[
                "version"
            ] == 2
    await whole(kafka_connection)


async def test_a_change_is_decided_on_all_that_was_written_with_the_end_of_the_chain(kafka_connection: Connection):
    """
    The audit record of somebody's change is visible, its configuration is not yet: no change is decided in between.

    Else it would be made for an end of the chain whose configuration it has not seen, and undo that.
    """
    await furnish(kafka_connection)
    writer = await open_producer(kafka_connection, client_id="test", transactional_id=f"{kafka_connection.prefix}other")
    plain = await open_producer(kafka_connection, client_id="test")
    made = make_integration("int_1", timeout_ms=5_000)
    created = made_audit("integration.create", 1, FIRST)
    updated = made_audit("integration.update", 2, created.hash)
    try:
        await plain.send_and_wait(kafka_connection.topic(AUDIT), codec.encode(created), key=b"demo")
        for write in integration_writes(made):
            await plain.send_and_wait(kafka_connection.prefix + write.topic, write.value, key=b"int_1")
        async with admin_at(kafka_connection) as admin:
            app = admin.config.apps.get("demo")
            assert app is not None
            await writer.begin_transaction()
            for write in integration_writes(msgspec.structs.replace(made, version=2, timeout_ms=1_234)):
                await writer.send_and_wait(kafka_connection.prefix + write.topic, write.value, key=b"int_1")
            await plain.send_and_wait(kafka_connection.topic(AUDIT), codec.encode(updated), key=b"demo")
            await eventually(lambda: admin.config.chains.last("demo") == updated.hash)
            patching = asyncio.create_task(
                admin.commands.patch(app, INTEGRATION, "int_1", {"name": "mine"}, None, CALLER)
            )
            await asyncio.sleep(1)
            assert not patching.done()
            await writer.commit_transaction()
            patched = await patching

            assert (patched["name"], patched["timeoutMs"], patched["version"]) == ("mine", 1_234, 3)
    finally:
        await writer.stop()
        await plain.stop()
    await whole(kafka_connection)


async def test_a_command_that_is_there_twice_is_made_once_and_answered_alike(kafka_connection: Connection):
    """A producer that had no answer sends again: beside the first, or long after it."""
    await furnish(kafka_connection)
    producer = await open_producer(kafka_connection, client_id="test")
    config = make_integration("int_1")
    audit = made_audit("integration.create", 1, FIRST)
    command = Command(
        id=audit.id,
        app="demo",
        reply_to="somebody",
        until_ms=time.time_ns() // 1_000_000 + 60_000,
        audit=codec.encode(audit),
        writes=integration_writes(config),
    )
    topic = kafka_connection.topic(COMMANDS)
    try:
        # Before there is an owner, so that it gets them together.
        for _ in range(3):
            await producer.send_and_wait(topic, codec.encode(command), key=b"demo")
        async with admin_at(kafka_connection):

            async def outcomes(count: int) -> list[str] | None:
                found = [
                    codec.decode_as(CommandReply, each.value).outcome
                    for each in await raw_records(kafka_connection, COMMAND_REPLIES)
                ]
                return found if len(found) >= count else None

            assert await eventually(lambda: outcomes(3), 30) == ["done"] * 3
            await producer.send_and_wait(topic, codec.encode(command), key=b"demo")
            assert await eventually(lambda: outcomes(4), 30) == ["done"] * 4
    finally:
        await producer.stop()
    found = await whole(kafka_connection)
    assert len(found.audit) == len(found.history[config.id]) == 1


async def test_nobody_waits_behind_others_for_longer_than_for_the_owner(kafka_connection: Connection, monkeypatch):
    """Without an owner, requests of one app do not add up."""
    monkeypatch.setattr(changes, "PATIENCE_S", 1.0)
    await furnish(kafka_connection)
    async with admin_at(kafka_connection) as admin:
        app = admin.config.apps.get("demo")
        assert app is not None
        assert admin.owning is not None
        await admin.owning.stop()
        began_s = time.monotonic()
        ended = await asyncio.gather(
            *(admin.commands.create(app, INTEGRATION, BODY, CALLER, None) for _ in range(10)), return_exceptions=True
        )

    assert time.monotonic() - began_s < 5
    assert all(isinstance(each, Problem) and each.status == 503 for each in ended)
    assert await raw_records(kafka_connection, INTEGRATION_CONFIG) == []
    assert await raw_records(kafka_connection, CONFIG_HISTORY) == []
