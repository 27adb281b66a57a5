"""
The bench against a tenterhook that is none: a stub that accepts events and delivers them, as well or as badly as told.

What has to be seen is that the bench notices. The same command against the real thing is in tests/e2e.
"""

import asyncio
import json
import threading
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import aiohttp
import msgspec
import pytest
from aiohttp import web

from services.cli.access import AdminOptions
from services.cli.bench import bench
from services.cli.bench import run as bench_run
from services.cli.errors import Failed, WrongUsage

#: The event whose delivery goes wrong where one does.
ODD = 20

Deliveries = Sequence[tuple[int, bytes]]
#: (event's index, integrations' URLs, body) to the requests that go out, in order.
Way = Callable[[int, list[str], bytes], list[tuple[str, bytes]]]


def well(_: int, urls: list[str], body: bytes) -> list[tuple[str, bytes]]:
    return [(url, body) for url in urls]


class Stub:
    """Ingest and admin in one, in memory. Knows `sk_1` and `token`, and one app: `shop`."""

    def __init__(self, way: Way = well, refuse: int | None = None, items: Sequence[dict[str, object]] = ()) -> None:
        self.integrations = {str(item["id"]): item for item in items}
        self.authorizations: set[str | None] = set()
        self._way = way
        self._refuse = refuse
        self._events = 0
        self._out: asyncio.Queue[tuple[str, bytes]]

    def application(self) -> web.Application:
        app = web.Application()
        app.router.add_post("/v1/apps/shop/events", self.event)
        for path in ("/v1/apps/shop/integrations", "/v1/apps/shop/subscriptions"):
            app.router.add_get(path, self.list)
            app.router.add_post(path, self.create)
            app.router.add_delete(path + "/{id}", self.delete)
        app.cleanup_ctx.append(self.delivering)
        return app

    async def event(self, request: web.Request) -> web.Response:
        self.authorizations.add(request.headers.get("Authorization"))
        body = await request.read()
        index, self._events = self._events, self._events + 1
        if index == self._refuse:
            return web.json_response({"code": "unavailable"}, status=503)
        event = msgspec.json.decode(body, type=dict[str, msgspec.Raw])
        urls = [str(each["url"]) for each in self.integrations.values()]
        sent = b'{"event":"call_ended","id":"evt_1","payload":%b}' % bytes(event["payload"])
        for delivery in self._way(index, urls, sent):
            self._out.put_nowait(delivery)
        return web.json_response({"id": f"evt_{index}"}, status=202)

    async def list(self, request: web.Request) -> web.Response:
        mine = request.path.endswith("integrations")
        return web.json_response({"items": [*self.integrations.values()] if mine else [], "next": None})

    async def create(self, request: web.Request) -> web.Response:
        given = await request.json()
        created = {**given, "id": f"int_{len(self.integrations)}", "status": "active"}
        self.integrations[created["id"]] = created
        return web.json_response(created, status=201)

    async def delete(self, request: web.Request) -> web.Response:
        del self.integrations[request.match_info["id"]]
        return web.Response(status=204)

    async def delivering(self, _: web.Application) -> AsyncIterator[None]:
        self._out = asyncio.Queue()

        async def deliver() -> None:
            async with aiohttp.ClientSession() as session:
                while True:
                    url, body = await self._out.get()
                    async with session.post(url, data=body, headers={"Content-Type": "application/json"}) as answer:
                        assert answer.status == 200

        task = asyncio.ensure_future(deliver())
        yield
        task.cancel()
        await asyncio.wait([task])


@contextmanager
def running(stub: Stub) -> Iterator[str]:
    """Its address, while it runs in a thread of its own."""
    loop, stop, begun = asyncio.new_event_loop(), asyncio.Event(), threading.Event()
    ports: list[int] = []

    async def main() -> None:
        runner = web.AppRunner(stub.application())
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        ports.append(runner.addresses[0][1])
        begun.set()
        await stop.wait()
        await runner.cleanup()

    thread = threading.Thread(target=lambda: loop.run_until_complete(main()))
    thread.start()
    begun.wait(10)
    try:
        yield f"http://127.0.0.1:{ports[0]}"
    finally:
        loop.call_soon_threadsafe(stop.set)
        thread.join(10)
        loop.close()


