"""Deliveries that really arrived, verified by code that is not ours, as receivers do."""

import base64
import json
import secrets
import shutil
import subprocess
import time
from pathlib import Path

import pytest
import standardwebhooks

from services.dispatcher.plan import Opened, plan
from services.dispatcher.sender import Request
from services.dispatcher.sign import new_signing_secret
from tests.endpoints import endpoint
from tests.records import make_delivery, make_integration

RECEIVERS = Path(__file__).parent.parent / "receivers"
#: Spaces, line ends, escapes and more than one byte a character: what is lost where a body is parsed and written again.
PAYLOAD = '{ "scheduled_call" :\r\n {"id": "sc_1", "guest": "Zoë \\u00e9 \\/", "n": 1.0, "big": 98765432109876543210} }'


@pytest.fixture
def rotated():
    """A new secret and the old one, in the overlap of a rotation."""
    return tuple(new_signing_secret(secrets.token_bytes(32)) for _ in range(2))


@pytest.fixture(params=["integration", "booking"])
async def arrived(request, sender, rotated):
    """A delivery of each profile, as an endpoint received it."""
    new, old = rotated
    now_ms = time.time_ns() // 1_000_000
    async with endpoint() as there:
        planned = plan(
            make_delivery(type="scheduled.created", payload=PAYLOAD.encode(), event_id="evt_019aa0a0-1b2c"),
            make_integration(profile=request.param, url=there.url, signing=True),
            Opened(headers={}, secrets={}, signing=[(new, None), (old, now_ms + 60_000)]),
            now_ms,
            "X-ApifyCloud",
            "0.1.0",
        )
        answer = await sender.send(
            Request(url=planned.url, headers=planned.headers, body=planned.body, timeout_ms=planned.timeout_ms)
        )
    assert answer.status == 200
    return there.received[0]


def verified_by_node(secret, received):
    given = {"secret": secret, "headers": dict(received.headers), "body": base64.b64encode(received.body).decode()}
    return subprocess.run(
        ["node", "verify.mjs"],
        cwd=RECEIVERS,
        input=json.dumps(given).encode(),
        capture_output=True,
        timeout=30,
        check=False,
    )


def hmac_by_openssl(secret, body):
    done = subprocess.run(["openssl", "dgst", "-sha256", "-hmac", secret], input=body, capture_output=True, check=True)
    return done.stdout.decode().strip().rpartition(" ")[2]


def test_the_payload_arrives_byte_for_byte(arrived):
    assert PAYLOAD.encode() in arrived.body
    assert json.loads(arrived.body)["payload"] == json.loads(PAYLOAD)


@pytest.mark.parametrize("which", [0, 1], ids=["new secret", "old secret"])
class TestStandardWebhooks:
    def test_the_package_of_pypi_accepts_it(self, arrived, rotated, which):
        found = standardwebhooks.Webhook(rotated[which]).verify(arrived.body, dict(arrived.headers))
        assert found["event"] == "scheduled.created"

    def test_the_package_of_pypi_refuses_one_changed_byte(self, arrived, rotated, which):
        with pytest.raises(standardwebhooks.WebhookVerificationError):
            standardwebhooks.Webhook(rotated[which]).verify(arrived.body + b" ", dict(arrived.headers))

    @pytest.mark.node
    @pytest.mark.skipif(
        not shutil.which("node") or not (RECEIVERS / "node_modules").is_dir(),
        reason="needs Node.js and `make npm`",
    )
    def test_the_package_of_npm_accepts_it_and_refuses_one_changed_byte(self, arrived, rotated, which):
        done = verified_by_node(rotated[which], arrived)
        assert (done.returncode, done.stderr) == (0, b"")
        assert json.loads(done.stdout)["event"] == "scheduled.created"
        arrived.body += b" "
        assert verified_by_node(rotated[which], arrived).returncode == 1


@pytest.mark.skipif(not shutil.which("openssl"), reason="needs the openssl command")
def test_openssl_computes_the_brands_signature_with_the_old_secret_as_shown(arrived, rotated):
    _, old = rotated
    assert arrived.header("X-ApifyCloud-Signature") == f"sha256={hmac_by_openssl(old, arrived.body)}"
