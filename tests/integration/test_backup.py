"""The configuration of one installation, from a backup, is that of another: on Apache Kafka, between services."""

import asyncio
import json
import uuid
from pathlib import Path
from typing import Any

import pytest

from services.cli.audit import verify_
from services.cli.backup import backup, restore
from services.cli.errors import Failed
from services.cli.log_access import LogOptions
from streams.connection import Connection
from tests.admins import PARTITIONS, admin_at, client_of, furnish


@pytest.fixture(autouse=True)
def _partitions(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TENTERHOOK_PARTITIONS__BY_APP", str(PARTITIONS.by_app))
    monkeypatch.setenv("TENTERHOOK_PARTITIONS__BY_INTEGRATION", str(PARTITIONS.by_integration))


def log_at(connection: Connection) -> LogOptions:
    return LogOptions(broker=connection.bootstrap, topic_prefix=connection.prefix)


async def test_a_restored_installation_is_the_one_that_was_backed_up(
    kafka_connection: Connection, tmp_path: Path, capsys: Any
) -> None:
    await furnish(kafka_connection)
    new = {
        "name": "CRM",
        "url": "https://crm.example/hooks/{secret.path}",
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
        history = (await client.get(f"{path}/history")).json()
        integration = (await client.get(path)).json()

    file = tmp_path / "tenterhook.backup"
    await asyncio.to_thread(backup, file, log=log_at(kafka_connection), as_json=True)
    counts = json.loads(capsys.readouterr().out.splitlines()[-1])["records"]
    assert counts["integration-config"] >= 3
    assert counts["config-history"] >= 3
    assert counts["audit"] >= 3

    # Another cluster, as far as anything on it can tell.
    other = Connection(kafka_connection.bootstrap, f"{kafka_connection.prefix}{uuid.uuid4().hex[:6]}.")
    await asyncio.to_thread(restore, file, log=log_at(other), as_json=True)
    assert json.loads(capsys.readouterr().out.splitlines()[-1])["records"] == counts

    async with admin_at(other) as admin, client_of(admin) as client:
        assert (await client.get(path)).json() == integration
        assert (await client.get(f"{path}/history")).json() == history
        revealed = await client.post(f"{path}/secrets/path/reveal")
        assert revealed.json()["value"] == "another-path"
        again = await client.patch(path, json={"name": "CRM, restored"})
        assert again.status_code == 200, again.text
        assert again.json()["version"] > integration["version"]
    assert await asyncio.to_thread(verify_, log=log_at(other), as_json=True) == 0
    capsys.readouterr()

    with pytest.raises(Failed, match="there are records on"):
        await asyncio.to_thread(restore, file, log=log_at(other))


def test_what_is_no_backup_is_refused_before_anything_is_asked(tmp_path: Path) -> None:
    file = tmp_path / "other"
    file.write_text("no backup")
    with pytest.raises(Failed, match="no whole backup"):
        restore(file)
