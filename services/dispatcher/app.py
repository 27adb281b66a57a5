"""The dispatcher's process: followers, producer, sender, and the Faust app with its two agents."""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from importlib.metadata import version
from typing import Any, Final

import structlog
from aiokafka import AIOKafkaProducer
from prometheus_client import REGISTRY
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from services.dispatcher.attempt import Attempts
from services.dispatcher.fan_out import FanOut
from services.dispatcher.lanes import Lanes
from services.dispatcher.wire import WireSender
from services.runtime.clock import now_ms
from services.runtime.connection import connection_of
from services.runtime.serving import StartupError, application, serve
from services.runtime.settings import Settings
from services.vault.keks import KekError, load_kek
from services.vault.seal import Keyring
from streams import topics
from streams.connection import Connection, wait_for_broker
from streams.engine.app import Bounds, SafeApp
from streams.engine.pinned import FaustChanged
from streams.follower import Follower
from streams.producer import open_producer
from streams.quarantine import Quarantine
from streams.topics import Partitions, TopicMismatch
from streams.views import Apps, Integrations

log = structlog.get_logger("dispatcher.app")

#: Names of the Faust agents; they reach logs, metrics and quarantined records.
FAN_OUT: Final = "fan-out"
LANES: Final = "lanes"

#: How long the producer may flush at the end.
PRODUCER_STOP_S: Final = 3.0


async def main(settings: Settings, stop: asyncio.Event) -> None:
    """
    Run the dispatcher until *stop* is set.

    Raises:
        StartupError: it cannot run like this; the message says what to do.
    """
    try:
        keyring = Keyring(load_kek(settings))
        connection = connection_of(settings)
        async with AsyncExitStack() as stack:
            health = _Health()
            own = settings.dispatcher
            server = await serve(application(live=health.live, ready=health.ready), own.host, own.port)
            stack.push_async_callback(server.stop)
            log.info("dispatcher.listening", url=server.url)
            await wait_for_broker(connection, say=log.info, stop=stop)
            if stop.is_set():
                return
            await topics.ensure(connection, _partitions(settings), replication=settings.replication)
            await _run(settings, connection, keyring, stop, health, stack)
    except (KekError, TopicMismatch, FaustChanged) as error:
        raise StartupError(str(error)) from error


class _Health:
    """What the probes say, from before the broker answers to the end."""

    def __init__(self) -> None:
        self.app: SafeApp | None = None
        #: Set where nothing that is done can be recorded any more.
        self.ended = asyncio.Event()

    def live(self) -> str | None:
        has_stopped = self.app is not None and self.app.should_stop
        return "the dispatcher has crashed" if self.ended.is_set() or has_stopped else None

    def ready(self) -> str | None:
        if self.app is None:
            return "waiting for the broker"
        return None if self.app.is_ready else "partitions are being assigned or taken over"


async def _run(
    settings: Settings,
    connection: Connection,
    keyring: Keyring,
    stop: asyncio.Event,
    health: _Health,
    stack: AsyncExitStack,
) -> None:
    own = settings.dispatcher
    integrations, apps = Integrations(), Apps()
    config = await _started(
        Follower(connection, topics.INTEGRATION_CONFIG, integrations.apply, clear=integrations.clear), stack
    )
    await _started(Follower(connection, topics.APP_CONFIG, apps.apply, clear=apps.clear), stack)
    producer = await open_producer(connection, client_id=own.worker_id)
    stack.push_async_callback(_stopped, producer)
    sender = WireSender(allow_private=own.allow_private_addresses)
    stack.push_async_callback(sender.close)

    app = health.app = SafeApp(
        "dispatcher",
        connection,
        put_aside=Quarantine(producer, connection, "dispatcher", now_ms).put,
        bounds=Bounds(own.max_unfinished_records, own.max_unfinished_bytes),
        session_timeout_ms=own.session_timeout_ms,
        commit_interval_ms=own.commit_interval_ms,
    )
    shared: dict[str, Any] = {
        "connection": connection,
        "partitions": _partitions(settings),
        "producer": producer,
        "worker_id": own.worker_id,
        "now_ms": now_ms,
        "on_fatal": lambda _: health.ended.set(),
    }
    lanes = Lanes(
        deliverer=Attempts(
            config=config,
            integrations=integrations,
            apps=apps,
            keyring=keyring,
            sender=sender,
            brand=settings.header_brand,
            version=version("tenterhook"),
            now_ms=now_ms,
        ),
        quarantine=Quarantine(producer, connection, LANES, now_ms),
        may_start=lambda: app.is_confirmed,
        **shared,
    )
    fan_out = FanOut(
        config=config,
        integrations=integrations,
        quarantine=Quarantine(producer, connection, FAN_OUT, now_ms),
        ask_ends=app.ends,
        **shared,
    )
    app.add_processor(connection.topic(topics.EVENTS), fan_out, name=FAN_OUT)
    app.add_processor(connection.topic(topics.DELIVERIES), lanes, name=LANES)

    gauges = _Gauges(app, lanes)
    REGISTRY.register(gauges)
    stack.callback(REGISTRY.unregister, gauges)
    await app.start()
    stack.push_async_callback(app.stop)
    await _first(stop.wait, health.ended.wait, app.wait_until_stopped)
    log.info("dispatcher.draining", in_flight=lanes.in_flight)
    if not stop.is_set():
        raise StartupError("the dispatcher ended by the error above; what it had not finished is done again")


def _partitions(settings: Settings) -> Partitions:
    return Partitions(settings.partitions.by_app, settings.partitions.by_integration)


async def _started(follower: Follower, stack: AsyncExitStack) -> Follower:
    await follower.start()
    stack.push_async_callback(follower.stop)
    return follower


async def _stopped(producer: AIOKafkaProducer) -> None:
    """What it has not sent by now, the lanes have waited for: the broker is away, and it would wait for ever."""
    _, late = await asyncio.wait((asyncio.ensure_future(producer.stop()),), timeout=PRODUCER_STOP_S)
    for task in late:
        task.cancel()


async def _first(*waits: Callable[[], Awaitable[Any]]) -> None:
    """Until one of them is over."""
    tasks = [asyncio.ensure_future(wait()) for wait in waits]
    await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


class _Gauges(Collector):
    """What a worker holds right now, asked when Prometheus asks."""

    def __init__(self, app: SafeApp, lanes: Lanes) -> None:
        self._app = app
        self._lanes = lanes

    def collect(self) -> list[GaugeMetricFamily]:
        records, size = self._app.unfinished
        return [
            GaugeMetricFamily("tenterhook_dispatcher_in_flight", "Requests under way.", self._lanes.in_flight),
            GaugeMetricFamily("tenterhook_dispatcher_unfinished_records", "Taken, not finished.", records),
            GaugeMetricFamily("tenterhook_dispatcher_unfinished_bytes", "Their bytes.", size),
        ]
