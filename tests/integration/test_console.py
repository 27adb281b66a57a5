"""The console's pages over real HTTP, on a real broker: what a person sees and does, and what nobody else can."""

import asyncio
import re

import httpx
import pytest

from services.admin.tokens import EVERY_APP
from services.runtime.settings import AdminSettings
from tests.admins import KNOWN, admin_at, client_of, furnish, make_token, put_apps
from tests.apps import make_app

LIST = "/apps/demo"
SCRIPT = "<script>alert(1)</script>"


@pytest.fixture
async def admin(kafka_connection):
    await furnish(kafka_connection)
    async with admin_at(kafka_connection) as running:
        yield running


def browser_of(admin) -> httpx.AsyncClient:
    return httpx.AsyncClient(base_url=admin.served.url, timeout=30, headers={"Sec-Fetch-Site": "same-origin"})


async def signed_in(browser, token=KNOWN.token):
    answer = await browser.post("/sign-in", data={"token": token})
    assert (answer.status_code, answer.headers["Location"]) == (303, "/")
    return answer


def form_token(page: httpx.Response) -> str:
    return re.search(r'name="form_token" value="([0-9a-f]{64})"', page.text)[1]


async def send(browser, page: str, to: str, /, **fields) -> httpx.Response:
    """A form of *page*, with its token and hidden version."""
    shown = await browser.get(page)
    assert shown.status_code == 200, shown.text
    version = re.search(r'name="version" value="([0-9]+)"', shown.text)
    hidden = {"form_token": form_token(shown)} | ({"version": version[1]} if version else {})
    return await browser.post(to, data=hidden | fields)


async def test_nobody_sees_a_page_without_signing_in_and_no_other_site_can_act(admin):
    async with browser_of(admin) as browser:
        for path in ("/", LIST, *(f"{LIST}/{name}" for name in ("integrations/new", "deliveries", "audit", "live"))):
            answer = await browser.get(path)
            assert (answer.status_code, answer.headers["Location"]) == (303, "/sign-in"), path
        refused = await browser.post("/sign-in", data={"token": f"tok_{SCRIPT}"})
        assert refused.status_code == 401
        assert SCRIPT not in refused.text
        assert "Set-Cookie" not in refused.headers
        for foreign in ({"Sec-Fetch-Site": "cross-site"}, {"Sec-Fetch-Site": "same-site"}):
            answer = await browser.post("/sign-in", data={"token": KNOWN.token}, headers=foreign)
            assert answer.status_code == 403

        cookie = (await signed_in(browser)).headers["Set-Cookie"]
        assert {"HttpOnly", "SameSite=Strict", "Path=/", "Max-Age=43200"} <= set(cookie.split("; "))
        assert "Secure" not in cookie
        assert KNOWN.token not in cookie

        page = await browser.get(LIST)
        assert page.status_code == 200
        assert page.headers["Cache-Control"] == "no-store"
        policy = page.headers["Content-Security-Policy"]
        assert "default-src 'self'" in policy
        assert "frame-ancestors 'none'" in policy
        assert "unsafe" not in policy
        assert page.headers["X-Frame-Options"] == "DENY"
        assert page.headers["X-Content-Type-Options"] == "nosniff"
        new = f"{LIST}/integrations/new"
        token = form_token(await browser.get(new))
        for fields in ({"name": "x"}, {"form_token": ""}, {"form_token": token[::-1]}):
            assert (await browser.post(new, data=fields)).status_code == 403
        foreign = await browser.post(new, data={"form_token": token}, headers={"Sec-Fetch-Site": "cross-site"})
        assert foreign.status_code == 403
        # An old browser says its origin alone. The form has faults, so that it shows whether it was read.
        del browser.headers["Sec-Fetch-Site"]
        for origin, status in ((admin.served.url, 400), ("https://evil.example", 403), ("null", 403)):
            answer = await browser.post(new, data={"form_token": token}, headers={"Origin": origin})
            assert answer.status_code == status, origin
        browser.headers["Sec-Fetch-Site"] = "same-origin"
        assert (await browser.post(new, content=b"a=1", headers={"Content-Type": "text/plain"})).status_code == 400
        hostile = {"Content-Type": "application/x-www-form-urlencoded"}
        assert (await browser.post(new, content=b"name=%ff&" * 3, headers=hostile)).status_code == 400
        assert (await browser.post(new, content=b"a=1&" * 5_000, headers=hostile)).status_code == 400
        assert (await browser.get(f"/apps/{EVERY_APP}")).status_code == 404
        assert (await browser.get("/static/..%2Fapp.py")).status_code == 404
        assert (await browser.get("/static/console.css")).headers["Content-Type"].startswith("text/css")

        out = await browser.post("/sign-out", data={"out": ""})
        assert out.headers["Location"] == "/sign-in"
        assert (await browser.get(LIST)).status_code == 303
    async with client_of(admin) as api:
        assert (await api.get("/v1/apps/demo/integrations")).json()["items"] == []


