"""From the wish to the record and back to JSON: everything secret is sealed, and nothing secret is shown."""

import json

import pytest

from schemas.profiles import BOOKING, INTEGRATION
from services.admin.compose import new_integration, signing_secret
from services.admin.rules import wanted
from services.admin.shown import MASK, integration_json, masked
from services.breaker.fold import Rules, fold
from services.breaker.fold import state_of as breaker_state_of
from services.runtime.times import iso
from services.vault.opened import open_integration
from services.vault.seal import Keyring, SealedUnderOtherKey, Unsealable
from streams import codec
from streams.records import AppConfig, IntegrationConfig, IntegrationState
from tests.breaking import NOON_MS, delivered, make_result
from tests.records import make_integration

HOUR_MS = 3_600_000
KEYRING = Keyring(bytes(range(32)))
APP = AppConfig(
    app="demo",
    name="Demo",
    keys=[],
    tokens=[],
    origins=[],
    event_types=[],
    allow_http=False,
    max_active=3,
    version=1,
    created_at_ms=0,
    updated_at_ms=0,
    updated_by="test",
)
BODY = {
    "name": "CRM",
    "url": "https://crm.example/hooks/{secret.path}",
    "events": ["call_ended"],
    "headers": {"Authorization": "Bearer {secret.token}", "X-Api-Key": "LITERAL-VALUE"},
    "secrets": {"token": "PLAIN-TOKEN", "path": "PLAIN-PATH"},
}
SIGNING = signing_secret(bytes(32))


def composed(profile=INTEGRATION, signing=None, **changes):
    plan = wanted(BODY | changes, APP, profile)
    return new_integration(
        plan,
        integration="int_1",
        app="demo",
        profile=profile,
        signing=signing,
        keyring=KEYRING,
        now_ms=1_767_323_045_678,
        who="ops",
    )


def test_the_record_opens_to_what_was_asked_for():
    opened = open_integration(composed(BOOKING, SIGNING, events=[]), KEYRING)

    assert opened.headers == BODY["headers"]
    assert opened.secrets == BODY["secrets"]
    assert opened.signing == [(SIGNING, None)]


def test_the_record_survives_the_log():
    config = composed(BOOKING, SIGNING, events=[])

    assert codec.decode_as(IntegrationConfig, codec.encode(config)) == config


@pytest.mark.parametrize("plain", [b"PLAIN", b"LITERAL", b"Bearer", b"whsec_", SIGNING[6:].encode(), bytes(32)])
def test_no_plain_secret_is_in_the_record(plain):
    assert plain not in codec.encode(composed(BOOKING, SIGNING, events=[]))


def test_opened_secrets_do_not_show_in_a_representation():
    shown = repr(open_integration(composed(BOOKING, SIGNING, events=[]), KEYRING))

    assert shown == "OpenedSecrets()"


def test_a_secret_moved_between_integrations_opens_nowhere():
    one, other = composed(), composed()
    stolen = IntegrationConfig(**{name: getattr(other, name) for name in other.__struct_fields__} | {"id": "int_2"})

    assert open_integration(one, KEYRING)
    with pytest.raises(Unsealable):
        open_integration(stolen, KEYRING)


def test_another_kek_opens_nothing():
    with pytest.raises(SealedUnderOtherKey):
        open_integration(composed(), Keyring(bytes(32)))


def test_the_json_has_exactly_the_fields_of_the_contract():
    assert integration_json(composed(), KEYRING) == {
        "id": "int_1",
        "profile": "integration",
        "name": "CRM",
        "url": "https://crm.example/hooks/{secret.path}",
        "events": ["call_ended"],
        "headers": {"Authorization": "Bearer {secret.token}", "X-Api-Key": MASK},
        "timeoutMs": 5000,
        "retry": {"policy": "transient", "maxAttempts": 3, "delaysMs": [5000, 20000], "on429": False},
        "ordering": "integration",
        "maxInFlight": 1,
        "whilePaused": "hold",
        "autoPause": True,
        "signing": False,
        "template": None,
        "sendTraceparent": False,
        "status": "active",
        "statusReason": None,
        "consecutiveFailures": 0,
        "successRate": None,
        "queueAgeMs": None,
        "lastDelivery": None,
        "version": 1,
        "epoch": 1,
        "createdAt": "2026-01-02T03:04:05.678Z",
        "updatedAt": "2026-01-02T03:04:05.678Z",
    }


def state_of(**changes) -> IntegrationState:
    fields = {
        "integration": "int_1",
        "app": "demo",
        "state": "failing",
        "epoch": 1,
        "reason": "3 attempts in a row failed",
        "consecutive_failures": 3,
        "delivered": 49,
        "ended": 51,
        "last_delivery_id": "dlv_1",
        "last_outcome": "exhausted",
        "last_event_type": "call_ended",
        "last_status": 503,
        "last_attempt": 3,
        "last_at_ms": 1_767_323_045_007,
        "applied_offset": 9,
    }
    return IntegrationState(**fields | changes)


