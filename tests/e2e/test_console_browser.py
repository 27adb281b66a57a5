"""
The console in a real browser.

Claims:
    1. A person signs in, creates, pauses, activates and looks at the history, by keyboard where that matters.
    2. What changes meanwhile shows without a reload, and so does a search; a new delivery, and what the app emits, too.
    3. No page breaks its own security policy, asks another origin for anything, or complains in the browser's console.
    4. axe finds nothing serious on any page, light, dark or on a phone, and a phone never scrolls sideways.
"""

import re
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from axe_core_python.async_playwright import Axe
from playwright.async_api import Browser, Page, async_playwright, expect

from tests.admins import KNOWN, admin_at, client_of, furnish
from tests.brokers import lacking
from tests.tried import DELIVERED, EXHAUSTED, REJECTED, put_states, put_tried, sent_of, state, until_known

CHROMIUM = Path("/usr/bin/chromium")
HAS_CHROMIUM = CHROMIUM.exists()
ARGUMENTS = [
    *("--no-sandbox", "--disable-gpu", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
]
PHONE = {"width": 375, "height": 700}

pytestmark = pytest.mark.browser


@pytest.fixture
async def browser() -> AsyncIterator[Browser]:
    if not HAS_CHROMIUM:
        lacking(f"{CHROMIUM} is not installed (apt-get install chromium)")
    async with async_playwright() as playwright:
        launched = await playwright.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        yield launched
        await launched.close()


@pytest.fixture
async def admin(kafka_connection):
    await furnish(kafka_connection)
    async with admin_at(kafka_connection) as running:
        yield running


class Watched:
    """A page, what its console said, and where it sent requests."""

    def __init__(self, page: Page, origin: str) -> None:
        self.said: list[str] = []
        self.elsewhere: list[str] = []
        page.on("console", lambda message: message.type in ("error", "warning") and self.said.append(message.text))
        page.on("pageerror", lambda error: self.said.append(str(error)))
        page.on("request", lambda request: request.url.startswith(origin) or self.elsewhere.append(request.url))


async def sign_in(page: Page) -> None:
    await page.goto("/")
    await page.get_by_label("Token of the admin API").fill(KNOWN.token)
    await page.keyboard.press("Enter")
    await expect(page.get_by_role("heading", name="demo")).to_be_visible()


async def serious(page: Page) -> list[tuple[str, str]]:
    found = await Axe().run(page)
    return [
        (each["id"], each["nodes"][0]["html"])
        for each in found["violations"]
        if each["impact"] in ("serious", "critical")
    ]


async def test_a_person_creates_pauses_activates_and_looks_back(browser, admin):
    page = await browser.new_page(base_url=admin.served.url)
    watched = Watched(page, admin.served.url)
    await sign_in(page)
    assert await page.evaluate("document.cookie") == ""

    await page.keyboard.press("Tab")
    await expect(page.get_by_text("To the content")).to_be_focused()
    await page.get_by_role("link", name="New integration").click()
    await page.get_by_label("Name", exact=True).fill("CRM")
    await page.get_by_label("Address").fill("https://crm.example/{secret.path}")
    await page.get_by_role("button", name="Create").click()
    await expect(page.locator("#url-fault")).to_contain_text("no secret of that name")
    await page.get_by_label("Name of secret 1").fill("path")
    await page.get_by_label("Value of secret 1").fill("h-17")
    await page.get_by_label("call_ended").check()
    await page.get_by_role("button", name="Create").click()

    now = page.locator("#now")
    await expect(now).to_contain_text("Active")
    await page.get_by_role("button", name="Pause").press("Enter")
    await expect(now).to_contain_text("Paused")
    await page.get_by_role("link", name="Why is nothing arriving?").click()
    await page.get_by_role("button", name="Activate it").press("Enter")
    await expect(page.get_by_role("status")).to_have_text("Activated.")
    await page.get_by_role("link", name="Status").click()
    await expect(now).to_contain_text("Active")
    await page.get_by_role("link", name="History").click()
    await expect(page.get_by_role("heading", name=re.compile("Version"))).to_have_count(3)

    await page.get_by_role("link", name="demo").click()
    await expect(page.locator("#lists")).to_contain_text("CRM")
    async with client_of(admin) as api:
        [one] = (await api.get("/v1/apps/demo/integrations")).json()["items"]
        await page.evaluate("window.isTheSame = true")
        await api.post(f"/v1/apps/demo/integrations/{one['id']}/pause")
        await expect(page.locator("#lists .badge")).to_have_text("Paused")
        await page.get_by_label("Search").press_sequentially("nothing like it")
        await expect(page.locator("#lists")).to_contain_text("None of 1 is like that.")
        assert await page.evaluate("window.isTheSame")

    assert not [line for line in watched.said if "status of 400" not in line]
    assert watched.elsewhere == []


async def test_a_failing_delivery_is_understood_from_its_pages(browser, admin, kafka_connection):
    context = await browser.new_context(base_url=admin.served.url, permissions=["clipboard-read", "clipboard-write"])
    page = await context.new_page()
    watched = Watched(page, admin.served.url)
    now_ms = int(time.time() * 1_000)
    async with client_of(admin) as api:
        body = {"name": "CRM", "url": "https://crm.example/", "events": ["call_ended"]}
        one = (await api.post("/v1/apps/demo/integrations", json=body)).json()["id"]
        rejected, exhausted = await put_tried(kafka_connection, sent_of(admin, one), [REJECTED, EXHAUSTED], now_ms)
        await until_known(api, [rejected, exhausted])
        await sign_in(page)

        await expect(page.get_by_role("img", name="The last 24 hours: 0 delivered, 2 not")).to_be_visible()
        await page.get_by_role("link", name="Deliveries", exact=True).click()
        await page.get_by_label("Outcome").select_option("exhausted")
        await page.get_by_role("button", name="Filter").press("Enter")
        await page.locator(f"[id='{exhausted}']").click()
        await expect(
            page.get_by_role("img", name=re.compile("DNS 12.4 ms, connect 21.7 ms, TLS 38.2 ms"))
        ).to_have_count(2)
        await page.get_by_text("The same as a curl command").last.click()
        await page.get_by_role("button", name="Copy").last.press("Enter")
        await expect(page.get_by_role("button", name="Copied")).to_be_visible()
        copied = await page.evaluate("navigator.clipboard.readText()")
        assert copied.startswith("curl -i https://crm.example/ ")
        assert '"payload":{"callId":"call_1"' in copied

        await page.get_by_role("link", name="Why is nothing arriving?").click()
        await expect(page.locator("#emission")).to_contain_text("The app has emitted no event at all")
        await expect(page.locator("#checks")).to_contain_text("answered 503 to the last of 3 attempts")
        await page.evaluate("window.isTheSame = true")
        [delivered] = await put_tried(kafka_connection, sent_of(admin, one), [DELIVERED], now_ms + 86_400_000, start=7)
        await until_known(api, [delivered])
        await put_states(kafka_connection, state(one, now_ms, last_delivery_id=delivered))
        await expect(page.locator("#checks")).to_contain_text("It arrived")
        # Not looked for again, which would read the log.
        await expect(page.locator("#emission")).to_contain_text("The app has emitted no event at all")
        assert await page.evaluate("window.isTheSame")
    await context.close()

    assert watched.said == []
    assert watched.elsewhere == []


async def test_axe_finds_nothing_serious_light_dark_or_on_a_phone(browser, admin, kafka_connection):
    async with client_of(admin) as api:
        body = {"name": "CRM", "url": "https://crm.example/", "events": ["call_ended"], "secrets": {"token": "t"}}
        path = (await api.post("/v1/apps/demo/integrations", json=body)).headers["Location"].removeprefix("/v1")
        await api.patch(f"/v1{path}", json={"name": "CRM, a very long name that has to find its place on a phone"})
        await api.post("/v1/apps/demo/subscriptions", json={"name": "Bookings", "url": "https://x.example/"})
        await api.post(f"/v1{path}/pause")
        config = sent_of(admin, path.rpartition("/")[2])
        tried = await put_tried(kafka_connection, config, [DELIVERED, REJECTED, EXHAUSTED], int(time.time() * 1_000))
        await until_known(api, tried)
    parts = ("", "/deliveries", "/edit", "/why", "/secrets", "/secrets/token/reveal", "/replays", "/history", "/delete")
    new = "/apps/demo/integrations/new"
    pages = [
        "/apps/demo",
        "/apps/demo/audit",
        "/apps/demo/deliveries",
        f"{path}/deliveries/{tried[-1]}",
        f"{path}/why?look=1",
        new,
        "/apps/demo/integrations/int_none",
        *(path + part for part in parts),
    ]
    found = {}
    for scheme, size in (("light", None), ("dark", None), ("light", PHONE)):
        context = await browser.new_context(base_url=admin.served.url, color_scheme=scheme, viewport=size)
        page = await context.new_page()
        await page.goto("/sign-in")
        found[scheme, str(size), "/sign-in"] = await serious(page)
        await sign_in(page)
        for each in pages:
            await page.goto(each)
            found[scheme, str(size), each] = await serious(page)
            if size:
                wide = await page.evaluate("document.documentElement.scrollWidth - innerWidth")
                assert wide <= 0, f"{each} is {wide} wider than the phone"
        await context.close()

    assert {page: faults for page, faults in found.items() if faults} == {}
