"""Ingest and a broker that is not there, goes away, comes back, or is not as it must be."""

import asyncio
import contextlib
import os
import signal

import aiohttp
import pytest
from structlog.testing import capture_logs

from services.ingest import append, handlers
from services.ingest.app import main, running
from services.runtime.serving import StartupError
from streams import topics
from tests.apps import ORIGIN, PUBLIC_KEY, make_app, make_key
from tests.ingesting import (
    PATH,
    SECRET,
    ended,
    events_on,
    ingest_process,
    ingesting,
    put_apps,
    settings_for,
    until_ready,
)
from tests.logs import PARTITIONS
from tests.waiting import eventually

pytestmark = pytest.mark.kafka


async def send(client, event_id) -> tuple[int, dict[str, str], dict[str, object]]:
    body = b'{"type":"call_started","id":"%b","payload":"%b"}' % (event_id.encode(), b"x" * 1_000)
    async with client.post(PATH, data=body, headers=SECRET) as response:
        return response.status, response.headers, await response.json(content_type=None)


class Load:
    """Connections that send one event after another until told to end, and what they were answered."""

    def __init__(self, url: str, connections: int = 8) -> None:
        self.accepted: list[str] = []
        self.refused: list[int] = []
        self.broken = 0
        self.slowest_s = 0.0
        self._url = url
        self._ending = False
        self._tasks = [asyncio.ensure_future(self._send(number)) for number in range(connections)]

    async def _send(self, number: int) -> None:
        async with aiohttp.ClientSession(self._url) as client:
            count = 0
            while not self._ending:
                event_id = f"{number}-{count}"
                count += 1
                started = asyncio.get_running_loop().time()
                try:
                    status, _, _ = await send(client, event_id)
                except aiohttp.ClientError:
                    self.broken += 1
                    await asyncio.sleep(0.01)
                    continue
                self.slowest_s = max(self.slowest_s, asyncio.get_running_loop().time() - started)
                if status == 202:
                    self.accepted.append(event_id)
                else:
                    self.refused.append(status)
                    await asyncio.sleep(0.01)

    async def has_accepted(self, more: int) -> None:
        wanted = len(self.accepted) + more
        await eventually(lambda: len(self.accepted) >= wanted, within_s=30)

    async def end(self) -> None:
        self._ending = True
        await asyncio.gather(*self._tasks)


async def send_batch(client, ids) -> list[dict[str, object]]:
    body = b"\n".join(
        b'{"type":"call_started","id":"%b","payload":"%b"}' % (event_id.encode(), b"x" * 1_000) for event_id in ids
    )
    async with client.post(f"{PATH}/batch", data=body, headers=SECRET) as response:
        told = await response.json(content_type=None)
        return told["items"] if response.status == 207 else [told] * len(ids)


class BatchLoad(Load):
    """The same in batches of 50."""

    async def _send(self, number: int) -> None:
        async with aiohttp.ClientSession(self._url) as client:
            count = 0
            while not self._ending:
                ids = [f"batch-{number}-{count + at}" for at in range(50)]
                count += 50
                items = await send_batch(client, ids)
                self.accepted += [event_id for event_id, item in zip(ids, items, strict=True) if item["status"] == 202]
                self.refused += [item["status"] for item in items if item["status"] != 202]
                if items[-1]["status"] != 202:
                    await asyncio.sleep(0.01)


@pytest.mark.alone
async def test_a_broker_that_is_killed_or_not_there_yet(kafka_broker, kafka_connection, monkeypatch):
    """One test for both, because a broker takes seconds to come back."""
    monkeypatch.setattr(append, "DEADLINE_S", 1.0)
    async with contextlib.AsyncExitStack() as stack:
        first = await stack.enter_async_context(ingesting(kafka_connection))
        load = Load(first.served.url)
        batches = BatchLoad(first.served.url, connections=2)
        await load.has_accepted(200)
        await batches.has_accepted(1_000)
        kafka_broker.kill()
        try:
            # One whose broker went away ...
            await eventually(lambda: len(load.refused) >= 16, within_s=30)
            trouble = first.trouble()
            # ... and one whose broker was never there.
            second = await stack.enter_async_context(running(settings_for(kafka_connection)))
            client = await stack.enter_async_context(aiohttp.ClientSession(second.served.url))
            async with client.get("/health/ready") as response:
                not_ready = response.status, await response.json()
            async with client.get("/health/live") as response:
                alive = response.status
            async with client.options(PATH, headers={"Origin": ORIGIN}) as response:
                preflight = response.status
            status, headers, problem = await send(client, "too-early")
        finally:
            await kafka_broker.start()
        await until_ready(second)
        in_time = await send(client, "in-time")
        await load.has_accepted(200)
        await until_ready(first)
        await batches.has_accepted(1_000)
        await load.end()
        await batches.end()

    on_the_log = [event.event_id for _, event in await events_on(kafka_connection)]
    assert trouble is not None
    assert set(load.refused) == {503}
    assert load.broken == 0
    assert load.slowest_s < 2.0
    assert set(load.accepted) <= set(on_the_log)
    assert set(batches.refused) == {503}
    assert set(batches.accepted) <= set(on_the_log)
    for number in range(2):
        own = [int(event_id.split("-")[2]) for event_id in on_the_log if event_id.startswith(f"batch-{number}-")]
        assert own == sorted(own)
    # The producer is idempotent: a batch that it sent again is there once.
    assert len(on_the_log) == len(set(on_the_log))

    assert not_ready == (503, {"ready": False, "reason": "there is no connection to the broker"})
    assert alive == 200
    assert preflight == 503
    assert (status, problem["code"], headers["Retry-After"]) == (503, "broker_unavailable", "5")
    assert in_time[0] == 202
    assert "in-time" in on_the_log
    assert "too-early" not in on_the_log


