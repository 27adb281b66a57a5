"""Sealing: known answers, and everything that must not open."""

import dataclasses

import pytest

from services.vault.seal import Context, DataKeyUnknown, Keyring, SealedUnderOtherKey, Unsealable

KEK = bytes(range(32))
HERE = Context(app="demo", integration="int_1", name="secret:token", version=7)

#: Sealed by another implementation (Node's crypto): version 1, key id, nonce 00..0b, ciphertext and tag.
KNOWN = bytes.fromhex("01630dcd2966c43366000102030405060708090a0b3431b569a091efd83120d91a66152498e0e7da5ab538350ae0")


def test_what_another_implementation_sealed_opens():
    assert Keyring(KEK).open(KNOWN, HERE) == "s3cret-ü".encode()


def test_what_is_sealed_has_the_documented_form_and_opens():
    keyring = Keyring(KEK)

    sealed = keyring.seal(b"abc", HERE)

    assert (sealed[0], sealed[1:9], len(sealed)) == (1, keyring.key_id, 1 + 8 + 12 + 3 + 16)
    assert keyring.open(sealed, HERE) == b"abc"


def test_the_same_value_never_seals_to_the_same_bytes():
    keyring = Keyring(KEK)
    nonces = {keyring.seal(b"abc", HERE)[9:21] for _ in range(1000)}

    assert len(nonces) == 1000


@pytest.mark.parametrize(
    "other",
    [
        {"app": "demo2"},
        {"integration": "int_2"},
        {"name": "header:token"},
        {"name": "secret:other"},
        {"version": 8},
        # The same letters, cut elsewhere.
        {"app": "demoi", "integration": "nt_1"},
        {"integration": "int_1s", "name": "ecret:token"},
    ],
)
def test_a_value_copied_to_another_place_does_not_open_there(other):
    keyring = Keyring(KEK)
    with pytest.raises(Unsealable, match="another integration"):
        keyring.open(keyring.seal(b"abc", HERE), dataclasses.replace(HERE, **other))


@pytest.mark.parametrize("at", range(len(KNOWN)))
def test_a_flipped_bit_anywhere_is_noticed(at):
    changed = bytearray(KNOWN)
    changed[at] ^= 0x10
    with pytest.raises(Unsealable):
        Keyring(KEK).open(bytes(changed), HERE)


@pytest.mark.parametrize("length", [0, 1, 20, 36, len(KNOWN) - 1])
def test_a_value_cut_short_is_noticed(length):
    with pytest.raises(Unsealable):
        Keyring(KEK).open(KNOWN[:length], HERE)


def test_another_key_is_told_apart_from_tampering_and_both_ids_are_named():
    other = Keyring(bytes(32))
    with pytest.raises(SealedUnderOtherKey, match=f"630dcd2966c43366.*{other.key_id.hex()}.*KEK that sealed it"):
        other.open(KNOWN, HERE)


def test_a_later_format_is_named():
    with pytest.raises(Unsealable, match="format 3; this release reads formats 1 and 2"):
        Keyring(KEK).open(b"\x03" + KNOWN[1:], HERE)


def test_what_a_data_key_sealed_is_no_kek_s_to_open():
    with pytest.raises(DataKeyUnknown, match="630dcd2966c43366"):
        Keyring(KEK).open(b"\x02" + KNOWN[1:], HERE)


def test_a_previous_kek_opens_and_does_not_seal():
    both = Keyring(bytes(32), KEK)

    assert both.open(KNOWN, HERE) == "s3cret-ü".encode()
    assert both.seal(b"abc", HERE)[1:9] == both.key_id == Keyring(bytes(32)).key_id
    assert both.key_ids == (Keyring(bytes(32)).key_id, Keyring(KEK).key_id)


def test_every_kek_that_is_there_is_named_where_none_of_them_sealed():
    others = Keyring(bytes(32), b"o" * 32)
    with pytest.raises(SealedUnderOtherKey, match=", ".join(each.hex() for each in others.key_ids)):
        others.open(KNOWN, HERE)


@pytest.mark.parametrize("length", [0, 16, 31, 33, 64])
def test_a_key_of_another_length_is_refused(length):
    with pytest.raises(ValueError, match=f"this one has {length}"):
        Keyring(bytes(length))
    with pytest.raises(ValueError, match=f"this one has {length}"):
        Keyring(KEK, bytes(length))


def test_no_representation_and_no_message_shows_the_key_or_the_value():
    keyring = Keyring(b"K" * 32)
    sealed = keyring.seal(b"VALUE", HERE)
    with pytest.raises(Unsealable) as caught:
        keyring.open(sealed, dataclasses.replace(HERE, version=8))
    shown = repr(keyring) + str(keyring) + str(caught.value) + repr(caught.value)

    assert "KKKK" not in shown
    assert "VALUE" not in shown
