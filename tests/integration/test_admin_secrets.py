"""Secrets over real HTTP: stored, never shown but once, every try on the audit log."""

import asyncio
import base64
import json
import os

import pytest

from services.admin.app import main
from services.cli import secrets
from services.cli.access import AdminOptions
from services.cli.errors import Failed, WrongUsage
from services.runtime.serving import StartupError
from services.runtime.settings import AdminSettings
from services.vault.data_keys import with_data_key
from services.vault.opened import open_integration
from services.vault.seal import DataKeyErased, Keyring
from streams.topics import AUDIT, COMMANDS, CONFIG_HISTORY, INTEGRATION_CONFIG
from tests.admins import KNOWN, admin_at, admin_settings, client_of, furnish, make_token, put_apps
from tests.apps import make_app
from tests.integration.test_admin_api import INTEGRATIONS, SUBSCRIPTIONS, problem_of, records

BODY = {"name": "CRM", "url": "https://crm.example/{secret.path}", "events": ["*"], "secrets": {"path": "FIRST-VALUE"}}


@pytest.fixture
async def admin(kafka_connection):
    await furnish(kafka_connection)
    async with admin_at(kafka_connection, admin=AdminSettings(port=0, trusted_proxies="127.0.0.0/8")) as running:
        yield running


@pytest.fixture
async def api(admin):
    async with client_of(admin) as client:
        yield client


async def tries(api):
    listed = (await api.get("/v1/apps/demo/audit", params={"action": "secret.reveal"})).json()["items"]
    return [(each["who"], each["ip"], each["allowed"], each["details"]) for each in reversed(listed)]


async def test_a_secret_is_put_listed_revealed_once_a_version_and_deleted(api, admin, kafka_connection):
    path = (await api.post(INTEGRATIONS, json=BODY)).headers["Location"]
    secret = f"{path}/secrets/path"
    first = await api.post(f"{secret}/reveal", headers={"X-Forwarded-For": "1.1.1.1, 203.0.113.9"})
    again = await api.post(f"{secret}/reveal")
    put = await api.put(secret, json={"value": "SECOND-VALUE"})
    second = await api.post(f"{secret}/reveal")
    in_use = await api.delete(secret)
    await api.put(f"{path}/secrets/other", json={"value": "THIRD-VALUE"})
    listed = (await api.get(f"{path}/secrets")).json()["items"]
    deleted = await api.delete(f"{path}/secrets/other")
    unknown = await api.post(f"{path}/secrets/other/reveal")

    assert first.json() == {"name": "path", "version": 1, "value": "FIRST-VALUE"}
    assert first.headers["Cache-Control"] == "no-store"
    assert problem_of(again) == (409, "already_revealed")
    assert (put.json()["version"], put.json()["revealedAt"]) == (2, None)
    assert second.json()["value"] == "SECOND-VALUE"
    assert problem_of(in_use) == (409, "secret_in_use")
    assert [(each["name"], each["version"]) for each in listed] == [("other", 1), ("path", 2)]
    assert deleted.status_code == 204
    assert problem_of(unknown) == (404, "secret_unknown")
    assert await tries(api) == [
        ("up", "203.0.113.9", True, {"secret": "path", "version": "1"}),
        ("up", "127.0.0.1", False, {"secret": "path", "version": "1", "refused": "already_revealed"}),
        ("up", "127.0.0.1", True, {"secret": "path", "version": "2"}),
        ("up", "127.0.0.1", False, {"secret": "other", "refused": "secret_unknown"}),
    ]
    topics = (INTEGRATION_CONFIG, CONFIG_HISTORY, AUDIT, COMMANDS)
    written = b"".join([value or b"" for topic in topics for _, value in await records(kafka_connection, topic)])
    assert len(written) > 5_000
    assert not any(f"{each}-VALUE".encode() in written for each in ("FIRST", "SECOND", "THIRD"))


