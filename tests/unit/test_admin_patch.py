"""Merge patches, what they leave alone, and how a difference between two versions is told."""

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.profiles import INTEGRATION
from services.admin.commands import check_version
from services.admin.compose import changed, new_integration, rolled_back
from services.admin.differences import differences
from services.admin.patch import as_created, merged, patched
from services.admin.rules import Refused, wanted
from services.admin.versions import Versions
from services.runtime.problems import Problem
from services.vault.opened import open_integration
from services.vault.seal import Keyring
from streams import codec
from tests.records import make_integration
from tests.unit.test_admin_rules import APP

KEYRING = Keyring(bytes(32))
BODY = {
    "name": "CRM",
    "url": "https://crm.example/{secret.path}",
    "events": ["call_ended"],
    "headers": {"Authorization": "Bearer {secret.token}", "X-Api-Key": "LITERAL"},
    "secrets": {"token": "PLAIN-TOKEN", "path": "p"},
    "retry": {"maxAttempts": 3, "delaysMs": [1, 2]},
}


def made(body=None):
    return new_integration(
        wanted(BODY | (body or {}), APP, INTEGRATION),
        integration="int_1",
        app="demo",
        profile=INTEGRATION,
        signing=None,
        keyring=KEYRING,
        now_ms=1,
        who="ada",
    )


def after(config, patch, now_ms=2):
    opened = open_integration(config, KEYRING)
    plan = wanted(patched(config, opened, patch), APP, INTEGRATION)
    return changed(config, plan, opened, signing=None, keyring=KEYRING, now_ms=now_ms, who="bob")


def refusals(config, patch):
    with pytest.raises(Refused) as caught:
        after(config, patch)
    return {each.field for each in caught.value.refusals}


def test_what_would_make_an_integration_makes_the_same_one():
    config = made()
    again = as_created(config, open_integration(config, KEYRING))

    assert wanted(again, APP, INTEGRATION) == wanted(BODY, APP, INTEGRATION)


def test_an_empty_patch_changes_nothing_but_the_version():
    config = made()
    same = after(config, {})

    assert (same.version, same.updated_by) == (2, "bob")
    assert msgspec.structs.replace(same, version=1, updated_at_ms=1, updated_by="ada") == config


def test_what_is_not_given_stays_and_keeps_its_ciphertext():
    config = made()
    new = after(config, {"name": "Other", "headers": {"X-New": "value"}})

    assert new.name == "Other"
    assert new.secrets == config.secrets
    assert {name: new.headers[name] for name in config.headers} == config.headers
    assert open_integration(new, KEYRING).headers["X-New"] == "value"


def test_a_secret_that_is_given_gets_the_next_version_and_others_stay():
    config = made()
    new = after(config, {"secrets": {"token": "NEW"}})

    assert (new.secrets["token"].version, new.secrets["token"].created_at_ms) == (2, 2)
    assert new.secrets["path"] == config.secrets["path"]
    assert open_integration(new, KEYRING).secrets == {"token": "NEW", "path": "p"}


def test_a_secret_that_is_still_referred_to_cannot_be_taken_away():
    assert refusals(made(), {"secrets": {"token": None}}) == {"headers.Authorization"}
    assert set(after(made(), {"secrets": {"token": None}, "headers": {"Authorization": None}}).secrets) == {"path"}


def test_a_header_that_is_given_as_it_is_shown_stays():
    config = made()
    new = after(config, {"headers": {"X-Api-Key": "***", "authorization": "Bearer {secret.token}"}})

    assert new.headers == config.headers


@pytest.mark.parametrize(
    ("patch", "retry"),
    [
        ({"maxAttempts": 2}, (2, [5_000])),
        ({"delaysMs": [7]}, (2, [7])),
        ({"on429": True}, (3, [1, 2])),
        ({"maxAttempts": 2, "delaysMs": [9]}, (2, [9])),
        (None, (3, [5_000, 20_000])),
    ],
)
def test_of_attempts_and_delays_the_one_that_is_not_given_follows(patch, retry):
    new = after(made(), {"retry": patch})

    assert (new.max_attempts, new.delays_ms) == retry


def test_another_ordering_has_its_own_number_of_requests():
    several = after(made(), {"ordering": "none"})

    assert (several.max_in_flight, after(several, {"ordering": "integration"}).max_in_flight) == (10, 1)


