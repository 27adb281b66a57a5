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


async def test_odd_requests_are_refused_and_told_why(admin):
    """What schemathesis does not think of, or not every time."""
    there = "/v1/apps/demo/integrations"
    created = {"name": "A", "url": "https://a.example"}
    expected = {
        ("GET", "/v1/apps/%00/integrations"): (404, "app_unknown"),
        ("GET", "/v1/apps/%FF%ED%A0%80/integrations"): (404, "app_unknown"),
        ("GET", "/v1/apps/*/integrations"): (404, "app_unknown"),
        ("GET", "/v1/apps/demo%2Fdemo/integrations"): (404, "app_unknown"),
        ("GET", f"{there}/%00"): (404, "integration_unknown"),
        ("DELETE", f"{there}/{'a' * 7_000}"): (404, "integration_unknown"),
        ("GET", f"{there}/{'a' * 9_000}"): (400, "not_http"),
        ("GET", f"{there}/"): (404, "not_found"),
        ("GET", f"{there}?limit={'9' * 5_000}"): (400, "invalid_query"),
        ("GET", f"{there}?limit=1&limit=2"): (400, "invalid_query"),
        ("GET", f"{there}?%FF=1"): (400, "invalid_query"),
        ("TRACE", there): (405, "method_not_allowed"),
        ("PROPFIND", there): (405, "method_not_allowed"),
        ("POST", there, b'{"name": "\xff"}'): (400, "invalid_json"),
        ("POST", there, b'{"name": "A"} trailing'): (400, "invalid_json"),
        ("POST", there, b"[" * 900 + b"]" * 900): (400, "invalid_json"),
        ("POST", there, b"[" * 100_000): (400, "invalid_json"),
        ("POST", there, b'{"timeoutMs": 1' + b"0" * 5_000 + b"}"): (400, "invalid_json"),
        ("POST", there, b" " * 1_048_577): (413, "request_too_large"),
        ("POST", there, b"{}", ("Content-Encoding", "gzip")): (415, "unsupported_media_type"),
        ("POST", there, b"{}", ("Content-Type", "text/xml")): (415, "unsupported_media_type"),
        ("POST", there, b"{}", (b"Idempotency-Key", b"\xe9")): (400, "invalid_header"),
    }
    async with client_of(admin) as api:
        made = f"{there}/{(await api.post(there, json=created)).json()['id']}"
        expected |= {
            ("PATCH", made, b"{}", ("If-Match", "1")): (400, "invalid_header"),
            ("PATCH", made, b"{}", ("If-Match", '"2"')): (412, "version_mismatch"),
            ("GET", f"{made}/history/{'1' * 5_000}"): (404, "version_unknown"),
        }
        answers = {
            (method, path, *rest): await api.request(
                method, path, content=rest[0] if rest else None, headers=[rest[1]] if len(rest) > 1 else None
            )
            for method, path, *rest in expected
        }

    assert {each: (answer.status_code, answer.json()["code"]) for each, answer in answers.items()} == expected
    assert {answer.headers["Content-Type"] for answer in answers.values()} == {"application/problem+json"}
    assert {answer.headers["Allow"] for answer in answers.values() if answer.status_code == 405} == {"GET, POST"}


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
