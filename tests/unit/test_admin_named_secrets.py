"""The named secrets of an integration: what is stored, refused and shown."""

import msgspec
import pytest

from services.admin.audit import chained
from services.admin.named_secrets import (
    MAX_REVEALS,
    REVEAL,
    REVEAL_WINDOW_MS,
    reveal_details,
    revealed,
    reveals_of,
    secrets_json,
    with_secret,
    without_secret,
)
from services.admin.rules import MAX_SECRETS, Refused
from services.runtime.problems import Problem
from services.vault.data_keys import ERASED
from services.vault.opened import open_integration
from services.vault.seal import Unsealable
from streams import codec
from tests.apps import make_app
from tests.sealing import app_with_key, keys_of, sealed_integration

APP = app_with_key()
KEYS = keys_of(APP)
BEFORE = sealed_integration(
    KEYS,
    url="https://crm.example/{secret.path}",
    headers={"Authorization": "Bearer {secret.token}", "X-Pair": "{secret.token}:{secret.spare}"},
    secrets={"path": "p-1", "token": "t-1", "spare": "s-1", "unused": "u-1"},
    version=7,
)
NOW_MS = 1_767_323_045_678
CHANGE = {"vault": KEYS, "now_ms": NOW_MS, "who": "ops"}


def put(name="token", value="t-2", config=BEFORE, **body):
    return with_secret(config, name, {"value": value} | body, **CHANGE)


def refusals(name="token", value="t-2", config=BEFORE, **body):
    with pytest.raises(Refused) as caught:
        put(name, value, config, **body)
    return [(each.field, each.detail) for each in caught.value.refusals]


class TestPut:
    def test_a_new_one_is_version_1_and_sealed_under_the_app_s_data_key(self):
        after = put("fresh", "f-1")

        assert open_integration(after, KEYS).secrets == {
            "path": "p-1",
            "token": "t-1",
            "spare": "s-1",
            "unused": "u-1",
            "fresh": "f-1",
        }
        stored = after.secrets["fresh"]
        assert (stored.version, stored.created_at_ms, stored.revealed_at_ms, stored.sealed[0]) == (1, NOW_MS, None, 2)
        assert b"f-1" not in codec.encode(after)

    def test_the_next_version_takes_the_place_of_the_one_before(self):
        after = put()

        assert open_integration(after, KEYS).secrets["token"] == "t-2"
        assert after.secrets["token"].version == 2

    def test_a_new_version_may_be_revealed_again(self):
        shown = revealed(BEFORE, "token", [], **CHANGE).config

        assert put(config=shown).secrets["token"].revealed_at_ms is None

    def test_the_version_before_does_not_open_as_the_next(self):
        after = put()
        stale = msgspec.structs.replace(after.secrets["token"], sealed=BEFORE.secrets["token"].sealed)
        swapped = msgspec.structs.replace(after, secrets=after.secrets | {"token": stale})
        with pytest.raises(Unsealable):
            open_integration(swapped, KEYS)

    def test_nothing_else_of_the_integration_changes_but_its_version_and_who(self):
        after = put()

        assert (after.version, after.updated_at_ms, after.updated_by) == (8, NOW_MS, "ops")
        unchanged = {"secrets": BEFORE.secrets, "version": 7, "updated_at_ms": 0, "updated_by": "test"}
        assert msgspec.structs.replace(after, **unchanged) == BEFORE

    @pytest.mark.parametrize("name", ["", "a b", "ü", "x" * 65, "a}", "a\n"])
    def test_a_name_that_no_reference_can_name_is_refused(self, name):
        assert refusals(name) == [("name", "is no name for a secret: 1 to 64 of A-Z a-z 0-9 _ -")]

    @pytest.mark.parametrize(
        "value", ["PLAIN\r\nX-Injected: 1", "PLAIN\n", "PLAIN\x00b", "PLAIN\u2028b", "PLAIN\ud800"]
    )
    def test_a_value_that_could_split_a_header_is_refused_though_no_header_refers_to_it(self, value):
        [(field, detail)] = refusals("unused", value)

        assert (field, "control character" in detail) == ("value", True)
        assert "PLAIN" not in detail

    @pytest.mark.parametrize(
        ("value", "why"),
        [(None, "is required"), (7, "must be a text"), ("", "1 to 4096 characters"), ("x" * 4097, "not 4097")],
    )
    def test_a_value_that_is_none_is_refused(self, value, why):
        [(field, detail)] = refusals(value=value)

        assert (field, why in detail) == ("value", True)

    @pytest.mark.parametrize("value", ["ü-PLAIN", "x" * 4095])
    def test_a_value_that_a_header_could_not_be_sent_with_is_refused_and_not_shown(self, value):
        [(field, detail)] = refusals(value=value)

        assert (field, "header Authorization" in detail, value in detail) == ("value", True, False)

    def test_a_header_too_long_with_both_of_its_secrets_is_refused(self):
        assert put(value="x" * 4080)
        long = put("spare", "x" * 3000)

        assert "X-Pair" in refusals(value="x" * 2000, config=long)[0][1]

    @pytest.mark.parametrize("name", ["path", "unused"])
    def test_beyond_ascii_is_fine_where_no_header_refers_to_it(self, name):
        """In a URL it is percent-encoded."""
        assert open_integration(put(name, "ü"), KEYS).secrets[name] == "ü"

    def test_a_field_that_is_not_known_is_refused(self):
        assert refusals(version=3) == [("version", "is unknown")]

    @pytest.mark.parametrize("body", [None, [], "t-2"])
    def test_a_body_that_is_no_object_is_refused(self, body):
        with pytest.raises(Refused, match="must be an object"):
            with_secret(BEFORE, "token", body, **CHANGE)

    def test_there_are_at_most_fifty_and_a_full_house_still_changes_its_own(self):
        full = sealed_integration(KEYS, secrets={f"s{number}": "x" for number in range(MAX_SECRETS)})

        assert put("s0", config=full).secrets["s0"].version == 2
        assert refusals("one-more", config=full) == [
            ("name", "is one more than the 50 secrets that an integration may have")
        ]

    def test_beside_a_header_that_does_not_open_any_more_it_is_stored(self):
        """Whoever erased the app's key, or lost it, stores the secrets anew one after the other."""
        gone = keys_of(make_app(data_keys=[msgspec.structs.replace(APP.data_keys[0], wrapped=ERASED), *_fresh()]))
        after = with_secret(BEFORE, "token", {"value": "t-2"}, vault=gone, now_ms=NOW_MS, who="ops")

        assert after.secrets["token"].version == 2