async def test_an_integration_lives_on_pages_from_create_to_delete(admin):  # noqa: PLR0915  # one life, in its order
    async with browser_of(admin) as browser, client_of(admin) as api:
        await signed_in(browser)
        assert (await browser.get("/")).headers["Location"] == LIST
        new = f"{LIST}/integrations/new"
        bad = await send(browser, new, new, name=SCRIPT, url="ftp://x", headers="nonsense", secretValue="PLAIN-VALUE")
        assert bad.status_code == 400
        assert "line 1 is not of the form" in bad.text
        bad = await send(browser, new, new, name=SCRIPT, url="ftp://x", secretName="a b", secretValue="PLAIN-VALUE")
        assert bad.status_code == 400
        assert 'id="url-fault"' in bad.text
        assert 'id="secrets-fault"' in bad.text
        assert SCRIPT not in bad.text
        assert "PLAIN-VALUE" not in bad.text

        made = await send(
            browser,
            new,
            new,
            name=SCRIPT,
            url="https://crm.example/{secret.path}",
            headers="Authorization: Bearer {secret.path}",
            secretName="path",
            secretValue="PLAIN-VALUE",
            autoPause="on",
            signing="on",
        )
        assert made.status_code == 200
        secret = re.search(r"whsec_[A-Za-z0-9+/=]+", made.text)[0]
        [shown] = (await api.get("/v1/apps/demo/integrations")).json()["items"]
        one = f"{LIST}/integrations/{shown['id']}"
        assert shown["name"] == SCRIPT

        page = await browser.get(one)
        assert SCRIPT not in page.text
        assert secret not in page.text
        assert "None selected: nothing is sent." in page.text
        assert "None is selected: nothing is sent." in (await browser.get(f"{one}/edit")).text
        assert "Active" in (await browser.get(LIST)).text
        assert "None of 1 is like that." in (await browser.get(LIST, params={"status": "paused"})).text
        why = await browser.get(f"{one}/why?look=1")
        assert "No event is selected" in why.text
        assert "The app has emitted no event at all" in why.text

        changed = await send(
            browser,
            f"{one}/edit",
            f"{one}/edit",
            name="CRM",
            url="https://crm.example/",
            headers="Authorization: Bearer {secret.path}",
            events=["call_ended"],
            autoPause="on",
            signing="on",
            timeoutMs="2500",
        )
        assert changed.headers["Location"] == f"{one}?done=changed"
        stale = await send(browser, f"{one}/edit", f"{one}/edit", name="CRM", url="https://x.example/", version="1")
        assert stale.status_code == 412
        now = (await api.get(f"/v1{one}")).json()
        assert (now["name"], now["timeoutMs"], now["events"]) == ("CRM", 2500, ["call_ended"])
        assert now["headers"] == {"Authorization": "Bearer {secret.path}"}

        assert (await send(browser, one, f"{one}/pause")).headers["Location"] == f"{one}?done=paused"
        assert (await api.get(f"/v1{one}")).json()["status"] == "paused"
        assert "Nothing is sent until it is activated" in (await browser.get(f"{one}/why")).text
        late = await send(browser, one, f"{one}/activate", held="from", **{"from": "2999-01-01T00:00"})
        assert late.status_code == 400
        done = await send(browser, one, f"{one}/activate", held="from", **{"from": "2020-01-01T00:00"})
        assert done.headers["Location"] == f"{one}?done=activated"

        history = await browser.get(f"{one}/history")
        assert "Go back to version 1" in history.text
        assert SCRIPT not in history.text
        back = await send(browser, f"{one}/history", f"{one}/rollback", to="1")
        assert back.headers["Location"] == f"{one}?done=rolled-back"
        assert (await api.get(f"/v1{one}")).json()["name"] == SCRIPT

        assert "will have this" in (await browser.get(f"{one}/secrets/path/reveal")).text
        revealed = await send(browser, f"{one}/secrets/path/reveal", f"{one}/secrets/path/reveal")
        assert "PLAIN-VALUE" in revealed.text
        again = await send(browser, f"{one}/secrets", f"{one}/secrets/path/reveal")
        assert again.status_code == 409
        assert "PLAIN-VALUE" not in again.text
        rotated = await send(browser, one, f"{one}/rotate", overlap="now")
        assert secret not in rotated.text
        assert "whsec_" in rotated.text

        dry = await send(browser, f"{one}/replays", f"{one}/replays", act="dry", **{"from": "2020-01-01T00:00"})
        assert "It would send 0 events" in dry.text
        assert (await send(browser, f"{one}/replays", f"{one}/replays", act="dry")).status_code == 400

        assert "cannot be undone" in (await browser.get(f"{one}/delete")).text
        gone = await send(browser, f"{one}/delete", f"{one}/delete")
        assert gone.headers["Location"] == LIST
        assert (await browser.get(one)).status_code == 404

        audit = (await browser.get(f"{LIST}/audit")).text
        for action in ("create", "update", "pause", "activate", "roll_back", "delete"):
            assert f"integration.{action}" in audit
        assert "secret.reveal" in audit
        assert "PLAIN-VALUE" not in audit
        only = (await browser.get(f"{LIST}/audit", params={"action": "integration.pause"})).text
        assert "integration.create" not in only


