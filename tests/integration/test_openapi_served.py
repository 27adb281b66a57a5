"""
The served description and the running admin service: schemathesis tries the one against the other.

Every check of schemathesis is on. What it tries with which token, and for how long, `tried` says.
"""

import asyncio
import os
import re
import sys
from pathlib import Path

import pytest

from services.admin.openapi import described
from services.runtime.settings import AdminSettings
from streams import codec
from streams.connection import Connection
from streams.producer import open_producer
from streams.records import Result
from streams.topics import RESULTS
from tests.admins import KNOWN, admin_at, client_of, furnish, make_token, put_apps
from tests.apps import make_app
from tests.breaking import make_result
from tests.histories import BLOCKED, DELIVERED

ROOT = Path(__file__).parents[2]
VIEWER = "tok_viewer"
ENDED = DELIVERED | {"attempt": 2}
OPERATIONS = sum(len(methods) for methods in described()["paths"].values())

#: A version that is not the present one is told before the shape of a body; a 5xx never passes.
CONFIG = """
[checks.positive_data_acceptance]
expected-statuses = ["2xx", "401", "403", "404", "409", "410", "412", "429"]

[checks.negative_data_rejection]
expected-statuses = ["400", "401", "403", "404", "405", "409", "412", "413", "415", "429"]
"""


@pytest.fixture
async def admin(kafka_connection: Connection):
    await furnish(kafka_connection)
    await put_apps(
        kafka_connection,
        make_app("demo", max_active=1_000, tokens=[make_token(VIEWER, "viewer")]),
        # For what would end an app: tests/schemathesis_hooks.py.
        make_app("spare"),
    )
    await _put_results(
        kafka_connection, make_result(1), make_result(1, **ENDED), make_result(2), make_result(3, **BLOCKED)
    )
    async with admin_at(kafka_connection, admin=AdminSettings(port=0)) as running:
        yield running


async def _put_results(connection: Connection, *results: Result) -> None:
    """Deliveries to show: `dlv_int_1_1` and so on, of an integration that is not there any more."""
    producer = await open_producer(connection, client_id="test")
    try:
        for each in results:
            await producer.send_and_wait(connection.topic(RESULTS), codec.encode(each), key=each.integration.encode())
    finally:
        await producer.stop()


async def tried(url: str, token: str | None, folder: Path, *options: str, app: str = "demo") -> str:
    """
    Runs schemathesis; what it says. Fails the test with that where it found anything.

    Args:
        app: in which everything is tried; empty: any, most of which are not there.
    """
    settings = folder / "schemathesis.toml"
    settings.write_text(CONFIG)
    command = [sys.executable, "-m", "schemathesis.cli", "--config-file", str(settings), "run", f"{url}/openapi.json"]
    command += ["--checks", "all", "--no-color", "--generation-database", "none", "--continue-on-failure", *options]
    command += [] if token is None else ["--header", f"Authorization: Bearer {token}"]
    process = await asyncio.create_subprocess_exec(
        *command,
        cwd=folder,
        env=os.environ | {"PYTHONPATH": str(ROOT), "SCHEMATHESIS_HOOKS": "tests.schemathesis_hooks", "TRIED_APP": app},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    try:
        output, _ = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    said = output.decode()

    assert process.returncode == 0, said
    return said


def are_all_tested(said: str) -> bool:
    return re.search(rf"Tested: +{OPERATIONS}\b", said) is not None


async def test_it_is_served_without_a_token_as_it_is_committed(admin):
    async with client_of(admin, token=None) as api:
        answer = await api.get("/openapi.json")

    assert answer.status_code == 200
    assert answer.headers["Content-Type"] == "application/json"
    assert answer.json() == described()


@pytest.mark.slow
@pytest.mark.timeout(300)
async def test_what_is_served_is_what_is_described(admin, tmp_path):
    """As nobody and as a viewer a little of everything; as an admin what fits in most of a minute."""
    few = ("--phases", "fuzzing", "--max-examples", "2")
    for token in (None, VIEWER):
        assert are_all_tested(await tried(admin.served.url, token, tmp_path, *few))
    said = await tried(admin.served.url, KNOWN.token, tmp_path, "--max-examples", "5", "--max-time", "40")

    assert int(re.findall(r"(\d+) generated", said)[0]) > 50, said
    assert admin.config.integrations.all(), "nothing was created, so little was tried"


@pytest.mark.long
@pytest.mark.timeout(2_400)
@pytest.mark.parametrize("app", ["demo", ""], ids=["in an app", "in any app"])
async def test_what_is_served_is_what_is_described_for_longer(admin, tmp_path, app):
    for token, seconds in ((KNOWN.token, 600), (VIEWER, 120), (None, 60)):
        said = await tried(admin.served.url, token, tmp_path, "--max-time", str(seconds), app=app)
        assert are_all_tested(said), said


@pytest.mark.timeout(120)
async def test_secrets_that_do_not_open_are_told_as_such(kafka_connection):
    """A bit of a header's sealed value has turned over."""
    await furnish(kafka_connection)
    path = "/v1/apps/demo/integrations"
    body = {"name": "A", "url": "https://a.example", "headers": {"X-A": "b"}, "signing": True}
    async with admin_at(kafka_connection) as admin, client_of(admin) as api:
        made = (await api.post(path, json=body)).json()
        await api.patch(f"{path}/{made['id']}", json={"name": "B"})
        for integration in (*admin.config.integrations.all(), *admin.config.versions.newest_first(made["id"])):
            sealed = {name: value[:-1] + bytes([value[-1] ^ 1]) for name, value in integration.headers.items()}
            integration.headers.clear()
            integration.headers.update(sealed)
        shown = await api.get(f"{path}/{made['id']}")
        refused = [
            await api.patch(f"{path}/{made['id']}", json={"name": "C"}),
            await api.post(f"{path}/{made['id']}/rollback", json={"version": 1}),
        ]

    assert shown.json()["headers"] == {"X-A": "***"}
    assert [(answer.status_code, answer.json()["code"]) for answer in refused] == [(409, "secret_unreadable")] * 2
