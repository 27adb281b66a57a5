"""What a create may ask for: defaults, limits, and refusals that name the field."""

import msgspec
import pytest

from schemas.profiles import BOOKING, INTEGRATION
from services.admin.rules import Refused, default_delays_ms, quota_fault, wanted
from streams.records import AppConfig, IntegrationConfig

APP = AppConfig(
    app="demo",
    name="Demo",
    keys=[],
    tokens=[],
    origins=[],
    event_types=["order_paid"],
    allow_http=False,
    max_active=3,
    version=1,
    created_at_ms=0,
    updated_at_ms=0,
    updated_by="test",
)
LEAST = {"name": "CRM", "url": "https://crm.example/hook"}


def refusals(changes, *, app=APP, profile=INTEGRATION):
    with pytest.raises(Refused) as caught:
        wanted(LEAST | changes, app, profile)
    return {refusal.field: refusal.detail for refusal in caught.value.refusals}


def test_the_least_integration_gets_the_defaults_of_its_profile():
    plan = wanted(LEAST, APP, INTEGRATION)

    assert (plan.events, plan.headers, plan.secrets, plan.signing) == ([], {}, {}, False)
    assert (plan.timeout_ms, plan.retry_policy, plan.max_attempts) == (5000, "transient", 3)
    assert (plan.delays_ms, plan.retry_on_429) == ([5000, 20000], False)
    assert (plan.ordering, plan.max_in_flight, plan.while_paused, plan.auto_pause) == ("integration", 1, "hold", True)
    assert plan.template is None


def test_a_subscription_gets_the_defaults_of_bookings():
    plan = wanted(LEAST, APP, BOOKING)

    assert (plan.signing, plan.retry_policy, plan.max_attempts) == (True, "any_failure", 8)
    assert plan.delays_ms == [5_000, 20_000, 80_000, 320_000, 1_280_000, 5_120_000, 20_480_000]


def test_everything_that_is_given_is_kept():
    plan = wanted(
        {
            "name": "Alles ü",
            "profile": "integration",
            "url": "https://crm.example/hooks/{secret.path}?k={secret.token}",
            "events": ["call_ended", "order_paid", "scheduled.created", "call_ended"],
            "headers": {"Authorization": "Bearer {secret.token}", "X-Env": "prod"},
            "secrets": {"path": "p/1", "token": "t"},
            "timeoutMs": 10_000,
            "retry": {"policy": "any_failure", "maxAttempts": 2, "delaysMs": [100], "on429": True},
            "ordering": "key",
            "maxInFlight": 100,
            "whilePaused": "discard",
            "autoPause": False,
            "signing": True,
            "template": '{"text": "{{ event }}"}\n',
        },
        APP,
        INTEGRATION,
    )

    assert plan.events == ["call_ended", "order_paid", "scheduled.created"]
    assert plan.headers == {"Authorization": "Bearer {secret.token}", "X-Env": "prod"}
    assert plan.secrets == {"path": "p/1", "token": "t"}
    assert (plan.timeout_ms, plan.retry_policy, plan.max_attempts, plan.delays_ms) == (10_000, "any_failure", 2, [100])
    assert (plan.retry_on_429, plan.ordering, plan.max_in_flight) == (True, "key", 100)
    assert (plan.while_paused, plan.auto_pause, plan.signing) == ("discard", False, True)
    assert plan.template == '{"text": "{{ event }}"}\n'


def test_null_is_the_same_as_absent():
    assert wanted(
        LEAST | {"events": None, "headers": None, "retry": None, "ordering": None}, APP, INTEGRATION
    ) == wanted(LEAST, APP, INTEGRATION)


def test_an_ordering_that_allows_several_requests_gets_several():
    assert wanted(LEAST | {"ordering": "none"}, APP, INTEGRATION).max_in_flight == 10


