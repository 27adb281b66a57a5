"""
What people do in the console, each flow in Chromium against a running `tenterhook up` with Apache Kafka.

Claims:
    1. An integration is created; an event that its app then emits shows as a delivery on the open page, and the
       delivery shows where the time of its attempt went, what was sent and what came back, no secret in it.
    2. A delivery is sent again, a test is sent; past events are replayed after a dry run that sends nothing.
    3. The signing secret is replaced; a secret is seen once, and the second try is refused and recorded.
    4. Settings are changed and taken back; the audit log says who did what; signing out ends it.
    5. A subscription whose endpoint fails is Failing, then Paused, with the reason, on the page that is open; "why"
       says so; activated, it gets what was held.
    6. Activated in the other ways, what was held is discarded, or what of it came before a time.
"""

import asyncio
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx
import pytest
import pytest_asyncio
from playwright.async_api import Browser, Locator, Page, async_playwright, expect

from services.cli.brokers.choose import kafka_lacks
from tests.brokers import lacking
from tests.e2e.test_up import Up, up
from tests.endpoints import Endpoint, answer, endpoint

CHROMIUM = Path("/usr/bin/chromium")
HAS_CHROMIUM = CHROMIUM.exists()
ARGUMENTS = [
    *("--no-sandbox", "--disable-gpu", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
]

SECRET = "t0p-s3cret"

#: How long a page may take to show what has happened: the delivery, the breaker, a look of the page each second.
SHOWN_MS = 20_000

pytestmark = [pytest.mark.browser, pytest.mark.kafka, pytest.mark.asyncio(loop_scope="module")]

expect.set_options(timeout=SHOWN_MS)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def running(tmp_path_factory) -> AsyncIterator[Up]:
    if (missing := kafka_lacks()) is not None:
        lacking(missing)
    async with up(tmp_path_factory.mktemp("up"), "--broker", "kafka") as running:
        await running.ready()
        yield running
        assert await running.stop() == 0, running.said


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def chromium() -> AsyncIterator[Browser]:
    if not HAS_CHROMIUM:
        lacking(f"{CHROMIUM} is not installed (apt-get install chromium)")
    async with async_playwright() as playwright:
        launched = await playwright.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        yield launched
        await launched.close()


class Person:
    """Somebody at the console, and the app whose events arrive meanwhile."""

    def __init__(self, page: Page, running: Up) -> None:
        self.page = page
        self._ready = running.document
        self.complaints: list[str] = []
        page.on("pageerror", lambda error: self.complaints.append(str(error)))
        page.on("console", lambda message: message.type == "error" and self.complaints.append(message.text))

    async def sign_in(self) -> None:
        await self.page.goto("/")
        await self.page.get_by_label("Token of the admin API").fill(self._ready["token"])
        await self.press("Sign in")
        await expect(self.page.get_by_role("heading", name=self._ready["app"])).to_be_visible()

    async def press(self, button: str | re.Pattern[str]) -> None:
        await self.page.get_by_role("button", name=button).click()

    async def follow(self, link: str | re.Pattern[str]) -> None:
        await self.page.get_by_role("link", name=link).first.click()

    async def open(self, path: str, tab: str = "Status") -> None:
        await self.page.goto(path)
        await self.tab(tab)

    async def tab(self, name: str) -> None:
        await self.page.get_by_label("This integration").get_by_role("link", name=name, exact=True).click()

    async def create(self, what: str, name: str, address: str) -> None:
        """The form of a new one, filled in as far as every one is."""
        await self.follow(self._ready["app"])
        await self.follow(f"New {what}")
        await self.page.get_by_label("Name", exact=True).fill(name)
        await self.page.get_by_label("Address").fill(address)

    async def shown_once(self) -> str:
        """The value that the page shows this once; goes on from there."""
        value = await self.page.get_by_label("Value").input_value()
        await self.follow("Go on")
        return value

    @property
    def now(self) -> Locator:
        """How the integration is doing, on its page."""
        return self.page.get_by_label("How it is doing")

    @property
    def held(self) -> Locator:
        """How many deliveries are held or wait, on its page."""
        return self.page.locator("#now dt", has_text="Held or waiting").locator("xpath=following-sibling::dd[1]")

    @property
    def rows(self) -> Locator:
        """Of the page's table."""
        return self.page.locator("tbody tr")

    async def told(self, words: str) -> None:
        """Once the page has confirmed it."""
        await expect(self.page.get_by_role("status")).to_contain_text(words)

    async def stays(self) -> None:
        """From here on the page must not be loaded again."""
        await self.page.evaluate("window.isTheSame = true")

    async def has_stayed(self) -> bool:
        return bool(await self.page.evaluate("window.isTheSame"))

    async def emit(self, event_type: str, *payloads: dict) -> None:
        """What the app's own server does."""
        async with httpx.AsyncClient(headers={"Authorization": f"Bearer {self._ready['secretKey']}"}) as client:
            for payload in payloads:
                event = {"type": event_type, "payload": payload}
                response = await client.post(f"{self._ready['ingest']}/v1/apps/{self._ready['app']}/events", json=event)
                assert response.status_code == 202, response.text

    @asynccontextmanager
    async def has(self, collection: str, **settings: object) -> AsyncIterator[str]:
        """One that is there already, for as long as it is needed: the path of its page."""
        headers = {"Authorization": f"Bearer {self._ready['token']}"}
        async with httpx.AsyncClient(base_url=self._ready["admin"], headers=headers) as api:
            created = await api.post(f"/v1/apps/{self._ready['app']}/{collection}", json=settings)
            assert created.status_code == 201, created.text
            address = created.headers["Location"]
            yield address.removeprefix("/v1")
            assert (await api.delete(address)).status_code == 204


@asynccontextmanager
async def person(chromium: Browser, running: Up) -> AsyncIterator[Person]:
    context = await chromium.new_context(base_url=running.document["admin"])
    somebody = Person(await context.new_page(), running)
    await somebody.sign_in()
    yield somebody
    await context.close()


async def test_what_is_created_shows_what_arrives_while_it_is_looked_at(chromium, running):
    async with endpoint() as hook, person(chromium, running) as ada:
        page = ada.page
        await ada.create("integration", "CRM", hook.url)
        await page.get_by_label("call_ended").check()
        await page.get_by_label("Headers").fill("Authorization: Bearer {secret.token}")
        await page.get_by_label("Name of secret 1").fill("token")
        await page.get_by_label("Value of secret 1").fill(SECRET)
        await page.get_by_label("Sign requests").check()
        await ada.press("Create")
        assert (await ada.shown_once()).startswith("whsec_")
        await expect(ada.now).to_contain_text("Active")

        await ada.stays()
        await ada.emit("call_ended", {"call": "c_1"})
        await expect(ada.now).to_contain_text("delivered")
        assert await ada.has_stayed()
        await ada.tab("Deliveries")
        await expect(ada.rows).to_have_count(1)
        await ada.stays()
        await ada.emit("call_ended", {"call": "c_2"})
        await expect(ada.rows).to_have_count(2)
        assert await ada.has_stayed()
        arrived = await hook.wait_for(2)
        assert [each.header("Authorization") for each in arrived] == [f"Bearer {SECRET}"] * 2

        await ada.rows.last.get_by_role("link").click()
        attempt = page.get_by_label("Attempt 1", exact=True)
        await expect(attempt).to_contain_text("200")
        await expect(page.get_by_role("img", name=re.compile(r"wait [\d.]+ ms")).first).to_be_visible()
        told = await attempt.text_content() or ""
        assert "Content-Length: 2" in told
        assert "X-ApifyCloud-Delivery" in told
        assert SECRET not in await page.content()

        await ada.tab("Status")
        await ada.follow("Delete")
        await ada.press("Delete")
        await expect(page.get_by_role("row", name=re.compile("CRM"))).to_have_count(0)
        assert ada.complaints == []


async def test_a_delivery_is_sent_again_a_test_is_sent_and_what_is_past_is_replayed(chromium, running):
    async with (
        endpoint() as hook,
        person(chromium, running) as ada,
        ada.has("integrations", name="Again", url=hook.url, events=["call_started"]) as path,
    ):
        began = datetime.now(UTC) - timedelta(seconds=1)
        await ada.emit("call_started", {"call": "c_1"})
        await ada.open(path, "Deliveries")
        await ada.rows.first.get_by_role("link").click()
        await ada.press("Send it again")
        await ada.tab("Deliveries")
        await expect(ada.rows).to_have_count(2)
        await expect(ada.rows.filter(has_text="retry")).to_have_count(1)

        await ada.press(re.compile("^Send a test"))
        await expect(ada.rows).to_have_count(3)
        await expect(ada.rows.filter(has_text="test")).to_have_count(1)
        await hook.wait_for(3)

        await ada.tab("Replay")
        await ada.page.get_by_label("From (UTC)").fill(local(began))
        await ada.press(re.compile("Dry run"))
        await expect(ada.page.get_by_role("heading", name=re.compile("It would send 1 event"))).to_be_visible()
        assert len(hook.received) == 3
        await ada.press("Start")
        await hook.wait_for(4, 30)
        replayed = [each.header("X-ApifyCloud-Replay") is not None for each in hook.received]
        assert replayed == [False, False, False, True]
        assert ada.complaints == []


async def test_a_signing_secret_is_replaced_and_a_secret_is_seen_once(chromium, running):
    async with (
        person(chromium, running) as ada,
        ada.has("integrations", name="Sealed", url="https://crm.example/", signing=True, secrets={"t": SECRET}) as path,
    ):
        await ada.open(path)
        await ada.page.get_by_label("The old one ends now").check()
        await ada.press("Rotate")
        assert (await ada.shown_once()).startswith("whsec_")

        await ada.tab("Secrets")
        await ada.follow(re.compile("^Reveal t"))
        await expect(ada.page.get_by_text("The audit log will have this")).to_be_visible()
        await ada.press("Reveal it")
        assert await ada.shown_once() == SECRET
        await expect(ada.page.get_by_role("link", name=re.compile("^Reveal"))).to_have_count(0)

        await ada.page.goto(f"{path}/secrets/t/reveal")
        await ada.press("Reveal it")
        await expect(ada.page.get_by_role("alert")).to_be_visible()
        assert SECRET not in await ada.page.content()

        await ada.open(path)
        await ada.follow("Audit log")
        revealed = ada.rows.filter(has_text="reveal").filter(has_text=path.rpartition("/")[2])
        await expect(revealed).to_have_count(2)
        await expect(revealed.filter(has_text="Refused")).to_have_count(1)
        await expect(ada.rows.filter(has_text="rotate").first).to_be_visible()
        assert SECRET not in await ada.page.content()
        assert [line for line in ada.complaints if "status of 409" not in line] == []


async def test_settings_are_taken_back_and_signing_out_ends_it(chromium, running):
    async with (
        person(chromium, running) as ada,
        ada.has("integrations", name="First name", url="https://crm.example/") as path,
    ):
        await ada.open(path, "Settings")
        await ada.page.get_by_label("Name", exact=True).fill("Second name")
        await ada.press("Save")
        await ada.told("The settings are changed")
        await ada.tab("History")
        change = ada.page.get_by_role("row", name=re.compile("name"))
        await expect(change).to_contain_text("First name")
        await expect(change).to_contain_text("Second name")
        await ada.press("Go back to version 1")
        await ada.told("Configured as it was")
        await expect(ada.page.get_by_role("heading", name="First name")).to_be_visible()

        await ada.follow("Audit log")
        await ada.page.get_by_label("On", exact=True).fill(path.rpartition("/")[2])
        await ada.press("Filter")
        await expect(ada.rows).to_have_count(3)

        await ada.press("Sign out")
        await ada.page.goto(path)
        await expect(ada.page.get_by_role("heading", name="Sign in")).to_be_visible()
        assert ada.complaints == []


async def test_a_subscription_that_fails_is_paused_and_gets_what_was_held(chromium, running):
    async with endpoint(answer(503)) as hook, person(chromium, running) as ada:
        page = ada.page
        await ada.create("subscription", "Bookings", hook.url)
        await page.get_by_label("scheduled.created").check()
        await page.get_by_text("Delivery: time-out").click()
        await page.get_by_label("Attempts", exact=True).fill("1")
        await page.get_by_label("Waits between them").fill("")
        await ada.press("Create")
        await ada.shown_once()

        await ada.stays()
        await ada.emit("scheduled.created", *bookings(*range(3)))
        await expect(ada.now).to_contain_text("Failing")
        await ada.emit("scheduled.created", *bookings(*range(3, 20)))
        await expect(ada.now).to_contain_text("Paused")
        await expect(ada.now).to_contain_text("503")
        assert await ada.has_stayed()

        await ada.follow("demo")
        row = page.get_by_role("row", name=re.compile("Bookings"))
        await expect(row).to_contain_text("Paused")
        await expect(row).to_contain_text("503")
        await row.get_by_role("link", name="Bookings").click()
        await ada.tab("Why is nothing arriving?")
        paused = page.get_by_role("listitem").filter(has_text="Is it paused?")
        await expect(paused).to_contain_text("This is why")
        await expect(paused).to_contain_text("503")

        hook.behave(answer(200))
        await ada.emit("scheduled.created", *bookings(20, 21))
        await ada.tab("Status")
        await expect(ada.held).to_have_text("2")
        await page.get_by_label("Send it, in order").check()
        await ada.press("Activate")
        await ada.told("Activated")
        await hook.wait_for(22, 30)
        assert numbers(hook) == list(range(22))
        await expect(ada.now).to_contain_text("Active")
        await expect(ada.now).to_contain_text("delivered")
        assert ada.complaints == []


async def test_what_was_held_is_discarded_or_what_of_it_came_before_a_time(chromium, running):
    async with (
        endpoint() as hook,
        person(chromium, running) as ada,
        ada.has("subscriptions", name="Held", url=hook.url, events=["scheduled.cancelled"]) as path,
    ):
        await ada.open(path)
        await ada.press("Pause")
        await ada.told("Paused")
        await ada.emit("scheduled.cancelled", *bookings(1, 2))
        await expect(ada.held).to_have_text("2")
        await ada.page.get_by_label("Discard it").check()
        await ada.press("Activate")
        await ada.told("Activated")
        await expect(ada.held).to_have_text("0")
        await expect(ada.now).to_contain_text("discarded")

        await ada.press("Pause")
        await ada.told("Paused")
        await ada.emit("scheduled.cancelled", *bookings(3))
        between = datetime.now(UTC).replace(microsecond=0) + timedelta(seconds=1)
        await asyncio.sleep((between - datetime.now(UTC)).total_seconds() + 0.1)
        await ada.emit("scheduled.cancelled", *bookings(4))
        await expect(ada.held).to_have_text("2")
        await ada.page.get_by_label("Discard events accepted before this time").check()
        await ada.page.get_by_label("Time, UTC").fill(local(between))
        await ada.press("Activate")
        await ada.told("Activated")
        await hook.wait_for(1, 30)
        assert numbers(hook) == [4]
        await ada.tab("Deliveries")
        await expect(ada.rows.filter(has_text="discarded")).to_have_count(3)
        await expect(ada.rows.filter(has_text="delivered")).to_have_count(1)
        assert ada.complaints == []


def bookings(*numbers: int) -> list[dict]:
    return [{"scheduled_call": {"n": number}} for number in numbers]


def numbers(hook: Endpoint) -> list[int]:
    return [int(re.search(rb'"n":\s*(\d+)', each.body)[1]) for each in hook.received]


def local(at: datetime) -> str:
    """As a field of the browser's takes it."""
    return at.strftime("%Y-%m-%dT%H:%M:%S")
