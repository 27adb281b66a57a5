"""Batches, repeats and the rate of public keys over real HTTP, on a real broker."""

import asyncio
import io
import json

import aiohttp
import pytest
import pytest_asyncio

from services.ingest import body as reading
from streams.connection import Connection
from tests.apps import ORIGIN, PUBLIC_KEY, make_app, make_key
from tests.ingesting import PATH, SECRET, events_on, ingesting, put_apps

BATCH = f"{PATH}/batch"
NDJSON = {**SECRET, "Content-Type": "application/x-ndjson"}

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest.fixture(scope="module")
def log(embedded_broker) -> Connection:
    return Connection(embedded_broker.bootstrap, "test-ingest-batch.")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def client(log):
    """A client of one ingest service, which all tests here share; each looks for its own ids."""
    async with ingesting(log) as ingest, aiohttp.ClientSession(ingest.served.url) as session:
        yield session


async def post(client, body, headers=SECRET, path=BATCH):
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    # Of bytes as large as a batch may be, aiohttp's client warns.
    async with client.post(path, data=io.BytesIO(data), headers=headers) as response:
        return response.status, response.headers, await response.json(content_type=None)


async def post_one(client, body, headers=SECRET, path=PATH):
    return await post(client, body, headers, path)


async def stored(log, start):
    """Events whose id starts so, in the order of the log."""
    return [event for _, event in await events_on(log) if event.event_id.startswith(start)]


async def metric(client, name):
    async with client.get("/metrics") as response:
        lines = (await response.text()).splitlines()
    return sum(float(line.rpartition(" ")[2]) for line in lines if line.startswith(name))


def of(start, count, **fields):
    return [{"type": "call_started", "id": f"{start}-{number}", **fields} for number in range(count)]


def lines(*events):
    return b"\n".join(json.dumps(event).encode() for event in events)


# -- batches -------------------------------------------------------------------------------------------------


async def test_500_events_are_on_the_log_in_the_order_of_the_array(client, log):
    status, headers, told = await post(client, of("array", 500, payload="x" * 500))

    assert status == 207
    assert headers["Content-Type"] == "application/json"
    assert [(item["status"], item["id"]) for item in told["items"]] == [(202, f"array-{n}") for n in range(500)]
    assert [event.event_id for event in await stored(log, "array-")] == [f"array-{n}" for n in range(500)]


@pytest.mark.parametrize("content_type", ["application/x-ndjson", "application/json", "text/plain;charset=UTF-8"])
async def test_lines_are_told_from_an_array_by_the_first_byte(client, log, content_type):
    start = f"lines-{content_type[-3:]}"
    headers = {**SECRET, "Content-Type": content_type}

    as_lines = await post(client, lines(*of(start, 3)), headers)
    as_array = await post(client, of(f"{start}-array", 3), headers)

    assert [item["status"] for item in as_lines[2]["items"] + as_array[2]["items"]] == [202] * 6
    assert len(await stored(log, start)) == 6


async def test_payloads_are_kept_byte_for_byte(client, log):
    payload = b'{ "a" :  1.0, "b":"\xc3\xa9\\u00e9" ,"a":1e2 }'
    event = b'{"type":"call_started","id":"%b", "payload": %b }'

    array = await post(client, b"[ %b,\n%b ]" % (event % (b"bytes-1", payload), event % (b"bytes-2", payload)))
    ndjson = await post(client, event % (b"bytes-3", payload) + b"\r\n", NDJSON)

    assert (array[0], ndjson[0]) == (207, 207)
    assert [event.payload for event in await stored(log, "bytes-")] == [payload] * 3


async def test_each_event_has_its_own_status(client, log):
    events = [
        *of("mixed", 1),
        {"type": "call_started", "id": "a b"},
        {"payload": 1},
        "no event",
        {"type": "tenterhook.x"},
        {"type": "scheduled.created"},
        {"type": "call_started", "payload": "x" * 65_450},
        {"type": "call_started", "payload": "x" * 70_000},
        {"type": "call_started", "id": "mixed-1"},
    ]

    status, _, told = await post(client, events)

    assert status == 207
    assert [(item["status"], item.get("code"), item.get("field")) for item in told["items"]] == [
        (202, None, None),
        (400, "invalid_event", "id"),
        (400, "invalid_event", "type"),
        (400, "invalid_event", "body"),
        (422, "reserved_type", "type"),
        (400, "invalid_event", "payload.scheduled_call"),
        (413, "event_too_large", "payload"),
        (413, "request_too_large", None),
        (202, None, None),
    ]
    assert [event.event_id for event in await stored(log, "mixed-")] == ["mixed-0", "mixed-1"]


