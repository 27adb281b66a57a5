"""`tenterhook integrations`, `send` and `admin` as processes, against services that really listen."""

import asyncio
import json
import os
import sys
from pathlib import Path

import pytest

from services.admin.bootstrap import Bootstrapped
from services.ingest import app as ingest
from services.runtime.settings import IngestSettings
from services.vault.opened import open_integration
from services.vault.seal import Keyring
from tests.admins import KEK, KNOWN, admin_at, admin_settings, furnish

TENTERHOOK = Path(sys.executable).with_name("tenterhook")


async def call(*arguments, cwd, stdin=b"", **environment):
    """Exit code, stdout and stderr of `tenterhook` with these arguments."""
    process = await asyncio.create_subprocess_exec(
        *(TENTERHOOK, *arguments),
        cwd=cwd,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env={name: value for name, value in os.environ.items() if name != "COLUMNS"} | environment,
    )
    out, err = await asyncio.wait_for(process.communicate(stdin), 60)
    return process.returncode, out.decode(), err.decode()


@pytest.fixture
async def admin(embedded_connection):
    await furnish(embedded_connection)
    async with admin_at(embedded_connection) as running:
        yield running


def ready_file(folder, known: Bootstrapped, **addresses):
    """What a running `up` leaves for the other commands."""
    content = {"app": known.app, "publicKey": known.public_key, "secretKey": known.secret_key, "token": known.token}
    (folder / ".tenterhook").mkdir()
    (folder / ".tenterhook" / "ready.json").write_text(json.dumps(content | addresses))


async def test_integrations_are_created_listed_and_deleted(admin, tmp_path):
    ready_file(tmp_path, KNOWN, admin=admin.served.url, ingest="http://127.0.0.1:1")
    (tmp_path / "token.txt").write_text("t=0ken\n")
    code, out, err = await call(
        *("integrations", "create", "--name", "[b]CRM[/b]", "--url", "https://crm.example/{secret.path}"),
        *("--events", "call_started,call_ended", "--events", "widget_opened", "--header", "X-A=b=c"),
        *(
            "--header",
            "Authorization=Bearer {secret.token}",
            "--secret",
            "path=p=1",
            "--secret-file",
            "token=token.txt",
        ),
        *("--ordering", "none", "--max-in-flight", "7", "--timeout-ms", "900", "--signing", "--json"),
        cwd=tmp_path,
    )
    created = json.loads(out)
    config = admin.config.integrations.get(created["id"])
    opened = open_integration(config, Keyring(KEK))

    assert (code, err) == (0, "")
    assert config.events == ["call_started", "call_ended", "widget_opened"]
    assert opened.headers == {"X-A": "b=c", "Authorization": "Bearer {secret.token}"}
    assert opened.secrets == {"path": "p=1", "token": "t=0ken"}
    assert (config.ordering, config.max_in_flight, config.timeout_ms, config.signing) == ("none", 7, 900, True)

    code, out, _ = await call("integrations", "create", "--name", "B", "--url", "http://b.example", "--events", "*",
                              "--profile", "booking", cwd=tmp_path)  # fmt: skip
    assert code == 0
    assert "Signing secret, shown this once: whsec_" in out

    table, listed = await asyncio.gather(
        call("integrations", "list", cwd=tmp_path), call("integrations", "list", "--json", cwd=tmp_path)
    )
    ids = [item["id"] for item in json.loads(listed[1])["items"]]
    assert (table[0], listed[0], len(ids), ids[0]) == (0, 0, 2, created["id"])
    assert "[b]CRM[/b]" in table[1]
    assert "https://crm.example/{secret.path}" in table[1]

    code, out, _ = await call("integrations", "delete", *ids, cwd=tmp_path)
    assert (code, out.splitlines()) == (0, [f"Deleted {each}" for each in ids])

    code, out, err = await call("integrations", "list", cwd=tmp_path)
    assert (code, out) == (0, "")
    assert "The app demo has none" in err