async def test_a_version_is_revealed_once_however_many_ask_at_once(api, admin, kafka_connection):
    path = (await api.post(INTEGRATIONS, json=BODY)).headers["Location"]
    async with admin_at(kafka_connection) as second, client_of(second) as other:
        asked = [each.post(f"{path}/secrets/path/reveal") for each in (api, other) * 4]
        answers = await asyncio.gather(*asked)

    assert sorted(answer.status_code for answer in answers) == [200] + [409] * 7
    assert [allowed for _, _, allowed, _ in await tries(api)].count(True) == 1
    assert len(await tries(api)) == 8


async def test_ten_an_hour_and_a_viewer_none(api, admin, kafka_connection):
    await put_apps(
        kafka_connection, make_app("*", tokens=[*admin.config.apps.get("*").tokens, make_token("v", "viewer")])
    )
    path = (await api.post(INTEGRATIONS, json=BODY)).headers["Location"]
    for number in range(11):
        await api.put(f"{path}/secrets/s{number}", json={"value": f"value-{number}"})
    shown = [await api.post(f"{path}/secrets/s{number}/reveal") for number in range(11)]
    async with client_of(admin, "v") as viewer:
        refused = await viewer.post(f"{path}/secrets/path/reveal")

    assert [answer.status_code for answer in shown] == [200] * 10 + [429]
    assert problem_of(shown[-1]) == (429, "reveal_limit")
    assert 3_500 < int(shown[-1].headers["Retry-After"]) <= 3_600
    assert problem_of(refused) == (403, "role_insufficient")
    assert (await tries(api))[-1][2:] == (False, {"secret": "path", "version": "1", "refused": "role_insufficient"})


async def test_a_signing_secret_is_rotated_with_an_overlap(api, admin):
    created = (await api.post(SUBSCRIPTIONS, json=BODY)).json()
    path = f"{SUBSCRIPTIONS}/{created['id']}"
    rotated = (await api.post(f"{path}/rotate")).json()
    both = open_integration(admin.config.integrations.get(created["id"]), admin.vault).signing
    now = (await api.post(f"{path}/rotate", json={"now": True})).json()
    one = open_integration(admin.config.integrations.get(created["id"]), admin.vault).signing
    unsigned = (await api.post(INTEGRATIONS, json=BODY)).headers["Location"]

    assert rotated["signingSecret"] not in (created["signingSecret"], now["signingSecret"])
    assert rotated["previousValidUntil"] is not None
    assert [secret for secret, _ in both] == [rotated["signingSecret"], created["signingSecret"]]
    assert now["previousValidUntil"] is None
    assert [secret for secret, _ in one] == [now["signingSecret"]]
    assert problem_of(await api.post(f"{unsigned}/rotate")) == (409, "signing_off")
    assert problem_of(await api.post(f"{path}/rotate", json={"overlapMs": 0})) == (400, "invalid_fields")
    assert KNOWN.token not in str(await tries(api))


async def test_the_command_stores_reveals_and_rotates(api, admin, capsys):
    created = (await api.post(SUBSCRIPTIONS, json=BODY)).json()
    access = AdminOptions(app="demo", admin=admin.served.url, token=KNOWN.token)

    async def said(command, *given, **options):
        capsys.readouterr()
        await asyncio.to_thread(command, *given, access=access, as_json=True, **options)
        return [json.loads(line) for line in capsys.readouterr().out.splitlines() if line.startswith("{")]

    [stored] = await said(secrets.put, created["id"], secret=("token=VALUE=1",))
    [shown] = await said(secrets.reveal, created["id"], "token")
    [listed] = await said(secrets.list_, created["id"])
    [rotated] = await said(secrets.rotate, created["id"], overlap_hours=0.5)
    await said(secrets.delete, created["id"], "token")
    with pytest.raises(Failed, match="secret_in_use"):
        await asyncio.to_thread(secrets.delete, created["id"], "path", access=access)
    with pytest.raises(WrongUsage):
        secrets.rotate(created["id"], overlap_hours=1, now=True, access=access)

    assert (stored["name"], stored["version"]) == ("token", 1)
    assert shown["value"] == "VALUE=1"
    assert [each["name"] for each in listed["items"]] == ["path", "token"]
    assert rotated["signingSecret"].startswith("whsec_")