async def test_a_broken_line_refuses_itself_and_a_broken_array_all(client, log):
    broken = lines(*of("broken", 2)).replace(b"\n", b'\n{"type":"call_started",\n"\xff"\n')

    as_lines = await post(client, broken, NDJSON)
    as_array = await post(client, b"[%b,{]" % lines(*of("broken-array", 1)))

    assert [(item["status"], item.get("code")) for item in as_lines[2]["items"]] == [
        (202, None),
        (400, "invalid_json"),
        (400, "invalid_json"),
        (202, None),
    ]
    assert (as_array[0], as_array[2]["code"]) == (400, "invalid_json")
    assert [event.event_id for event in await stored(log, "broken")] == ["broken-0", "broken-1"]


@pytest.mark.parametrize(
    ("body", "headers", "status", "code"),
    [
        (b"", SECRET, 400, "empty_batch"),
        (b"[]", SECRET, 400, "empty_batch"),
        (b"1\n" * 501, NDJSON, 413, "too_many_events"),
        (b" " * (4 * 1024 * 1024 + 1), SECRET, 413, "request_too_large"),
        (b"{}", {}, 401, "key_missing"),
        (b"{}", {"Authorization": "Bearer sk_wrong"}, 401, "key_unknown"),
        (b"{}", {"X-Tenterhook-Key": PUBLIC_KEY}, 403, "origin_missing"),
        (b"{}", {**SECRET, "Content-Type": "text/html"}, 415, "unsupported_media_type"),
        (b"{}", {**SECRET, "Content-Encoding": "gzip"}, 415, "unsupported_media_type"),
    ],
)
async def test_a_batch_that_is_none_is_a_problem(client, body, headers, status, code):
    refused = await metric(client, f'tenterhook_ingest_refused_total{{code="{code}"}}')

    got, got_headers, problem = await post(client, body, {"Content-Type": "application/json", **headers})

    assert (got, problem["code"]) == (status, code)
    assert got_headers["Content-Type"] == "application/problem+json"
    assert await metric(client, f'tenterhook_ingest_refused_total{{code="{code}"}}') == refused + 1


async def test_a_batch_of_4_mib_without_a_length_is_taken(client, log):
    events = of("large", 64, payload="x" * 65_000)
    body = json.dumps(events).encode()
    assert 4_100_000 < len(body) <= 4 * 1024 * 1024

    async def chunks():
        for start in range(0, len(body), 100_000):
            yield body[start : start + 100_000]

    async with client.post(BATCH, data=chunks(), headers=SECRET) as response:
        status, told = response.status, await response.json()

    assert status == 207
    assert [item["status"] for item in told["items"]] == [202] * 64
    assert [event.event_id for event in await stored(log, "large-")] == [f"large-{n}" for n in range(64)]


async def test_batches_that_have_not_come_whole_hold_a_bounded_amount_of_memory(client, monkeypatch):
    monkeypatch.setattr(reading, "MAX_UNFINISHED_BYTES", 100_000)
    waits = asyncio.Event()

    async def slow(started):
        yield b" " * 80_000
        started.set()
        await waits.wait()
        yield lines(*of("slow", 1))

    started = asyncio.Event()
    first = asyncio.ensure_future(post_chunks(client, slow(started)))
    await started.wait()
    await asyncio.sleep(0.1)
    busy = await post(client, lines(*of("busy", 1)).rjust(30_000))
    waits.set()
    whole = await first
    afterwards = await post(client, lines(*of("busy", 1)).rjust(30_000))

    assert (busy[0], busy[2]["code"], busy[1]["Retry-After"]) == (503, "overloaded", "1")
    assert (whole, afterwards[0]) == (207, 207)


async def post_chunks(client, chunks):
    async with client.post(BATCH, data=chunks, headers=SECRET) as response:
        return response.status


