"""Ingest over real HTTP, on a real broker."""

import asyncio
import gzip
import json

import aiohttp
import pytest
import pytest_asyncio

from services.ingest import append
from services.ingest import body as reading
from streams.connection import Connection
from tests.apps import ORIGIN, PUBLIC_KEY, SECRET_KEY, make_app, make_key
from tests.ingesting import PATH, SECRET, events_on, ingesting, put_apps
from tests.waiting import eventually

PUBLIC = {"X-Tenterhook-Key": PUBLIC_KEY, "Origin": ORIGIN, "Content-Type": "text/plain"}

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest.fixture(scope="module")
def log(embedded_broker) -> Connection:
    return Connection(embedded_broker.bootstrap, "test-ingest.")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def client(log):
    """A client of one ingest service, which all tests here share; each looks for its own ids."""
    async with ingesting(log) as ingest, aiohttp.ClientSession(ingest.served.url) as session:
        yield session


async def post(client, body, headers=SECRET, path=PATH):
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    # aiohttp's client would name a type of its own.
    async with client.post(path, data=data, headers={"Content-Type": "application/json", **headers}) as response:
        return response.status, response.headers, await response.json(content_type=None)


async def stored(log, event_id):
    found = [(key, event) for key, event in await events_on(log) if event.event_id == event_id]
    assert len(found) == 1
    return found[0]


async def test_an_accepted_event_is_on_the_log_byte_for_byte(client, log):
    payload = b'{ "call" : "c_1",  "n":1.0, "who":"\xc3\xa9\\u00e9" }'
    body = b'{"type":"call_started","payload":%b,"occurredAt":"2026-01-31T12:00:00Z","orderingKey":"c_1"}' % payload

    status, headers, answer = await post(client, body)
    key, event = await stored(log, answer["id"])

    assert status == 202
    assert headers["Content-Type"] == "application/json"
    assert sorted(answer) == ["acceptedAt", "id"]
    assert answer["id"].startswith("evt_")
    assert key == b"demo"
    assert event.payload == payload
    assert (event.app, event.type, event.ordering_key) == ("demo", "call_started", "c_1")
    assert (event.id_space, event.id_supplied) == ("secret", False)
    assert event.occurred_at_ms == 1_769_860_800_000
    assert event.record_id.startswith("rec_")


async def test_a_page_sends_text_plain_with_a_public_key_and_an_id_of_its_own(client, log):
    status, headers, answer = await post(client, {"type": "call_started", "id": "page-1"}, PUBLIC)
    _, event = await stored(log, "page-1")

    assert (status, answer["id"]) == (202, "page-1")
    assert headers["Access-Control-Allow-Origin"] == ORIGIN
    assert headers["Access-Control-Allow-Credentials"] == "true"
    assert "Origin" in headers["Vary"]
    assert (event.id_space, event.id_supplied) == ("public", True)


@pytest.mark.parametrize(
    ("path", "headers"),
    [
        (PATH, {"Authorization": f"Bearer {SECRET_KEY}"}),
        (PATH, {"X-Tenterhook-Key": SECRET_KEY}),
        (f"{PATH}?key={PUBLIC_KEY}", {"Origin": ORIGIN}),
    ],
)
async def test_a_key_may_stand_in_three_places(client, path, headers):
    status, _, _ = await post(client, {"type": "call_started"}, headers, path)

    assert status == 202


