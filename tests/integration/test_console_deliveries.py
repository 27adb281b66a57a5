"""Deliveries on the pages: found, understood with the exact request, sent again; why nothing arrives, and mended."""

import html

from services.admin.bootstrap import bootstrap
from services.runtime.settings import PartitionSettings
from tests.admins import KNOWN, admin_at, client_of
from tests.dispatching import dispatching
from tests.integration.test_admin_deliveries import listed
from tests.integration.test_console import browser_of, send, signed_in
from tests.logs import log_of, make_event
from tests.receiving import after, receiver

APP = "/apps/demo"


async def test_what_was_rejected_is_found_understood_and_mended_from_its_pages(kafka_connection):  # noqa: PLR0915  # one stack
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
                "signing": True,
            }
            one = (await api.post("/v1/apps/demo/integrations", json=body)).headers["Location"].removeprefix("/v1")
            await log.events(make_event(0), make_event(1, type="call_started"))
            [rejected] = await listed(api, 1, outcome="rejected")
            await signed_in(browser)

            # Found, of the app and of the integration.
            delivery = f"{one}/deliveries/{rejected['id']}"
            for where in (f"{APP}/deliveries", f"{one}/deliveries"):
                page = await browser.get(where, params={"outcome": "rejected", "type": "call_ended"})
                assert f'href="{delivery}"' in page.text
                by_event = await browser.get(where, params={"event": rejected["eventId"]})
                assert delivery in by_event.text
                assert "None like that" in (await browser.get(where, params={"outcome": "blocked"})).text
                later = await browser.get(where, params={"since": "2999-01-01T00:00"})
                assert "None like that" in later.text
                assert (await browser.get(where, params={"cause": "none"})).status_code == 400
            assert "1 not" in (await browser.get(one)).text
            assert "0 delivered, 1 not" in (await browser.get(APP)).text
            assert delivery in (await browser.get(one)).text
            assert f'href="{APP}/deliveries"' in page.text

            # Understood: the request as it was sent, to the byte, but for secrets.
            shown = html.unescape((await browser.get(delivery)).text)
            sent = to.arrivals["int_1"][0].request
            assert "Attempt 1: 400" in shown
            assert f"\n\n{sent.body.decode()}</pre>" in shown
            assert f"--data-raw '{sent.body.decode()}'" in shown
            assert "the signature that was sent is of exactly these bytes" in shown
            masked = {"authorization", "host", "content-length"}
            for name, value in sent.headers:
                assert name.lower() in masked or f"{name}: {value}\n" in shown, name
            assert "PLAIN-TOKEN-VALUE" not in shown
            assert (await browser.get(f"{one}/deliveries/dlv_none")).status_code == 404

            # Mended: each fault of the page has its button.
            why = (await browser.get(f"{one}/why?look=1")).text
            assert "rejected it with 400" in why
            assert "call_ended (1), call_started (1)" in why
            added = await send(browser, f"{one}/why?look=1", f"{one}/select", event="call_started", back="why")
            assert added.headers["Location"] == f"{one}/why?done=selected"
            assert (await api.get(f"/v1{one}")).json()["events"] == ["call_ended", "call_started"]
            to.policies.clear()
            again = await send(browser, f"{one}/why", f"{delivery}/retry", back="why")
            assert again.headers["Location"] == f"{one}/why?done=sent-again"
            await listed(api, 1, outcome="delivered", cause="retry")
            assert "Sent again as" in (await browser.get(delivery)).text
            assert "It arrived" in (await browser.get(f"{one}/why")).text
            assert (await send(browser, one, f"{one}/pause")).headers["Location"] == f"{one}?done=paused"
            assert 'action="' + one + '/activate"' in (await browser.get(f"{one}/why")).text
            active = await send(browser, f"{one}/why", f"{one}/activate", held="drain", back="why")
            assert active.headers["Location"] == f"{one}/why?done=activated"

            assert (await send(browser, one, f"{one}/test", type="nope")).status_code == 400
            tested = await send(browser, one, f"{one}/test")
            assert tested.headers["Location"] == f"{one}/deliveries?done=tested"
            await listed(api, 1, cause="test")

            # Of what is deleted, the list still tells.
            await api.delete(f"/v1{one}")
            gone = await browser.get(f"{APP}/deliveries")
            assert "(deleted)" in gone.text
            assert delivery not in gone.text
