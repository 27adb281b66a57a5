"""`tenterhook apps` and `tokens` over a real admin API on a real broker."""

import asyncio
import json

import pytest

from services.cli import apps, tokens
from services.cli.access import AdminOptions, InstallationOptions
from services.cli.errors import Failed, WrongUsage
from tests.admins import KNOWN, admin_at, client_of, furnish


async def said(capsys, command, *args, **options):
    """What the command prints; it blocks, as commands do."""
    capsys.readouterr()
    await asyncio.to_thread(command, *args, **options)
    return capsys.readouterr().out


async def as_json(capsys, command, *args, **options):
    # The last line: the service, which runs in this process, may say something too.
    return json.loads((await said(capsys, command, *args, as_json=True, **options)).splitlines()[-1])


async def test_an_app_its_keys_types_and_tokens_from_the_command_line(kafka_connection, capsys):
    await furnish(kafka_connection)
    async with admin_at(kafka_connection) as admin, client_of(admin) as api:
        everywhere = InstallationOptions(admin=admin.served.url, token=KNOWN.token)
        shop = AdminOptions(admin=admin.served.url, token=KNOWN.token, app="shop")

        created = await as_json(
            capsys, apps.create, "shop", name="Shop", origins="https://a.example, https://b.example", access=everywhere
        )
        assert (created["id"], created["origins"]) == ("shop", ["https://a.example", "https://b.example"])
        changed = await as_json(capsys, apps.set_, origins="", types="t1,t2", max_active=5, access=shop)
        assert (changed["origins"], changed["eventTypes"], changed["maxActive"]) == ([], ["t1", "t2"], 5)
        assert (changed["name"], changed["allowHttp"]) == ("Shop", False)
        assert await as_json(capsys, apps.show, access=shop) == changed
        table = await said(capsys, apps.list_, access=everywhere)
        assert "t1, t2" in table
        assert "demo" in table
        listed = await as_json(capsys, apps.list_, access=everywhere)
        assert [each["id"] for each in listed["items"]] == ["demo", "shop"]

        assert "shop has the type t3" in await said(capsys, apps.add, "t3", "t1", access=shop)
        await said(capsys, apps.remove, "t1", "t2", access=shop)
        known = await as_json(capsys, apps.list_types, access=shop)
        assert [each["type"] for each in known["items"] if each["source"] == "app"] == ["t3"]
        assert "A call ended." in await said(capsys, apps.list_types, access=shop)

        key = await as_json(capsys, apps.create_key, kind="secret", access=shop)
        assert key["key"].startswith("sk_")
        assert "Key, shown this once: pk_" in await said(capsys, apps.create_key, kind="public", access=shop)
        table = await said(capsys, apps.list_keys, access=shop)
        assert key["id"] in table
        assert "sk_" not in table
        assert await as_json(capsys, apps.delete_keys, key["id"], access=shop) == {"deleted": key["id"]}
        assert [each["kind"] for each in (await as_json(capsys, apps.list_keys, access=shop))["items"]] == ["public"]

        printed = await said(capsys, tokens.create, "ada", role="viewer", access=shop)
        ada = printed.partition("Token, shown this once: ")[2].split()[0]
        mine = AdminOptions(admin=admin.served.url, token=ada, app="shop")
        assert (await as_json(capsys, apps.show, access=mine))["id"] == "shop"
        with pytest.raises(Failed, match="role_insufficient"):
            await said(capsys, apps.set_, name="x", access=mine)
        ops = await as_json(capsys, tokens.create, "ops@x.example", role="operator", installation=True, access=shop)
        assert ops["token"].startswith("tok_")
        names = [
            each["name"] for each in (await as_json(capsys, tokens.list_, installation=True, access=shop))["items"]
        ]
        assert names == ["up", "ops@x.example"]
        assert "ada" in await said(capsys, tokens.list_, access=shop)
        await said(capsys, tokens.delete, "ada", access=shop)
        await said(capsys, tokens.delete, "ops@x.example", installation=True, access=shop)
        with pytest.raises(Failed, match="last_admin_token"):
            await said(capsys, tokens.delete, "up", installation=True, access=shop)
        with pytest.raises(Failed, match="token_unknown"):
            await said(capsys, apps.show, access=mine)

        assert await as_json(capsys, apps.delete, "shop", access=everywhere) == {"deleted": "shop"}
        with pytest.raises(Failed, match="app_unknown"):
            await said(capsys, apps.show, access=shop)
        assert [each["id"] for each in (await api.get("/v1/apps")).json()["items"]] == ["demo"]


@pytest.mark.parametrize("command", [apps.set_, apps.delete_keys, apps.add, apps.remove, tokens.delete])
def test_a_command_that_is_given_nothing_to_do_says_so(command):
    with pytest.raises(WrongUsage):
        command(access=AdminOptions(app="demo", token="t"))
