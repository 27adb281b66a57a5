"""A delivery as the request that goes out, against the product pages."""

import base64
import json

import pytest

from schemas.profiles import MAX_BODY_BYTES
from services.body.envelope import iso_ms
from services.dispatcher.plan import Opened, Planned, Unplannable, plan, prepare
from services.dispatcher.sign import brand_signature, standard_signature
from tests.records import make_delivery, make_integration

NOW_MS = 1_763_788_763_042
AT = "2025-11-22T05:19:23.042Z"
OLD, NEW = (f"whsec_{base64.b64encode(bytes([n]) * 32).decode()}" for n in (1, 2))


def opened(headers=None, secrets=None, signing=()):
    return Opened(headers=headers or {}, secrets=secrets or {}, signing=list(signing))


def planned(delivery=None, integration=None, secrets=None, now_ms=NOW_MS, brand="X-ApifyCloud"):
    return plan(
        delivery or make_delivery(), integration or make_integration(), secrets or opened(), now_ms, brand, "1.2.3"
    )


class TestBody:
    def test_a_bookings_body_is_exactly_the_product_pages(self):
        payload = b'{ "scheduled_call":\n {"id": "\\u00e9", "n": 1.0} }'
        made = planned(
            make_delivery(type="scheduled.created", payload=payload, attempt=3), make_integration(profile="booking")
        )
        assert made.body == b'{"event":"scheduled.created","deliveredAt":"%b","attempt":3,"payload":%b}' % (
            AT.encode(),
            payload,
        )

    def test_an_integrations_body_has_the_envelope(self):
        made = planned(make_delivery(app="demo", event_id="evt_9", occurred_at_ms=1_700_000_000_007))
        assert made.body == (
            b'{"event":"call_ended","id":"evt_9","appId":"demo","occurredAt":"2023-11-14T22:13:20.007Z",'
            b'"deliveredAt":"%b","attempt":1,"payload":{"callId":"call_1"}}' % AT.encode()
        )

    def test_an_absent_payload_is_null(self):
        assert json.loads(planned(make_delivery(payload=b"")).body)["payload"] is None

    @pytest.mark.parametrize("name", ['a"b', "a\\b", "ä"])
    def test_names_are_escaped(self, name):
        """Ingest lets no such type in, but an app's name may be anything."""
        assert json.loads(planned(make_delivery(app=name)).body)["appId"] == name

    @pytest.mark.parametrize("profile", ["integration", "booking"])
    def test_a_body_may_have_the_largest_size_and_no_byte_more(self, profile):
        integration = make_integration(profile=profile)
        empty = len(planned(make_delivery(payload=b"[]"), integration).body)
        fits = b"[" + b" " * (MAX_BODY_BYTES - empty) + b"]"
        assert len(planned(make_delivery(payload=fits), integration).body) == MAX_BODY_BYTES
        refused = planned(make_delivery(payload=fits + b" "), integration)
        assert (refused.code, "65537" in refused.detail) == ("body_too_large", True)


