"""
The admin service with many integrations: how long its API and the console's pages take, over real HTTP.

Integrations, and the results of one's deliveries, are written onto the log directly; a change is a patch, from its
request to its 2xx: decided, made by the owner in a transaction, and met.
"""

import asyncio
import base64
import os
import time
from collections.abc import Callable
from statistics import median
from typing import Any

import httpx
import msgspec

from bench.history import result
from schemas.profiles import BOOKING
from services.admin.app import running
from services.admin.bootstrap import Bootstrapped, bootstrap
from services.admin.compose import new_integration, signing_secret
from services.admin.rules import wanted
from services.runtime.settings import AdminSettings, Settings
from services.vault.data_keys import Vault
from services.vault.seal import Keyring
from streams import codec, topics
from streams.connection import Connection
from streams.follower import Follower
from streams.producer import open_producer
from streams.records import Delivery, Result
from streams.topics import APP_CONFIG, INTEGRATION_CONFIG, RESULTS, Partitions, ensure
from streams.views import Apps

KNOWN = Bootstrapped("bench", public_key="pk_bench", secret_key="sk_bench", token="tok_bench")
PATH = "/v1/apps/bench/subscriptions"
BODY = {
    "name": "Bench",
    "url": "https://crm.example/{secret.path}",
    "events": ["*"],
    "headers": {"Authorization": "Bearer {secret.token}", "X-Env": "prod"},
    "secrets": {"path": "p", "token": "t"},
}
ASKED = 200
ASKED_OF_PAGES = 100
#: Results of one integration's deliveries, over the last day.
DELIVERIES = 10_000
DAY_MS = 86_400_000


def measure(bootstrap_servers: str, integrations: int, say: Callable[[str], object]) -> dict[str, Any]:
    return asyncio.run(_measure(Connection(bootstrap_servers, f"bench{os.getpid()}.", "auto"), integrations, say))


async def _measure(connection: Connection, integrations: int, say: Callable[[str], object]) -> dict[str, Any]:
    kek = bytes(range(32))
    settings = Settings(
        broker=connection.bootstrap,
        topic_prefix=connection.prefix,
        kek=base64.b64encode(kek).decode(),
        admin=AdminSettings(port=0),
    )
    await ensure(connection, Partitions(settings.partitions.by_app, settings.partitions.by_integration))
    await bootstrap(connection, now_ms=1_000, random=os.urandom, known=KNOWN, keyring=Keyring(kek))
    say(f"writing {integrations:,} integrations")
    ids = await _written(connection, kek, integrations)
    say(f"writing the results of {DELIVERIES:,} deliveries")
    newest = await _delivered(connection, ids[0])
    began_s = time.perf_counter()
    async with running(settings) as admin:
        await admin.opened
        ready_s = time.perf_counter() - began_s
        async with httpx.AsyncClient(
            base_url=admin.served.url, headers={"Authorization": f"Bearer {KNOWN.token}"}, timeout=30
        ) as http:
            await http.patch(f"{PATH}/{ids[0]}", json={"name": "warm"})
            say("asking")
            found: dict[str, Any] = {"integrations": integrations, "ready_s": round(ready_s, 1)}
            found["first_page_ms"] = await _asked(lambda _: http.get(PATH, params={"limit": 50}))
            found["one_ms"] = await _asked(lambda at: http.get(f"{PATH}/{ids[at]}"))
            found["change_ms"] = await _asked(lambda at: http.patch(f"{PATH}/{ids[at]}", json={"name": f"n{at}"}))
        await admin.history.caught_up()
        say("asking for pages")
        found["pages_ms"] = await _pages(admin.served.url, ids[0], newest)
    return found