@contextlib.contextmanager
def frozen(broker):
    """The broker is there and does nothing."""
    pid = broker.nodes[0].pid
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


@pytest.mark.alone
async def test_a_producer_that_gets_nothing_acknowledged_is_replaced(kafka_broker, kafka_connection, monkeypatch):
    monkeypatch.setattr(append, "DEADLINE_S", 0.2)
    monkeypatch.setattr(append, "STUCK_AFTER_S", 0.5)
    with capture_logs() as lines:
        await _replaced_while_frozen(kafka_broker, kafka_connection, lines)

    assert "afterwards" in [event.event_id for _, event in await events_on(kafka_connection)]


async def _replaced_while_frozen(kafka_broker, kafka_connection, lines):
    def has_told(event):
        turns = [line["event"] for line in lines if line["event"] in {"ingest.ready", "ingest.not_ready"}]
        return turns[-1:] == [event]

    async with ingesting(kafka_connection) as ingest, aiohttp.ClientSession(ingest.served.url) as client:
        first = ingest._log._producer
        await eventually(lambda: has_told("ingest.ready"))
        with frozen(kafka_broker):
            while ingest._log._producer is first:
                status, _, _ = await send(client, "meanwhile")
                assert status == 503
            async with asyncio.timeout(0.1):
                at_once = await send(client, "nobody-is-there")
            await eventually(lambda: has_told("ingest.not_ready"))
        await until_ready(ingest)
        status, _, _ = await send(client, "afterwards")
        await eventually(lambda: has_told("ingest.ready"))

    assert at_once[0] == 503
    assert status == 202


@pytest.mark.alone
async def test_a_producer_that_is_replaced_while_it_tries_again_ends_nothing(
    kafka_broker, kafka_connection, monkeypatch
):
    """aiokafka waits before it sends a batch again; what it does then met a batch that had been given up."""
    monkeypatch.setattr(append, "DEADLINE_S", 0.2)
    monkeypatch.setattr(append, "STUCK_AFTER_S", 0.5)
    async with ingesting(kafka_connection) as ingest, aiohttp.ClientSession(ingest.served.url) as client:
        first = ingest._log._producer
        first._sender._retry_backoff = 0.6
        kafka_broker.kill()
        try:
            refused = []
            while ingest._log._producer is first:
                refused.append((await send(client, f"meanwhile-{len(refused)}"))[0])
            await eventually(first._sender.sender_task.done)
        finally:
            await kafka_broker.start()
        await until_ready(ingest)
        status, _, _ = await send(client, "afterwards")
        assert not ingest.work.done()

    assert set(refused) == {503}
    assert status == 202


async def test_each_event_of_a_batch_that_is_not_confirmed_has_503_and_can_be_repeated(
    kafka_broker, kafka_connection, monkeypatch
):
    monkeypatch.setattr(append, "DEADLINE_S", 0.5)
    ids = [f"repeated-{number}" for number in range(500)]
    async with ingesting(kafka_connection) as ingest, aiohttp.ClientSession(ingest.served.url) as client:
        with frozen(kafka_broker):
            unconfirmed = await send_batch(client, ids)
        await eventually(lambda: _all_stored(client, ids), within_s=30)
        told = await send_batch(client, ids)

    first = {}
    for _, event in await events_on(kafka_connection):
        first.setdefault(event.event_id, event)
    assert {(item["status"], item["code"], item["retryAfter"]) for item in unconfirmed} == {
        (503, "broker_unavailable", 5)
    }
    assert list(first) == ids
    assert [item["duplicate"] for item in told] == [True] * 500


async def _all_stored(client, ids):
    return {item["status"] for item in await send_batch(client, ids)} == {202}


async def test_more_than_memory_is_set_aside_for_is_refused_at_once(kafka_broker, kafka_connection, monkeypatch):
    monkeypatch.setattr(append, "MAX_UNACKNOWLEDGED_BYTES", 10_000)
    async with ingesting(kafka_connection) as ingest, aiohttp.ClientSession(ingest.served.url) as client:
        with frozen(kafka_broker):
            waiting = [asyncio.ensure_future(send(client, f"waits-{number}")) for number in range(20)]
            done, _ = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED, timeout=3)
            refused = [await task for task in done]
        statuses = [status for status, _, _ in await asyncio.gather(*waiting)]
        afterwards = await send(client, "afterwards")

    assert {(status, problem["code"], headers["Retry-After"]) for status, headers, problem in refused} == {
        (503, "overloaded", "1")
    }
    assert 1 <= statuses.count(202) < 20
    assert set(statuses) == {202, 503}
    assert afterwards[0] == 202