@pytest.mark.parametrize(
    ("body", "headers", "status", "code", "field"),
    [
        (b"{", SECRET, 400, "invalid_json", "body"),
        ([], SECRET, 400, "invalid_event", "body"),
        ({}, SECRET, 400, "invalid_event", "type"),
        ({"type": 1}, SECRET, 400, "invalid_event", "type"),
        ({"type": "call_started", "id": "a b"}, SECRET, 400, "invalid_event", "id"),
        ({"type": "call_started", "occurredAt": "now"}, SECRET, 400, "invalid_event", "occurredAt"),
        ({"type": "call_started", "orderingKey": ""}, SECRET, 400, "invalid_event", "orderingKey"),
        ({"type": "call_started", "extra": 1}, SECRET, 400, "invalid_event", "extra"),
        ({"type": "scheduled.created", "payload": {}}, SECRET, 400, "invalid_event", "payload.scheduled_call"),
        ({"type": "call_started"}, {}, 401, "key_missing", None),
        ({"type": "call_started"}, {"Authorization": "Bearer sk_wrong"}, 401, "key_unknown", None),
        ({"type": "call_started"}, {"X-Tenterhook-Key": PUBLIC_KEY}, 403, "origin_missing", None),
        ({"type": "call_started"}, {**PUBLIC, "Origin": "https://evil.example"}, 403, "origin_not_allowed", None),
        ({"type": "scheduled.created"}, PUBLIC, 403, "secret_key_required", "type"),
        ({"type": "call_started"}, {**SECRET, "Content-Type": "text/html"}, 415, "unsupported_media_type", None),
        ({"type": "made_up"}, PUBLIC, 422, "unknown_type", "type"),
        ({"type": "tenterhook.integration.paused"}, SECRET, 422, "reserved_type", "type"),
    ],
)
async def test_a_refusal_is_a_problem_that_says_what(client, body, headers, status, code, field):
    got_status, got_headers, problem = await post(client, body, headers)

    assert (got_status, problem["code"]) == (status, code)
    assert got_headers["Content-Type"] == "application/problem+json"
    assert problem["status"] == status
    assert problem.get("field") == field


async def test_an_unknown_app_is_refused_like_a_wrong_key(client):
    unknown_app = await post(client, {"type": "call_started"}, SECRET, "/v1/apps/nobody/events")
    wrong_key = await post(client, {"type": "call_started"}, {"X-Tenterhook-Key": "sk_wrong"})

    assert unknown_app[0] == wrong_key[0] == 401
    assert unknown_app[2] == wrong_key[2]


async def test_the_key_of_one_app_is_not_one_of_another(client, log):
    await put_apps(log, make_app("other", keys=[make_key("sk_other", "secret")]))

    own = await post(client, {"type": "call_started"}, {"X-Tenterhook-Key": "sk_other"}, "/v1/apps/other/events")
    foreign = await post(client, {"type": "call_started"}, SECRET, "/v1/apps/other/events")

    assert (own[0], foreign[0]) == (202, 401)


async def test_a_page_may_read_its_refusal(client):
    _, headers, _ = await post(client, {"type": "made_up"}, PUBLIC)

    assert headers["Access-Control-Allow-Origin"] == ORIGIN


async def test_a_page_of_another_origin_may_not(client):
    _, headers, _ = await post(client, {"type": "call_started"}, {**PUBLIC, "Origin": "https://evil.example"})

    assert "Access-Control-Allow-Origin" not in headers


async def preflight(client, origin, path=PATH):
    asked = {
        "Origin": origin,
        "Access-Control-Request-Method": "POST",
        "Access-Control-Request-Headers": "content-type,x-tenterhook-key",
    }
    async with client.options(path, headers=asked) as response:
        return response.status, response.headers


async def test_a_preflight_of_an_allowed_page_is_answered(client):
    status, headers = await preflight(client, ORIGIN)

    assert status == 204
    assert headers["Access-Control-Allow-Origin"] == ORIGIN
    assert headers["Access-Control-Allow-Credentials"] == "true"
    assert headers["Access-Control-Allow-Methods"] == "POST"
    assert "X-Tenterhook-Key" in headers["Access-Control-Allow-Headers"]
    assert headers["Access-Control-Max-Age"] == "7200"
    assert headers["Vary"] == "Origin"


@pytest.mark.parametrize(("origin", "path"), [("https://evil.example", PATH), (ORIGIN, "/v1/apps/nobody/events")])
async def test_a_preflight_of_another_page_or_for_no_app_is_refused(client, origin, path):
    status, headers = await preflight(client, origin, path)

    assert status == 403
    assert "Access-Control-Allow-Origin" not in headers