async def test_a_batch_that_is_too_slow_is_told_so(client, monkeypatch):
    monkeypatch.setattr(reading, "BATCH_DEADLINE_S", 0.2)

    async def chunks():
        yield b"["
        await asyncio.sleep(1)
        yield b"]"

    async with client.post(BATCH, data=chunks(), headers=SECRET) as response:
        told = await response.json(content_type=None)

    assert (response.status, told["code"]) == (408, "body_too_slow")


async def test_a_new_type_counts_for_a_batch_as_soon_as_it_is_on_the_log(client, log):
    for number in range(5):
        await put_apps(log, app_of("changing", event_types=[f"type_{number}"]))

        _, _, told = await post(
            client,
            [{"type": f"type_{number}"}, {"type": "made_up"}],
            public("changing"),
            "/v1/apps/changing/events/batch",
        )

        assert [item["status"] for item in told["items"]] == [202, 422]


@pytest.mark.parametrize("path", [PATH, BATCH])
@pytest.mark.parametrize("method", ["GET", "HEAD", "PUT", "PATCH", "DELETE"])
async def test_other_methods_are_405_and_say_which_there_are(client, path, method):
    async with client.request(method, path, headers=SECRET) as response:
        body = await response.read()

    assert (response.status, response.headers["Allow"]) == (405, "OPTIONS, POST")
    assert response.headers["Content-Type"] == "application/problem+json"
    assert method == "HEAD" or json.loads(body)["code"] == "method_not_allowed"


@pytest.mark.parametrize("path", [f"{PATH}/", f"{BATCH}/", f"{PATH}/other", "/v1/apps//events", "/v1/apps/demo"])
async def test_other_paths_are_404(client, path):
    status, _, problem = await post(client, {"type": "call_started"}, path=path)

    assert (status, problem["code"]) == (404, "not_found")


async def test_what_a_sender_accepts_is_not_looked_at(client):
    status, headers, _ = await post_one(client, {"type": "call_started"}, {**SECRET, "Accept": "text/html"})

    assert (status, headers["Content-Type"]) == (202, "application/json")


async def test_a_preflight_for_a_batch_is_answered(client):
    async with client.options(BATCH, headers={"Origin": ORIGIN, "Access-Control-Request-Method": "POST"}) as response:
        assert response.status == 204
        assert response.headers["Access-Control-Allow-Origin"] == ORIGIN


# -- repeats -------------------------------------------------------------------------------------------------


async def test_a_repeat_is_told_so_and_not_stored_again(client, log):
    event = {"type": "call_started", "id": "repeat-1", "payload": {"a": 1}, "occurredAt": "2026-01-31T12:00:00Z"}
    accepted = await metric(client, "tenterhook_ingest_accepted_total")
    repeated = await metric(client, "tenterhook_ingest_repeated_total")

    first = await post_one(client, event)
    again = await post_one(client, event)
    # Another way to write the same instant.
    in_a_batch = await post(client, [{**event, "occurredAt": "2026-01-31T13:00:00+01:00"}])

    assert (first[0], again[0]) == (202, 202)
    assert sorted(first[2]) == ["acceptedAt", "id"]
    assert again[2] == {**first[2], "duplicate": True}
    assert in_a_batch[2] == {"items": [{"status": 202, **first[2], "duplicate": True}]}
    assert len(await stored(log, "repeat-1")) == 1
    assert await metric(client, "tenterhook_ingest_accepted_total") == accepted + 1
    assert await metric(client, "tenterhook_ingest_repeated_total") == repeated + 2


@pytest.mark.parametrize(
    "change",
    [
        {"type": "call_ended"},
        {"payload": {"a": 2}},
        {"occurredAt": "2026-01-31T12:00:00Z"},
        {"orderingKey": "k"},
    ],
    ids=lambda change: next(iter(change)),
)
async def test_another_event_of_the_same_id_is_refused(client, log, change):
    event = {"type": "call_started", "id": f"reused-{next(iter(change))}", "payload": {"a": 1}}

    first = await post_one(client, event)
    other = await post_one(client, {**event, **change})
    in_a_batch = await post(client, [{**event, **change}])

    assert first[0] == 202
    assert (other[0], other[2]["code"], other[2]["field"]) == (409, "id_reused", "id")
    assert in_a_batch[2]["items"] == [other[2]]
    assert len(await stored(log, event["id"])) == 1


