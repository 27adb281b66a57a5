"""What is remembered of creates that came with a key."""

import pytest

from services.admin import idempotency
from services.admin.idempotency import KEEP_MS, Creates, Remembered, fingerprint, key_fault

SCOPE = (b"token", "demo", "integration", "key-1")


def create(at_ms=0, integration="int_1"):
    return Remembered(b"body", integration, at_ms)


def test_a_create_is_found_by_its_key_for_a_day():
    creates = Creates()
    creates.remember(SCOPE, create())

    assert creates.find(SCOPE, KEEP_MS - 1).integration == "int_1"
    assert creates.find(SCOPE, KEEP_MS) is None


@pytest.mark.parametrize("at", range(4))
def test_another_token_app_profile_or_key_finds_nothing(at):
    creates = Creates()
    creates.remember(SCOPE, create())
    other = list(SCOPE)
    other[at] = b"other" if at == 0 else "other"

    assert creates.find(tuple(other), 0) is None


def test_the_oldest_leaves_when_there_are_too_many(monkeypatch):
    monkeypatch.setattr(idempotency, "MAX_KEPT", 3)
    creates = Creates()
    scopes = [(b"token", "demo", "integration", str(n)) for n in range(5)]
    for scope in scopes:
        creates.remember(scope, create())

    assert [creates.find(scope, 0) is not None for scope in scopes] == [False, False, True, True, True]


def test_bodies_that_say_the_same_have_one_fingerprint():
    assert fingerprint({"a": 1, "b": {"c": 2, "d": 3}}) == fingerprint({"b": {"d": 3, "c": 2}, "a": 1})
    assert fingerprint({"a": [1, 2]}) != fingerprint({"a": [2, 1]})


@pytest.mark.parametrize("key", ["a", "5f1c-…".encode().decode("ascii", "ignore"), "x" * 255, "with space"])
def test_keys_that_are_taken(key):
    assert key_fault(key) is None


@pytest.mark.parametrize("key", ["", "x" * 256, "ü", "a\tb"])
def test_keys_that_are_refused(key):
    assert "1 to 255 printable ASCII" in key_fault(key)