def shown_with(state, now_ms=1_767_323_045_007, **changes):
    config = composed()
    config = IntegrationConfig(**{name: getattr(config, name) for name in config.__struct_fields__} | changes)
    return integration_json(config, KEYRING, state=state, now_ms=now_ms)


def test_what_the_breaker_says_is_shown():
    shown = shown_with(state_of())

    assert (shown["status"], shown["statusReason"]) == ("failing", "3 attempts in a row failed")
    assert (shown["consecutiveFailures"], shown["successRate"]) == (3, 0.961)
    assert shown["lastDelivery"] == {
        "id": "dlv_1",
        "event": "call_ended",
        "outcome": "exhausted",
        "status": 503,
        "attempt": 3,
        "at": "2026-01-02T03:04:05.007Z",
    }


def test_a_person_s_word_outweighs_the_breaker_s():
    shown = shown_with(state_of(), status="paused", status_reason="maintenance")

    assert (shown["status"], shown["statusReason"], shown["consecutiveFailures"]) == ("paused", "maintenance", 3)


def test_after_an_activation_nothing_of_the_epoch_before_is_shown_but_its_deliveries():
    shown = shown_with(state_of(state="paused"), epoch=2)

    assert (shown["status"], shown["statusReason"], shown["consecutiveFailures"]) == ("active", None, 0)
    assert (shown["successRate"], shown["lastDelivery"]["id"]) == (0.961, "dlv_1")


def test_a_rate_is_of_what_ended_within_a_day_of_now_whatever_has_ended_since():
    """One that is paused and discards goes on having last deliveries."""
    results = [
        delivered(0),
        make_result(1, outcome="rejected"),
        make_result(2, outcome="exhausted", finished_at_ms=NOON_MS + 3 * HOUR_MS),
        make_result(3, outcome="discarded", attempt=0, finished_at_ms=NOON_MS + 40 * HOUR_MS),
    ]
    row = None
    for offset, result in enumerate(results):
        row = fold(row, result, offset, Rules(failing_after=3))
    state = breaker_state_of(row, make_integration())

    hours = {hours: shown_with(state, NOON_MS + hours * HOUR_MS)["successRate"] for hours in (3, 23, 24, 26, 27, 40)}
    assert hours == {3: 0.333, 23: 0.333, 24: 0.0, 26: 0.0, 27: None, 40: None}
    assert shown_with(state)["lastDelivery"]["outcome"] == "discarded"


def test_a_rate_that_an_older_release_has_written_is_shown_for_a_day_from_its_last_delivery():
    last_at_ms, day_ms = state_of().last_at_ms, 24 * HOUR_MS

    assert shown_with(state_of(), last_at_ms + day_ms - 1)["successRate"] == 0.961
    assert shown_with(state_of(), last_at_ms + day_ms)["successRate"] is None
    assert shown_with(state_of(last_outcome="discarded"))["successRate"] is None
    assert shown_with(state_of(delivered=0, ended=0))["successRate"] is None


def test_no_secret_is_in_the_json():
    shown = json.dumps(integration_json(composed(BOOKING, SIGNING, events=[]), KEYRING))

    assert not [plain for plain in ("PLAIN", "LITERAL", SIGNING) if plain in shown]


def test_header_values_that_do_not_open_are_masked_and_the_rest_is_shown():
    shown = integration_json(composed(), Keyring(bytes(32)))

    assert (shown["headers"], shown["name"]) == ({"Authorization": MASK, "X-Api-Key": MASK}, "CRM")


@pytest.mark.parametrize(
    ("template", "shown"),
    [
        ("Bearer {secret.token}", "Bearer {secret.token}"),
        ("{secret.token}", "{secret.token}"),
        ("{secret.a}{secret.b}", "{secret.a}{secret.b}"),
        ("Token  {secret.a}", "Token  {secret.a}"),
        ("abc123", MASK),
        ("Bearer abc123", MASK),
        ("", MASK),
        ("abc123{secret.x}", MASK + "{secret.x}"),
        ("Bearer abc123 {secret.x} def", MASK + "{secret.x}" + MASK),
    ],
)
def test_only_references_and_words_of_schemes_are_shown_of_a_header(template, shown):
    assert masked(template) == shown


def test_a_signing_secret_is_whsec_and_base64_of_32_bytes():
    assert signing_secret(bytes(range(32))) == "whsec_AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8="
    with pytest.raises(ValueError, match="not 31"):
        signing_secret(bytes(31))


def test_times_are_iso_8601_in_utc_with_milliseconds():
    assert (iso(0), iso(1_767_323_045_007)) == ("1970-01-01T00:00:00.000Z", "2026-01-02T03:04:05.007Z")
