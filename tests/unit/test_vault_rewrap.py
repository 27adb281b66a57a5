"""A new KEK, the move of old values under the app's data key, and erasure: what is written for each."""

import msgspec
import pytest

from services.vault.data_keys import ERASED, is_erased, with_new_data_key
from services.vault.keks import keks_in_use
from services.vault.opened import open_integration
from services.vault.places import sealed_values, with_sealed_values
from services.vault.rewrap import erased, rewrapped
from services.vault.seal import DataKeyErased, DataKeyUnknown, Keyring, SealedUnderOtherKey, sealed_under
from tests.apps import make_app
from tests.sealing import BOTH, KEYRING, NEW_KEK, app_with_key, keys_of, random, sealed_integration

NEW = Keyring(NEW_KEK)
PLAIN = {
    "headers": {"Authorization": "Bearer {secret.token}", "X-Key": "literal"},
    "secrets": {"token": "t-1", "other": "ü"},
    "signing": ("whsec_bmV3", "whsec_b2xk"),
}
CHANGE = {"random": random, "now_ms": 5_000, "who": "ops"}


def plain_of(opened):
    return opened.headers, opened.secrets, opened.signing


def test_after_a_rewrap_everything_opens_with_the_new_kek_alone():
    app = app_with_key()
    configs = [sealed_integration(keys_of(app), each, **PLAIN) for each in ("int_1", "int_2")]
    written = rewrapped(app, configs, keyring=BOTH, **CHANGE)

    assert written.integrations == []  # their data key is the same: one record an app, however many secrets
    assert keks_in_use([written.app], configs) == {NEW.key_id: 1}
    for config in configs:
        before = open_integration(config, keys_of(app))
        assert plain_of(open_integration(config, keys_of(written.app, NEW))) == plain_of(before)


def test_a_rewrap_is_the_next_version_by_who_asked_and_changes_nothing_else():
    app = app_with_key(version=4)
    written = rewrapped(app, [], keyring=BOTH, **CHANGE).app

    assert (written.version, written.updated_at_ms, written.updated_by) == (5, 5_000, "ops")
    assert [(each.id, each.created_at_ms) for each in written.data_keys] == [
        (each.id, each.created_at_ms) for each in app.data_keys
    ]
    unchanged = {"data_keys": app.data_keys, "version": 4, "updated_at_ms": 0, "updated_by": "test"}
    assert msgspec.structs.replace(written, **unchanged) == app


def test_what_was_sealed_under_the_kek_moves_under_the_app_s_data_key():
    app = make_app(version=4)
    config = sealed_integration(KEYRING, **PLAIN, version=7)
    written = rewrapped(app, [config], keyring=BOTH, **CHANGE)
    [moved] = written.integrations

    assert {sealed_under(sealed).format for sealed, _ in sealed_values(moved)} == {2}
    assert plain_of(open_integration(moved, keys_of(written.app, NEW))) == plain_of(open_integration(config, KEYRING))
    assert (written.app.version, len(written.app.data_keys)) == (5, 1)
    assert (moved.version, moved.updated_at_ms, moved.updated_by, moved.epoch) == (8, 5_000, "ops", config.epoch)
    assert written.left == []


def test_secrets_under_an_older_data_key_move_under_the_newest():
    first = app_with_key()
    config = sealed_integration(keys_of(first), **PLAIN)
    app = with_new_data_key(first, random, KEYRING, 0)
    written = rewrapped(app, [config], keyring=KEYRING, **CHANGE)
    [moved] = written.integrations

    assert written.app is app
    assert {f"dk_{sealed_under(sealed).key_id.hex()}" for sealed, _ in sealed_values(moved)} == {app.data_keys[1].id}
    assert plain_of(open_integration(moved, keys_of(app))) == plain_of(open_integration(config, keys_of(first)))


def test_a_second_rewrap_changes_nothing():
    config = sealed_integration(KEYRING, **PLAIN)
    once = rewrapped(make_app(), [config], keyring=BOTH, **CHANGE)
    again = rewrapped(once.app, once.integrations, keyring=BOTH, **CHANGE)

    assert (again.app is once.app, again.integrations, again.left) == (True, [], [])


def test_with_new_data_keys_whoever_had_the_old_ones_opens_nothing_of_it():
    app = app_with_key()
    configs = [sealed_integration(keys_of(app), **PLAIN), sealed_integration(KEYRING, "int_2", **PLAIN)]
    written = rewrapped(app, configs, keyring=BOTH, renew=True, **CHANGE)

    assert [each.id for each in written.app.data_keys][:-1] == [each.id for each in app.data_keys]
    for before, after in zip(configs, written.integrations, strict=True):
        assert plain_of(open_integration(after, keys_of(written.app, NEW))) == plain_of(
            open_integration(before, keys_of(app))
        )
        for sealed, context in sealed_values(after):
            with pytest.raises(DataKeyUnknown):
                keys_of(app).open(sealed, context)


def test_an_app_without_a_data_key_is_not_renewed():
    assert rewrapped(make_app("*"), [], keyring=BOTH, renew=True, **CHANGE).app == make_app("*")


def test_an_app_without_secrets_gets_no_data_key_by_it():
    app = make_app("*")

    assert rewrapped(app, [], keyring=BOTH, **CHANGE).app is app


def test_without_the_previous_kek_nothing_is_written():
    app = app_with_key()
    with pytest.raises(SealedUnderOtherKey, match=KEYRING.key_id.hex()):
        rewrapped(app, [], keyring=NEW, **CHANGE)
    with pytest.raises(SealedUnderOtherKey, match=KEYRING.key_id.hex()):
        rewrapped(make_app(), [sealed_integration(KEYRING, **PLAIN)], keyring=NEW, **CHANGE)


