"""
tenterhook.js in a real browser: what a page emits is stored, though the page closes at once.

Every page here is of another origin than ingest, isolates itself and has the content security policy of
docs/web-pages.md. Claims:
    1. Every event of a page that closes in the very task that emitted it is on the log, once, whichever way it went.
    2. From there it arrives at a receiver that selected it, once, in the order of the log.
    3. What a page emits while it is being left is on the log too.
    4. What was emitted without a network is stored when it is back, or by the next page; tabs share it.
    5. What is answered with 429 or 503 is sent again under its id, not before Retry-After; what is refused is not.
    6. Nothing is thrown into the page, whatever it passes, and whatever the browser does not allow.
    7. A page of an origin that is not allowed puts nothing onto the log.
    8. The example widget hears what became of its events, and nothing is complained of in its console.
"""

import json
import re
import uuid
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from urllib.parse import urlencode

import aiohttp
import pytest
import pytest_asyncio
from aiohttp import web
from playwright.async_api import Browser, BrowserContext, Page, Request, Route, async_playwright

from schemas.catalogue import WIDGET_TYPES
from services.ingest.app import Ingest, running
from services.runtime.serving import Served, serve
from streams.connection import Connection
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

#: Windows that emit and close at once, of each way.
PAGES = 20
MANY_PAGES = 200

#: What leaves a page one way to send.
WAYS = {
    "fetch": "navigator.sendBeacon = () => false;",
    "fails": "window.fetch = async () => { throw new TypeError('as when nobody answers'); };",
    "beacon": "delete Request.prototype.keepalive; window.fetch = () => new Promise(() => {});",
}

#: What a page does with what it is given, before and after tenterhook.js.
BEFORE = "window.told = []; addEventListener('tenterhook', (event) => told.push(event.detail));"
EARLY = """
window.tenterhook ||= (...event) => (tenterhook.early ||= []).push(event);
tenterhook("call_started", { early: true });
"""
#: How often the page asks the network.
COUNTED = "window.asked = 0; const ask = fetch; window.fetch = (...all) => { asked++; return ask(...all); };"
#: No byte more goes into its storage.
FULL = """
() => {
  let [text, number] = ["x".repeat(2 ** 22), 0];
  while (text) {
    try {
      localStorage[number++] = text;
    } catch {
      text = text.slice(text.length / 2 + 1);
    }
  }
}
"""
#: What counts is what was sent, not what the next page would send.
CLOSES = "opener.emitted.push(tenterhook('call_ended', { seconds: 42 })); localStorage.clear(); window.close();"

pytestmark = [pytest.mark.browser, pytest.mark.asyncio(loop_scope="module")]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def chromium() -> AsyncIterator[Browser]:
    if not HAS_CHROMIUM:
        lacking(f"{CHROMIUM} is not installed (apt-get install chromium)")
    async with async_playwright() as playwright:
        launched = await playwright.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        yield launched
        await launched.close()


@pytest_asyncio.fixture(loop_scope="module")
async def browser(chromium: Browser) -> AsyncIterator[BrowserContext]:
    """One profile, as a visitor has: what a page has left behind goes on there when the page has closed."""
    context = await chromium.new_context()
    yield context
    await context.close()


async def page(request: web.Request) -> web.Response:
    """A page with tenterhook.js, as docs/web-pages.md has it."""
    asked = request.query
    ingest = asked["ingest"]
    tag = f'<script src="{ingest}/tenterhook.js" data-app="{asked["app"]}" data-key="{asked["key"]}"'
    inline = [f'<script nonce="page">{script}</script>' for script in (asked.get("before", ""), asked.get("after", ""))]
    text = f'<!doctype html><title>A page</title><link rel="icon" href="data:,">{inline[0]}{tag}></script>{inline[1]}'
    return web.Response(
        text=text,
        content_type="text/html",
        headers={
            "Content-Security-Policy": f"default-src 'none'; script-src 'nonce-page' {ingest}; connect-src {ingest}; "
            "img-src data:",
            "Cross-Origin-Embedder-Policy": "require-corp",
        },
    )


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def site() -> AsyncIterator[Served]:
    """The site of the pages and of the example widget: another origin than ingest."""
    app = web.Application()
    app.router.add_get("/page", page)
    app.router.add_static("/", EXAMPLES)
    served = await serve(app, "127.0.0.1", 0)
    yield served
    await served.stop()


