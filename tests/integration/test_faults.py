"""A broken environment: the dispatcher says so once, keeps what it can going, and loses nothing."""

import asyncio
import json
import resource
import struct
import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from structlog.testing import capture_logs

from services.breaker.fold import fold, rules_of, state_of
from services.runtime.topics_gone import AGAIN_S, DELETED, EVERY_S, MADE_AGAIN
from streams import codec, topics
from streams.connection import Connection
from streams.producer import open_producer
from streams.records import Delivery, Event
from tests.admins import KNOWN, make_token
from tests.apps import make_app
from tests.breaking import BreakerProcess, breaker_at, make_result, records_on, state_on
from tests.dispatching import DispatcherProcess, Probe, dispatcher_processes, dispatching
from tests.ingesting import PATH, SECRET, ingest_process, ingesting
from tests.integration.test_installation import delete
from tests.logs import PARTITIONS, Log, log_of, make_event
from tests.owning import admin_processes
from tests.receiving import receiver
from tests.records import make_delivery, make_integration
from tests.replays import asking
from tests.waiting import eventually

pytestmark = pytest.mark.kafka

#: In the wire format, of a schema that nobody has released.
UNKNOWN = struct.pack(">bI", 0, 2**31 - 1) + b"of a newer release"

#: Warnings and errors of a service, all told, in the minute after something broke.
MOST_LINES = 12
#: Of an admin process, which follows a dozen topics: each tells of a broker that is away, and when it is back.
MOST_LINES_OF_ADMIN = 36

SUBSCRIPTIONS = "/v1/apps/demo/subscriptions"

#: What a dispatcher works on; everything else it only looks things up in.
WORKED_ON = (topics.EVENTS, topics.DELIVERIES)
LOOKED_UP = (
    topics.FAN_OUT,
    topics.EVENT_IDS,
    topics.RESULTS,
    topics.LANE_ROWS,
    topics.INTEGRATION_CONFIG,
    topics.INTEGRATION_STATE,
    topics.APP_CONFIG,
)


#: Of configuration that somebody has broken: empty, no wire format, cut off, of another kind, under another's key.
BROKEN = (b"", b"{}", codec.encode(make_app())[:9], codec.encode(make_event()), codec.encode(make_app("other")))


async def test_a_record_that_cannot_be_read_on_any_topic_stops_nothing_and_is_said_once(kafka_connection: Connection):
    """Where it is work, it is put aside; elsewhere it is passed over, and what was known before it counts."""
    configured = {topics.INTEGRATION_CONFIG: b"int_1", topics.APP_CONFIG: b"demo"}
    unread: list[Any] = []
    async with log_of(kafka_connection) as log, receiver() as to:
        await log.integration(to.integration("int_1"))
        for key in (b"int_1", b"demo", b"*", None):
            for topic in (*WORKED_ON, *LOOKED_UP):
                if key is not None or topic.cleanup != "compact":
                    unread.append(await log.raw(topic, UNKNOWN, key))  # noqa: PERF401  # one after the other
        first, second = make_event(1), make_event(2)
        with capture_logs() as said:
            async with dispatching(kafka_connection) as probe:
                await log.events(first)
                await log.results_come(1)
                unread += [await log.raw(topic, UNKNOWN, b"int_1") for topic in LOOKED_UP]
                unread += [await log.raw(topic, each, key) for topic, key in configured.items() for each in BROKEN]
                await log.events(second)
                await log.results_come(2)
                assert await probe.is_ready()
                assert (await probe.get("/health/live"))[0] == 200
                aside = await log.quarantined_come(2 * 4)

        assert {each.topic for each in aside} == {kafka_connection.topic(topic) for topic in WORKED_ON}
        assert {each.code for each in aside} == {"record.unreadable"}
        assert {each.record_id for each in log.results} == {first.record_id, second.record_id}

    def places(*of: topics.Topic) -> list[tuple[str, int, int]]:
        names = {kafka_connection.topic(topic) for topic in of}
        return sorted((each.topic, each.partition, each.offset) for each in unread if each.topic in names)

    def told(event: str) -> list[tuple[str, int, int]]:
        prefix = kafka_connection.prefix
        return sorted(
            (prefix + line.get("topic", "").removeprefix(prefix), line.get("partition", 0), line["offset"])
            for line in said
            if line["event"] == event
        )

    assert told("record.quarantined") == places(*WORKED_ON)
    assert told("config.unreadable") == places(*configured)
    assert [offset for *_, offset in told("state.unreadable")] == [
        offset for *_, offset in places(topics.INTEGRATION_STATE)
    ]
    reasons = {line["reason"] for line in said if line["event"] in {"record.quarantined", "config.unreadable"}}
    assert "schema id 2147483647 is unknown: written by a newer release, or not by tenterhook" in reasons


