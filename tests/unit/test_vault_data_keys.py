"""Data keys: what they seal opens with them alone, and never again once they are erased."""

import dataclasses

import msgspec
import pytest

from services.vault.data_keys import ERASED, AppKeys, Vault, with_data_key, with_new_data_key
from services.vault.seal import (
    Context,
    DataKeyErased,
    DataKeyUnknown,
    Keyring,
    SealedUnderOtherKey,
    Unsealable,
    sealed_under,
)
from streams import codec
from streams.records import AppConfig, DataKey
from tests.apps import make_app
from tests.sealing import BOTH, KEYRING, NEW_KEK, app_with_key, keys_of, random

HERE = Context(app="demo", integration="int_1", name="secret:token", version=7)

#: Made by another implementation (Node's crypto): the data key 64, 65, ... 83, sealed under the KEK 00, 01, ... 1f for
#: the app demo, and a value under that data key; nonces 00..0b.
KNOWN_KEY = DataKey(
    id="dk_e3e16780becf601d",
    wrapped=bytes.fromhex(
        "01630dcd2966c43366000102030405060708090a0b2367b07cad8ca870e12cf9e4c1980a1e"
        "f7a3f14388022507441a9bfa9de882319ad16ad471213d1ae5ad7cb9d22a34cc"
    ),
    created_at_ms=0,
)
KNOWN = bytes.fromhex("02e3e16780becf601d000102030405060708090a0bec985b3ed839ec2a2182aa5cdf5e0f1c3541c984df06a84c23")


def test_what_another_implementation_sealed_opens():
    assert AppKeys(KEYRING, "demo", [KNOWN_KEY]).open(KNOWN, HERE) == "s3cret-ü".encode()


def test_what_is_sealed_has_the_documented_form_and_opens():
    app = app_with_key()
    sealed = keys_of(app).seal(b"abc", HERE)

    assert (sealed[0], f"dk_{sealed[1:9].hex()}", len(sealed)) == (2, app.data_keys[0].id, 1 + 8 + 12 + 3 + 16)
    assert sealed_under(app.data_keys[0].wrapped).key_id == KEYRING.key_id
    assert keys_of(app).open(sealed, HERE) == b"abc"


def test_an_app_with_data_keys_survives_the_log():
    app = app_with_key()

    assert codec.decode_as(AppConfig, codec.encode(app)) == app


def test_an_app_gets_one_data_key_and_no_second_one():
    app = app_with_key()

    assert len(app.data_keys) == 1
    assert with_data_key(app, random, KEYRING, 2_000) is app


def test_whoever_is_named_writes_the_next_version_and_nobody_changes_only_the_keys():
    before = make_app(version=4)
    named = with_data_key(before, random, KEYRING, 2_000, who="ops")

    assert (named.version, named.updated_at_ms, named.updated_by) == (5, 2_000, "ops")
    unnamed = with_data_key(before, random, KEYRING, 2_000)
    assert msgspec.structs.replace(unnamed, data_keys=[]) == before


def test_the_newest_data_key_seals_and_older_ones_still_open():
    first = app_with_key()
    old = keys_of(first).seal(b"old", HERE)
    second = with_new_data_key(first, random, KEYRING, 2_000)
    new = keys_of(second).seal(b"new", HERE)

    assert f"dk_{new[1:9].hex()}" == second.data_keys[1].id != first.data_keys[0].id
    assert (keys_of(second).open(old, HERE), keys_of(second).open(new, HERE)) == (b"old", b"new")


def test_an_app_without_a_data_key_seals_and_opens_under_the_kek():
    keys = keys_of(make_app())
    sealed = keys.seal(b"abc", HERE)

    assert sealed[0] == 1
    assert keys.open(sealed, HERE) == keys_of(app_with_key()).open(sealed, HERE) == b"abc"


