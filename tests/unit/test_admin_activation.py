"""What an activation asks for, and the record that it becomes."""

import pytest

from services.admin.audit import FIRST, Chains, chained, hash_of_record
from services.admin.compose import activated, paused
from services.admin.rules import DRAIN, SKIP, Choice, Refused, choice
from streams import codec
from tests.records import make_integration

NOW_MS = 1_800_000_000_000


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (None, None),
        ({}, None),
        ({"held": None}, None),
        ({"held": "drain"}, DRAIN),
        ({"held": "skip"}, SKIP),
        ({"held": {"from": "1970-01-01T00:00:01.5Z"}}, Choice("from", 1_500)),
        ({"held": {"from": "1970-01-01T01:00:00.0001+01:00"}}, Choice("from", 1)),
    ],
)
def test_what_an_activation_does_with_what_is_held(body, expected):
    assert choice(body, NOW_MS) == expected


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ([], ""),
        ({"held": "all"}, "held"),
        ({"held": 1}, "held"),
        ({"held": []}, "held"),
        ({"hold": "drain"}, "hold"),
        ({"held": {}}, "held.from"),
        ({"held": {"from": 5}}, "held.from"),
        ({"held": {"from": "yesterday"}}, "held.from"),
        ({"held": {"from": "2026-01-02T03:04:05"}}, "held.from"),
        ({"held": {"from": "2099-01-02T03:04:05Z"}}, "held.from"),
        ({"held": {"from": "1969-01-02T03:04:05Z"}}, "held.from"),
        ({"held": {"from": "2026-01-02T03:04:05Z", "until": "x"}}, "held.until"),
    ],
)
def test_what_is_no_choice_is_refused_by_its_field(body, field):
    with pytest.raises(Refused) as refused:
        choice(body, NOW_MS)

    assert [each.field for each in refused.value.refusals] == [field]


def test_a_pause_is_a_version_and_no_epoch():
    config = paused(make_integration(version=4, epoch=2), now_ms=9, who="ada")

    assert (config.status, config.status_reason) == ("paused", "paused by ada")
    assert (config.version, config.epoch, config.updated_at_ms, config.updated_by) == (5, 2, 9, "ada")


def filters(config):
    return config.skip_before, config.from_before, config.from_ms


def test_an_activation_is_a_version_and_an_epoch():
    before = make_integration(version=4, epoch=2, status="paused", status_reason="paused by ada", skip_before=3)
    config = activated(before, DRAIN, offset=7, now_ms=9, who="bob")

    assert (config.status, config.status_reason) == ("active", None)
    assert (config.version, config.epoch, config.updated_at_ms, config.updated_by) == (5, 3, 9, "bob")
    assert filters(config) == (3, 0, 0)


def test_skip_and_from_leave_out_what_was_made_by_who_had_not_met_the_record():
    """A fan-out that has applied all below offset 7 has not met the record there; one that has is at 8."""
    assert filters(activated(make_integration(), SKIP, offset=7, now_ms=0, who="a")) == (8, 0, 0)
    assert filters(activated(make_integration(), Choice("from", 500), offset=7, now_ms=0, who="a")) == (0, 8, 500)


def test_what_was_left_out_stays_left_out():
    first = activated(make_integration(), Choice("from", 500), offset=7, now_ms=0, who="a")
    second = activated(first, SKIP, offset=9, now_ms=0, who="a")
    third = activated(second, Choice("from", 400), offset=11, now_ms=0, who="a")

    assert filters(second) == (10, 8, 500)
    assert filters(third) == (10, 12, 500)


def audited(previous_hash, **changes):
    fields = {"id": "aud_1", "app": "demo", "at_ms": 1, "who": "ada", "ip": None, "action": "integration.pause"}
    fields |= {"target": "int_1", "allowed": True, "details": {"b": "2", "a": "1"}}
    return chained(**fields | changes, previous_hash=previous_hash)


def test_an_audit_record_is_chained_to_the_app_s_one_before():
    chains = Chains()
    assert chains.last("demo") == FIRST

    first = audited(FIRST)
    chains.apply(b"demo", codec.encode(first), 0)
    chains.apply(b"other", codec.encode(audited(FIRST, app="other", id="aud_2")), 1)
    chains.apply(b"demo", b"garbage", 2)
    assert chains.last("demo") == first.hash == hash_of_record(first)

    chains.clear()
    assert chains.last("demo") == FIRST


def test_every_field_of_an_audit_record_is_under_its_hash():
    record = audited(FIRST)
    changes = [
        {"id": "aud_2"},
        {"at_ms": 2},
        {"who": "eve"},
        {"ip": "::1"},
        {"action": "x"},
        {"target": "int_2"},
        {"allowed": False},
        {"details": {}},
        {"app": "other"},
    ]

    assert len({record.hash, audited(record.hash).hash, *(audited(FIRST, **change).hash for change in changes)}) == 11
    assert audited(FIRST, details={"a": "1", "b": "2"}).hash == record.hash