async def test_roles_and_apps_hold_and_a_token_that_is_taken_away_ends_its_sessions(kafka_connection, admin):
    other = make_app("other", tokens=[make_token("tok_other", "admin")])
    viewers = make_app("third", tokens=[make_token("tok_viewer", "viewer"), make_token("tok_operator", "operator")])
    await put_apps(kafka_connection, other, viewers)
    async with browser_of(admin) as everybody, browser_of(admin) as viewer, browser_of(admin) as operator:
        await signed_in(everybody)
        await signed_in(viewer, "tok_viewer")
        await signed_in(operator, "tok_operator")

        chooser = (await everybody.get("/")).text
        assert all(f'href="/apps/{name}"' in chooser for name in ("demo", "other", "third"))
        assert (await viewer.get("/apps/third")).status_code == 200
        assert "New integration" not in (await viewer.get("/apps/third")).text
        assert (await viewer.get("/apps/other")).status_code == 404
        assert (await viewer.get("/apps/third/integrations/new")).status_code == 403
        assert (await operator.get("/apps/third/integrations/new")).status_code == 403
        new = "/apps/third/subscriptions/new"
        made = await send(everybody, new, new, name="Bookings", url="https://x.example/", signing="on")
        assert made.status_code == 200
        one = re.search(r"/apps/third/subscriptions/sub_[0-9a-f]+", made.text)[0]
        assert "Pause" not in re.search(r"<main.*</main>", (await viewer.get(one)).text, re.DOTALL)[0]
        assert (await send(operator, one, f"{one}/pause")).status_code == 303
        assert (await send(operator, one, f"{one}/delete")).status_code == 403
        assert (await send(operator, one, f"{one}/select", event="scheduled.created")).status_code == 403
        why = (await operator.get(f"{one}/why")).text
        assert "Select all events: needs the role admin." in why
        assert "Activate it" in why

        async with operator.stream("GET", "/apps/third/live") as live:
            lines = live.aiter_lines()
            assert await anext(lines) == ": open"
            assert (await send(operator, one, f"{one}/activate", held="drain")).status_code == 303
            async with asyncio.timeout(10):
                assert "event: changed" in [await anext(lines) for _ in range(2)]
                await put_apps(kafka_connection, make_app("third", tokens=[make_token("tok_viewer", "viewer")]))
                assert [line async for line in lines if line.startswith("event")] == []
        assert (await operator.get("/apps/third")).status_code == 303
        assert (await viewer.get("/apps/third")).status_code == 200


async def test_behind_a_proxy_with_https_the_cookie_is_secure_and_an_open_page_holds_up_no_end(kafka_connection):
    await furnish(kafka_connection)
    settings = AdminSettings(port=0, trusted_proxies="127.0.0.0/8")
    async with admin_at(kafka_connection, admin=settings) as admin, browser_of(admin) as browser:
        data = {"token": KNOWN.token}
        over_tls = await browser.post("/sign-in", data=data, headers={"X-Forwarded-Proto": "https"})
        assert "Secure" in over_tls.headers["Set-Cookie"]
        assert "Secure" not in (await browser.post("/sign-in", data=data)).headers["Set-Cookie"]

        async with browser.stream("GET", f"{LIST}/live") as live:
            lines = live.aiter_lines()
            assert await anext(lines) == ": open"
            await asyncio.wait_for(admin.served.stop(), 5)
            assert [line async for line in lines if line] == []
