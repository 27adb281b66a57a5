"""
Pictures of the console for docs/console.md: `python -m tests.pictures`. On the embedded broker, with made-up states.
"""

import asyncio
import tempfile
import uuid
from pathlib import Path

from playwright.async_api import async_playwright

from services.cli.brokers.embedded import EmbeddedBroker
from streams.connection import Connection
from tests.admins import KNOWN, admin_at, client_of, furnish
from tests.tried import DELIVERED, EXHAUSTED, REJECTED, put_states, put_tried, sent_of, state, until_known

TO = Path(__file__).parents[1] / "docs" / "console"
CHROMIUM = "/usr/bin/chromium"

BODIES = (
    {
        "name": "CRM",
        "url": "https://crm.example/hooks/{secret.path}",
        "events": ["call_ended"],
        "secrets": {"path": "x"},
    },
    {"name": "Analytics", "url": "https://analytics.example/v2/events", "events": ["*"]},
    {"name": "Slack, sales", "url": "https://hooks.slack.example/T1/B2", "events": []},
)


async def main() -> None:
    TO.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as data:
        broker = EmbeddedBroker(Path(data))
        await broker.start()
        try:
            await pictures(Connection(broker.bootstrap, f"p{uuid.uuid4().hex[:8]}."))
        finally:
            broker.kill()


async def pictures(connection: Connection) -> None:
    await furnish(connection)
    async with admin_at(connection) as admin, client_of(admin) as api:
        made = [(await api.post("/v1/apps/demo/integrations", json=body)).json()["id"] for body in BODIES]
        booking = {"name": "Calendar", "url": "https://calendar.example/bookings", "events": ["scheduled.created"]}
        made.append((await api.post("/v1/apps/demo/subscriptions", json=booking)).json()["id"])
        now_ms = admin.commands._now_ms()
        await put_states(
            connection,
            state(made[0], now_ms, delivered=983, ended=1000),
            state(
                made[1],
                now_ms,
                delivered=412,
                ended=640,
                state="paused",
                reason="20 attempts in a row failed, the last one with http_503: attempt 3",
                last_outcome="exhausted",
                last_status=503,
                last_attempt=3,
            ),
            state(
                made[3],
                now_ms,
                delivered=58,
                ended=61,
                state="failing",
                reason="4 attempts in a row failed, the last one with timeout",
            ),
        )
        tried = [
            await put_tried(connection, sent_of(admin, each), kinds, now_ms)
            for each, kinds in (
                (made[0], [DELIVERED] * 5 + [REJECTED] + [DELIVERED] * 30),
                (made[1], ([DELIVERED] * 3 + [EXHAUSTED]) * 8 + [EXHAUSTED] * 4),
                (made[3], [DELIVERED] * 20),
            )
        ]
        await until_known(api, [ids[-1] for ids in tried])
        await shoot(admin.served.url, made[1], tried[1][-1])


async def shoot(url: str, paused: str, delivery: str) -> None:
    async with async_playwright() as playwright:
        chromium = await playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        wide, phone = {"width": 1000, "height": 720}, {"width": 375, "height": 720}
        one = f"/apps/demo/integrations/{paused}"
        for name, scheme, size, path in (
            ("light", "light", wide, "/apps/demo"),
            ("dark", "dark", wide, f"{one}/deliveries/{delivery}"),
            ("phone", "light", phone, f"{one}/why"),
        ):
            page = await (await chromium.new_context(base_url=url, color_scheme=scheme, viewport=size)).new_page()
            await page.goto("/sign-in")
            await page.get_by_label("Token of the admin API").fill(KNOWN.token)
            await page.keyboard.press("Enter")
            await page.wait_for_url("**/apps/demo")
            await page.goto(path)
            await page.screenshot(path=TO / f"{name}.png")
        await chromium.close()


if __name__ == "__main__":
    asyncio.run(main())
