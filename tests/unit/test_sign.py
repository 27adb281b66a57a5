"""Both signatures, against examples that are not ours."""

import base64
import hashlib
import hmac

import pytest

from services.dispatcher.sign import UnusableSecret, brand_signature, new_signing_secret, standard_signature

# The example of the Standard Webhooks specification and of its reference libraries' tests.
SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
MESSAGE = "msg_p5jXN8AQM9LWM0D4loKWxJek"
TIMESTAMP_S = 1_614_265_330
BODY = b'{"test": 2432232314}'
SIGNATURE = "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="


def test_the_standard_signature_is_that_of_the_specifications_example():
    assert standard_signature([SECRET], MESSAGE, TIMESTAMP_S, BODY) == SIGNATURE


def test_a_standard_signature_lists_each_secret_in_order():
    other = new_signing_secret(bytes(32))
    alone = [standard_signature([secret], MESSAGE, TIMESTAMP_S, BODY) for secret in (other, SECRET)]
    assert standard_signature([other, SECRET], MESSAGE, TIMESTAMP_S, BODY).split(" ") == alone


def test_the_brands_signature_is_the_hmac_of_the_body_keyed_with_the_secret_as_shown():
    expected = hmac.new(SECRET.encode(), BODY, hashlib.sha256).hexdigest()
    assert brand_signature(SECRET, BODY) == f"sha256={expected}"


def test_the_brands_signature_is_that_of_rfc_4231():
    """Test case 2: key "Jefe", data "what do ya want for nothing?"."""
    assert brand_signature("Jefe", b"what do ya want for nothing?") == (
        "sha256=5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843"
    )


def test_a_new_secret_encodes_the_bytes_drawn():
    secret = new_signing_secret(bytes(range(32)))
    assert secret.startswith("whsec_")
    assert base64.b64decode(secret.removeprefix("whsec_"), validate=True) == bytes(range(32))


@pytest.mark.parametrize("count", [0, 31, 33])
def test_a_new_secret_takes_32_bytes(count):
    with pytest.raises(ValueError, match="32"):
        new_signing_secret(bytes(count))


@pytest.mark.parametrize("secret", ["whsec_", "", "whsec_not base64!", "whsec_ä"])
def test_a_secret_that_encodes_nothing_is_refused_and_not_shown(secret):
    with pytest.raises(UnusableSecret) as caught:
        standard_signature([secret], MESSAGE, TIMESTAMP_S, BODY)
    assert "base64!" not in str(caught.value)
    assert caught.value.__cause__ is None