@pytest.mark.parametrize("body", [None, [], "text", 1, True])
def test_a_body_that_is_no_object_is_refused(body):
    with pytest.raises(Refused, match="the body must be an object"):
        wanted(body, APP, INTEGRATION)


@pytest.mark.parametrize(
    ("changes", "field", "said"),
    [
        ({"name": None}, "name", "is required"),
        ({"name": " "}, "name", "is empty"),
        ({"name": "x" * 201}, "name", "has 201 characters, at most 200"),
        ({"name": "a\x00b"}, "name", r"control character (U+0000) at position 1"),
        ({"name": 7}, "name", "must be a text, not a whole number"),
        ({"url": None}, "url", "is required"),
        ({"timeoutMs": 0}, "timeoutMs", "from 1 to 10000, not 0"),
        ({"timeoutMs": 10_001}, "timeoutMs", "from 1 to 10000, not 10001"),
        ({"timeoutMs": "5000"}, "timeoutMs", "must be a whole number, not a text"),
        ({"timeoutMs": True}, "timeoutMs", "must be a whole number, not true or false"),
        ({"timeoutMs": 5.5}, "timeoutMs", "must be a whole number, not a number"),
        ({"maxInFlight": 0}, "maxInFlight", "from 1 to 100"),
        ({"maxInFlight": 101}, "maxInFlight", "from 1 to 100"),
        ({"ordering": "fifo"}, "ordering", "one of integration, strict, key, none"),
        ({"whilePaused": "drop"}, "whilePaused", "one of hold, discard"),
        ({"autoPause": "no"}, "autoPause", "true or false"),
        ({"signing": 1}, "signing", "true or false"),
        ({"sendTraceparent": "yes"}, "sendTraceparent", "true or false"),
        (
            {"sendTraceparent": True, "headers": {"Traceparent": "00-1"}},
            "headers.Traceparent",
            "where sendTraceparent is on",
        ),
        (
            {"sendTraceparent": True, "headers": {"tracestate": "a=b"}},
            "headers.tracestate",
            "where sendTraceparent is on",
        ),
        ({"template": {"text": "x"}}, "template", "must be a text, not an object"),
        ({"template": ""}, "template", "nothing is written"),
        ({"template": '{"text":\n {{ nope }}}'}, "template", "line 2: there is nothing called 'nope'"),
        ({"template": '{"text": "{secret.token}"}'}, "template", "refers to a secret"),
        ({"template": "x" * 16_385}, "template", "has 16385 bytes: 16384 at most"),
        ({"template": "text", "events": ["order_paid"]}, "template", "not JSON"),
        ({"retry": []}, "retry", "must be an object, not an array"),
        ({"retry": {"policy": "never"}}, "retry.policy", "one of transient, any_failure"),
        ({"retry": {"maxAttempts": 0}}, "retry.maxAttempts", "from 1 to 20"),
        ({"retry": {"maxAttempts": 21}}, "retry.maxAttempts", "from 1 to 20"),
        ({"retry": {"maxAttempts": 3, "delaysMs": [1]}}, "retry.delaysMs", "one wait less than maxAttempts: 2, not 1"),
        ({"retry": {"delaysMs": [1, 0]}}, "retry.delaysMs[1]", "from 1 to 86400000, not 0"),
        ({"retry": {"delaysMs": ["1"]}}, "retry.delaysMs[0]", "must be a whole number, not a text"),
        ({"retry": {"attempts": 3}}, "retry.attempts", "did you mean maxAttempts?"),
        ({"events": "call_ended"}, "events", "must be an array, not a text"),
        ({"events": ["call_end"]}, "events[0]", "'call_end' is no event type of this app: choose from call_ended,"),
        ({"events": ["call_ended", 3]}, "events[1]", "must be a text"),
        ({"events": ["*", "call_ended"]}, "events", "stands alone"),
        ({"events": ["x"] * 501}, "events", "has 501 entries, at most 500"),
        ({"profile": "booking"}, "profile", "paths of their own"),
        ({"id": "int_1"}, "id", "set by tenterhook: leave it out"),
        ({"status": "paused"}, "status", "set by tenterhook: leave it out"),
        ({"timeout": 3}, "timeout", "did you mean timeoutMs?"),
        ({"zzz": 3}, "zzz", "is unknown"),
        ({"headers": {"Host": "x"}}, "headers.Host", "set by tenterhook itself"),
        ({"headers": {"connection": "x"}}, "headers.connection", "belongs to the connection"),
        ({"headers": {"X-ApifyCloud-Event": "x"}}, "headers.X-ApifyCloud-Event", "set by tenterhook itself"),
        ({"headers": {"a b": "x"}}, "headers.a b", "is no header name"),
        ({"headers": {"X-A": "a\r\nX-B: c"}}, "headers.X-A", "line break"),
        ({"headers": {"X-A": 3}}, "headers.X-A", "must be a text"),
        ({"headers": {"X-A": "1", "x-a": "2"}}, "headers.x-a", "given twice"),
        ({"headers": {"X-A": "{secret.nope}"}}, "headers.X-A", "no secret of that name"),
        ({"headers": {"X-A": "{Secret.nope}"}}, "headers.X-A", "write {secret.name}"),
        ({"headers": {f"X-{n}": "1" for n in range(51)}}, "headers", "has 51 entries, at most 50"),
        ({"secrets": {"a b": "1"}}, "secrets.a b", "is no name for a secret"),
        ({"secrets": {"": "1"}}, "secrets.", "is no name for a secret"),
        ({"secrets": {"a": ""}}, "secrets.a", "1 to 4096 characters, not 0"),
        ({"secrets": {"a": "x" * 4097}}, "secrets.a", "1 to 4096 characters, not 4097"),
        ({"secrets": {"a": 1}}, "secrets.a", "must be a text"),
        ({"secrets": {"a": "x\n"}}, "secrets.a", "headers and URLs cannot carry it"),
        ({"secrets": {f"s{n}": "1" for n in range(51)}}, "secrets", "at most 50"),
    ],
)
def test_a_wrong_field_is_named_with_what_is_wrong(changes, field, said):
    found = refusals(changes)

    assert list(found) == [field]
    assert said in found[field]


