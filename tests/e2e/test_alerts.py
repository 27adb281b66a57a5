"""
A real Prometheus reads a running tenterhook while faults are made: each alert fires on its fault, and no other does.

The rules are those of `deploy/prometheus/alerts.yml`, with shorter times and smaller numbers; nothing else of them is
changed. What Prometheus recorded as firing while a fault was made and healed is compared, not what was seen by chance.
"""

import asyncio
import signal
import sqlite3
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager, closing, suppress
from pathlib import Path

import aiohttp
import pytest
import yaml

from services.cli.brokers.choose import kafka_lacks
from services.cli.brokers.ports import free_ports
from streams import topics
from streams.connection import Connection
from tests.apps import SECRET_KEY, make_app
from tests.brokers import lacking
from tests.chaos.fleet import Fleet, Service
from tests.logs import PARTITIONS, Log, log_of
from tests.prometheus import ALERTS, Prometheus, needs_prometheus
from tests.receiving import Receiver, after, receiver
from tests.refusing import RefusingBroker, refusing_broker
from tests.waiting import eventually

pytestmark = [pytest.mark.kafka, pytest.mark.timeout(400), needs_prometheus]

#: In each rule, what the test has instead: how long it waits, and parts of its expression.
SHORTER: dict[str, dict[str, str]] = {
    "tenterhook:broker_away": {"> 30": "> 8"},
    "tenterhook:few_integrations": {},
    "tenterhook:no_answers": {"[15m]": "[6s]"},
    "TenterhookDown": {"1m": "5s"},
    "TenterhookBrokerUnreachable": {"1m": "1s"},
    # As in the rules, longer than it takes to know that the brokers are away.
    "TenterhookAcceptingFails": {
        "2m": "6s",
        "[1m]": "[5s]",
        "[6m]": "[8s]",
        "[1h]": "[30s]",
        "[65m]": "[40s]",
        "[5m] offset 5m": "[10s] offset 10s",
        "[5m]": "[10s]",
        "[11m]": "[25s]",
    },
    "TenterhookNotReady": {"5m": "6s"},
    "TenterhookDeliveriesLate": {"5m": "2s", "> 60": "> 4", "> 10000": "> 500"},
    "TenterhookRetriesOverdue": {"5m": "1s", "> 60": "> 2"},
    "TenterhookNoAnswers": {"10m": "1s"},
    "TenterhookManyPaused": {"[10m]": "[6s]", "> 5": "> 1"},
    "TenterhookBreakerBehind": {"10m": "1s", "> 10000": "> 40"},
    "TenterhookHistoryBehind": {"10m": "1s", "> 10000": "> 500"},
    "TenterhookQuarantined": {"[1h]": "[6s]", "offset 1h": "offset 6s"},
    "TenterhookConfigUnreadable": {},
    "TenterhookHeldExpires": {"> 432000": "> 4"},
}

#: Until an alert fires, and until all are silent again, on a machine where other tests run beside.
FIRES_S, SILENT_S = 45.0, 60.0

EVENTS_PER_S = 8


def shortened():
    """The rules, as Prometheus takes them."""
    rules = yaml.safe_load(ALERTS.read_text(encoding="utf-8"))
    for rule in (rule for group in rules["groups"] for rule in group["rules"]):
        for old, new in SHORTER[rule.get("alert") or rule["record"]].items():
            if rule.get("for") == old:
                rule["for"] = new
            else:
                assert old in rule["expr"]
                rule["expr"] = rule["expr"].replace(old, new)
        assert rule.get("for", "0s").endswith("s")
    return rules