def measure(stub: Stub, capsys: pytest.CaptureFixture[str], **options: object) -> tuple[int, dict]:
    """Exit code and JSON of a small run."""
    given = {"events": 60, "integrations": 2, "connections": 1, "warm_up": 0, "size": 200, **options}
    with running(stub) as url:
        access = AdminOptions(app="shop", admin=url, token="token")
        code = bench(ingest=url, key="sk_1", access=access, as_json=True, **given)
    return code, json.loads(capsys.readouterr().out)


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is lost is lost after half a second."""
    monkeypatch.setattr(bench_run, "PATIENCE_S", 0.5)
    monkeypatch.setattr(bench_run, "SETTLE_S", 0.05)


def test_a_good_run_counts_every_delivery_and_leaves_nothing_behind(capsys):
    stub = Stub()

    code, outcome = measure(stub, capsys, warm_up=10)

    assert (code, outcome["faults"]) == (0, [])
    assert (outcome["accepted"], outcome["deliveries"]) == (60, 120)
    assert (outcome["lost"], outcome["repeated"], outcome["outOfOrder"]) == (0, 0, [0, 0])
    assert 0 < outcome["latencyMs"]["p50"] <= outcome["latencyMs"]["p99"] <= outcome["latencyMs"]["max"] < 10_000
    assert outcome["acceptedPerS"] > 0 < outcome["deliveriesPerS"]
    assert stub.integrations == {}
    assert {"Bearer sk_1"} == stub.authorizations


def test_what_load_and_receiver_used_is_shown_and_not_counted(capsys):
    _, outcome = measure(Stub(), capsys, events=3_000, connections=8)

    own = {each["name"]: each for each in outcome["processes"] if not each["counts"]}
    assert {"load (not counted)", "receiver (not counted)"} == set(own)
    assert all(each["cpuMs"] > 0 < each["pssBytes"] for each in own.values())
    counted = sum(each["cpuMsPerDelivery"] for each in outcome["processes"] if each["counts"])
    assert pytest.approx(counted, abs=0.001) == outcome["cpuMsPerDelivery"]


def test_a_lost_delivery_is_found(capsys):
    def losing(index: int, urls: list[str], body: bytes) -> list[tuple[str, bytes]]:
        return well(index, urls[1:] if index == ODD else urls, body)

    code, outcome = measure(Stub(losing), capsys)

    assert (code, outcome["lost"], outcome["repeated"]) == (1, 1, 0)
    assert outcome["faults"] == ["lost: 1"]


def test_a_repeat_is_found(capsys):
    def repeating(index: int, urls: list[str], body: bytes) -> list[tuple[str, bytes]]:
        return well(index, [*urls, urls[0]] if index == ODD else urls, body)

    code, outcome = measure(Stub(repeating), capsys)

    assert (code, outcome["lost"], outcome["repeated"]) == (1, 0, 1)


def test_a_repeat_does_not_hide_a_loss(capsys):
    def confusing(index: int, urls: list[str], body: bytes) -> list[tuple[str, bytes]]:
        return well(index, [urls[0], urls[0]] if index == ODD else urls, body)

    code, outcome = measure(Stub(confusing), capsys)

    assert (code, outcome["lost"], outcome["repeated"]) == (1, 1, 1)


class Swapping:
    """Delivers one event to its first integration behind the event after it."""

    def __init__(self) -> None:
        self._late: list[tuple[str, bytes]] = []

    def __call__(self, index: int, urls: list[str], body: bytes) -> list[tuple[str, bytes]]:
        late, self._late = self._late, []
        if index == ODD:
            self._late = [(urls[0], body)]
            return well(index, urls[1:], body)
        return [*well(index, urls, body), *late]


def test_an_overtaken_delivery_is_found(capsys):
    code, outcome = measure(Stub(Swapping()), capsys)

    assert (code, outcome["outOfOrder"]) == (1, [1, 0])
    assert outcome["faults"] == ["out of order: 1"]


def test_without_a_promise_of_order_an_overtaken_delivery_is_told_and_no_fault(capsys):
    code, outcome = measure(Stub(Swapping()), capsys, ordering="none")

    assert (code, outcome["outOfOrder"], outcome["faults"]) == (0, [1, 0], [])


def test_an_event_that_is_not_accepted_is_a_fault_and_not_lost(capsys):
    code, outcome = measure(Stub(refuse=ODD), capsys)

    assert (code, outcome["refused"], outcome["accepted"], outcome["lost"]) == (1, {"503": 1}, 59, 0)
    assert outcome["faults"] == ["not accepted: 1 x 503"]


def test_order_over_several_connections_is_not_claimed_when_the_log_cannot_be_read(capsys):
    code, outcome = measure(Stub(), capsys, connections=4)

    assert (code, outcome["outOfOrder"]) == (0, None)


def test_a_rate_is_kept(capsys):
    code, outcome = measure(Stub(), capsys, events=40, rate=200.0)

    assert code == 0
    assert 170 < outcome["acceptedPerS"] < 210


def test_integrations_are_deleted_when_a_run_fails(capsys):
    stub = Stub(refuse=0)

    with pytest.raises(Failed, match="warm-up"):
        measure(stub, capsys, warm_up=5)

    assert stub.integrations == {}


@pytest.mark.parametrize("events", [["*"], ["call_ended", "call_started"]])
def test_a_load_that_would_reach_somebody_else_is_refused(capsys, events):
    stub = Stub(items=[{"id": "int_crm", "events": events, "status": "active"}])

    with pytest.raises(Failed, match="int_crm of the app shop takes call_ended too"):
        measure(stub, capsys)


def test_an_app_without_a_place_for_ours_is_refused_before_anything_is_made(capsys):
    stub = Stub(items=[{"id": f"int_crm{at}", "events": ["call_started"], "status": "active"} for at in range(2)])

    with pytest.raises(Failed, match="no place for 2 more"):
        measure(stub, capsys)

    assert len(stub.integrations) == 2


def test_for_people_the_outcome_is_text_and_names_the_faults(capsys):
    with running(Stub(refuse=ODD)) as url:
        access = AdminOptions(app="shop", admin=url, token="token")
        code = bench(ingest=url, key="sk_1", access=access, events=60, connections=1, warm_up=0)

    out = capsys.readouterr().out
    assert code == 1
    assert "deliveries/s end to end" in out
    assert "lost 0, repeated 0, out of order 0 (0, 0, 0 by integration)" in out
    assert "not accepted: 1 x 503" in out


@pytest.mark.parametrize(
    ("options", "why"),
    [
        ({"events": 0}, "--events must be from 1"),
        ({"integrations": 4}, "at most 3 active integrations: add --profile booking"),
        ({"integrations": 0}, "--integrations must be from 1"),
        ({"size": 10}, "--size must be from"),
        ({"size": 65_536}, "--size must be from"),
        ({"connections": 0}, "--connections must be from 1"),
        ({"rate": 0.0}, "--rate must be above 0"),
        ({"max_in_flight": 101}, "--max-in-flight must be from 1 to 100"),
        ({"receiver": "sink.example"}, "--receiver must start with http"),
        ({"ready_file": Path("not-there.json")}, "not-there.json is not there. Add --start"),
        ({"start": True, "ingest": "http://127.0.0.1:1"}, "--start starts a tenterhook of its own"),
    ],
)
def test_wrong_usage_says_what_to_do(options, why):
    with pytest.raises(WrongUsage, match=why):
        bench(**options)