async def _written(connection: Connection, kek: bytes, count: int) -> list[str]:
    apps = Apps()
    follower = Follower(connection, APP_CONFIG, apps.apply)
    await follower.start()
    await follower.stop()
    app = apps.get(KNOWN.app)
    assert app is not None
    vault, plan = Vault(Keyring(kek), apps.get), wanted(BODY, app, BOOKING)
    producer = await open_producer(connection, client_id="bench", linger_ms=5)
    ids = [f"sub_{number:032x}" for number in range(count)]
    try:
        sent = []
        for each in ids:
            config = new_integration(
                plan,
                integration=each,
                app=app.app,
                profile=BOOKING,
                signing=signing_secret(bytes(32)),
                keyring=vault,
                now_ms=1,
                who="bench",
            )
            topic = connection.topic(INTEGRATION_CONFIG)
            sent.append(await producer.send(topic, codec.encode(config), key=each.encode()))
        await asyncio.gather(*sent)
    finally:
        await producer.stop()
    return ids


async def _delivered(connection: Connection, integration: str) -> str:
    """Writes the results of its deliveries; the id of the newest."""
    began_ms = int(time.time() * 1_000) - DAY_MS
    producer = await open_producer(connection, client_id="bench", linger_ms=5)
    outcomes = ["delivered"] * 18 + ["rejected", "exhausted"]
    made = None
    try:
        newest = _delivery(result(DELIVERIES - 1, 0, "delivered", 1), integration)
        there = await producer.send_and_wait(
            connection.topic(topics.DELIVERIES), codec.encode(newest), key=integration.encode()
        )
        sent = []
        for number in range(DELIVERIES):
            at_ms = began_ms + number * DAY_MS // DELIVERIES
            made = msgspec.structs.replace(
                result(number, 0, outcomes[number % len(outcomes)], 1),
                app=KNOWN.app,
                integration=integration,
                config_version=1,
                source_partition=there.partition,
                source_offset=there.offset,
                started_at_ms=at_ms,
                finished_at_ms=at_ms + 40,
                accepted_at_ms=at_ms - 5,
            )
            sent.append(await producer.send(connection.topic(RESULTS), codec.encode(made), key=integration.encode()))
        await asyncio.gather(*sent)
    finally:
        await producer.stop()
    assert made is not None
    return made.delivery_id


def _delivery(ended: Result, integration: str) -> Delivery:
    """The one that this result is of, as fan-out writes it."""
    return Delivery(
        delivery_id=ended.delivery_id,
        integration=integration,
        app=KNOWN.app,
        record_id=ended.record_id,
        event_id=ended.event_id,
        type=ended.type,
        payload=b'{"callId":"call_1","durationS":42}',
        occurred_at_ms=ended.accepted_at_ms,
        accepted_at_ms=ended.accepted_at_ms,
        config_offset=0,
        source_partition=0,
        source_offset=0,
        source_generation=0,
    )


async def _pages(url: str, integration: str, delivery: str) -> dict[str, dict[str, float]]:
    """Milliseconds of the console's pages, as somebody who is signed in gets them."""
    app, one = f"/apps/{KNOWN.app}", f"/apps/{KNOWN.app}/subscriptions/{integration}"
    pages = {
        "list": app,
        "integration": one,
        "its deliveries": f"{one}/deliveries",
        "its rejected ones": f"{one}/deliveries?outcome=rejected",
        "one delivery": f"{one}/deliveries/{delivery}",
        "deliveries of the app": f"{app}/deliveries",
    }
    async with httpx.AsyncClient(base_url=url, timeout=30) as browser:
        await browser.post("/sign-in", data={"token": KNOWN.token})
        return {
            name: await _asked(lambda _, path=path: browser.get(path), ASKED_OF_PAGES) for name, path in pages.items()
        }


async def _asked(ask: Callable[[int], Any], times: int = ASKED) -> dict[str, float]:
    """Milliseconds of many requests, one after the other."""
    took = []
    for at in range(times):
        began_s = time.perf_counter()
        answer = await ask(at)
        took.append((time.perf_counter() - began_s) * 1_000)
        answer.raise_for_status()
    took.sort()
    return {"median": round(median(took), 1), "p99": round(took[int(len(took) * 0.99)], 1), "most": round(took[-1], 1)}