class Installation:
    """All services, three integrations that are well, steady traffic, and Prometheus."""

    def __init__(self, broker: RefusingBroker, log: Log, fleet: Fleet, endpoints: Receiver, history: Path) -> None:
        self.broker = broker
        self.log = log
        self.fleet = fleet
        self.endpoints = endpoints
        self.history = history
        self.prometheus: Prometheus
        self._is_busy = asyncio.Event()
        self._http: aiohttp.ClientSession

    async def send(self, kind: str, count: int = 1) -> None:
        """Events, each when the one before was answered."""
        headers = {"Authorization": f"Bearer {SECRET_KEY}"}
        url = f"{self.fleet.url('ingest')}/v1/apps/demo/events"
        for _ in range(count):
            async with self._http.post(url, json={"type": kind, "payload": {}}, headers=headers):
                pass

    async def integrations(self, *names: str, to: str | None = None, **changes: object) -> None:
        """Integrations that select the type `<first name>`, in the state that they are described in."""
        for name in names:
            config = self.endpoints.integration(f"int_{name}", events=[names[0]], **changes)
            if to is not None:
                config = self.endpoints.integration(f"int_{name}", events=[names[0]], url=to, **changes)
            await self.log.integration(config)

    async def delete(self, *names: str) -> None:
        for name in names:
            await self.log.delete(f"int_{name}")

    @asynccontextmanager
    async def quiet(self) -> AsyncIterator[None]:
        """Without the steady traffic."""
        self._is_busy.clear()
        await asyncio.sleep(0.5)
        try:
            yield
        finally:
            self._is_busy.set()

    @asynccontextmanager
    async def refused(self, topic: topics.Topic) -> AsyncIterator[None]:
        """Nobody can append to the topic."""
        name = self.log.connection.topic(topic)
        self.broker.refused.add(name)
        try:
            yield
        finally:
            self.broker.refused.discard(name)

    @asynccontextmanager
    async def traffic(self) -> AsyncIterator[None]:
        """Steadily events that everybody gets."""

        async def one() -> None:
            with suppress(aiohttp.ClientError, TimeoutError):
                await self.send("steady")

        async def work() -> None:
            async with asyncio.TaskGroup() as sending:
                while True:
                    await self._is_busy.wait()
                    sending.create_task(one())
                    await asyncio.sleep(1 / EVENTS_PER_S)

        self._is_busy.set()
        async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=8)) as self._http:
            working = asyncio.create_task(work())
            try:
                yield
            finally:
                working.cancel()
                await asyncio.gather(working, return_exceptions=True)

    async def fires(self, alert: str) -> None:
        """Returns when it does."""

        async def is_firing() -> bool:
            return (await self.prometheus.alerts()).get(alert) == "firing"

        await eventually(is_firing, FIRES_S)

    async def silent(self) -> None:
        """Returns when no alert fires, nor is about to."""

        async def is_silent() -> bool:
            return not await self.prometheus.alerts()

        await eventually(is_silent, SILENT_S)


# -- the faults ----------------------------------------------------------------------------------------------


async def down(it: Installation) -> None:
    breaker = it.fleet.services["breaker"]
    async with it.quiet():
        breaker.signal(signal.SIGSTOP)
        try:
            await it.fires("TenterhookDown")
        finally:
            breaker.signal(signal.SIGCONT)
        await it.silent()


async def accepting_fails(it: Installation) -> None:
    async with it.refused(topics.EVENTS):
        await it.fires("TenterhookAcceptingFails")


async def quarantined(it: Installation) -> None:
    await it.log.raw(topics.EVENTS, b"no record of ours", b"demo")
    await it.fires("TenterhookQuarantined")


async def config_unreadable(it: Installation) -> None:
    await it.log.raw(topics.INTEGRATION_CONFIG, b"no record of ours", b"int_nobody")
    await it.fires("TenterhookConfigUnreadable")
    await it.delete("nobody")


async def deliveries_late(it: Installation) -> None:
    async with it.refused(topics.RESULTS):
        await it.fires("TenterhookDeliveriesLate")


async def retries_overdue(it: Installation) -> None:
    it.endpoints.policies["int_retried"] = after(0, status=500)
    await it.integrations("retried", max_attempts=2, delays_ms=[3_000])
    async with it.quiet():
        await it.send("retried")
        await it.endpoints.wait_for("int_retried", 1)
        await asyncio.sleep(0.5)  # its retry record is on the log
        async with it.refused(topics.DELIVERIES):
            await it.fires("TenterhookRetriesOverdue")
    await it.endpoints.wait_for("int_retried", 2)
    await it.delete("retried")


async def no_answers(it: Installation) -> None:
    [nobody] = free_ports(1)
    names = ("dead", "dead_too", "dead_three")
    await it.integrations(*names, to=f"http://127.0.0.1:{nobody}/", max_attempts=1, delays_ms=[], auto_pause=False)
    async with it.quiet():
        firing = asyncio.create_task(it.fires("TenterhookNoAnswers"))
        while not firing.done():
            await it.send("dead")
            await asyncio.sleep(0.2)
        await firing
        await it.silent()
    await it.delete(*names)


async def many_paused(it: Installation) -> None:
    names = ("refused", "refused_too", "refused_three")
    for name in names:
        it.endpoints.policies[f"int_{name}"] = after(0, status=401)
    await it.integrations(*names)
    await it.send("refused", 20)
    await it.fires("TenterhookManyPaused")
    await it.delete(*names)


async def held_expires(it: Installation) -> None:
    await it.integrations("held", status="paused")
    await it.send("held")
    await it.fires("TenterhookHeldExpires")
    await it.delete("held")


async def breaker_behind(it: Installation) -> None:
    async with it.refused(topics.BREAKER_ROWS):
        await it.fires("TenterhookBreakerBehind")