class Stack:
    """An ingest service, the log behind it, and the site whose pages may use it."""

    def __init__(self, log: Connection, ingest: Ingest, site: Served) -> None:
        self.log = log
        self.ingest = ingest
        self.site = site

    def page(self, app: str = "demo", key: str = PUBLIC_KEY, before: str = "", after: str = "") -> str:
        asked = {"ingest": self.ingest.served.url, "app": app, "key": key, "before": BEFORE + before, "after": after}
        return f"{self.site.url}/page?{urlencode(asked)}"

    async def ids(self) -> Counter[str]:
        """Of all events on the log, with how often each is there."""
        return Counter(event.event_id for _, event in await events_on(self.log))

    async def until_stored(self, ids: list[str], within_s: float = 30.0) -> None:
        async def are_stored() -> bool:
            return set(ids) <= set(await self.ids())

        await eventually(are_stored, within_s)

    async def share_stored(self, ids: list[str]) -> float:
        """Of those, the share that is there once; a while is left for them."""
        with suppress(AssertionError):
            await self.until_stored(ids, within_s=10)
        found = await self.ids()
        return sum(found[each] == 1 for each in ids) / len(ids)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def stack(embedded_broker, site) -> AsyncIterator[Stack]:
    connection = Connection(embedded_broker.bootstrap, f"t{uuid.uuid4().hex[:12]}.")
    apps = (
        make_app(origins=[site.url], public_rate_per_s=1000),
        make_app("slow", origins=[site.url], public_rate_per_s=1),
        make_app("closed", origins=["https://shop.example"]),
    )
    async with ingesting(connection, apps=apps) as ingest:
        yield Stack(connection, ingest, site)


class Said:
    """What a page complains of: in its console, and as errors that nobody caught."""

    def __init__(self, page: Page) -> None:
        self.complaints: list[str] = []
        self.thrown: list[str] = []
        page.on("console", lambda message: self.complaints.append(message.text))
        page.on("pageerror", lambda error: self.thrown.append(str(error)))


async def close_at_once(browser: BrowserContext, stack: Stack, way: str, pages: int) -> list[str]:
    """Open so many windows, each of which emits an event and closes itself in the same task. The events' ids."""
    opener = await browser.new_page()
    await opener.goto(f"{stack.site.url}/widget.js")
    ids: list[str] = await opener.evaluate(
        """async ([address, pages]) => {
          window.emitted = [];
          for (let number = 0; number < pages; number++) {
            const opened = open(address);
            while (!opened.closed) await new Promise((go) => setTimeout(go, 5));
          }
          return emitted;
        }""",
        [stack.page(before=WAYS[way], after=CLOSES), pages],
    )
    await opener.close()
    return ids


def tell(way: str, pages: int, share: float) -> None:
    print(f"\n{way}: {share:.1%} of the events of {pages} pages that closed at once are on the topic, once")  # noqa: T201


@pytest.mark.parametrize("way", WAYS)
async def test_every_event_of_a_page_that_closes_at_once_is_stored_once(browser, stack, way, capsys):
    ids = await close_at_once(browser, stack, way, PAGES)
    share = await stack.share_stored(ids)
    with capsys.disabled():
        tell(way, len(ids), share)

    assert len(set(ids)) == PAGES
    assert share == 1


@pytest.mark.long
@pytest.mark.timeout(300)
@pytest.mark.kafka
@pytest.mark.parametrize("way", WAYS)
async def test_every_event_of_many_pages_that_close_at_once_is_stored_once(
    browser, site, kafka_connection, way, capsys
):
    async with ingesting(kafka_connection, apps=(make_app(origins=[site.url]),)) as ingest:
        stack = Stack(kafka_connection, ingest, site)
        ids = await close_at_once(browser, stack, way, MANY_PAGES)
        share = await stack.share_stored(ids)
    with capsys.disabled():
        tell(way, len(ids), share)

    assert len(set(ids)) == MANY_PAGES
    assert share == 1


@pytest.mark.parametrize("way", WAYS)
async def test_what_a_page_emits_while_it_is_being_left_is_stored(browser, stack, way):
    leaving = """
    addEventListener("pagehide", () => {
      const id = tenterhook("widget_closed");
      sessionStorage.setItem(id, "");
      localStorage.clear();
    });
    """
    page = await browser.new_page()
    for _ in range(5):
        await page.goto(stack.page(before=WAYS[way], after=leaving))
    await page.goto(f"{stack.site.url}/widget.js")
    ids = await page.evaluate("Object.keys(sessionStorage)")

    assert len(ids) == 5
    assert await stack.share_stored(ids) == 1


async def test_what_was_emitted_without_a_network_is_stored_later_and_tabs_share_it(browser, stack):
    emit = "number => Array.from({ length: number }, (_, at) => tenterhook('call_started', { at }))"
    first, second = await browser.new_page(), await browser.new_page()
    for tab in (first, second):
        await tab.goto(stack.page())
    await browser.set_offline(True)
    ids = [*await first.evaluate(emit, 3), *await second.evaluate(emit, 3)]
    await first.wait_for_timeout(500)
    before = await stack.ids()

    # The network comes back, and both tabs send what both have kept.
    await browser.set_offline(False)
    await stack.until_stored(ids)
    await first.wait_for_function("() => localStorage.length === 0")

    # It comes back when no page is there any more: the next one sends it, in the order in which it was emitted.
    await browser.set_offline(True)
    later = [each for _ in range(3) for each in await second.evaluate(emit, 1)]
    await first.close()
    await second.close(run_before_unload=False)
    await browser.set_offline(False)
    third = await browser.new_page()
    await third.goto(stack.page())
    await third.wait_for_function("() => told.length === 3")
    told = await third.evaluate("told")

    assert not set(ids) & set(before)
    assert told == [{"id": each, "status": 202} for each in later]
    assert await stack.share_stored([*ids, *later]) == 1