@pytest.mark.parametrize(
    ("patch", "field"), [([], ""), ({"name": None}, "name"), ({"status": "paused"}, "status"), ({"url": "x"}, "url")]
)
def test_the_result_has_to_be_what_a_create_may_say(patch, field):
    assert refusals(made(), patch) == {field}


def test_what_is_no_setting_stays():
    config = msgspec.structs.replace(made(), status="paused", status_reason="x", epoch=4, skip_before=7, from_ms=9)
    new = after(config, {"name": "Other"})

    assert (new.status, new.status_reason, new.epoch, new.skip_before, new.from_ms) == ("paused", "x", 4, 7, 9)


JSON = st.recursive(
    st.none() | st.integers() | st.text(max_size=3),
    lambda inner: st.dictionaries(st.sampled_from("abc"), inner, max_size=3) | st.lists(inner, max_size=2),
    max_leaves=8,
)


@given(JSON, JSON)
def test_a_merge_is_the_one_of_the_rfc(target, patch):
    result = merged(target, patch)

    if not isinstance(patch, dict):
        assert result == patch
        return
    before = target if isinstance(target, dict) else {}
    assert result.keys() == (before.keys() | {name for name, value in patch.items() if value is not None}) - {
        name for name, value in patch.items() if value is None
    }
    assert all(result[name] == before[name] for name in result if name not in patch)
    assert all(result[name] == merged(before.get(name), patch[name]) for name in result if name in patch)
    assert merged(result, patch) == result


# -- differences, going back, versions -----------------------------------------------------------------------


def test_a_difference_names_the_fields_and_shows_no_value_that_is_secret():
    before = made()
    new = after(before, {"name": "Other", "headers": {"X-Api-Key": "OTHER-LITERAL"}, "secrets": {"token": "NEW"}})
    told = differences(before, new, KEYRING)

    assert {"field": "name", "from": "CRM", "to": "Other"} in told
    assert {each["field"] for each in told} == {"name", "headers.X-Api-Key", "secrets.token"}
    assert not any(value in str(told) for value in ("LITERAL", "PLAIN-TOKEN", "NEW"))


def test_nested_settings_are_told_with_dots_and_nothing_is_told_of_equal_ones():
    before = made()

    assert differences(before, before, KEYRING) == []
    assert {each["field"] for each in differences(before, after(before, {"retry": {"on429": True}}), KEYRING)} == {
        "retry.on429"
    }


def test_going_back_takes_the_settings_and_leaves_secrets_status_and_epoch():
    old = made()
    now = msgspec.structs.replace(
        after(old, {"name": "Other", "secrets": {"token": "NEW"}}), status="paused", epoch=3, skip_before=8
    )
    back = rolled_back(now, old, now_ms=9, who="eve")

    assert (back.name, back.version, back.updated_by, back.updated_at_ms) == ("CRM", 3, "eve", 9)
    assert (back.secrets, back.status, back.epoch, back.skip_before) == (now.secrets, "paused", 3, 8)
    assert open_integration(back, KEYRING).secrets["token"] == "NEW"


def test_versions_are_kept_newest_first_and_a_repeated_record_changes_nothing():
    versions = Versions()
    for offset, version in enumerate([1, 2, 2, 3]):
        versions.apply(b"int_1", codec.encode(make_integration(version=version)), offset)
    versions.apply(b"int_1", None, 4)
    versions.apply(b"int_1", b"no record", 5)

    assert [each.version for each in versions.newest_first("int_1")] == [3, 2, 1]
    assert versions.get("int_1", 2).version == 2
    assert versions.get("int_1", 9) is None
    assert versions.newest_first("int_2") == []


@pytest.mark.parametrize("if_match", [None, "*", '"7"', '"6", "7"', ' "7" '])
def test_a_change_for_the_present_version_passes(if_match):
    check_version(make_integration(version=7), if_match)


@pytest.mark.parametrize("if_match", ['"6"', "7", 'W/"7"', "", '"77"'])
def test_a_change_for_another_version_does_not(if_match):
    with pytest.raises(Problem, match="version_mismatch"):
        check_version(make_integration(version=7), if_match)
