"""The form of an integration and the API's JSON say the same."""

import pytest
from multidict import MultiDict

from schemas.profiles import BOOKING, INTEGRATION
from services.admin.fields import Refusal
from services.admin.rules import Refused, wanted
from services.console.forms import (
    by_field,
    delays_of,
    headers_of,
    patch_of,
    seconds,
    secrets_of,
    settings_of,
    still_masked,
    typed,
)
from services.console.integration_pages import _defaults
from tests.apps import make_app


def form(**changes) -> MultiDict[str]:
    given = {"name": " CRM ", "url": "https://crm.example/", "autoPause": "on"} | changes
    return MultiDict(
        [(name, one) for name, value in given.items() for one in ([value] if value == str(value) else value)]
    )


def test_a_form_asks_for_what_a_create_takes():
    body, faults = settings_of(
        form(
            events=["call_ended", "call_started"],
            headers="Authorization: Bearer {secret.token}\r\n\r\nX-Key:a:b",
            timeoutMs="2500",
            retryPolicy="any_failure",
            maxAttempts="3",
            delays="0.25, 60",
            ordering="key",
            maxInFlight="",
            whilePaused="discard",
        )
    )

    plan = wanted(body | {"secrets": {"token": "x"}}, make_app(), INTEGRATION)
    assert not faults
    assert (plan.name, plan.events) == ("CRM", ["call_ended", "call_started"])
    assert plan.headers == {"Authorization": "Bearer {secret.token}", "X-Key": "a:b"}
    assert (plan.timeout_ms, plan.retry_policy, plan.max_attempts, plan.delays_ms) == (
        2500,
        "any_failure",
        3,
        [250, 60_000],
    )
    assert (plan.ordering, plan.max_in_flight, plan.while_paused) == ("key", 10, "discard")
    assert (plan.auto_pause, plan.signing, plan.retry_on_429) == (True, False, False)


@pytest.mark.parametrize("profile", [INTEGRATION, BOOKING])
def test_a_fresh_form_asks_for_the_profile_s_defaults(profile):
    values = _defaults(profile)
    sent = {name: "on" if value is True else str(value) for name, value in values.items() if value not in (False, [])}
    body, _ = settings_of(form(**sent | {"name": "x", "url": "https://x.example"}))

    plan = wanted(body, make_app(), profile)
    assert plan == wanted({"name": "x", "url": "https://x.example"}, make_app(), profile)


def test_what_the_api_refuses_is_shown_at_its_field():
    body, _ = settings_of(form(url="ftp://x", timeoutMs="fast", maxAttempts="3", delays="1, soon", events=["nope"]))
    with pytest.raises(Refused) as refused:
        wanted(body, make_app(), INTEGRATION)

    found = by_field(refused.value.refusals)
    assert set(found) == {"url", "timeoutMs", "delays", "events"}
    assert found["delays"] == ["entry 2 must be a whole number, not a text"]


def test_a_refusal_of_no_field_is_shown_above():
    found = by_field([Refusal("", "too much"), Refusal("other", "is unknown"), Refusal("headers.X-A", "is ours")])

    assert found == {"": ["too much", "other is unknown"], "headers": ["X-A is ours"]}


def test_lines_that_are_no_headers_are_named_and_not_quoted():
    found, faults = headers_of("X-A: 1\nSECRET\nx-a: 2\n: 3")

    assert found == {"X-A": "1"}
    assert [each.detail.partition(" is")[0].partition(" repeats")[0] for each in faults] == [
        "line 2",
        "line 3",
        "line 4",
    ]
    assert "SECRET" not in repr(faults)


def test_a_patch_takes_away_what_the_form_no_longer_has():
    body, _ = settings_of(form(headers="x-b: ***"))
    patch = patch_of(body, {"headers": {"X-A": "***", "X-B": "***"}})

    assert patch["headers"] == {"X-A": None, "x-b": "***"}
    assert patch["template"] is None


def test_a_mask_is_never_stored_in_place_of_what_it_hides():
    shown = {"X-Key": "***", "Authorization": "Bearer {secret.t}"}

    assert still_masked({"x-key": "***", "Authorization": "Bearer {secret.u}"}, shown) == []
    assert [each.field for each in still_masked({"X-Renamed": "***", "X-Key": "***2"}, shown)] == ["headers"] * 2


def test_values_of_secrets_are_not_shown_again():
    given = form(secretName=["token", "", ""], secretValue=["PLAIN", "", "LOOSE"])

    assert secrets_of(given) == {"token": "PLAIN", "": "LOOSE"}
    assert typed(given)["secretNames"] == ["token", "", ""]
    assert "PLAIN" not in repr(typed(given))


def test_seconds_and_back():
    assert [seconds(each) for each in (5_000, 250, 1, 20_480_000)] == ["5", "0.25", "0.001", "20480"]
    assert delays_of("5, 0.25,0.001,1e99999999,NaN,-1,0.0001,") == [
        *(5_000, 250, 1),
        *("1e99999999", "NaN", "-1", "0.0001", ""),
    ]
