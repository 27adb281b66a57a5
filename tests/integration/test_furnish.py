"""What `up` puts onto a broker before the first event, whatever the broker or the folder has lost."""

import pytest

from services.admin.tokens import hash_of
from services.cli.data_dir import held
from services.cli.errors import Failed
from services.cli.furnish import furnish
from services.runtime.settings import PartitionSettings, Settings
from streams.connection import Connection
from streams.follower import Follower
from streams.topics import APP_CONFIG
from streams.views import Apps


def settings_of(connection, **changes):
    return Settings(broker=connection.bootstrap, topic_prefix=connection.prefix, **changes)


async def furnished(connection, folder, said=None):
    with held(folder) as data:
        return await furnish(settings_of(connection), data, (said if said is not None else []).append)


async def opens(connection, keys):
    """Whether the log knows the app with these keys and the token, and how many records it took to say so."""
    apps = Apps()
    follower = Follower(connection, APP_CONFIG, apps.apply)
    await follower.start()
    written = follower.position
    await follower.stop()
    app, everywhere = apps.get(keys["app"]), apps.get("*")
    known = {key.hash for key in app.keys} | {token.hash for token in everywhere.tokens}
    return {hash_of(keys[name]) for name in ("public_key", "secret_key", "token")} <= known, written


async def test_a_second_start_shows_the_same_keys_and_writes_nothing(embedded_connection, tmp_path):
    first = await furnished(embedded_connection, tmp_path)
    before = await opens(embedded_connection, first)
    again = await furnished(embedded_connection, tmp_path)

    assert again == first
    assert before == (True, 2)
    assert await opens(embedded_connection, again) == (True, 2)


async def test_a_broker_that_forgot_gets_the_same_keys_again(embedded_connection, tmp_path):
    first = await furnished(embedded_connection, tmp_path)
    forgetful = Connection(embedded_connection.bootstrap, f"{embedded_connection.prefix}emptied.")

    again = await furnished(forgetful, tmp_path)

    assert again == first
    assert await opens(forgetful, again) == (True, 2)


async def test_a_folder_that_lost_the_keys_gets_new_ones_that_work_beside_the_old(embedded_connection, tmp_path):
    first = await furnished(embedded_connection, tmp_path)
    (tmp_path / "keys.json").unlink()

    again = await furnished(embedded_connection, tmp_path)

    assert (again["app"], again["secret_key"] == first["secret_key"]) == (first["app"], False)
    assert (await opens(embedded_connection, again))[0]
    assert (await opens(embedded_connection, first))[0]


async def test_topics_of_another_installation_are_refused_with_what_differs(embedded_connection, tmp_path):
    await furnished(embedded_connection, tmp_path)
    other = settings_of(embedded_connection, partitions=PartitionSettings(by_app=3))

    with held(tmp_path) as data, pytest.raises(Failed, match=r"events.*8.*3|events.*3.*8"):
        await furnish(other, data, [].append)
