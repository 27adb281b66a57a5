"""A request of a dry run: as it would go out, without a secret."""

import pytest

from services.dispatcher.dry_run import MASK, shown, without_secrets
from services.dispatcher.plan import prepare
from services.dispatcher.replaying import Past
from streams.records import Secret, SigningSecret
from tests.logs import make_event
from tests.records import make_integration, make_replay

PAST = Past(0, 7, make_event(3, event_id="evt_3", occurred_at_ms=0), None)
SECRETS = {"token": Secret(version=1, sealed=b"cannot be opened", created_at_ms=0)}


def request(allow_http: bool = False, **config):
    config = make_integration(**config)
    prepared = prepare(config, without_secrets(config), "X-Acme", "9.9")
    return shown(make_replay("rpl_9"), PAST, prepared, now_ms=1_000, allow_http=allow_http)


def test_it_is_the_request_that_would_go_out_and_says_which_replay_it_is_of():
    found = request()

    assert (found.url, found.refusal, found.event_id, found.was_delivered_live) == (
        "https://crm.example/hooks", None, "evt_3", False,
    )  # fmt: skip
    assert dict(found.headers) == {
        "Content-Type": "application/json",
        "User-Agent": "tenterhook/9.9",
        "X-Acme-Event": "call_ended",
        "X-Acme-Delivery": "int_1:1",
        "X-Acme-Timestamp": "1970-01-01T00:00:01.000Z",
        "X-Acme-Replay": "rpl_9",
    }
    assert found.body == (
        b'{"event":"call_ended","id":"evt_3","appId":"demo","occurredAt":"1970-01-01T00:00:00.000Z",'
        b'"deliveredAt":"1970-01-01T00:00:01.000Z","attempt":1,"payload":{"n": 3, "key": null}}'
    )


def test_no_secret_is_opened_and_none_is_shown():
    """The sealed values here open with no key at all."""
    found = request(
        url="https://crm.example/{secret.token}/x",
        headers={"Authorization": b"cannot be opened"},
        secrets=SECRETS,
        signing=True,
        signing_secrets=[SigningSecret(version=1, sealed=b"cannot be opened", created_at_ms=0)],
    )

    assert found.url == "https://crm.example/***/x"
    headers = dict(found.headers)
    assert {headers["Authorization"], headers["X-Acme-Signature"], headers["webhook-signature"]} == {MASK}
    assert headers["webhook-id"] == "evt_3"


@pytest.mark.parametrize(
    ("config", "code"),
    [
        ({"url": "https://crm.example/{secret.other}"}, "secret_unknown"),
        ({"url": "http://crm.example/"}, "url_refused"),
        ({"signing": True}, "signing_secret_missing"),
    ],
)
def test_what_would_be_blocked_is_said(config, code):
    assert request(**config).refusal[0] == code


def test_http_is_taken_where_the_app_allows_it():
    assert request(allow_http=True, url="http://crm.example/").refusal is None


def test_a_template_is_previewed_and_one_that_fails_is_told_without_a_body():
    previewed = request(template='{"text": "{{ event }} {{ payload.n }}"}')
    failing = request(template='{"text": "{{ 60 | divided_by: payload.key }}"}')

    assert (previewed.body, previewed.refusal) == (b'{"text": "call_ended 3"}', None)
    assert (failing.body, failing.refusal[0]) == (b"", "template_failed")