async def test_a_request_may_have_65536_bytes_and_not_one_more(client):
    body = b'{"type":"call_started"}'

    exactly = await post(client, body.ljust(65_536))
    above = await post(client, body.ljust(65_537))

    assert exactly[0] == 202
    assert (above[0], above[2]["code"], above[2]["maxBytes"]) == (413, "request_too_large", 65_536)


async def test_the_limit_holds_for_a_body_without_a_length(client):
    async def chunks(size):
        for start in range(0, size, 5_000):
            yield b'{"type":"call_started"}'.ljust(5_000) if start == 0 else b" " * min(5_000, size - start)

    async with client.post(PATH, data=chunks(65_536), headers=SECRET) as response:
        exactly = response.status
    async with client.post(PATH, data=chunks(65_537), headers=SECRET) as response:
        above = response.status

    assert (exactly, above) == (202, 413)


async def test_an_endless_body_is_refused_before_it_ends(client):
    reader, writer = await raw(client)
    writer.write(
        f"POST {PATH} HTTP/1.1\r\nHost: x\r\nX-Tenterhook-Key: {SECRET_KEY}\r\n"
        "Transfer-Encoding: chunked\r\n\r\n".encode()
    )
    answer = asyncio.ensure_future(reader.readuntil(b"\r\n\r\n"))
    chunks = 0
    while not answer.done():
        writer.write(b"400\r\n%b\r\n" % (b" " * 1_024))
        await writer.drain()
        await asyncio.sleep(0.001)
        chunks += 1
    writer.close()
    await writer.wait_closed()

    assert (await answer).startswith(b"HTTP/1.1 413 ")
    assert 64 < chunks < 1_000


async def test_an_event_whose_envelope_would_be_too_large_is_refused(client):
    body = b'{"type":"call_started","payload":"%b"}' % (b"x" * 65_450)

    status, _, problem = await post(client, body)

    assert len(body) < 65_536
    assert (status, problem["code"], problem["field"]) == (413, "event_too_large", "payload")


async def test_a_compressed_body_is_refused(client):
    headers = {**SECRET, "Content-Encoding": "gzip"}

    status, _, problem = await post(client, gzip.compress(b'{"type":"call_started"}'), headers)

    assert (status, problem["code"]) == (415, "unsupported_media_type")


async def raw(client):
    url = client._base_url
    return await asyncio.open_connection(url.host, url.port)


def head(length, connection="close"):
    return (
        f"POST {PATH} HTTP/1.1\r\nHost: x\r\nX-Tenterhook-Key: {SECRET_KEY}\r\n"
        f"Content-Length: {length}\r\nConnection: {connection}\r\n\r\n"
    ).encode()


async def test_a_sender_that_is_too_slow_is_told_so_and_delays_nobody(client, monkeypatch):
    monkeypatch.setattr(reading, "DEADLINE_S", 0.3)
    reader, writer = await raw(client)
    writer.write(head(100) + b'{"type":')

    others = [await post(client, {"type": "call_started"}) for _ in range(5)]
    answer = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 5)
    writer.close()
    await writer.wait_closed()

    assert [status for status, _, _ in others] == [202] * 5
    assert answer.startswith(b"HTTP/1.1 408 ")


async def test_a_body_may_come_byte_by_byte(client):
    reader, writer = await raw(client)
    body = b'{"type":"call_started"}'
    writer.write(head(len(body)))
    for number in range(len(body)):
        writer.write(body[number : number + 1])
        await writer.drain()
        await asyncio.sleep(0.001)
    answer = await asyncio.wait_for(reader.read(), 5)
    writer.close()
    await writer.wait_closed()

    assert answer.startswith(b"HTTP/1.1 202 ")