async def test_what_is_answered_with_503_is_sent_again_under_its_id_not_before_its_time(browser, stack):
    sent: list[tuple[float, str | None]] = []

    async def away_at_first(route: Route, request: Request) -> None:
        sent.append((await page.evaluate("performance.now()"), request.post_data))
        if len(sent) > 1:
            await route.continue_()
            return
        headers = {
            "Access-Control-Allow-Origin": stack.site.url,
            "Access-Control-Expose-Headers": "Retry-After",
            "Retry-After": "1",
        }
        await route.fulfill(status=503, headers=headers, body="{}")

    page = await browser.new_page()
    await page.goto(stack.page())
    await page.route("**/events?*", away_at_first)
    event_id = await page.evaluate("tenterhook('call_started', { agent: 'Ada' }, 'call_1')")
    # While it waits others do too, instead of asking again what is away.
    await page.wait_for_timeout(300)
    other = await page.evaluate("tenterhook('call_ended')")
    await page.wait_for_function("() => told.length === 2")
    told = await page.evaluate("told")

    first, again, last = sent
    assert first[1] == again[1] is not None
    assert json.loads(first[1])["id"] == event_id
    assert json.loads(first[1])["orderingKey"] == "call_1"
    assert json.loads(last[1] or "")["id"] == other
    assert again[0] - first[0] >= 1000
    assert told == [{"id": event_id, "status": 202}, {"id": other, "status": 202}]
    assert await stack.share_stored([event_id, other]) == 1


async def test_what_is_too_much_at_once_is_sent_again_and_what_is_refused_is_not(browser, stack):
    posts: Counter[str] = Counter()
    page = await browser.new_page()
    said = Said(page)
    page.on("request", lambda request: request.method == "POST" and posts.update([request.url]))
    # One a second, and two at once.
    await page.goto(stack.page("slow"))
    ids = await page.evaluate("[1, 2, 3, 4].map((at) => tenterhook('call_started', { at }))")
    await page.wait_for_function("() => told.length === 4")
    assert await page.evaluate("told.map((each) => each.status)") == [202] * 4
    assert await stack.share_stored(ids) == 1

    # An unknown key, and a type that nobody knows.
    said.complaints.clear()
    posts.clear()
    await page.goto(stack.page(key="pk_wrong"))
    await page.evaluate("tenterhook('call_started')")
    await page.wait_for_function("() => told.length === 1")
    await page.goto(stack.page())
    await page.evaluate("tenterhook('call_strated')")
    await page.wait_for_function("() => told.length === 1")
    await page.wait_for_timeout(1500)

    ours = [line for line in said.complaints if line.startswith("tenterhook:")]
    assert ["key_unknown" in ours[0], "unknown_type" in ours[1], len(ours)] == [True, True, 2]
    assert sorted(posts.values()) == [1, 1]
    assert await page.evaluate("localStorage.length") == 0
    assert said.thrown == []


async def test_nothing_is_thrown_into_the_page_whatever_it_passes_or_lacks(browser, stack):
    """What JSON cannot say; calls before the script; no storage, a full one, more than a hundred that wait."""
    page = await browser.new_page()
    said = Said(page)
    await page.goto(stack.page(before=EARLY + COUNTED))
    await page.wait_for_function("() => told.length === 1")
    odd = await page.evaluate(
        """() => {
          const round = {};
          round.round = round;
          return [tenterhook("call_started", round), tenterhook("call_started", 1n), tenterhook(), tenterhook(7, null)];
        }"""
    )
    await page.wait_for_function("() => told.length === 3")
    assert [each is None for each in odd] == [True, True, False, False]
    assert await page.evaluate("told.map((each) => each.status)") == [202, 400, 400]

    # More than outlives a page at once goes out nevertheless, and without being tried in vain.
    await page.evaluate("window.asked = 0")
    large = await page.evaluate("[1, 2, 3].map(() => tenterhook('call_started', 'x'.repeat(40000)))")
    await page.wait_for_function("() => told.length === 6")
    assert await page.evaluate("asked") == 3
    assert await stack.share_stored(large) == 1

    await page.evaluate(FULL)
    full = await page.evaluate("[1, 2].map((at) => tenterhook('call_started', { at }))")
    await page.wait_for_function("() => told.length === 8")
    assert await stack.share_stored(full) == 1
    await page.evaluate("localStorage.clear()")

    none = (
        "Object.defineProperty(window, 'localStorage', { get() { throw new DOMException('no', 'SecurityError'); } });"
    )
    await page.goto(stack.page(before=none))
    without = await page.evaluate("tenterhook('call_started')")
    await page.wait_for_function("() => told.length === 1")
    assert await stack.share_stored([without]) == 1

    await page.goto(stack.page())
    await browser.set_offline(True)
    kept = await page.evaluate("Array.from({ length: 120 }, () => tenterhook('call_started'))")
    assert [each is None for each in kept] == [False] * 100 + [True] * 20
    assert said.thrown == []