@pytest.mark.parametrize(
    "other", [{"integration": "int_2"}, {"name": "header:token"}, {"name": "secret:other"}, {"version": 8}]
)
def test_a_value_copied_to_another_place_of_the_app_does_not_open_there(other):
    keys = keys_of(app_with_key())
    with pytest.raises(Unsealable, match="another integration"):
        keys.open(keys.seal(b"abc", HERE), dataclasses.replace(HERE, **other))


def test_a_value_copied_to_another_app_does_not_open_there_even_with_the_data_key():
    one = app_with_key("demo")
    there = dataclasses.replace(HERE, app="other")
    sealed = keys_of(one).seal(b"abc", HERE)

    with pytest.raises(DataKeyUnknown):
        keys_of(app_with_key("other")).open(sealed, there)
    with pytest.raises(Unsealable, match="data-key"):
        AppKeys(KEYRING, "other", one.data_keys).open(sealed, there)


def test_a_wrapped_key_under_another_id_does_not_open():
    """Its id is sealed with it, so that nobody can make one key answer for another."""
    one, other = app_with_key(), app_with_key()
    swapped = msgspec.structs.replace(one.data_keys[0], wrapped=other.data_keys[0].wrapped)
    with pytest.raises(Unsealable, match="data-key"):
        AppKeys(KEYRING, "demo", [swapped]).open(keys_of(one).seal(b"abc", HERE), HERE)


def test_a_key_that_was_wrapped_under_another_s_id_is_refused():
    """By somebody with the KEK, or by a bug of ours: what it sealed would say the wrong id for ever."""
    wrapped = KEYRING.seal(b"k" * 32, Context.of_data_key("demo", KNOWN_KEY.id))
    posing = AppKeys(KEYRING, "demo", [msgspec.structs.replace(KNOWN_KEY, wrapped=wrapped)])
    with pytest.raises(Unsealable, match="is another than it says"):
        posing.seal(b"abc", HERE)


def test_the_keys_of_one_app_are_not_asked_for_another_s():
    with pytest.raises(ValueError, match="keys of the app 'other', not of 'demo'"):
        keys_of(app_with_key("other")).seal(b"abc", HERE)


@pytest.mark.parametrize("at", range(len(KNOWN)))
def test_a_flipped_bit_anywhere_in_the_value_is_noticed(at):
    changed = bytearray(KNOWN)
    changed[at] ^= 0x10
    with pytest.raises(Unsealable):
        AppKeys(KEYRING, "demo", [KNOWN_KEY]).open(bytes(changed), HERE)


@pytest.mark.parametrize("at", range(len(KNOWN_KEY.wrapped)))
def test_a_flipped_bit_anywhere_in_the_wrapped_key_is_noticed(at):
    changed = bytearray(KNOWN_KEY.wrapped)
    changed[at] ^= 0x10
    key = msgspec.structs.replace(KNOWN_KEY, wrapped=bytes(changed))
    with pytest.raises(Unsealable):
        AppKeys(KEYRING, "demo", [key]).open(KNOWN, HERE)


def test_a_wrapped_key_under_another_kek_names_both():
    other = Keyring(NEW_KEK)
    with pytest.raises(SealedUnderOtherKey, match=f"{KEYRING.key_id.hex()}.*{other.key_id.hex()}"):
        AppKeys(other, "demo", [KNOWN_KEY]).open(KNOWN, HERE)


def test_a_keyring_with_the_previous_kek_opens_all_and_seals_under_the_new_one():
    assert AppKeys(BOTH, "demo", [KNOWN_KEY]).open(KNOWN, HERE) == "s3cret-ü".encode()
    assert with_data_key(make_app(), random, BOTH, 0).data_keys[0].wrapped[1:9] == Keyring(NEW_KEK).key_id


