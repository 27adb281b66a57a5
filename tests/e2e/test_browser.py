"""
The example widget in a real browser: what its page emits is stored, though the page closes at once.

Claims:
    1. Every event that a page emits before it is closed is on the log, once, whichever way it was sent.
    2. From there it arrives at a receiver that selected it, once, in the order of the log.
    3. What a page emits while it is being left is on the log too.
    4. A page hears what became of its events, and nothing is complained of in its console.
    5. A page of an origin that is not allowed puts nothing onto the log.
"""

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import pytest_asyncio
from aiohttp import web
from playwright.async_api import BrowserContext, Page, async_playwright

from schemas.catalogue import WIDGET_TYPES
from services.ingest.app import Ingest, running
from services.runtime.metrics import REFUSED
from services.runtime.serving import Served, serve
from tests.apps import PUBLIC_KEY, make_app
from tests.brokers import lacking
from tests.dispatching import dispatching
from tests.ingesting import events_on, ingesting, settings_for, until_ready
from tests.logs import log_of
from tests.receiving import receiver
from tests.waiting import eventually

EXAMPLES = Path(__file__).parents[2] / "examples"
CHROMIUM = Path("/usr/bin/chromium")
HAS_CHROMIUM = CHROMIUM.exists()

#: No sandbox: tests run as root in containers. The others keep the browser from calling home.
ARGUMENTS = [
    *("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
]

PAGES = 10

pytestmark = [pytest.mark.browser, pytest.mark.asyncio(loop_scope="module")]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def browser() -> AsyncIterator[BrowserContext]:
    """One profile, as a visitor has: what a page has left behind goes on there when the page has closed."""
    if not HAS_CHROMIUM:
        lacking(f"{CHROMIUM} is not installed (apt-get install chromium)")
    async with async_playwright() as playwright:
        launched = await playwright.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        yield await launched.new_context()
        await launched.close()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def site() -> AsyncIterator[Served]:
    """The site that has the widget: another origin than ingest."""
    app = web.Application()
    app.router.add_static("/", EXAMPLES)
    served = await serve(app, "127.0.0.1", 0)
    yield served
    await served.stop()


@pytest.fixture
def log(embedded_connection):
    return embedded_connection


@asynccontextmanager
async def widget(
    browser: BrowserContext, site: Served, ingest: Ingest, way: str, key: str = PUBLIC_KEY
) -> AsyncIterator[Page]:
    page = await browser.new_page()
    await page.goto(f"{site.url}/widget.html?ingest={ingest.served.url}&app=demo&key={key}&way={way}")
    await page.wait_for_function("window.widget !== undefined")
    yield page
    await page.close()


async def stored_ids(log) -> list[str]:
    return [event.event_id for _, event in await events_on(log)]


async def until_stored(log, ids: list[str]) -> None:
    async def are_stored() -> bool:
        return set(ids) <= set(await stored_ids(log))

    await eventually(are_stored, within_s=30)


@pytest.mark.parametrize("way", ["fetch", "beacon"])
async def test_every_event_of_a_page_that_closes_at_once_is_stored_once(browser, site, log, way):
    emitted: list[str] = []
    async with ingesting(log, apps=(make_app(origins=[site.url]),)) as ingest:
        for _ in range(PAGES):
            async with widget(browser, site, ingest, way) as page:
                emitted += await page.evaluate(
                    "() => widget.types.concat(widget.types).map(type => widget.emit(type).id)"
                )
        await until_stored(log, emitted)
    stored = await events_on(log)

    assert len(emitted) == PAGES * 2 * len(WIDGET_TYPES)
    assert sorted(emitted) == sorted(event.event_id for _, event in stored)
    assert {event.type for _, event in stored} == WIDGET_TYPES
    assert {(event.id_space, event.id_supplied) for _, event in stored} == {("public", True)}


@pytest.mark.kafka
async def test_every_event_of_pages_that_close_at_once_arrives_at_a_receiver_once(browser, site, kafka_connection):
    emitted: list[str] = []
    async with log_of(kafka_connection) as log, receiver() as to:
        await log.app(make_app(origins=[site.url]))
        await log.integration(to.integration("int_widget", events=sorted(WIDGET_TYPES)))
        async with running(settings_for(kafka_connection)) as ingest, dispatching(kafka_connection):
            await until_ready(ingest)
            for number in range(PAGES):
                async with widget(browser, site, ingest, ["fetch", "beacon"][number % 2]) as page:
                    emitted += await page.evaluate("() => widget.types.map(type => widget.emit(type).id)")
            await to.wait_for("int_widget", len(emitted))
            in_the_log = await stored_ids(kafka_connection)

    arrived = [json.loads(arrival.request.body) for arrival in to.arrivals["int_widget"]]
    assert len(emitted) == PAGES * len(WIDGET_TYPES)
    assert sorted(emitted) == sorted(body["id"] for body in arrived)
    assert [body["id"] for body in arrived] == in_the_log
    assert {body["event"] for body in arrived} == WIDGET_TYPES


@pytest.mark.parametrize("way", ["fetch", "beacon"])
async def test_what_a_page_emits_while_it_is_being_left_is_stored(browser, site, log, way):
    async with ingesting(log, apps=(make_app(origins=[site.url]),)) as ingest:
        page = await browser.new_page()
        for number in range(PAGES):
            await page.goto(f"{site.url}/widget.html?ingest={ingest.served.url}&app=demo&key={PUBLIC_KEY}&way={way}")
            await page.wait_for_function("window.widget !== undefined")
            await page.evaluate(
                "number => addEventListener('pagehide', () => {"
                "  const event = widget.emit('widget_closed');"
                "  sessionStorage.setItem(number, event.id);"
                "})",
                number,
            )
        await page.goto(f"{site.url}/widget.js")
        ids = await page.evaluate("() => Object.values(sessionStorage)")
        await page.close()
        await until_stored(log, ids)

    assert len(ids) == PAGES
    assert sorted(await stored_ids(log)) == sorted(ids)


async def test_a_page_hears_what_became_of_its_events_and_nothing_complains(browser, site, log):
    complaints: list[str] = []
    async with ingesting(log, apps=(make_app(origins=[site.url]),)) as ingest:
        async with widget(browser, site, ingest, "fetch") as page:
            page.on("console", lambda message: complaints.append(message.text))
            page.on("pageerror", lambda error: complaints.append(str(error)))
            await page.get_by_role("button", name="Play a whole call").click()
            await page.wait_for_function("widget.counts.done === 5")
            outcomes = await page.locator("[data-log] li span").all_inner_texts()
        async with widget(browser, site, ingest, "beacon") as page:
            page.on("console", lambda message: complaints.append(message.text))
            sent = await page.evaluate(
                "address => navigator.sendBeacon(address, new Blob("
                "  [JSON.stringify({id: 'with-preflight', type: 'call_started'})], {type: 'application/json'}))",
                f"{ingest.served.url}/v1/apps/demo/events?key={PUBLIC_KEY}",
            )
            await until_stored(log, ["with-preflight"])
        async with widget(browser, site, ingest, "fetch", key="pk_wrong") as page:
            await page.get_by_role("button", name="Start").click()
            await page.wait_for_function("widget.counts.done === 1")
            refused = await page.locator("[data-log] li span").all_inner_texts()

    assert outcomes == ["accepted"] * 5
    assert sent is True
    assert refused == ["refused: key_unknown"]
    assert complaints == []


@pytest.mark.parametrize("way", ["fetch", "beacon"])
async def test_a_page_of_another_origin_stores_nothing(browser, site, log, way):
    before = REFUSED.value("origin_not_allowed")

    async with (
        ingesting(log, apps=(make_app(origins=["https://shop.example"]),)) as ingest,
        widget(browser, site, ingest, way) as page,
    ):
        await page.evaluate("() => widget.emit('call_started').id")
        await eventually(lambda: REFUSED.value("origin_not_allowed") > before)

    assert await stored_ids(log) == []
