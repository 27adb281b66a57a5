"""
The configuration of one installation, from a backup, is that of another: on Apache Kafka, between services.

The other is on a cluster of its own, which has never heard of the first, and delivers.
"""

import asyncio
import gzip
import json
import stat
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition

from services.admin.bootstrap import ConfigUnreadable
from services.cli.audit import verify_
from services.cli.backup import Kept, backup, lines_of, records_of, restore
from services.cli.brokers.kafka import KafkaBroker
from services.cli.errors import Failed
from services.cli.log_access import LogOptions, until_committed
from services.cli.reconcile import reconcile
from services.ingest.app import running as ingesting
from services.runtime.times import iso
from streams import codec, topics
from streams.connection import Connection
from streams.registry import SchemaRegistry
from tests.admins import KNOWN, PARTITIONS, admin_at, admin_settings, client_of, furnish
from tests.apps import make_app
from tests.dispatching import dispatching
from tests.logs import make_event
from tests.receiving import Receiver, receiver
from tests.registries import listening_registry
from tests.waiting import eventually

CONFIG = ("app-config", "integration-config")

HOUR_MS = 3_600_000
#: When the first of the mirrored events was accepted.
FIRST_MS = int(time.time() * 1000) - 72 * HOUR_MS


@pytest.fixture(autouse=True)
def _partitions(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TENTERHOOK_PARTITIONS__BY_APP", str(PARTITIONS.by_app))
    monkeypatch.setenv("TENTERHOOK_PARTITIONS__BY_INTEGRATION", str(PARTITIONS.by_integration))


@pytest.fixture
async def elsewhere(kafka_broker: KafkaBroker, tmp_path: Path) -> AsyncIterator[Connection]:
    """A node of Apache Kafka that nothing is on yet. The first one is there still, for other tests."""
    new = KafkaBroker(tmp_path / "elsewhere", nodes=1)
    await new.start()
    try:
        assert new.bootstrap != kafka_broker.bootstrap
        yield Connection(new.bootstrap)
    finally:
        new.kill()


def log_at(connection: Connection) -> LogOptions:
    return LogOptions(broker=connection.bootstrap, topic_prefix=connection.prefix)


async def test_a_restored_installation_is_the_one_that_was_backed_up_and_delivers(
    kafka_connection: Connection, elsewhere: Connection, tmp_path: Path, capsys: Any
) -> None:
    await furnish(kafka_connection)
    async with receiver() as crm:
        new = {
            "name": "CRM",
            "url": f"{crm.endpoint.url}/{{secret.path}}",
            "events": ["call_ended"],
            "headers": {"Authorization": "Bearer literal"},
            "secrets": {"path": "the-secret-path"},
            "signing": True,
        }
        async with admin_at(kafka_connection) as admin, client_of(admin) as client:
            answer = await client.post("/v1/apps/demo/integrations", json=new)
            assert answer.status_code == 201, answer.text
            made = answer.json()
            path = f"/v1/apps/demo/integrations/{made['id']}"
            put = await client.put(f"{path}/secrets/path", json={"value": "another-path"})
            assert put.status_code < 300, put.text
            changed = await client.patch(path, json={"name": "CRM, new"})
            assert changed.status_code == 200, changed.text
            # Often: what was skipped is named by an offset that the new topic does not come to in this test.
            for _ in range(3):
                assert (await client.post(f"{path}/pause")).status_code == 200
                skipped = await client.post(f"{path}/activate", json={"held": "skip"})
                assert skipped.status_code == 200, skipped.text
            history = (await client.get(f"{path}/history")).json()
            integration = (await client.get(path)).json()

        file = tmp_path / "tenterhook.backup"
        await asyncio.to_thread(backup, file, log=log_at(kafka_connection), as_json=True)
        counts = json.loads(capsys.readouterr().out.splitlines()[-1])["records"]
        assert stat.S_IMODE(file.stat().st_mode) == 0o600
        assert counts["integration-config"] >= 3
        assert counts["config-history"] >= 3
        assert counts["audit"] >= 3

        await asyncio.to_thread(restore, file, log=log_at(elsewhere), as_json=True)
        assert json.loads(capsys.readouterr().out.splitlines()[-1]) == {"records": counts, "unreadable": 0}

        async with admin_at(elsewhere) as admin, client_of(admin) as client:
            assert (await client.get(path)).json() == integration
            assert (await client.get(f"{path}/history")).json() == history
            revealed = await client.post(f"{path}/secrets/path/reveal")
            assert revealed.json()["value"] == "another-path"
            again = await client.patch(path, json={"name": "CRM, restored"})
            assert again.status_code == 200, again.text
            assert again.json()["version"] > integration["version"]
            await deliver_one(elsewhere, crm)
    assert await asyncio.to_thread(verify_, log=log_at(elsewhere), as_json=True) == 0
    capsys.readouterr()

    with pytest.raises(Failed, match="there are records on"):
        await asyncio.to_thread(restore, file, log=log_at(elsewhere))


async def deliver_one(connection: Connection, crm: Receiver) -> None:
    """With the app's key and the integration's secrets, which came out of the backup."""
    settings = admin_settings(connection, ingest={"port": 0})
    async with ingesting(settings) as ingest, dispatching(connection, PARTITIONS), httpx.AsyncClient() as http:
        await eventually(lambda: ingest.trouble() is None, 30)
        event = {"id": "call-7", "type": "call_ended", "payload": {"n": 7}}
        headers = {"Authorization": f"Bearer {KNOWN.secret_key}"}
        answer = await http.post(f"{ingest.served.url}/v1/apps/demo/events", json=event, headers=headers)
        assert answer.status_code == 202, answer.text
        await crm.wait_for("another-path", 1)
    [arrival] = crm.arrivals["another-path"]
    assert (arrival.event_id, arrival.number) == ("call-7", 7)
    assert arrival.request.header("authorization") == "Bearer literal"
    assert arrival.request.header("webhook-signature") is not None
    assert set(crm.arrivals) == {"another-path"}


@asynccontextmanager
async def failed_over(connection: Connection, elsewhere: Connection, folder: Path) -> AsyncIterator[Receiver]:
    """
    The other cluster has a mirror of `events`, five of an integration that has had the first three, an hour apart, and
    the configuration; nothing has run there. With whom they are sent to.
    """
    await furnish(connection)
    async with receiver() as crm:
        new = {"name": "CRM", "url": f"{crm.endpoint.url}/crm", "events": ["call_ended"]}
        async with admin_at(connection) as admin, client_of(admin) as client:
            answer = await client.post("/v1/apps/demo/integrations", json=new)
            assert answer.status_code == 201, answer.text
        file = folder / "tenterhook.backup"
        await asyncio.to_thread(backup, file, log=log_at(connection), as_json=True)
        await topics.ensure(elsewhere, PARTITIONS)
        async with AIOKafkaProducer(bootstrap_servers=elsewhere.bootstrap, acks="all") as producer:
            for number in range(5):
                at_ms = FIRST_MS + number * HOUR_MS
                event = codec.encode(make_event(number, accepted_at_ms=at_ms, occurred_at_ms=at_ms))
                topic = elsewhere.topic(topics.EVENTS)
                await producer.send_and_wait(topic, event, key=b"demo", timestamp_ms=at_ms)
        await asyncio.to_thread(restore, file, log=log_at(elsewhere), as_json=True)
        yield crm


async def start_at(connection: Connection, at_ms: int) -> None:
    """What `kafka-consumer-groups.sh --reset-offsets --to-datetime` asks the broker for."""
    async with AIOKafkaConsumer(
        bootstrap_servers=connection.bootstrap, group_id=f"{connection.prefix}dispatcher", enable_auto_commit=False
    ) as consumer:
        partitions = [
            TopicPartition(connection.topic(topics.EVENTS), number)
            for number in range(topics.partition_count(topics.EVENTS, PARTITIONS))
        ]
        consumer.assign(partitions)
        found = await consumer.offsets_for_times(dict.fromkeys(partitions, at_ms))
        ends = await consumer.end_offsets(partitions)
        await consumer.commit({each: ends[each] if found[each] is None else found[each].offset for each in partitions})


async def test_a_second_region_goes_on_at_the_time_that_its_offsets_are_set_to(
    kafka_connection: Connection, elsewhere: Connection, tmp_path: Path, capsys: Any
) -> None:
    whole_ms = FIRST_MS + 3 * HOUR_MS
    async with failed_over(kafka_connection, elsewhere, tmp_path) as crm:
        await start_at(elsewhere, whole_ms)
        async with dispatching(elsewhere, PARTITIONS):
            await crm.wait_for("crm", 2)
        assert [each.number for each in crm.arrivals["crm"]] == [3, 4]
    capsys.readouterr()
    log = log_at(elsewhere)
    assert await asyncio.to_thread(reconcile, since=iso(whole_ms), log=log, as_json=True) == 0
    assert await asyncio.to_thread(reconcile, log=log, as_json=True) == 1
    found = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert found["counts"] == {"no_receipt": 3}


async def test_a_second_region_without_offsets_sends_all_that_was_mirrored(
    kafka_connection: Connection, elsewhere: Connection, tmp_path: Path
) -> None:
    """So the plan for one sets them first."""
    async with failed_over(kafka_connection, elsewhere, tmp_path) as crm:
        async with dispatching(elsewhere, PARTITIONS):
            await crm.wait_for("crm", 5)
        assert [each.number for each in crm.arrivals["crm"]] == [0, 1, 2, 3, 4]


async def test_what_cannot_be_read_is_refused_and_written_again_out_of_a_backup_while_services_run(
    kafka_connection: Connection, tmp_path: Path, capsys: Any
) -> None:
    """An app and an integration of which compaction has left nothing but what cannot be read."""
    await furnish(kafka_connection)
    async with admin_at(kafka_connection) as admin, client_of(admin) as client:
        new = {"name": "CRM", "url": "https://crm.example/hooks", "events": ["call_ended"], "signing": True}
        made = (await client.post("/v1/apps/demo/integrations", json=new)).json()
        path = f"/v1/apps/demo/integrations/{made['id']}"
        integration = (await client.get(path)).json()
    file, broken = tmp_path / "whole.backup", tmp_path / "broken.backup"
    await asyncio.to_thread(backup, file, log=log_at(kafka_connection), as_json=True)
    with gzip.open(file, "rt", encoding="ascii") as given:
        records = list(records_of(given))
    with gzip.open(broken, "wt", encoding="ascii") as output:
        spoilt = [
            each._replace(value=b"{}") if each.key in (b"demo", made["id"].encode()) and each.topic in CONFIG else each
            for each in records
        ]
        output.writelines(f"{line}\n" for line in lines_of(spoilt, at_ms=0))
    left = Connection(kafka_connection.bootstrap, f"{kafka_connection.prefix}left.")
    capsys.readouterr()
    await asyncio.to_thread(restore, broken, log=log_at(left))
    assert capsys.readouterr().err.startswith("2 of them cannot be read by this process")

    async with admin_at(left) as admin, client_of(admin) as client:

        async def refused(method: str, path: str, **body: Any) -> bool:
            answer = await client.request(method, path, **body)
            told = answer.status_code, answer.json().get("code"), answer.headers.get("Retry-After")
            return told == (503, "config_unreadable", "30")

        assert await refused("GET", path)
        assert await refused("DELETE", path)
        assert await refused("POST", "/v1/apps", json={"id": "demo"})
        client.headers["Authorization"] = "Bearer tok_of_the_app"
        assert await refused("GET", path)
        assert await refused("GET", "/v1/apps")
        client.headers["Authorization"] = f"Bearer {KNOWN.token}"
        with pytest.raises(ConfigUnreadable, match="demo"):
            await furnish(left)

        capsys.readouterr()
        await asyncio.to_thread(restore, file, unreadable=True, log=log_at(left), as_json=True)
        counts = {"audit": 0, "config-history": 0, "app-config": 1, "integration-config": 1}
        assert json.loads(capsys.readouterr().out.splitlines()[-1])["records"] == counts
        assert (await client.get(path)).json() == integration
        changed = await client.patch(path, json={"name": "CRM, again"})
        assert (changed.status_code, changed.json()["version"]) == (200, integration["version"] + 1)
        await asyncio.to_thread(restore, file, unreadable=True, log=log_at(left), as_json=True)
        assert json.loads(capsys.readouterr().out.splitlines()[-1])["records"] == dict.fromkeys(counts, 0)


async def test_what_is_committed_is_waited_for_until_it_shows(kafka_connection: Connection) -> None:
    """An open transaction holds back what others have committed behind it, as a commit that still spreads does."""
    await topics.ensure(kafka_connection, PARTITIONS)
    async with asyncio.timeout(5):
        await until_committed(kafka_connection, topics.APP_CONFIG)
    producer = AIOKafkaProducer(
        bootstrap_servers=kafka_connection.bootstrap, transactional_id=f"{kafka_connection.prefix}other"
    )
    await producer.start()
    try:
        await producer.begin_transaction()
        await producer.send_and_wait(kafka_connection.topic(topics.APP_CONFIG), b"v", key=b"k")
        waiting = asyncio.create_task(until_committed(kafka_connection, topics.AUDIT, topics.APP_CONFIG))
        done, _ = await asyncio.wait((waiting,), timeout=1)
        assert not done
        await producer.commit_transaction()
        async with asyncio.timeout(10):
            await waiting
    finally:
        await producer.stop()


async def test_records_with_a_registry_s_ids_are_told_where_nobody_has_those(
    kafka_connection: Connection, tmp_path: Path, capsys: Any
) -> None:
    """As they are restored, since they can be read once it is there."""
    file = tmp_path / "of-a-registry"
    try:
        with listening_registry() as registry:
            SchemaRegistry(registry.url).use()
            records = [Kept("app-config", b"demo", codec.encode(make_app()), 1)]
    finally:
        codec.use_no_registry()
    with gzip.open(file, "wt", encoding="ascii") as output:
        output.writelines(f"{line}\n" for line in lines_of(records, at_ms=0))
    await asyncio.to_thread(restore, file, log=log_at(kafka_connection), as_json=True)
    said = capsys.readouterr()
    assert json.loads(said.out.splitlines()[-1])["unreadable"] == 1
    assert "set TENTERHOOK_SCHEMA_REGISTRY_URL" in said.err


def test_what_is_no_backup_is_refused_before_anything_is_asked(tmp_path: Path) -> None:
    file = tmp_path / "other"
    file.write_text("no backup")
    with pytest.raises(Failed, match="no whole backup"):
        restore(file)