def test_what_does_not_open_stays_as_it_is_and_is_named():
    def spoilt(sealed, context):
        return sealed[:-1] + bytes([sealed[-1] ^ 1]) if context.name == "header:X-Key" else sealed

    config = with_sealed_values(sealed_integration(KEYRING, **PLAIN), spoilt)
    written = rewrapped(make_app(), [config], keyring=BOTH, **CHANGE)
    [moved] = written.integrations

    assert written.left == ["int_1 header:X-Key"]
    assert moved.headers["X-Key"] == config.headers["X-Key"]
    assert moved.headers["Authorization"] != config.headers["Authorization"]


def test_a_data_key_that_does_not_open_stays_as_it_is_and_is_named():
    app = app_with_key()
    wrapped = app.data_keys[0].wrapped
    spoilt = msgspec.structs.replace(app.data_keys[0], wrapped=wrapped[:-1] + bytes([wrapped[-1] ^ 1]))
    app = make_app(data_keys=[spoilt])
    written = rewrapped(app, [], keyring=BOTH, **CHANGE)

    assert (written.app is app, written.left) == (True, [f"demo data-key:{spoilt.id}"])


class TestErasure:
    def test_nothing_that_the_app_had_stored_opens_again(self):
        app = app_with_key()
        configs = [sealed_integration(keys_of(app), **PLAIN), sealed_integration(KEYRING, "int_2", **PLAIN)]
        written = erased(app, configs, keyring=KEYRING, **CHANGE)
        [moved] = written.integrations

        assert moved.id == "int_2"
        gone, fresh = written.app.data_keys
        assert (gone.id, gone.wrapped) == (app.data_keys[0].id, ERASED)
        assert not is_erased(fresh)
        assert keks_in_use([], [configs[0], moved]) == {}
        for config in (configs[0], moved):
            for sealed, context in sealed_values(config):
                with pytest.raises(DataKeyErased):
                    keys_of(written.app).open(sealed, context)

    def test_values_that_no_data_key_had_sealed_go_with_a_data_key_made_for_it(self):
        written = erased(make_app(version=4), [sealed_integration(KEYRING, **PLAIN)], keyring=KEYRING, **CHANGE)

        assert [is_erased(each) for each in written.app.data_keys] == [True, False]
        assert (written.app.version, written.app.updated_by) == (5, "ops")
        with pytest.raises(DataKeyErased):
            open_integration(written.integrations[0], keys_of(written.app))

    def test_it_is_one_version_and_the_second_time_takes_what_was_stored_since(self):
        app = app_with_key(keyring=KEYRING, version=4)
        once = erased(app, [], keyring=BOTH, **CHANGE)
        again = erased(once.app, [], keyring=BOTH, **CHANGE)

        assert (once.app.version, once.app.updated_by) == (5, "ops")
        assert (again.app.version, again.app.updated_by) == (6, "ops")
        assert [is_erased(each) for each in again.app.data_keys] == [True, True, False]

    def test_what_is_stored_afterwards_is_sealed_under_a_new_data_key(self):
        app = erased(app_with_key(), [], keyring=KEYRING, **CHANGE).app
        config = sealed_integration(keys_of(app), **PLAIN)

        assert {f"dk_{sealed_under(sealed).key_id.hex()}" for sealed, _ in sealed_values(config)} == {
            app.data_keys[-1].id
        }
        assert open_integration(config, keys_of(app)).secrets == PLAIN["secrets"]

    def test_an_app_that_never_stored_anything_stays_as_it_is(self):
        app = make_app("*")

        assert erased(app, [], keyring=KEYRING, **CHANGE).app is app

    def test_what_was_erased_without_a_new_data_key_gets_one_when_new_ones_are_asked_for(self):
        """As an earlier release left it."""
        app = app_with_key()
        gone = msgspec.structs.replace(app, data_keys=[msgspec.structs.replace(app.data_keys[0], wrapped=ERASED)])
        written = rewrapped(gone, [], keyring=KEYRING, renew=True, **CHANGE)

        assert [is_erased(each) for each in written.app.data_keys] == [True, False]

    def test_a_rewrap_afterwards_leaves_it_erased(self):
        app = app_with_key()
        config = sealed_integration(keys_of(app), **PLAIN)
        gone = erased(app, [config], keyring=KEYRING, **CHANGE).app
        written = rewrapped(gone, [config], keyring=BOTH, **CHANGE)

        assert [is_erased(each) for each in written.app.data_keys] == [True, False]
        assert (written.integrations, written.left) == ([], [])

    def test_other_apps_are_as_before(self):
        one, other = app_with_key("one"), app_with_key("other")
        config = sealed_integration(keys_of(other), app="other", **PLAIN)
        erased(one, [], keyring=KEYRING, **CHANGE)

        assert open_integration(config, keys_of(other)).secrets == PLAIN["secrets"]

    def test_what_is_stored_anew_is_rewrapped_and_what_is_erased_is_none_of_what_should_open(self):
        app = app_with_key()
        config = sealed_integration(keys_of(app), **PLAIN)
        gone = erased(app, [config], keyring=KEYRING, **CHANGE).app
        anew = sealed_integration(keys_of(gone), "int_2", **PLAIN)
        written = rewrapped(gone, [config, anew], keyring=BOTH, **CHANGE)

        assert (written.integrations, written.left) == ([], [])
        assert open_integration(anew, keys_of(written.app, NEW)).secrets == PLAIN["secrets"]
