"""A rotation as receivers see it: requests that really arrived, verified by code that is not ours."""

import hashlib
import hmac
import secrets
import time

import msgspec
import pytest
import standardwebhooks

from services.admin.rotation import DEFAULT_OVERLAP_MS, rotated
from services.dispatcher.plan import plan
from services.dispatcher.sender import Request
from services.vault.data_keys import AppKeys
from services.vault.opened import open_integration
from tests.endpoints import endpoint
from tests.records import make_delivery
from tests.sealing import KEYRING, app_with_key, sealed_integration

OLD = "whsec_" + "b2xk" * 8
HOUR_MS = 3_600_000


class Rotation:
    """An integration whose secret was rotated so long ago, and what an endpoint receives of it now."""

    def __init__(self, sender, ago_ms, overlap_ms=DEFAULT_OVERLAP_MS):
        app = app_with_key()
        self._keys = AppKeys(KEYRING, app.app, app.data_keys)
        self._sender = sender
        self.now_ms = time.time_ns() // 1_000_000
        before = sealed_integration(self._keys, signing=(OLD,))
        done = rotated(
            before,
            overlap_ms,
            random=secrets.token_bytes(32),
            vault=self._keys,
            now_ms=self.now_ms - ago_ms,
            who="ops",
        )
        self.config, self.new = done.config, done.secret

    async def arrived(self):
        async with endpoint() as there:
            planned = plan(
                make_delivery(),
                msgspec.structs.replace(self.config, url=there.url),
                open_integration(self.config, self._keys),
                self.now_ms,
                "X-ApifyCloud",
                "0.1.0",
            )
            answer = await self._sender.send(
                Request(url=planned.url, headers=planned.headers, body=planned.body, timeout_ms=planned.timeout_ms)
            )
        assert answer.status == 200
        return there.received[0]


def accepts(secret, received):
    try:
        standardwebhooks.Webhook(secret).verify(received.body, dict(received.headers))
    except standardwebhooks.WebhookVerificationError:
        return False
    return True


def brand_is_of(secret, received):
    expected = "sha256=" + hmac.new(secret.encode(), received.body, hashlib.sha256).hexdigest()
    return received.header("X-ApifyCloud-Signature") == expected


@pytest.mark.parametrize("ago_ms", [0, HOUR_MS, DEFAULT_OVERLAP_MS - 1])
async def test_for_a_day_receivers_with_either_secret_go_on(sender, ago_ms):
    rotation = Rotation(sender, ago_ms)
    received = await rotation.arrived()

    assert accepts(rotation.new, received)
    assert accepts(OLD, received)
    assert len(received.header("webhook-signature").split(" ")) == 2
    # One value, so it stays on the secret that every receiver has.
    assert brand_is_of(OLD, received)


@pytest.mark.parametrize(("ago_ms", "overlap_ms"), [(DEFAULT_OVERLAP_MS, DEFAULT_OVERLAP_MS), (HOUR_MS, 1_000)])
async def test_when_the_overlap_is_over_only_the_new_one_signs(sender, ago_ms, overlap_ms):
    rotation = Rotation(sender, ago_ms, overlap_ms)
    received = await rotation.arrived()

    assert accepts(rotation.new, received)
    assert not accepts(OLD, received)
    assert brand_is_of(rotation.new, received)


async def test_now_takes_the_old_one_out_of_both_signatures_at_once(sender):
    rotation = Rotation(sender, 0, overlap_ms=0)
    received = await rotation.arrived()

    assert accepts(rotation.new, received)
    assert not accepts(OLD, received)
    assert brand_is_of(rotation.new, received)
