"""What is remembered of creates that came with a key."""

import pytest

from services.admin import audit
from services.admin.audit import KEEP_KEYS_MS, Chains, chained
from services.admin.idempotency import check_same, details, fingerprint, key_fault, scope
from services.runtime.problems import Problem
from streams import codec

SCOPE = (b"token", "demo", "integration", "key-1")
BODY = {"name": "CRM"}


def remembered(chains, *scopes, at_ms=0):
    for number, each in enumerate(scopes):
        record = chained(
            id=f"aud_{number}",
            app="demo",
            at_ms=at_ms,
            who="ada",
            ip=None,
            action="integration.create",
            target=f"int_{number}",
            allowed=True,
            details={"version": "1"} | details(each[3], scope(*each), BODY),
            previous_hash=chains.last("demo"),
        )
        chains.apply(b"demo", codec.encode(record), number)
    return chains


def test_a_create_is_found_by_its_key_for_a_day():
    chains = remembered(Chains(), SCOPE)

    assert chains.created(scope(*SCOPE), KEEP_KEYS_MS - 1).target == "int_0"
    assert chains.created(scope(*SCOPE), KEEP_KEYS_MS) is None


@pytest.mark.parametrize("at", range(4))
def test_another_token_app_profile_or_key_finds_nothing(at):
    chains = remembered(Chains(), SCOPE)
    other = list(SCOPE)
    other[at] = b"other" if at == 0 else "other"

    assert chains.created(scope(*other), 0) is None


def test_the_oldest_leaves_when_there_are_too_many(monkeypatch):
    monkeypatch.setattr(audit, "KEPT_KEYS", 3)
    scopes = [(b"token", "demo", "integration", str(n)) for n in range(5)]
    chains = remembered(Chains(), *scopes)

    assert [chains.created(scope(*each), 0) is not None for each in scopes] == [False, False, True, True, True]


def test_another_body_under_the_key_is_refused():
    created = remembered(Chains(), SCOPE).created(scope(*SCOPE), 0)
    check_same(created, "key-1", {"name": "CRM"})

    with pytest.raises(Problem, match="idempotency_key_reused"):
        check_same(created, "key-1", {"name": "other"})


def test_no_record_shows_the_key_or_the_body():
    told = details("key-1", scope(*SCOPE), {"secrets": {"a": "hunter2"}})

    assert "hunter2" not in str(told)
    assert "key-1" not in str(told)


def test_bodies_that_say_the_same_have_one_fingerprint():
    assert fingerprint("k", {"a": 1, "b": {"c": 2, "d": 3}}) == fingerprint("k", {"b": {"d": 3, "c": 2}, "a": 1})
    assert fingerprint("k", {"a": [1, 2]}) != fingerprint("k", {"a": [2, 1]})
    assert fingerprint("k", {}) != fingerprint("l", {})


@pytest.mark.parametrize("key", ["a", "5f1c-…".encode().decode("ascii", "ignore"), "x" * 255, "with space"])
def test_keys_that_are_taken(key):
    assert key_fault(key) is None


@pytest.mark.parametrize("key", ["", "x" * 256, "ü", "a\tb"])
def test_keys_that_are_refused(key):
    assert "1 to 255 printable ASCII" in key_fault(key)