async def test_a_refusal_is_one_line_with_its_code_and_exit_code_1(admin, tmp_path):
    access = {"TENTERHOOK_ADMIN_URL": admin.served.url, "TENTERHOOK_APP": "demo", "TENTERHOOK_TOKEN": KNOWN.token}
    wrong, nobody = await asyncio.gather(
        call("integrations", "create", "--name", "x", "--url", "nowhere", cwd=tmp_path, **access),
        call("integrations", "delete", "int_1", "--admin", "http://127.0.0.1:1", cwd=tmp_path, **access),
    )

    for (code, out, err), said in (
        (wrong, "tenterhook: invalid_fields: url: must start with https://."),
        (nobody, "tenterhook: http://127.0.0.1:1 cannot be reached"),
    ):
        assert (code, out, err.count("\n")) == (1, "", 1)
        assert err.startswith(said)


async def test_wrong_usage_is_exit_code_2(tmp_path):
    misspelt, pair = await asyncio.gather(
        call("integrations", "lst", cwd=tmp_path),
        call(*("integrations", "create", "--name=x", "--url=https://x.example", "--secret=hunter2"), cwd=tmp_path),
    )

    assert (misspelt[0], pair[0]) == (2, 2)
    assert "--secret takes NAME=VALUE" in pair[2]
    assert "hunter2" not in pair[2]


async def test_events_are_sent_from_arguments_files_and_standard_input(embedded_connection, tmp_path):
    await furnish(embedded_connection)
    settings = admin_settings(embedded_connection, ingest=IngestSettings(port=0))
    (tmp_path / "payload.json").write_text('{"a": 1.50}')
    async with ingest.running(settings) as running:
        ready_file(tmp_path, KNOWN, ingest=running.served.url, admin="http://127.0.0.1:1")
        await _until_ready(running)
        one, piped, page, refused = await asyncio.gather(
            call(
                *("send", "call_ended", "--payload", "@payload.json", "--id", "e-1", "--ordering-key", "k", "--json"),
                cwd=tmp_path,
            ),
            call("send", "call_ended", "--payload", "-", "--count", "3", cwd=tmp_path, stdin=b"[1]"),
            call(*("send", "call_ended", "--key", KNOWN.public_key, "--origin", "https://shop.example"), cwd=tmp_path),
            call("send", "call_ended", "--key", "sk_wrong", "--count", "2", cwd=tmp_path),
        )

    assert (one[0], json.loads(one[1])["id"], one[2]) == (0, "e-1", "")
    assert (piped[0], piped[1]) == (0, "Accepted 3 events\n")
    assert page[0] == 0
    assert page[1].startswith("Accepted evt_")
    assert (refused[0], refused[1]) == (1, "")
    assert "key_unknown: " in refused[2]
    assert "(0 of 2 were accepted)" in refused[2]


async def _until_ready(running):
    async with asyncio.timeout(20):
        while running.trouble():  # noqa: ASYNC110 - as a probe of health asks
            await asyncio.sleep(0.02)


async def test_the_admin_service_runs_as_a_process_until_sigterm(embedded_connection, tmp_path):
    await furnish(embedded_connection)
    process = await asyncio.create_subprocess_exec(
        *(TENTERHOOK, "admin"),
        cwd=tmp_path,
        stderr=asyncio.subprocess.PIPE,
        env=os.environ | environment_of(embedded_connection),
    )
    ready = False
    async with asyncio.timeout(30):
        while line := await process.stderr.readline():
            if b"admin.ready" in line:
                ready = True
                process.terminate()
        code = await process.wait()

    assert (ready, code) == (True, 0)


def environment_of(connection):
    settings = admin_settings(connection)
    return {
        "TENTERHOOK_BROKER": settings.broker,
        "TENTERHOOK_TOPIC_PREFIX": settings.topic_prefix,
        "TENTERHOOK_KEK": settings.kek.get_secret_value(),
        "TENTERHOOK_PARTITIONS__BY_APP": str(settings.partitions.by_app),
        "TENTERHOOK_PARTITIONS__BY_INTEGRATION": str(settings.partitions.by_integration),
        "TENTERHOOK_ADMIN__PORT": "0",
    }
