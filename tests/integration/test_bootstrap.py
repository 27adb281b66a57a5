"""The first app, its keys and its token."""

import os

import pytest

from services.admin.bootstrap import Bootstrapped, bootstrap
from services.admin.tokens import hash_of
from services.ingest.keys import kind_of_key
from services.vault.data_keys import Vault
from services.vault.seal import Context
from streams.follower import Follower
from streams.topics import APP_CONFIG, ensure
from streams.views import Apps
from tests.admins import PARTITIONS, make_token, put_apps
from tests.apps import make_app
from tests.sealing import KEYRING


@pytest.fixture
async def log(embedded_connection):
    await ensure(embedded_connection, PARTITIONS)
    return embedded_connection


async def apps_on(connection):
    """The apps, and how many records told of them."""
    apps = Apps()
    follower = Follower(connection, APP_CONFIG, apps.apply)
    await follower.start()
    await follower.stop()
    return apps, follower.position


async def test_a_fresh_installation_gets_an_app_two_keys_and_a_token(log):
    made = await bootstrap(log, now_ms=1_000, random=os.urandom)
    apps, records = await apps_on(log)
    demo, everywhere = apps.get("demo"), apps.get("*")

    assert records == 2
    assert (made.app, made.public_key[:3], made.secret_key[:3], made.token[:4]) == ("demo", "pk_", "sk_", "tok_")
    assert len({made.public_key[3:], made.secret_key[3:], made.token[4:]}) == 3
    assert (kind_of_key(made.public_key, demo), kind_of_key(made.secret_key, demo)) == ("public", "secret")
    assert [(token.name, token.role, token.hash) for token in everywhere.tokens] == [
        ("up", "admin", hash_of(made.token))
    ]
    assert (demo.allow_http, demo.origins, demo.max_active, demo.version) == (True, ["*"], 3, 1)
    assert (everywhere.keys, everywhere.origins, everywhere.allow_http) == ([], [], False)


async def test_what_is_known_and_there_is_not_written_again(log):
    made = await bootstrap(log, now_ms=1_000, random=os.urandom)

    assert await bootstrap(log, now_ms=2_000, random=os.urandom, known=made) == made
    assert (await apps_on(log))[1] == 2


async def test_on_a_broker_that_forgot_everything_the_same_keys_are_made_again(log):
    known = Bootstrapped("shop", public_key="pk_a", secret_key="sk_b", token="tok_c")

    assert await bootstrap(log, now_ms=1_000, random=os.urandom, known=known) == known
    shop = (await apps_on(log))[0].get("shop")
    assert (kind_of_key("pk_a", shop), kind_of_key("sk_b", shop)) == ("public", "secret")


async def test_keys_that_nobody_kept_are_joined_by_new_ones_and_nothing_else_changes(log):
    before = make_app("demo", tokens=[make_token("tok_own", "viewer")], allow_http=False, max_active=7)
    await put_apps(log, before, make_app("*", keys=[], tokens=[make_token("tok_root", "admin")]))
    made = await bootstrap(log, now_ms=5_000, random=os.urandom)
    apps, _ = await apps_on(log)
    demo = apps.get("demo")

    assert demo.keys[:2] == before.keys
    assert {hash_of(made.public_key), hash_of(made.secret_key)} == {key.hash for key in demo.keys[2:]}
    assert [token.name for token in apps.get("*").tokens] == ["root", "up"]
    assert (demo.tokens, demo.allow_http, demo.max_active, demo.version) == (
        before.tokens,
        False,
        7,
        before.version + 1,
    )
    assert (demo.created_at_ms, demo.updated_at_ms, demo.updated_by) == (0, 5_000, "up")


async def test_the_app_gets_one_data_key_and_whoever_has_the_kek_seals_with_it(log):
    made = await bootstrap(log, now_ms=1_000, random=os.urandom, keyring=KEYRING)
    again = await bootstrap(log, now_ms=2_000, random=os.urandom, known=made, keyring=KEYRING)
    apps, records = await apps_on(log)
    vault = Vault(KEYRING, apps.get)
    here = Context.of_secret("demo", "int_1", "token", 1)
    sealed = vault.seal(b"t-1", here)

    assert (again, records, apps.get("demo").version) == (made, 2, 1)
    assert [(each.id, each.created_at_ms) for each in apps.get("demo").data_keys] == [
        (f"dk_{sealed[1:9].hex()}", 1_000)
    ]
    assert vault.open(sealed, here) == b"t-1"
    assert apps.get("*").data_keys == []


async def test_an_app_from_before_data_keys_gets_one_and_nothing_else_changes(log):
    made = await bootstrap(log, now_ms=1_000, random=os.urandom)
    before = (await apps_on(log))[0].get("demo")
    await bootstrap(log, now_ms=2_000, random=os.urandom, known=made, keyring=KEYRING)
    after = (await apps_on(log))[0].get("demo")

    assert (len(after.data_keys), after.version, after.updated_at_ms, after.updated_by) == (1, 2, 2_000, "up")
    assert after.keys == before.keys


def test_no_representation_shows_a_key():
    shown = repr(Bootstrapped("demo", public_key="pk_a", secret_key="sk_b", token="tok_c"))

    assert shown == "Bootstrapped(app='demo')"