def test_what_an_erased_key_sealed_is_told_from_what_is_not_here_yet():
    gone = msgspec.structs.replace(KNOWN_KEY, wrapped=ERASED)
    with pytest.raises(DataKeyErased, match=r"dk_e3e16780becf601d.*erased"):
        AppKeys(KEYRING, "demo", [gone]).open(KNOWN, HERE)
    with pytest.raises(DataKeyUnknown, match="dk_e3e16780becf601d"):
        AppKeys(KEYRING, "demo", []).open(KNOWN, HERE)


def test_an_app_whose_keys_are_erased_seals_nothing_until_it_has_a_new_one():
    """Under the KEK the value would outlive the next erasure."""
    gone = make_app(data_keys=[msgspec.structs.replace(KNOWN_KEY, wrapped=ERASED)])
    with pytest.raises(DataKeyErased, match="has no new one"):
        keys_of(gone).seal(b"abc", HERE)
    again = with_data_key(gone, random, KEYRING, 0)

    assert keys_of(again).open(keys_of(again).seal(b"abc", HERE), HERE) == b"abc"
    assert again.data_keys[0] == gone.data_keys[0]


class TestVault:
    def test_it_seals_and_opens_by_the_newest_record_of_the_app(self):
        apps = {}
        vault = Vault(KEYRING, apps.get)
        before = vault.seal(b"abc", HERE)
        apps["demo"] = app_with_key()
        after = vault.seal(b"abc", HERE)

        assert (before[0], after[0]) == (1, 2)
        assert vault.open(before, HERE) == vault.open(after, HERE) == b"abc"

    def test_an_app_whose_record_is_to_come_opens_when_it_has_come(self):
        app = app_with_key()
        sealed = keys_of(app).seal(b"abc", HERE)
        apps = {}
        vault = Vault(KEYRING, apps.get)
        with pytest.raises(DataKeyUnknown):
            vault.open(sealed, HERE)
        apps["demo"] = app

        assert vault.open(sealed, HERE) == b"abc"

    def test_an_erasure_is_met_though_the_key_was_in_memory(self):
        apps = {"demo": make_app(data_keys=[KNOWN_KEY])}
        vault = Vault(KEYRING, apps.get)
        assert vault.open(KNOWN, HERE) == "s3cret-ü".encode()
        apps["demo"] = make_app(data_keys=[msgspec.structs.replace(KNOWN_KEY, wrapped=ERASED)])
        with pytest.raises(DataKeyErased):
            vault.open(KNOWN, HERE)

    def test_a_deleted_app_opens_nothing_though_its_key_was_in_memory(self):
        apps = {"demo": make_app(data_keys=[KNOWN_KEY])}
        vault = Vault(KEYRING, apps.get)
        assert vault.open(KNOWN, HERE) == "s3cret-ü".encode()
        del apps["demo"]
        with pytest.raises(DataKeyUnknown):
            vault.open(KNOWN, HERE)

    def test_a_record_that_is_yet_to_be_written_seals_what_is_written_with_it(self):
        app = app_with_key()
        vault = Vault(KEYRING, {}.get)

        assert vault.of(app).open(vault.of(app).seal(b"abc", HERE), HERE) == b"abc"


def test_no_representation_and_no_message_shows_a_key_or_a_value():
    key = b"K" * 32
    app = with_data_key(make_app(), lambda _: key, Keyring(b"E" * 32), 0)
    vault = Vault(Keyring(b"E" * 32), {"demo": app}.get)
    sealed = vault.seal(b"VALUE", HERE)
    with pytest.raises(Unsealable) as caught:
        vault.open(sealed, dataclasses.replace(HERE, version=8))
    shown = f"{vault!r} {vault.of(app)!r} {vault.of(app)._key(app.data_keys[0])!r} {caught.value!r} {app!r}"

    assert not [plain for plain in ("KKKK", "EEEE", "VALUE") if plain in shown]


@pytest.mark.parametrize("count", [0, 16, 31, 33])
def test_a_data_key_takes_32_random_bytes(count):
    with pytest.raises(ValueError, match=f"not {count}"):
        with_data_key(make_app(), lambda _: bytes(count), KEYRING, 0)
