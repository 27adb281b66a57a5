"""A session's cookie opens for who sealed it, until it ends, and for nobody else."""

import pytest

from services.console.session import ID_BYTES, NONCE_BYTES, Session, Sessions

KEK = bytes(range(32))
SESSION = Session(bytes(32), until_ms=2_000, id=bytes(ID_BYTES))
NONCE = bytes(NONCE_BYTES)


def test_a_session_opens_in_every_process_with_the_kek_until_it_ends():
    sealed = Sessions(KEK).sealed(SESSION, NONCE)

    assert Sessions(KEK).opened(sealed, 1_999) == SESSION
    assert Sessions(KEK).opened(sealed, 2_000) is None
    assert Sessions(bytes(32)).opened(sealed, 1_999) is None


def test_one_that_was_changed_anywhere_does_not_open():
    sealed = bytearray.fromhex(Sessions(KEK).sealed(SESSION, NONCE))
    for at in range(len(sealed)):
        changed = bytes(sealed[:at]) + bytes([sealed[at] ^ 1]) + bytes(sealed[at + 1 :])

        assert Sessions(KEK).opened(changed.hex(), 0) is None


@pytest.mark.parametrize("value", ["", "00", "zz", "é", "0" * 10_000])
def test_what_is_no_session_does_not_open(value):
    assert Sessions(KEK).opened(value, 0) is None


def test_a_form_belongs_to_its_session_alone():
    sessions = Sessions(KEK)
    token = sessions.form_token(SESSION)

    assert sessions.is_own_form(SESSION, token)
    assert not sessions.is_own_form(SESSION, "")
    assert not sessions.is_own_form(SESSION, token[:-1] + "\udc80")
    assert not sessions.is_own_form(Session(bytes(32), 2_000, b"1" * ID_BYTES), token)
    assert not sessions.is_own_form(Session(b"1" * 32, 2_000, bytes(ID_BYTES)), token)


def test_nothing_prints_the_key():
    assert repr(Sessions(KEK)) == "Sessions()"