async def held_after(log: Log, probe: Probe, sent: int) -> None:
    """That much has its result, and is all that has, though there was time for more; the dispatcher is well."""
    await log.results_come(sent)
    await asyncio.sleep(2)
    assert len(log.results) == sent
    assert await probe.is_ready()
    _, text = await probe.get("/metrics")
    assert 'tenterhook_config_unreadable_records{topic="integration-config"} 1.0' in text


async def test_configuration_that_cannot_be_read_with_nothing_before_it_holds_what_is_open_until_it_is_written_again(
    kafka_connection: Connection,
):
    """As compaction leaves it for a dispatcher that starts then: one live delivery, one retry, one replay."""
    async with log_of(kafka_connection) as log, receiver() as to, asking(log) as replays:
        at = (await log.raw(topics.INTEGRATION_CONFIG, UNKNOWN, b"int_1")).offset
        await log.integration(to.integration("int_2"))
        live, retry, meanwhile = make_event(1), make_event(2), make_event(3)
        await log.raw(topics.DELIVERIES, codec.encode(delivery_of(live, at)), b"int_1")
        waits = delivery_of(retry, at, attempt=2, due_at_ms=time.time_ns() // 1_000_000)
        await log.raw(topics.RETRIES[0], codec.encode(waits), b"0", 0)
        with capture_logs() as said:
            async with dispatching(kafka_connection) as probe:
                await log.events(meanwhile)
                await held_after(log, probe, 1)
                await replays.start("rpl_1", from_ms=meanwhile.accepted_at_ms)
                await held_after(log, probe, 1)
            async with dispatching(kafka_connection) as probe:
                await held_after(log, probe, 1)
                assert replays.deliveries() == []
                await log.integration(to.integration("int_1"))
                row = await replays.ended()
                await log.results_come(4)
                await eventually(log.all_is_committed)
                assert 'unreadable_records{topic="integration-config"} 0.0' in (await probe.get("/metrics"))[1]

        ended = {(each.integration, each.record_id, each.outcome, each.reason) for each in log.results}
    assert ended == {
        ("int_2", meanwhile.record_id, "delivered", "status_200"),
        *(("int_1", each.record_id, "delivered", "status_200") for each in (live, retry, meanwhile)),
    }
    assert len(log.results) == 4
    assert [receipt.integrations for receipt in log.receipts] == [["int_2"]]
    assert (row.state, row.outcomes) == ("done", {"delivered": 1})
    told = [line for line in said if line["event"] == "config.unreadable"]
    assert [(line["key"], line["offset"]) for line in told] == [("int_1", at)] * 2  # once in each life
    assert "nothing was there before it" in told[0]["hint"]


def delivery_of(event: Event, config_offset: int, **changes: Any) -> Delivery:
    """As fan-out makes it for `int_1`."""
    kept = {name: getattr(event, name) for name in ("record_id", "event_id", "type", "payload", "accepted_at_ms")}
    return make_delivery(delivery_id=f"dlv_{event.record_id}", config_offset=config_offset, **kept | changes)


async def test_what_the_breaker_knows_of_an_integration_outlives_a_configuration_that_cannot_be_read(
    kafka_connection: Connection,
):
    rules = rules_of(make_integration())
    row = None
    for number in range(20):
        row = fold(row, make_result(number), number, rules)
    state = state_of(row, make_integration())
    assert state.state == "paused"
    async with log_of(kafka_connection) as log:
        await log.integration(make_integration("int_2"))
        await log.raw(topics.INTEGRATION_CONFIG, UNKNOWN, b"int_1")
        await log.raw(topics.INTEGRATION_STATE, codec.encode(state), b"int_1")
        await log.raw(topics.BREAKER_ROWS, codec.encode(row), b"int_1")
        async with breaker_at(kafka_connection):
            await asyncio.sleep(3)  # it looks after what it was given each second
            await log.integration(make_integration())
            await asyncio.sleep(2)
        assert await state_on(kafka_connection, "int_1") == state
        assert await records_on(kafka_connection, topics.BREAKER_ROWS) == [row]
        async with breaker_at(kafka_connection):
            await log.delete("int_1")

            async def is_gone() -> bool:
                return await state_on(kafka_connection, "int_1") is None

            await eventually(is_gone)


async def test_ingest_asks_senders_to_repeat_while_what_is_configured_of_their_app_cannot_be_read(
    kafka_connection: Connection,
):
    page = {"Origin": "https://shop.example", "Access-Control-Request-Method": "POST"}
    async with ingesting(kafka_connection, apps=(make_app("other"),)) as ingest, aiohttp.ClientSession() as client:
        producer = await open_producer(kafka_connection, client_id="test")

        async def answered(app: str = "demo") -> tuple[int, str | None, str | None]:
            url = f"{ingest.served.url}/v1/apps/{app}/events"
            async with client.post(url, json={"type": "call_ended"}, headers=SECRET) as response:
                return response.status, (await response.json()).get("code"), response.headers.get("Retry-After")

        async def preflighted() -> int:
            async with client.options(ingest.served.url + PATH, headers=page) as response:
                return response.status

        async def meet(value: bytes | None) -> None:
            await producer.send_and_wait(kafka_connection.topic(topics.APP_CONFIG), value, key=b"demo")

        try:
            assert await answered() == (401, "key_unknown", None)
            await meet(UNKNOWN)
            await eventually(lambda: ingest._apps.is_broken("demo"))
            assert await answered() == (503, "config_unreadable", "30")
            assert await preflighted() == 503
            assert (await answered("other"))[0] == 202
            assert ingest.trouble() is None
            await meet(codec.encode(make_app()))
            await eventually(lambda: ingest._apps.get("demo"))
            assert (await answered())[0] == 202
        finally:
            await producer.stop()


def lines_of(said: str) -> list[dict[str, Any]]:
    """What a process has written as log lines; what it says last of all is none."""
    return [json.loads(line) for line in said.splitlines() if line.startswith("{")]


@pytest.mark.parametrize("gone", [topics.EVENTS, topics.RESULTS], ids=lambda topic: topic.name)
async def test_running_services_name_a_topic_that_is_deleted_and_go_on_as_far_as_they_can(
    kafka_connection: Connection, tmp_path: Path, gone: topics.Topic
):
    name, ingest_output = kafka_connection.topic(gone), tmp_path / "ingest.log"

    def told(said: str) -> list[str]:
        return [line["reason"] for line in lines_of(said) if line["event"] == "topic.gone" and line["topic"] == name]

    async with (
        log_of(kafka_connection) as log,
        receiver() as to,
        ingest_process(kafka_connection, ingest_output) as ingest,
        aiohttp.ClientSession(ingest.url, headers=SECRET) as client,
    ):
        await log.integration(to.integration("int_1"))

        async def answered(event_id: str) -> int:
            async with client.post(PATH, json={"type": "call_ended", "id": event_id, "payload": {"n": 0}}) as response:
                return response.status

        async with dispatcher_processes(kafka_connection, tmp_path) as [dispatcher]:
            await ingest.until_ready()
            assert await answered("before") == 202
            await log.results_come(1)
            await asyncio.sleep(AGAIN_S + 2)  # until both have looked at the topics once
            await delete(kafka_connection, gone)
            during = await answered("during")
            await eventually(lambda: told(dispatcher.said) and told(ingest_output.read_text()), 60)
            if gone is topics.RESULTS:
                # What it does can be recorded no more: it ends, and its successor says what to do.
                assert await dispatcher.ended(90) == 1
                assert "the dispatcher ended by the error above" in dispatcher.said
                assert during == await answered("after") == 202
            else:
                assert during == await answered("after") == 503
                assert dispatcher.is_running
            assert ingest.process.poll() is None
            said = {"dispatcher": dispatcher.said, "ingest": ingest_output.read_text()}

    for service, text in said.items():
        assert told(text) in ([DELETED], [DELETED, MADE_AGAIN]), service
        # Others beside it, of those whom it troubles; the libraries' are repeated every 30 s.
        troubles = [line for line in lines_of(text) if line["level"] in {"warning", "error"}]
        assert len(troubles) <= MOST_LINES, troubles
    assert [line["event"] for line in lines_of(said["ingest"])].count("topics.changed") <= 1


async def test_a_topic_deleted_under_a_running_dispatcher_is_said_and_nothing_is_worked_on_until_that_is_accepted(
    kafka_connection: Connection, tmp_path: Path
):
    event = make_event(1)
    async with log_of(kafka_connection) as log, receiver() as to:
        await log.integration(to.integration("int_1"))
        async with dispatcher_processes(kafka_connection, tmp_path) as [first]:
            await delete(kafka_connection, topics.FAN_OUT)
            await log.events(event)
            if first.is_running:
                first.kill()
        second = DispatcherProcess(kafka_connection, tmp_path / "second.log", PARTITIONS)
        try:
            assert await second.ended() == 1
            assert "fan-out was deleted and made again since this installation began" in second.said
            assert log.results == []

            await delete(kafka_connection, topics.INSTALLATION)
            second.start()
            await log.results_come(1)
        finally:
            second.kill()

        assert [result.record_id for result in log.results] == [event.record_id]


def own(said: str) -> Counter[str]:
    """Warnings and errors of ours, by event; the libraries' come beside them, each at most every 30 s."""
    return Counter(
        line["event"] for line in lines_of(said) if line["level"] in {"warning", "error"} and "logger" not in line
    )


class AllServices:
    """One process of each, with an app and an integration."""

    def __init__(self, connection: Connection, folder: Path) -> None:
        self._connection = connection
        self._folder = folder
        #: Events that got a 202, and subscriptions that got a 201.
        self.accepted: list[str] = []
        self.made: list[str] = []

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Ready; killed at the end."""
        connection, folder = self._connection, self._folder
        breaker = BreakerProcess(connection, folder / "breaker.log")
        breaker.start()
        try:
            async with (
                ingest_process(connection, folder / "ingest.log") as ingest,
                dispatcher_processes(connection, folder) as [dispatcher],
                admin_processes(connection, folder, 1, partitions=PARTITIONS) as [self._admin],
                aiohttp.ClientSession(ingest.url, headers=SECRET) as self._client,
            ):
                await ingest.until_ready()
                await breaker.probe.until_ready()
                self._processes = [each.process for each in (ingest, dispatcher, breaker, self._admin)]
                yield
        finally:
            breaker.kill()

    @property
    def said(self) -> dict[str, Counter[str]]:
        """What each has warned of."""
        names = "ingest", "dispatcher-0", "breaker", "admin-0"
        return {name: own((self._folder / f"{name}.log").read_text()) for name in names}

    def all_run(self) -> bool:
        return all(each.poll() is None for each in self._processes)

    async def is_taken(self) -> bool:
        number = len(self.accepted)
        event = {"type": "call_ended", "id": f"order-{number}", "payload": {"n": number}}
        async with self._client.post(PATH, json=event) as response:
            assert response.status in (202, 503)
            if response.status == 202:
                self.accepted.append(event["id"])
            return response.status == 202

    async def is_made(self) -> bool:
        body = {"name": "B", "url": "https://b.example", "events": []}
        answer = await self._admin.ask("POST", SUBSCRIPTIONS, body)
        assert answer.status in (201, 503), answer
        if answer.status == 201:
            self.made.append(answer.body["id"])
        return answer.status == 201

    async def is_refused_and_said(self) -> bool:
        done = await asyncio.gather(self.is_taken(), self.is_made())
        return not any(done) and all(said["broker.away"] for said in self.said.values())

    async def is_counted(self) -> bool:
        """Whether the breaker knows of every delivery."""
        state = await state_on(self._connection, "int_1")
        return state is not None and state.delivered == len(self.accepted)

    async def kept(self) -> set[str]:
        answer = await self._admin.ask("GET", f"{SUBSCRIPTIONS}?limit=200")
        return {each["id"] for each in answer.body["items"]}


@pytest.mark.long
async def test_a_broker_whose_disk_is_full_is_said_once_loses_nothing_and_work_goes_on_when_it_is_not(
    kafka_connection: Connection, kafka_broker, tmp_path: Path
):
    """Its files may not grow any more, which it meets as it meets a full disk: it stops."""
    services = AllServices(kafka_connection, tmp_path)
    async with log_of(kafka_connection) as log, receiver() as to:
        await log.app(make_app(tokens=[make_token(KNOWN.token, "admin")]))
        await log.integration(to.integration("int_1"))
        async with services.running():
            await asyncio.sleep(AGAIN_S + 2)  # until all have heard of a broker
            for _ in range(5):
                assert await services.is_taken()
                assert await services.is_made()
            for node in kafka_broker.nodes:
                resource.prlimit(node.pid, resource.RLIMIT_FSIZE, (0, 0))
            try:
                await eventually(services.is_refused_and_said, 90)
                await asyncio.sleep(EVERY_S + 5)  # until all have looked once more
            finally:
                kafka_broker.kill()
                await kafka_broker.start()
            await eventually(services.is_taken, 60)
            await eventually(services.is_made, 60)
            # A question to the broker that was away is given up after 90 s, and some work waits for its answer.
            await eventually(lambda: {each.event_id for each in log.results} >= set(services.accepted), 300)
            await eventually(services.is_counted, 60)
            assert set(services.made) <= await services.kept()
            assert services.all_run()
            told = services.said

    for service, counted in told.items():
        assert counted["broker.away"] == 1, service
        # Beside it what else waits for the broker says so, each follower for itself.
        most = MOST_LINES_OF_ADMIN if service == "admin-0" else MOST_LINES
        assert counted.total() <= most, (service, counted)