async def test_stopping_answers_the_events_that_wait_for_the_broker(kafka_broker, kafka_connection):
    async with ingesting(kafka_connection) as ingest, aiohttp.ClientSession(ingest.served.url) as client:
        with frozen(kafka_broker):
            waiting = [asyncio.ensure_future(send(client, f"waits-{number}")) for number in range(10)]
            await eventually(lambda: ingest._log._unacknowledged_bytes > 10 * 1_000, within_s=30)
            stopping = asyncio.ensure_future(ingest.stop())
            await asyncio.sleep(0.2)
            assert not stopping.done()
        answers = [status for status, _, _ in await asyncio.gather(*waiting)]
        await stopping

    assert answers == [202] * 10
    assert len(await events_on(kafka_connection)) == 10


async def test_sigterm_under_load_loses_nothing_that_was_answered(kafka_connection):
    await put_apps(kafka_connection, make_app())
    async with ingest_process(kafka_connection) as ingest:
        await ingest.until_ready()
        load = Load(ingest.url)
        await load.has_accepted(300)
        ingest.process.send_signal(signal.SIGTERM)
        code, stderr = await asyncio.to_thread(ended, ingest.process)
        await load.end()

    on_the_log = [event.event_id for _, event in await events_on(kafka_connection)]
    assert code == 0, stderr
    assert load.refused == []
    assert sorted(on_the_log) == sorted(load.accepted)


async def test_kill_9_under_load_loses_nothing_that_was_answered(kafka_connection):
    await put_apps(kafka_connection, make_app())
    async with ingest_process(kafka_connection) as ingest:
        await ingest.until_ready()
        load = Load(ingest.url)
        await load.has_accepted(300)
        ingest.process.kill()
        await load.end()

    on_the_log = [event.event_id for _, event in await events_on(kafka_connection)]
    assert set(load.accepted) <= set(on_the_log)
    assert len(on_the_log) - len(load.accepted) <= 8


async def test_events_of_32_connections_are_in_the_order_of_each(kafka_connection):
    async with ingesting(kafka_connection) as ingest:
        load = Load(ingest.served.url, connections=32)
        await load.has_accepted(1_000)
        await load.end()

    on_the_log = [event.event_id for _, event in await events_on(kafka_connection)]
    assert load.refused == []
    assert sorted(on_the_log) == sorted(load.accepted)
    for number in range(32):
        own = [event_id for event_id in on_the_log if event_id.startswith(f"{number}-")]
        assert own == sorted(own, key=lambda event_id: int(event_id.partition("-")[2]))


async def test_a_refusal_that_rests_on_stale_configuration_waits_for_the_newest(
    kafka_broker, kafka_connection, monkeypatch
):
    monkeypatch.setattr(handlers, "CONFIG_DEADLINE_S", 0.3)
    async with ingesting(kafka_connection) as ingest, aiohttp.ClientSession(ingest.served.url) as client:
        unknown = {"X-Tenterhook-Key": "sk_new", "Content-Type": "application/json"}
        with frozen(kafka_broker):
            async with client.post(PATH, data=b'{"type":"call_started"}', headers=unknown) as response:
                cannot_know = response.status
        async with client.post(PATH, data=b'{"type":"call_started"}', headers=unknown) as response:
            wrong = response.status
        await put_apps(kafka_connection, make_app(keys=[make_key("sk_new", "secret"), make_key(PUBLIC_KEY, "public")]))
        async with client.post(PATH, data=b'{"type":"call_started"}', headers=unknown) as response:
            right = response.status

    assert (cannot_know, wrong, right) == (503, 401, 202)


async def test_topics_that_are_not_as_they_must_be_end_the_process(kafka_connection):
    await topics.ensure(
        kafka_connection, topics.Partitions(by_app=PARTITIONS.by_app + 1, by_integration=PARTITIONS.by_integration)
    )
    stop = asyncio.Event()

    with pytest.raises(StartupError, match="events has 3 partitions, and these settings want 2"):
        async with asyncio.timeout(20):
            await main(settings_for(kafka_connection), stop)


async def test_a_port_that_is_taken_ends_the_process_with_a_clear_line(kafka_connection):
    async with running(settings_for(kafka_connection)) as first:
        port = str(first.served.port)
        async with ingest_process(kafka_connection, TENTERHOOK_INGEST__PORT=port) as second:
            code, stderr = await asyncio.to_thread(ended, second.process)

    assert code == 1
    assert f"tenterhook ingest: cannot listen on 127.0.0.1:{port}" in stderr
    assert "Traceback" not in stderr