async def test_a_kek_is_replaced_while_everything_runs_and_then_not_needed(kafka_connection, capsys):
    await furnish(kafka_connection)
    old, new = (base64.b64encode(bytes([number] * 32)).decode() for number in (1, 2))
    async with admin_at(kafka_connection, kek=old) as admin, client_of(admin) as api:
        ids = [(await api.post(SUBSCRIPTIONS, json=BODY)).json()["id"] for _ in range(6)]
    async with admin_at(kafka_connection, kek=new, kek_previous=old) as admin, client_of(admin) as api:
        access = AdminOptions(app="demo", admin=admin.served.url, token=KNOWN.token)
        assert await asyncio.to_thread(secrets.rewrap, all_apps=True, access=access, as_json=True) == 0
        again = (await api.post("/v1/apps/demo/rewrap", json={})).json()
    async with admin_at(kafka_connection, kek=new) as admin, client_of(admin) as api:
        plain = (await api.post(f"{SUBSCRIPTIONS}/{ids[0]}/secrets/path/reveal")).json()["value"]
        wrong = await api.post("/v1/apps/demo/erase", json={"confirm": "other"})
        done = await api.post("/v1/apps/demo/erase", json={"confirm": "demo"})
        lost = await api.post(f"{SUBSCRIPTIONS}/{ids[1]}/secrets/path/reveal")
    await put_apps(kafka_connection, with_data_key(make_app("x"), os.urandom, Keyring(bytes([1] * 32)), 0))
    with pytest.raises(StartupError, match="stored secrets want the KEK"):
        await asyncio.wait_for(main(admin_settings(kafka_connection, kek=new), asyncio.Event()), 20)

    assert again == {"app": "demo", "integrations": 0, "left": []}
    assert plain == "FIRST-VALUE"
    assert problem_of(wrong) == (400, "invalid_fields")
    assert done.json() == {"app": "demo", "erased": 1}
    assert problem_of(lost) == (409, "secret_unreadable")


async def test_after_an_erasure_secrets_are_stored_anew_and_everything_goes_on(api, admin):
    body = BODY | {"headers": {"Authorization": "Bearer {secret.path}", "X-Key": "literal"}}
    created = (await api.post(SUBSCRIPTIONS, json=body)).json()
    path = f"{SUBSCRIPTIONS}/{created['id']}"
    erased = await api.post("/v1/apps/demo/erase", json={"confirm": "demo"})

    renamed = await api.patch(path, json={"name": "Other", "headers": {"X-Key": "***"}})
    with pytest.raises(DataKeyErased):
        open_integration(admin.config.integrations.get(created["id"]), admin.vault)
    back = await api.post(f"{path}/rollback", json={"version": 1})
    put = await api.put(f"{path}/secrets/path", json={"value": "SECOND-VALUE"})
    shown = await api.post(f"{path}/secrets/path/reveal")
    rotated = await api.post(f"{path}/rotate")
    headers = await api.patch(path, json={"headers": {"Authorization": "Bearer {secret.path}", "X-Key": None}})
    opened = open_integration(admin.config.integrations.get(created["id"]), admin.vault)
    other = await api.post(SUBSCRIPTIONS, json=body)
    twice = await api.post("/v1/apps/demo/erase", json={"confirm": "demo"})

    assert erased.json() == {"app": "demo", "erased": 1}
    assert (renamed.status_code, renamed.json()["headers"]) == (200, {"Authorization": "***", "X-Key": "***"})
    assert (back.status_code, back.json()["name"]) == (200, "CRM")
    assert (put.status_code, put.json()["version"]) == (200, 2)
    assert shown.json()["value"] == "SECOND-VALUE"
    assert (rotated.status_code, headers.status_code) == (200, 200)
    assert opened.headers == {"Authorization": "Bearer {secret.path}"}
    assert opened.secrets == {"path": "SECOND-VALUE"}
    assert [plain for plain, _ in opened.signing] == [rotated.json()["signingSecret"]]
    assert other.status_code == 201
    assert twice.json() == {"app": "demo", "erased": 1}