def test_all_wrong_fields_are_named_at_once():
    assert set(refusals({"name": "", "timeoutMs": 0, "events": ["x"], "colour": "red"})) == {
        "name",
        "timeoutMs",
        "events[0]",
        "colour",
    }


def test_a_secret_that_no_header_can_carry_is_refused_where_a_header_refers_to_it():
    refused = refusals({"headers": {"X-A": "{secret.a}"}, "secrets": {"a": "🔑"}})

    assert list(refused) == ["headers.X-A"]
    assert "🔑" not in refused["headers.X-A"]
    assert wanted(LEAST | {"url": "https://a.example/{secret.a}", "secrets": {"a": "🔑"}}, APP, INTEGRATION)


def test_a_secret_refused_for_itself_does_not_make_its_references_wrong_too():
    assert set(refusals({"headers": {"X-A": "{secret.a}"}, "secrets": {"a": "x\n"}})) == {"secrets.a"}


@pytest.mark.parametrize("place", [{"secrets": {"a": "hunter2\n"}}, {"headers": {"X-A": "hunter2\r\n"}}])
def test_no_refusal_shows_a_secret_or_a_header_value(place):
    assert "hunter2" not in str(refusals(place))


def test_the_brand_of_our_headers_is_a_setting():
    with pytest.raises(Refused, match=r"headers\.Acme-Event"):
        wanted(LEAST | {"headers": {"Acme-Event": "x"}}, APP, INTEGRATION, brand="Acme")
    own = {"headers": {"X-ApifyCloud-Team": "{secret.a}"}, "secrets": {"a": "1"}}
    assert wanted(LEAST | own, APP, INTEGRATION, brand="Acme").headers == own["headers"]


