"""The receiver's check of signatures, held against the package of Standard Webhooks and against openssl's figures."""

import base64
import hashlib
import hmac
from datetime import UTC, datetime

import pytest
from multidict import CIMultiDict
from standardwebhooks.webhooks import Webhook

from services.cli.verify import Verified, verified

SECRET = "whsec_" + base64.b64encode(bytes(range(32))).decode()
BODY = b'{"event":"call_ended"}'
NOW_S = 1_767_323_045.0


def headers(**changes):
    at = datetime.fromtimestamp(NOW_S, UTC)
    given = {
        "X-ApifyCloud-Signature": "sha256=" + hmac.new(SECRET.encode(), BODY, hashlib.sha256).hexdigest(),
        "webhook-id": "evt_1",
        "webhook-timestamp": str(int(NOW_S)),
        "webhook-signature": Webhook(SECRET).sign("evt_1", at, BODY.decode()),
    }
    given = {name: value for name, value in (given | changes).items() if value is not None}
    return CIMultiDict(given)


def check(given, body=BODY, secret=SECRET, now_s=NOW_S, brand="X-ApifyCloud"):
    return verified(given, body, secret, brand=brand, now_s=now_s)


def test_a_request_signed_by_others_is_verified_in_both_schemes():
    assert check(headers()) == Verified("yes", "yes")


def test_the_known_answer_of_openssl_is_verified():
    # printf %s '{"event":"call_ended"}' | openssl dgst -sha256 -hmac secret
    known = {"X-ApifyCloud-Signature": "sha256=6982f1ef4ed0becfbc6b41d84a77a2436bb3e2130c8ca5e7870f1ff906b81fb6"}
    assert check(CIMultiDict(known), secret="secret") == Verified("yes", "unsigned")


def test_names_of_headers_are_the_same_in_any_case():
    assert check(CIMultiDict({name.upper(): value for name, value in headers().items()})) == Verified("yes", "yes")


def test_one_changed_byte_of_the_body_is_noticed():
    assert check(headers(), body=BODY + b" ") == Verified("no", "no")


def test_another_secret_is_noticed():
    assert check(headers(), secret="whsec_" + base64.b64encode(bytes(32)).decode()) == Verified("no", "no")


def test_without_a_secret_nothing_is_claimed():
    assert check(headers(), secret=None) == Verified("unchecked", "unchecked")


def test_without_signatures_it_is_unsigned():
    assert check(CIMultiDict()) == Verified("unsigned", "unsigned")


def test_the_brand_of_the_header_is_a_setting():
    renamed = headers(**{"X-ApifyCloud-Signature": None, "Acme-Signature": headers()["X-ApifyCloud-Signature"]})

    assert (check(renamed, brand="Acme").brand, check(renamed).brand) == ("yes", "unsigned")


def test_one_of_several_signatures_is_enough():
    both = headers(**{"webhook-signature": "v1,AAAA v1a,xyz " + headers()["webhook-signature"]})
    assert check(both).standard == "yes"


@pytest.mark.parametrize("off_s", [-300, 300])
def test_a_request_within_five_minutes_is_in_time(off_s):
    assert check(headers(), now_s=NOW_S + off_s).standard == "yes"


@pytest.mark.parametrize("off_s", [-301, 301])
def test_an_old_or_early_request_is_a_replay(off_s):
    assert check(headers(), now_s=NOW_S + off_s) == Verified("yes", "no")


@pytest.mark.parametrize("stamp", ["", "x", "-1", "1.5", "9" * 5000, None])
def test_a_time_that_is_none_is_wrong(stamp):
    assert check(headers(**{"webhook-timestamp": stamp})).standard == "no"


@pytest.mark.parametrize("secret", ["whsec_not base64", "ü", "x"])
def test_a_secret_that_encodes_nothing_verifies_nothing(secret):
    assert check(headers(), secret=secret) == Verified("no", "no")