def _fresh():
    return app_with_key().data_keys


class TestDelete:
    def test_it_is_gone_and_the_rest_stays(self):
        after = without_secret(BEFORE, "unused", **CHANGE)

        assert after.secrets.keys() == {"path", "token", "spare"}
        assert (after.version, after.updated_at_ms, after.updated_by) == (8, NOW_MS, "ops")

    @pytest.mark.parametrize(
        ("name", "places"),
        [
            ("path", ["url"]),
            ("token", ["headers.Authorization", "headers.X-Pair"]),
            ("spare", ["headers.X-Pair"]),
        ],
    )
    def test_one_that_is_referred_to_stays_and_the_places_are_named(self, name, places):
        with pytest.raises(Problem) as caught:
            without_secret(BEFORE, name, **CHANGE)

        assert (caught.value.status, caught.value.code) == (409, "secret_in_use")
        assert caught.value.extensions == {"usedBy": places}

    def test_one_that_is_not_there_is_unknown(self):
        with pytest.raises(Problem, match="secret_unknown") as caught:
            without_secret(BEFORE, "nothing", **CHANGE)
        assert caught.value.status == 404


class TestList:
    def test_it_has_names_versions_and_times_and_never_a_value(self):
        config = put("fresh", "f-1", config=revealed(BEFORE, "token", [], **CHANGE).config)
        listed = {each["name"]: each for each in secrets_json(config)}

        assert list(listed) == ["fresh", "path", "spare", "token", "unused"]
        assert listed["fresh"] == {
            "name": "fresh",
            "version": 1,
            "createdAt": "2026-01-02T03:04:05.678Z",
            "revealedAt": None,
        }
        assert listed["token"]["revealedAt"] == "2026-01-02T03:04:05.678Z"
        assert not [plain for plain in ("t-1", "p-1", "f-1") if plain in repr(listed)]


def refused_reveal(config=BEFORE, name="token", reveals_ms=(), now_ms=NOW_MS):
    with pytest.raises(Problem) as caught:
        revealed(config, name, reveals_ms, vault=KEYS, now_ms=now_ms, who="ops")
    return caught.value


