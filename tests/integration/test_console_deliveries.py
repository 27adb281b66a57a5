"""Deliveries on the console's pages: listed, shown with attempts and masked requests, sent again, samples."""

from services.admin.bootstrap import bootstrap
from services.runtime.settings import PartitionSettings
from tests.admins import KNOWN, admin_at, client_of
from tests.dispatching import dispatching
from tests.integration.test_admin_deliveries import listed
from tests.integration.test_console import browser_of, send, signed_in
from tests.logs import log_of, make_event
from tests.receiving import after, receiver


async def test_a_rejected_delivery_is_found_understood_and_sent_again(kafka_connection):
    async with log_of(kafka_connection) as log, receiver() as to:
        await bootstrap(kafka_connection, now_ms=1_000, random=bytes, known=KNOWN)
        async with (
            admin_at(kafka_connection, partitions=PartitionSettings(by_app=2, by_integration=3)) as admin,
            client_of(admin) as api,
            browser_of(admin) as browser,
            dispatching(kafka_connection),
        ):
            to.policies["int_1"] = after(0, 400)
            body = {
                "name": "A",
                "url": to.integration("int_1").url,
                "events": ["call_ended"],
                "headers": {"Authorization": "Bearer {secret.token}"},
                "secrets": {"token": "PLAIN-TOKEN-VALUE"},
            }
            one = (await api.post("/v1/apps/demo/integrations", json=body)).headers["Location"].removeprefix("/v1")
            await log.events(make_event(0))
            [rejected] = await listed(api, 1, outcome="rejected")
            await signed_in(browser)

            page = await browser.get(f"{one}/deliveries", params={"outcome": "rejected", "type": "call_ended"})
            assert rejected["id"] in page.text
            assert "1 not" in page.text
            assert "None like that" in (await browser.get(f"{one}/deliveries", params={"outcome": "blocked"})).text
            shown = await browser.get(f"{one}/deliveries/{rejected['id']}")
            assert "Attempt 1: 400" in shown.text
            assert "curl -i" in shown.text
            assert "PLAIN-TOKEN-VALUE" not in shown.text
            assert (await browser.get(f"{one}/deliveries/dlv_none")).status_code == 404

            to.policies.clear()
            again = await send(
                browser, f"{one}/deliveries/{rejected['id']}", f"{one}/deliveries/{rejected['id']}/retry"
            )
            assert again.headers["Location"] == f"{one}/deliveries"
            await listed(api, 1, outcome="delivered", cause="retry")
            assert "Sent again as" in (await browser.get(f"{one}/deliveries/{rejected['id']}")).text
            assert (await send(browser, f"{one}/deliveries", f"{one}/test", type="nope")).status_code == 400
            assert (await send(browser, f"{one}/deliveries", f"{one}/test")).status_code == 303
            await listed(api, 1, cause="test")