def test_a_subscription_takes_booking_types_alone():
    assert wanted(LEAST | {"events": ["scheduled.created"]}, APP, BOOKING).events == ["scheduled.created"]
    assert wanted(LEAST | {"events": ["*"]}, APP, BOOKING).events == ["*"]
    assert "no event type of a booking" in refusals({"events": ["call_ended"]}, profile=BOOKING)["events[0]"]
    assert "no event type of a booking" in refusals({"events": ["order_paid"]}, profile=BOOKING)["events[0]"]


def test_a_subscription_is_always_signed():
    assert "always signed" in refusals({"signing": False}, profile=BOOKING)["signing"]


def test_http_is_refused_unless_the_app_allows_it():
    http = {"url": "http://crm.example/hook"}

    assert "does not allow http" in refusals(http)["url"]
    assert wanted(LEAST | http, msgspec.structs.replace(APP, allow_http=True), INTEGRATION).url == http["url"]


def test_the_number_of_attempts_follows_from_the_waits_and_the_waits_from_the_number():
    by_waits = wanted(LEAST | {"retry": {"delaysMs": [1, 2, 3]}}, APP, INTEGRATION)
    by_number = wanted(LEAST | {"retry": {"maxAttempts": 5}}, APP, INTEGRATION)
    once = wanted(LEAST | {"retry": {"delaysMs": []}}, APP, INTEGRATION)

    assert (by_waits.max_attempts, by_waits.delays_ms) == (4, [1, 2, 3])
    assert (by_number.max_attempts, by_number.delays_ms) == (5, [5_000, 20_000, 80_000, 320_000])
    assert (once.max_attempts, once.delays_ms) == (1, [])


@pytest.mark.parametrize("profile", [INTEGRATION, BOOKING])
@pytest.mark.parametrize("attempts", range(1, 21))
def test_default_waits_are_one_fewer_than_attempts_never_shrink_and_never_pass_a_day(profile, attempts):
    delays = default_delays_ms(attempts, profile)

    assert len(delays) == attempts - 1
    assert delays == sorted(delays)
    assert all(delay <= 86_400_000 for delay in delays)


def existing(count, **changes):
    one = {"profile": "integration", "status": "active", "app": "demo", **changes}
    return [msgspec.convert(BLANK | one | {"id": f"int_{n}"}, IntegrationConfig) for n in range(count)]


BLANK = {
    "id": "int_0",
    "app": "demo",
    "profile": "integration",
    "name": "x",
    "url": "https://x.example",
    "events": [],
    "headers": {},
    "secrets": {},
    "signing_secrets": [],
    "signing": False,
    "timeout_ms": 5000,
    "retry_policy": "transient",
    "max_attempts": 1,
    "delays_ms": [],
    "retry_on_429": False,
    "ordering": "integration",
    "max_in_flight": 1,
    "while_paused": "hold",
    "auto_pause": True,
    "status": "active",
    "version": 1,
    "epoch": 1,
    "skip_before": 0,
    "created_at_ms": 0,
    "updated_at_ms": 0,
    "updated_by": "test",
}


def test_the_third_active_integration_has_a_place_and_the_fourth_has_none():
    assert quota_fault(APP, existing(2), INTEGRATION) is None
    assert "3 active integrations, and 3 are allowed" in quota_fault(APP, existing(3), INTEGRATION)


def test_paused_integrations_and_subscriptions_use_no_place():
    others = existing(5, status="paused") + existing(5, profile="booking")

    assert quota_fault(APP, existing(2) + others, INTEGRATION) is None


def test_subscriptions_have_no_quota():
    assert quota_fault(APP, existing(50, profile="booking"), BOOKING) is None


def test_the_quota_is_a_setting_of_the_app():
    assert quota_fault(msgspec.structs.replace(APP, max_active=5), existing(4), INTEGRATION) is None