class TestReveal:
    def test_it_gives_the_value_and_the_record_that_says_so(self):
        shown = revealed(BEFORE, "token", [], **CHANGE)

        assert (shown.name, shown.version, shown.value) == ("token", 1, "t-1")
        assert shown.config.secrets["token"].revealed_at_ms == NOW_MS
        assert (shown.config.version, shown.config.updated_by) == (8, "ops")
        assert {name: each for name, each in shown.config.secrets.items() if name != "token"} == {
            name: each for name, each in BEFORE.secrets.items() if name != "token"
        }
        assert "t-1" not in repr(shown)

    def test_a_version_is_revealed_once(self):
        problem = refused_reveal(revealed(BEFORE, "token", [], **CHANGE).config)

        assert (problem.status, problem.code) == (409, "already_revealed")
        assert problem.extensions == {"revealedAt": "2026-01-02T03:04:05.678Z"}
        assert "t-1" not in str(problem)

    def test_each_name_has_its_own(self):
        shown = revealed(BEFORE, "token", [], **CHANGE).config

        assert revealed(shown, "path", [NOW_MS], **CHANGE).value == "p-1"

    def test_the_eleventh_within_an_hour_is_refused_with_the_time_until_there_is_room(self):
        ten = [NOW_MS - REVEAL_WINDOW_MS + 1_500 + 1_000 * number for number in range(MAX_REVEALS)]

        assert revealed(BEFORE, "token", ten[1:], **CHANGE).value == "t-1"
        problem = refused_reveal(reveals_ms=reversed(ten))
        assert (problem.status, problem.code, problem.headers) == (429, "reveal_limit", {"Retry-After": "2"})

    def test_after_that_time_it_is_granted(self):
        ten = [NOW_MS - 1_000 * number for number in range(MAX_REVEALS)]
        wait_ms = 1_000 * int(refused_reveal(reveals_ms=ten).headers["Retry-After"])
        later = {"vault": KEYS, "who": "ops"}

        assert refused_reveal(reveals_ms=ten, now_ms=NOW_MS + wait_ms - 1).code == "reveal_limit"
        assert revealed(BEFORE, "token", ten, now_ms=NOW_MS + wait_ms, **later).value == "t-1"

    def test_with_more_than_ten_known_it_waits_for_as_many_to_pass(self):
        many = [NOW_MS - 60_000 * number for number in range(15)]

        assert refused_reveal(reveals_ms=many).headers == {"Retry-After": str(3_600 - 9 * 60)}

    def test_reveals_of_an_hour_ago_do_not_count(self):
        assert revealed(BEFORE, "token", [NOW_MS - REVEAL_WINDOW_MS] * 20, **CHANGE).value == "t-1"

    def test_one_that_is_not_there_is_unknown(self):
        assert (refused_reveal(name="nothing").status, refused_reveal(name="nothing").code) == (404, "secret_unknown")

    def test_one_that_does_not_open_does_not_spend_its_reveal(self):
        gone = keys_of(make_app(data_keys=[msgspec.structs.replace(APP.data_keys[0], wrapped=ERASED)]))
        with pytest.raises(Problem) as caught:
            revealed(BEFORE, "token", [], vault=gone, now_ms=NOW_MS, who="ops")

        assert (caught.value.status, caught.value.code) == (409, "secret_unreadable")


class TestRevealsInTheAuditLog:
    def test_a_record_names_secret_and_version_and_why_it_was_refused(self):
        shown = revealed(BEFORE, "token", [], **CHANGE)

        assert reveal_details(BEFORE, "token") == {"secret": "token", "version": "1"}
        assert reveal_details(shown.config, "token", refused_reveal(shown.config)) == {
            "secret": "token",
            "version": "1",
            "refused": "already_revealed",
        }
        unknown = reveal_details(BEFORE, "x" * 100, refused_reveal(name="x" * 100))
        assert unknown == {"secret": "x" * 64 + "…", "refused": "secret_unknown"}

    def test_only_reveals_of_the_integration_that_were_allowed_count(self):
        def record(at_ms, action=REVEAL, target="int_1", *, allowed=True):
            return chained(
                id="aud_1", app="demo", at_ms=at_ms, who="ops", ip=None, action=action, target=target,
                allowed=allowed, details={}, previous_hash=b"",
            )  # fmt: skip

        records = [
            record(1),
            record(2, allowed=False),
            record(3, "integration.pause"),
            record(4, target="int_2"),
            record(5),
        ]

        assert reveals_of(records, "int_1") == [1, 5]