async def test_kinds_of_key_and_apps_have_ids_of_their_own(client, log):
    await put_apps(log, app_of("other"))
    event = {"type": "call_started", "id": "own-1"}

    answers = [
        await post_one(client, event),
        await post_one(client, {**event, "payload": 1}, public("demo", PUBLIC_KEY)),
        await post_one(client, {**event, "payload": 2}, public("other"), "/v1/apps/other/events"),
    ]

    assert [(status, told.get("duplicate")) for status, _, told in answers] == [(202, None)] * 3
    assert len(await stored(log, "own-1")) == 3


async def test_of_many_at_the_same_moment_one_is_stored(client, log):
    event = {"type": "call_started", "id": "together"}

    answers = await asyncio.gather(*(post_one(client, event) for _ in range(20)))

    assert [status for status, _, _ in answers] == [202] * 20
    assert len({told["acceptedAt"] for _, _, told in answers}) == 1
    assert sum("duplicate" not in told for _, _, told in answers) == 1
    assert len(await stored(log, "together")) == 1


# -- the rate of public keys ---------------------------------------------------------------------------------


def app_of(app, **changes):
    return make_app(app, keys=[make_key(f"pk_{app}", "public"), make_key(f"sk_{app}", "secret")], **changes)


def public(app, key=None):
    return {"X-Tenterhook-Key": key or f"pk_{app}", "Origin": ORIGIN, "Content-Type": "text/plain"}


async def test_public_keys_of_an_app_are_bounded_together_and_secret_ones_are_not(client, log):
    await put_apps(log, app_of("rated", public_rate_per_s=1), app_of("unrated", public_rate_per_s=1))
    path, event = "/v1/apps/rated/events", {"type": "call_started"}

    answers = await asyncio.gather(*(post_one(client, event, public("rated"), path) for _ in range(12)))
    refused = [answer for answer in answers if answer[0] != 202]
    others = [
        await post_one(client, event, {"X-Tenterhook-Key": "sk_rated", "Content-Type": "text/plain"}, path),
        await post_one(client, event, public("unrated"), "/v1/apps/unrated/events"),
    ]

    # More than two only where this has taken more than a second.
    assert 2 <= len(answers) - len(refused) < 12
    status, headers, problem = refused[-1]
    assert (status, problem["code"], headers["Retry-After"]) == (429, "rate_limited", "1")
    assert headers["Content-Type"] == "application/problem+json"
    assert headers["Access-Control-Allow-Origin"] == ORIGIN
    assert headers["Access-Control-Expose-Headers"] == "Retry-After"
    assert [status for status, _, _ in others] == [202, 202]


async def test_of_a_batch_the_beginning_is_taken_that_it_is_not_too_early_for(client, log):
    await put_apps(log, app_of("paced", public_rate_per_s=2))
    path = "/v1/apps/paced/events/batch"

    status, _, told = await post(client, of("paced", 7), public("paced"), path)

    assert status == 207
    assert [item["status"] for item in told["items"]] == [202] * 4 + [429] * 3
    assert {item["retryAfter"] for item in told["items"][4:]} == {2}
    assert [event.event_id for event in await stored(log, "paced-")] == [f"paced-{n}" for n in range(4)]


async def test_a_batch_that_it_is_too_early_for_from_its_beginning_is_refused_whole(client, log):
    await put_apps(log, app_of("crowded", public_rate_per_s=1))
    path = "/v1/apps/crowded/events/batch"

    answers = await asyncio.gather(*(post(client, of(f"crowded-{n}", 3), public("crowded"), path) for n in range(12)))
    refused = [answer for answer in answers if answer[0] == 429]

    assert {told["code"] for _, _, told in refused} == {"rate_limited"}
    assert all(headers["Retry-After"] == "1" for _, headers, _ in refused)


async def test_a_log_that_was_replaced_is_not_taken_to_have_what_was_accepted(log):
    async with ingesting(log) as ingest, aiohttp.ClientSession(ingest.served.url) as own:
        event = {"type": "call_started", "id": "replaced"}
        first = await post_one(own, event)
        ingest._log_replaced()
        await put_apps(log, make_app())
        again = await post_one(own, event)

    assert (first[0], again[0], again[2].get("duplicate")) == (202, 202, None)
    assert len(await stored(log, "replaced")) == 2