class TestTemplate:
    SLACK = '{"text": "Call {{ payload.callId }} ended ({{ attempt }}, {{ deliveredAt }})"}'

    @pytest.mark.parametrize("profile", ["integration", "booking"])
    def test_it_makes_the_body_whatever_the_profile(self, profile):
        made = planned(make_delivery(attempt=2), make_integration(profile=profile, template=self.SLACK))
        assert made.body == b'{"text": "Call call_1 ended (2, %b)"}' % AT.encode()
        assert dict(made.headers)["Content-Type"] == "application/json"

    def test_the_signatures_are_over_what_it_made(self):
        integration = make_integration(signing=True, template=self.SLACK)
        made = planned(integration=integration, secrets=opened(signing=[(NEW, None)]))
        headers = dict(made.headers)
        assert headers["X-ApifyCloud-Signature"] == brand_signature(NEW, made.body)
        assert headers["webhook-signature"] == standard_signature([NEW], "evt_1", NOW_MS // 1000, made.body)

    @pytest.mark.parametrize(
        ("template", "said"),
        [
            ('{"text":\n{{ payload.n.size | divided_by: 0 }}}', "line 2: the filter divided_by"),
            ("{{ payload.callId }}, ", "line 1: what is written is not JSON"),
            ("{{ nope }}", "line 1: there is nothing called 'nope'"),
            ('"' + "{% for i in payload.n %}" + "x" * 9_000 + '{% endfor %}"', "more than 65536 bytes"),
        ],
    )
    def test_one_that_fails_is_unplannable_and_says_where(self, template, said):
        delivery = make_delivery(payload=b'{"callId":"call_1","n":[1,2,3,4,5,6,7,8,9]}')
        refused = planned(delivery, make_integration(template=template))
        assert isinstance(refused, Unplannable)
        assert refused.code == "template_failed"
        assert said in refused.detail
        assert "call_1" not in refused.detail

    def test_it_sees_no_secret(self):
        secrets = opened({"Authorization": "Bearer {secret.k}"}, {"k": "s3cret"}, [(NEW, None)])
        made = planned(integration=make_integration(template='["{secret.k}", {{ payload }}]'), secrets=secrets)
        assert made.body == b'["{secret.k}", {"callId":"call_1"}]'


class TestHeaders:
    def test_only_a_request_of_a_replay_says_which_replay_it_is_of(self):
        def named(**changes):
            return dict(planned(make_delivery(**changes), brand="X-Acme").headers).get("X-Acme-Replay")

        assert named(cause="replay", run="rpl_1") == "rpl_1"
        assert {named(), named(cause="retry", run="c_1"), named(cause="test", run="c_1")} == {None}

    def test_without_signing_they_are_exactly_these(self):
        assert planned(make_delivery(attempt=2), make_integration("int_7")).headers == (
            ("Content-Type", "application/json"),
            ("User-Agent", "tenterhook/1.2.3"),
            ("X-ApifyCloud-Event", "call_ended"),
            ("X-ApifyCloud-Delivery", "int_7:2"),
            ("X-ApifyCloud-Timestamp", AT),
        )

    def test_the_brand_is_a_setting(self):
        assert dict(planned(brand="X-Acme").headers)["X-Acme-Event"] == "call_ended"

    def test_signing_adds_both_schemes_over_the_body_as_sent(self):
        made = planned(make_delivery(event_id="evt_9"), make_integration(signing=True), opened(signing=[(NEW, None)]))
        assert made.headers[5:] == (
            ("X-ApifyCloud-Signature", brand_signature(NEW, made.body)),
            ("webhook-id", "evt_9"),
            ("webhook-timestamp", str(NOW_MS // 1000)),
            ("webhook-signature", standard_signature([NEW], "evt_9", NOW_MS // 1000, made.body)),
        )

    def test_the_own_headers_come_last_in_order_and_case_with_secrets_filled_in(self):
        secrets = opened({"authorization": "Bearer {secret.a}", "X-B": "b {secret.a}{secret.b}"}, {"a": "1", "b": "2"})
        assert planned(secrets=secrets).headers[5:] == (("authorization", "Bearer 1"), ("X-B", "b 12"))


class TestRotation:
    def sent(self, *signing, now_ms=NOW_MS):
        made = planned(make_delivery(), make_integration(signing=True), opened(signing=signing), now_ms)
        headers = dict(made.headers)
        by_text = {brand_signature(secret, made.body): secret for secret in (OLD, NEW)}
        listed = [
            secret
            for part in headers["webhook-signature"].split(" ")
            for secret in (OLD, NEW)
            if part == standard_signature([secret], "evt_1", now_ms // 1000, made.body)
        ]
        return by_text[headers["X-ApifyCloud-Signature"]], listed

    def test_during_the_overlap_the_brand_stays_on_the_old_secret_and_the_standard_lists_both(self):
        assert self.sent((NEW, None), (OLD, NOW_MS + 1)) == (OLD, [NEW, OLD])

    def test_after_the_overlap_both_are_on_the_new_secret(self):
        assert self.sent((NEW, None), (OLD, NOW_MS)) == (NEW, [NEW])

    def test_rotated_now_both_are_on_the_new_secret(self):
        assert self.sent((NEW, None)) == (NEW, [NEW])

    def test_the_secret_may_change_between_two_attempts_of_one_configuration(self):
        ready = prepare(
            make_integration(signing=True), opened(signing=[(NEW, None), (OLD, NOW_MS)]), "X-ApifyCloud", "1"
        )
        signatures = [
            len(dict(ready.plan(make_delivery(), at).headers)["webhook-signature"]) for at in (NOW_MS - 1, NOW_MS)
        ]
        assert signatures == [95, 47]


class TestUnplannable:
    @pytest.mark.parametrize(
        ("integration", "secrets", "code"),
        [
            ({"url": "https://x.example/{secret.nope}"}, opened(), "secret_unknown"),
            ({}, opened({"X-A": "{secret.nope}"}), "secret_unknown"),
            ({"url": "https://x.example/a b"}, opened(), "url_unrenderable"),
            ({}, opened({"X-A": "a {secret.k3y}"}, {"k3y": "v4lue\r\nX-Evil: 1"}), "header_unrenderable"),
            ({}, opened({"X-A": "{secret.k3y}"}, {"k3y": "v4lue\x00"}), "header_unrenderable"),
            ({}, opened({"X-A": "{secret.k3y}"}, {"k3y": "v4lueü"}), "header_unrenderable"),
            ({}, opened({"Content-Length": "v4lue"}), "header_unrenderable"),
            ({}, opened({"x-apifycloud-event": "v4lue"}), "header_unrenderable"),
            ({"signing": True}, opened(), "signing_secret_missing"),
            ({"signing": True}, opened(signing=[(OLD, NOW_MS)]), "signing_secret_missing"),
            ({"signing": True}, opened(signing=[("whsec_v4lue!", None)]), "signing_secret_unusable"),
        ],
    )
    def test_what_cannot_be_sent_says_why_and_shows_no_secret(self, integration, secrets, code):
        refused = planned(integration=make_integration(**integration), secrets=secrets)
        assert isinstance(refused, Unplannable)
        assert refused.code == code
        assert "v4lue" not in refused.detail

    def test_an_event_type_cannot_break_out_of_its_header(self):
        refused = planned(make_delivery(type="a\r\nX-Evil: 1"))
        assert (refused.code, "Evil" in refused.detail) == ("header_unrenderable", False)


class TestMasks:
    def test_every_secret_and_every_value_of_an_own_header_is_masked_and_credentials_by_themselves(self):
        made = planned(
            integration=make_integration(signing=True),
            secrets=opened(
                {"Authorization": "Bearer literal-token", "X-Env": "eu"}, {"unused": "s3cret"}, [(NEW, None), (OLD, 5)]
            ),
        )
        assert set(made.masks) == {
            "s3cret",
            NEW.removeprefix("whsec_"),
            OLD.removeprefix("whsec_"),
            "Bearer literal-token",
            "literal-token",
            "eu",
        }

    def test_of_basic_credentials_the_password_is_masked_too(self):
        basic = base64.b64encode(b"user:pass word").decode()
        assert {basic, "user:pass word", "pass word"} <= set(
            planned(secrets=opened({"Authorization": f"Basic {basic}"})).masks
        )

    def test_of_cookies_the_values_are_masked_too(self):
        masks = planned(secrets=opened({"Cookie": 'a=b; session="0123456789"'})).masks
        assert "0123456789" in masks
        assert "b" not in masks

    def test_nothing_that_may_hold_a_secret_is_in_a_repr(self):
        secrets = opened({"Authorization": "Bearer v4lue"}, {"p": "v4lue"}, [(NEW, None)])
        integration = make_integration(url="https://x.example/{secret.p}", signing=True)
        ready = prepare(integration, secrets, "X-ApifyCloud", "1")
        made = ready.plan(make_delivery(), NOW_MS)
        assert isinstance(made, Planned)
        assert "v4lue" not in repr(made) + repr(ready) + repr(secrets)
        assert NEW not in repr(made) + repr(ready) + repr(secrets)


def test_the_timeout_is_the_integrations():
    assert planned(integration=make_integration(timeout_ms=750)).timeout_ms == 750


@pytest.mark.parametrize(
    ("at_ms", "text"),
    [
        (0, "1970-01-01T00:00:00.000Z"),
        (NOW_MS, AT),
        (-1, "1969-12-31T23:59:59.999Z"),
        (253_402_300_799_999, "9999-12-31T23:59:59.999Z"),
    ],
)
def test_times_are_iso_8601_in_utc_with_milliseconds(at_ms, text):
    assert iso_ms(at_ms) == text