async def history_behind(it: Installation) -> None:
    [file] = it.history.glob("results-*.sqlite")
    with closing(sqlite3.connect(file, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        await it.fires("TenterhookHistoryBehind")


async def not_ready(it: Installation) -> None:
    """Another worker joins, and nobody can take over."""
    fleet = it.fleet
    service = Service("dispatcher-2", fleet._environment, fleet._folder)
    async with it.quiet():
        await asyncio.sleep(2)
        async with it.refused(topics.LANE_ROWS):
            service.start()
            try:
                await it.fires("TenterhookNotReady")
            finally:
                it.broker.refused.clear()
                await service.stop()
        await it.silent()


async def broker_unreachable(it: Installation) -> None:
    it.broker.answers.clear()
    try:
        await it.fires("TenterhookBrokerUnreachable")
    finally:
        it.broker.answers.set()


FAULTS: dict[str, Callable[[Installation], Awaitable[None]]] = {
    "TenterhookQuarantined": quarantined,
    "TenterhookConfigUnreadable": config_unreadable,
    "TenterhookAcceptingFails": accepting_fails,
    "TenterhookDeliveriesLate": deliveries_late,
    "TenterhookRetriesOverdue": retries_overdue,
    "TenterhookHeldExpires": held_expires,
    "TenterhookManyPaused": many_paused,
    "TenterhookNoAnswers": no_answers,
    "TenterhookBreakerBehind": breaker_behind,
    "TenterhookHistoryBehind": history_behind,
    "TenterhookNotReady": not_ready,
    "TenterhookDown": down,
    "TenterhookBrokerUnreachable": broker_unreachable,
}

#: In `make test`; `make long` has all.
FEW = ("TenterhookQuarantined", "TenterhookAcceptingFails", "TenterhookDeliveriesLate")


@asynccontextmanager
async def installation(folder: Path) -> AsyncIterator[Installation]:
    """One that is well, and of which Prometheus says so."""
    async with AsyncExitStack() as stack:
        broker = await stack.enter_async_context(refusing_broker(folder / "kafka"))
        log = await stack.enter_async_context(log_of(Connection(broker.node.bootstrap)))
        await log.app(make_app(max_active=100))
        endpoints = await stack.enter_async_context(receiver())
        fleet = Fleet(broker.node, log.connection, PARTITIONS, folder, 1, print)
        history = folder / "history"
        fleet.services["admin"]._environment["TENTERHOOK_HISTORY__DIRECTORY"] = str(history)
        it = Installation(broker, log, fleet, endpoints, history)
        await it.integrations("steady", "steady_too", "steady_three")
        stack.push_async_callback(fleet.end)
        await fleet.start()
        await stack.enter_async_context(it.traffic())
        targets = {name: f"127.0.0.1:{service.port}" for name, service in fleet.services.items()}
        it.prometheus = await stack.enter_async_context(
            Prometheus(folder / "prometheus", shortened(), targets).running()
        )
        await eventually(lambda: _scraped(it.prometheus), 30)
        yield it


async def _scraped(prometheus: Prometheus) -> bool:
    """Whether every service has been read often enough for rates, and sends."""
    ups = await prometheus.value("sum(min_over_time(up[3s]) * (count_over_time(up[5s]) >= bool 4))")
    sent = await prometheus.value("sum(rate(tenterhook_attempts_total[5s])) > 0")
    return bool(ups and ups[0][1] == 4 and sent) and not await prometheus.alerts()


async def fired_by(it: Installation, fault: Callable[[Installation], Awaitable[None]]) -> set[str]:
    """All that fired, from before the fault until all was well again."""
    began_s = time.monotonic()
    await fault(it)
    await it.silent()
    took_s = time.monotonic() - began_s
    print(f"{fault.__name__}: {took_s:.1f} s")  # noqa: T201
    return await it.prometheus.fired(took_s)


async def assert_each_fires_alone(folder: Path, alerts: tuple[str, ...]) -> None:
    if (missing := kafka_lacks()) is not None:
        lacking(missing)
    async with installation(folder) as it:
        assert {alert: await fired_by(it, FAULTS[alert]) for alert in alerts} == {alert: {alert} for alert in alerts}


async def test_alerts_fire_on_their_faults_and_on_nothing_else(tmp_path):
    await assert_each_fires_alone(tmp_path, FEW)


@pytest.mark.long
async def test_every_alert_fires_on_its_fault_and_on_nothing_else(tmp_path):
    rules = shortened()["groups"][0]["rules"]
    assert set(FAULTS) == {rule["alert"] for rule in rules if "alert" in rule}

    await assert_each_fires_alone(tmp_path, tuple(FAULTS))