async def test_an_event_counts_though_its_sender_does_not_wait_for_the_answer(client, log):
    """As a beacon of a page that has closed."""
    _, writer = await raw(client)
    body = b'{"type":"call_ended","id":"left-early"}'
    writer.write(head(len(body)) + body)
    await writer.drain()
    writer.close()
    await writer.wait_closed()

    async def is_stored():
        return "left-early" in {event.event_id for _, event in await events_on(log)}

    await eventually(is_stored)


async def test_events_of_32_connections_are_in_the_order_of_each(client, log):
    async def sender(number):
        async with aiohttp.ClientSession(client._base_url) as own:
            for count in range(20):
                status, _, _ = await post(own, {"type": "call_started", "id": f"order-{number}-{count}"})
                assert status == 202

    await asyncio.gather(*(sender(number) for number in range(32)))
    ids = [event.event_id for _, event in await events_on(log) if event.event_id.startswith("order-")]

    assert len(ids) == 32 * 20
    for number in range(32):
        own = [event_id for event_id in ids if event_id.startswith(f"order-{number}-")]
        assert own == [f"order-{number}-{count}" for count in range(20)]


async def test_a_key_an_origin_and_a_type_count_as_soon_as_they_are_on_the_log(client, log):
    for number in range(10):
        app = make_app(
            "changing",
            keys=[make_key(f"pk_{number}", "public")],
            origins=[f"https://shop-{number}.example"],
            event_types=[f"type_{number}"],
        )
        await put_apps(log, app)
        headers = {"X-Tenterhook-Key": f"pk_{number}", "Origin": f"https://shop-{number}.example"}

        status, _, answer = await post(client, {"type": f"type_{number}"}, headers, "/v1/apps/changing/events")

        assert (status, answer.get("code")) == (202, None)


async def test_health_and_metrics_tell_what_happened(client):
    async def metric(name):
        async with client.get("/metrics") as response:
            lines = (await response.text()).splitlines()
        return sum(float(line.rpartition(" ")[2]) for line in lines if line.startswith(name))

    accepted = await metric("tenterhook_ingest_accepted_total")
    refused = await metric('tenterhook_ingest_refused_total{code="key_missing"}')
    appended = await metric("tenterhook_ingest_append_seconds_count")

    await post(client, {"type": "call_started"})
    await post(client, {"type": "call_started"}, {})

    assert await metric("tenterhook_ingest_accepted_total") == accepted + 1
    assert await metric('tenterhook_ingest_refused_total{code="key_missing"}') == refused + 1
    assert await metric("tenterhook_ingest_append_seconds_count") == appended + 1
    for path in ("/health/live", "/health/ready"):
        async with client.get(path) as response:
            assert response.status == 200


async def test_events_that_the_log_keeps_waiting_for_ever_make_it_not_live_until_they_have_ended(log, monkeypatch):
    monkeypatch.setattr("services.runtime.liveness.STUCK_S", 0.5)
    monkeypatch.setattr("services.runtime.liveness.LOOK_S", 0.05)
    monkeypatch.setattr(append, "DEADLINE_S", 3600.0)  # a bound that does not hold
    async with ingesting(log) as ingest, aiohttp.ClientSession(ingest.served.url) as session:

        async def live() -> tuple[int, str | None]:
            async with session.get("/health/live") as response:
                return response.status, (await response.json())["reason"]

        async def is_live() -> bool:
            return await live() == (200, None)

        async def is_not_live() -> bool:
            return not await is_live()

        assert (await post(session, {"type": "call_started"}))[0] == 202
        assert await is_live()
        may_go, send = asyncio.Event(), ingest._log._producer.send

        async def send_later(*args, **names):
            await may_go.wait()
            return await send(*args, **names)

        monkeypatch.setattr(ingest._log._producer, "send", send_later)
        waiting = asyncio.ensure_future(post(session, {"type": "call_started"}))
        await eventually(is_not_live)
        status, reason = await live()
        may_go.set()
        assert (await waiting)[0] == 202
        await eventually(is_live)

    assert status == 503
    assert reason.startswith("no progress: an event waits for the log for ")
