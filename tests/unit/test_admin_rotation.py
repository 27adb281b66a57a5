"""Rotation of the signing secret: how long each is valid, and what is refused."""

import msgspec
import pytest

from services.admin.rotation import DEFAULT_OVERLAP_MS, MAX_OVERLAP_MS, overlap_ms, rotated
from services.admin.rules import Refused
from services.runtime.problems import Problem
from services.vault.data_keys import ERASED, with_data_key
from services.vault.opened import open_integration
from tests.records import make_integration
from tests.sealing import KEYRING, app_with_key, keys_of, random, sealed_integration

KEYS = keys_of(app_with_key())
OLD = "whsec_b2xk"
BEFORE = sealed_integration(KEYS, signing=(OLD,), version=7)
NOW_MS = 1_767_323_045_678
DAY_MS = 86_400_000


def rotate(config=BEFORE, overlap=DAY_MS, now_ms=NOW_MS, number=1):
    return rotated(config, overlap, random=bytes([number]) * 32, vault=KEYS, now_ms=now_ms, who="ops")


def signing_of(config):
    return open_integration(config, KEYS).signing


def test_the_new_secret_is_first_and_the_old_one_valid_for_a_day():
    done = rotate()

    assert signing_of(done.config) == [(done.secret, None), (OLD, NOW_MS + DAY_MS)]
    assert (done.version, done.old_until_ms) == (2, NOW_MS + DAY_MS)
    assert done.secret == "whsec_AQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQE="
    assert [(each.version, each.created_at_ms, each.sealed[0]) for each in done.config.signing_secrets] == [
        (2, NOW_MS, 2),
        (1, 0, 2),
    ]


def test_nothing_else_of_the_integration_changes_but_its_version_and_who():
    after = rotate().config

    assert (after.version, after.updated_at_ms, after.updated_by) == (8, NOW_MS, "ops")
    unchanged = {
        "signing_secrets": BEFORE.signing_secrets,
        "version": 7,
        "updated_at_ms": 0,
        "updated_by": "test",
    }
    assert msgspec.structs.replace(after, **unchanged) == BEFORE


def test_now_leaves_the_new_one_alone():
    done = rotate(rotate().config, 0, number=2)

    assert signing_of(done.config) == [(done.secret, None)]
    assert (done.version, done.old_until_ms) == (3, None)


def test_what_has_ended_is_dropped():
    first = rotate()
    second = rotate(first.config, now_ms=NOW_MS + DAY_MS, number=2)

    assert signing_of(second.config) == [(second.secret, None), (first.secret, NOW_MS + 2 * DAY_MS)]


def test_two_old_ones_may_be_valid_and_a_third_is_refused_until_the_first_has_ended():
    first = rotate()
    second = rotate(first.config, now_ms=NOW_MS + 1, number=2)
    with pytest.raises(Problem) as caught:
        rotate(second.config, now_ms=NOW_MS + 2, number=3)

    assert (caught.value.status, caught.value.code) == (409, "rotations_under_way")
    assert [secret for secret, _ in signing_of(second.config)] == [second.secret, first.secret, OLD]
    third = rotate(second.config, now_ms=NOW_MS + DAY_MS, number=3)
    assert [secret for secret, _ in signing_of(third.config)] == [third.secret, second.secret, first.secret]


def test_now_is_never_refused():
    second = rotate(rotate().config, number=2)
    done = rotate(second.config, 0, number=3)

    assert signing_of(done.config) == [(done.secret, None)]


def test_a_shorter_overlap_is_not_outlived_by_an_older_secret():
    first = rotate()
    second = rotate(first.config, 1_000, number=2)

    assert [until for _, until in signing_of(second.config)] == [None, NOW_MS + 1_000, NOW_MS + 1_000]


def test_a_longer_overlap_does_not_give_an_older_secret_more_time():
    second = rotate(rotate(overlap=1_000).config, DAY_MS, number=2)

    assert [until for _, until in signing_of(second.config)] == [None, NOW_MS + DAY_MS, NOW_MS + 1_000]


def test_a_version_is_never_used_again():
    """What it sealed would open in the place of another."""
    config, versions = BEFORE, []
    for number in range(1, 5):
        done = rotate(config, 0, number=number)
        config = done.config
        versions.append(done.version)

    assert versions == [2, 3, 4, 5]


def test_signing_without_any_secret_is_mended_by_it():
    done = rotate(make_integration(signing=True))

    assert (signing_of(done.config), done.version, done.old_until_ms) == ([(done.secret, None)], 1, None)


def test_an_old_secret_that_was_erased_is_dropped_so_that_the_new_one_can_be_sent_with():
    app = app_with_key()
    before = sealed_integration(keys_of(app), signing=(OLD,))
    gone = msgspec.structs.replace(app, data_keys=[msgspec.structs.replace(app.data_keys[0], wrapped=ERASED)])
    keys = keys_of(with_data_key(gone, random, KEYRING, NOW_MS))
    done = rotated(before, DAY_MS, random=bytes(32), vault=keys, now_ms=NOW_MS, who="ops")

    assert open_integration(done.config, keys).signing == [(done.secret, None)]
    assert done.version == 2


def test_where_requests_are_not_signed_there_is_nothing_to_rotate():
    with pytest.raises(Problem) as caught:
        rotate(make_integration())

    assert (caught.value.status, caught.value.code) == (409, "signing_off")


def test_the_new_secret_shows_in_no_representation():
    done = rotate()

    assert done.secret not in repr(done)


@pytest.mark.parametrize(
    ("body", "overlap"),
    [
        (None, DEFAULT_OVERLAP_MS),
        ({}, DAY_MS),
        ({"now": False}, DAY_MS),
        ({"now": True}, 0),
        ({"overlapMs": 1}, 1),
        ({"overlapMs": MAX_OVERLAP_MS}, 7 * DAY_MS),
        ({"overlapMs": None, "now": None}, DAY_MS),
        ({"overlapMs": 5, "now": False}, 5),
    ],
)
def test_the_overlap_is_a_day_unless_the_body_says_otherwise(body, overlap):
    assert overlap_ms(body) == overlap


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"overlapMs": 0}, "overlapMs"),
        ({"overlapMs": MAX_OVERLAP_MS + 1}, "overlapMs"),
        ({"overlapMs": "1h"}, "overlapMs"),
        ({"now": "yes"}, "now"),
        ({"now": True, "overlapMs": 5}, "overlapMs"),
        ({"overlap": 5}, "overlap"),
        ([], ""),
    ],
)
def test_a_body_that_says_what_cannot_be_is_refused_by_field(body, field):
    with pytest.raises(Refused) as caught:
        overlap_ms(body)

    assert [refusal.field for refusal in caught.value.refusals] == [field]