async def test_a_page_of_another_origin_stores_nothing(browser, stack):
    async def refused() -> float:
        """How many ingest has refused for their origin, as its metrics have it."""
        async with aiohttp.ClientSession() as client, client.get(f"{stack.ingest.served.url}/metrics") as response:
            found = re.search(
                r'^tenterhook_ingest_refused_total{code="origin_not_allowed"} (.*)$',
                await response.text(),
                re.MULTILINE,
            )
        return float(found[1]) if found else 0

    stored = await stack.ids()
    for way in WAYS.values():
        before = await refused()
        page = await browser.new_page()
        said = Said(page)
        await page.goto(stack.page("closed", before=way))
        await page.evaluate("tenterhook('call_started')")
        while await refused() <= before:
            await page.wait_for_timeout(50)
        assert said.thrown == []
        await page.evaluate("localStorage.clear()")
        await page.close()

    assert await stack.ids() == stored


@asynccontextmanager
async def widget(
    browser: BrowserContext, site: Served, ingest: Ingest, key: str = PUBLIC_KEY, way: str = ""
) -> AsyncIterator[Page]:
    page = await browser.new_page()
    if way:
        await page.add_init_script(WAYS[way])
    await page.goto(f"{site.url}/widget.html?{urlencode({'ingest': ingest.served.url, 'app': 'demo', 'key': key})}")
    await page.wait_for_function("window.widget !== undefined")
    yield page
    await page.close()


@pytest.mark.kafka
async def test_every_event_of_widgets_that_close_at_once_arrives_at_a_receiver_once(browser, site, kafka_connection):
    emitted: list[str] = []
    async with log_of(kafka_connection) as log, receiver() as to:
        await log.app(make_app(origins=[site.url]))
        await log.integration(to.integration("int_widget", events=sorted(WIDGET_TYPES)))
        async with running(settings_for(kafka_connection)) as ingest, dispatching(kafka_connection):
            await until_ready(ingest)
            for number in range(10):
                async with widget(browser, site, ingest, way=["fetch", "beacon"][number % 2]) as page:
                    emitted += await page.evaluate("() => widget.types.map(widget.emit)")
            await to.wait_for("int_widget", len(emitted))
            in_the_log = [event.event_id for _, event in await events_on(kafka_connection)]

    arrived = [json.loads(arrival.request.body) for arrival in to.arrivals["int_widget"]]
    assert len(emitted) == 10 * len(WIDGET_TYPES)
    assert sorted(emitted) == sorted(body["id"] for body in arrived)
    assert [body["id"] for body in arrived] == in_the_log
    assert {body["event"] for body in arrived} == WIDGET_TYPES


async def test_a_widget_hears_what_became_of_its_events_and_nothing_complains(browser, stack):
    async with widget(browser, stack.site, stack.ingest) as page:
        said = Said(page)
        await page.get_by_role("button", name="Play a whole call").click()
        await page.wait_for_function("widget.counts.done === 5")
        outcomes = await page.locator("[data-log] li span").all_inner_texts()
    async with widget(browser, stack.site, stack.ingest, key="pk_wrong") as page:
        await page.get_by_role("button", name="Start").click()
        await page.wait_for_function("widget.counts.done === 1")
        refused = await page.locator("[data-log] li span").all_inner_texts()

    assert outcomes == ["accepted"] * 5
    assert refused == ["refused: 401"]
    assert said.complaints == said.thrown == []


async def test_a_beacon_of_json_is_stored_after_its_preflight(browser, stack):
    """Of whoever has a script of their own."""
    page = await browser.new_page()
    await page.goto(stack.page())
    event = {"id": f"b{uuid.uuid4().hex}", "type": "call_started"}
    taken = await page.evaluate(
        "([address, body]) => navigator.sendBeacon(address, new Blob([body], { type: 'application/json' }))",
        [f"{stack.ingest.served.url}/v1/apps/demo/events?key={PUBLIC_KEY}", json.dumps(event)],
    )

    assert taken
    assert await stack.share_stored([event["id"]]) == 1
