"""Booking records of the five types, from `curl` to receivers that verify them with code that is not ours."""

import json
import shutil
from pathlib import Path

import pytest
import standardwebhooks

from schemas.catalogue import BOOKING_TYPES
from tests.brokers import lacking
from tests.contract.test_receivers_verify import RECEIVERS, hmac_by_openssl, verified_by_node
from tests.e2e.test_up import sh, up
from tests.endpoints import endpoint

#: As the booking service writes it: its spacing and its numbers are its own.
RECORD = '{"scheduled_call": {"id": "sc_7",  "status": "confirmed", "guest": {"name": "Zoë"}, "price": 10.50}}'


@pytest.mark.kafka
async def test_bookings_of_all_five_types_arrive_as_the_product_page_shows_and_verify(tmp_path: Path):
    async with up(tmp_path, "--broker", "kafka") as running, endpoint() as there:
        ready = await running.ready()
        subscription = await running.run(
            *("integrations", "create", "--profile", "booking", "--name", "calls"),
            *("--url", there.url, "--events", ",".join(sorted(BOOKING_TYPES))),
        )
        for event_type in sorted(BOOKING_TYPES):
            answer = await sh(
                tmp_path,
                *("curl", "--silent", "--fail-with-body", f"{ready['ingest']}/v1/apps/{ready['app']}/events"),
                *("-H", f"Authorization: Bearer {ready['secretKey']}", "-H", "Content-Type: application/json"),
                *("--data-binary", f'{{"type": "{event_type}", "id": "{event_type[10:]}-1", "payload": {RECORD}}}'),
            )
            assert json.loads(answer)["id"] == f"{event_type[10:]}-1"
        received = await there.wait_for(5, 40)
        assert await running.stop() == 0
    secret = subscription["signingSecret"]

    assert [each.header("X-ApifyCloud-Event") for each in received] == sorted(BOOKING_TYPES)
    for each in received:
        body = json.loads(each.body)
        assert list(body) == ["event", "deliveredAt", "attempt", "payload"]
        assert f'"payload":{RECORD}}}'.encode() in each.body
        assert each.header("X-ApifyCloud-Delivery") == f"{subscription['id']}:1"
        assert each.header("X-ApifyCloud-Timestamp") == body["deliveredAt"]
        assert each.header("webhook-id") == f"{body['event'][10:]}-1"
        assert each.header("X-ApifyCloud-Signature") == f"sha256={hmac_by_openssl(secret, each.body)}"
        assert standardwebhooks.Webhook(secret).verify(each.body, dict(each.headers)) == body
    if shutil.which("node") and (RECEIVERS / "node_modules").is_dir():
        verified = [verified_by_node(secret, each).returncode for each in received]
        assert verified == [0] * 5
    else:
        lacking("no Node.js with the packages of `make npm` is here")
