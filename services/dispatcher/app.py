"""The dispatcher's process: followers, producers, sender, and the Faust app with its agents."""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from functools import partial
from importlib.metadata import version
from typing import Any, Final, NamedTuple

import structlog
from aiokafka import AIOKafkaProducer

from services.dispatcher.attempt import Attempts
from services.dispatcher.fan_out import FanOut
from services.dispatcher.gauges import Gauges
from services.dispatcher.lanes import Lanes
from services.dispatcher.pacing import Pacing
from services.dispatcher.replays import ReplayAgent
from services.dispatcher.retries import DeliveryEnds, Retries
from services.dispatcher.retry_reader import RetryReader
from services.dispatcher.together import Together
from services.dispatcher.wire import WireSender
from services.runtime import metrics
from services.runtime.clock import now_ms
from services.runtime.connection import connection_of
from services.runtime.joining import Joining
from services.runtime.readiness import tell_readiness
from services.runtime.serving import StartupError, application, serve
from services.runtime.settings import Settings
from services.runtime.starting import until_started
from services.vault.keks import KekError, check_keks, load_keyring
from services.vault.seal import Keyring
from streams import schema_topic, topics
from streams.closed_connections import AiokafkaChanged
from streams.connection import Connection
from streams.engine.app import Bounds, SafeApp
from streams.follower import Apply, Follower
from streams.producer import open_producer
from streams.quarantine import Quarantine
from streams.replays import Replays
from streams.states import States, check_configured
from streams.topics import Partitions, TopicMismatch
from streams.views import Apps, Integrations

log = structlog.get_logger("dispatcher.app")

#: Names of the Faust agents; they reach logs, metrics and quarantined records.
FAN_OUT: Final = "fan-out"
LANES: Final = "lanes"
REPLAYS: Final = "replays"
RETRY: Final = "retry-{delay_s}s"

#: What a worker holds of one partition of a retry topic: of 40 of them, so some 20 MB beside as much in fetches.
RETRY_BOUNDS: Final = Bounds(unfinished_records=500, unfinished_bytes=524_288)

#: How long requests that were handed over may take: the longest timeout, their results, and some air.
LEAVING_S: Final = 13.0

#: How long the producers may flush at the end.
PRODUCER_STOP_S: Final = 3.0


async def main(settings: Settings, stop: asyncio.Event) -> None:
    """
    Run the dispatcher until *stop* is set.

    Raises:
        StartupError: it cannot run like this; the message says what to do.
    """
    try:
        keyring = load_keyring(settings)
        connection = connection_of(settings)
        async with AsyncExitStack() as stack:
            health = _Health(connection)
            own = settings.dispatcher
            server = await serve(
                application(live=health.live, ready=health.ready, service="dispatcher"), own.host, own.port
            )
            stack.push_async_callback(server.stop)
            await stack.enter_async_context(health.watched())
            log.info("dispatcher.listening", url=server.url)

            async def start(opened: AsyncExitStack) -> tuple[SafeApp, Lanes]:
                opened.callback(health.forget)  # before anything that may end this start: one that begins anew moves
                await topics.ensure(connection, _partitions(settings), replication=settings.replication)
                return await _start(settings, connection, keyring, health, opened)

            started = await until_started("dispatcher", connection, start, stop=stop)
            if started is not None:
                (app, lanes), opened = started
                async with opened:
                    telling = partial(
                        tell_readiness, health.ready, ready="dispatcher.ready", not_ready="dispatcher.not_ready"
                    )
                    await _first(stop.wait, health.ended.wait, app.wait_until_stopped, telling)
                    log.info("dispatcher.draining", in_flight=lanes.in_flight)
                    if not stop.is_set():
                        raise StartupError(
                            "the dispatcher ended by the error above; what it had not finished is done again"
                        )
    except (KekError, TopicMismatch, AiokafkaChanged) as error:
        raise StartupError(str(error)) from error


class _Health(Joining):
    """What the probes say, from before the broker answers to the end."""

    def __init__(self, connection: Connection) -> None:
        super().__init__("dispatcher", connection)
        self.lanes: Lanes | None = None
        #: Set where nothing that is done can be recorded any more.
        self.ended = asyncio.Event()

    def forget(self) -> None:
        """As before the first start."""
        super().forget()
        self.lanes, self.ended = None, asyncio.Event()

    def live(self) -> str | None:
        has_stopped = self.app is not None and self.app.should_stop
        if self.ended.is_set() or has_stopped:
            return "the dispatcher has crashed"
        return self.stuck or (self.lanes.stuck if self.lanes is not None else None)

    def ready(self) -> str | None:
        if self.app is None:
            return "waiting for the broker"
        if not self.app.is_ready:
            return self.app.shortened or "partitions are being assigned or taken over"
        return self.app.stopped or (self.lanes.stopped if self.lanes else None)


class _Changes:
    """Tells of each key that has changed: the lanes of integrations, the agent of replays."""

    def __init__(self) -> None:
        self.tell: Callable[[str], None] = lambda _: None

    def after(self, apply: Apply) -> Apply:
        """The same, and tells then."""

        def apply_and_tell(key: bytes | None, value: bytes | None, offset: int) -> None:
            apply(key, value, offset)
            self.tell((key or b"").decode(errors="replace"))

        return apply_and_tell


async def _start(
    settings: Settings, connection: Connection, keyring: Keyring, health: _Health, stack: AsyncExitStack
) -> tuple[SafeApp, Lanes]:
    """Returns when the dispatcher is a member of its group, with everything that ends it on the stack."""
    own = settings.dispatcher
    integrations, apps, states, changes = Integrations(), Apps(), States(), _Changes()
    await health.follow(Follower(connection, topics.SCHEMAS, schema_topic.learn), stack)
    config = await health.follow(
        Follower(connection, topics.INTEGRATION_CONFIG, changes.after(integrations.apply), clear=integrations.clear),
        stack,
    )
    await health.follow(
        Follower(connection, topics.INTEGRATION_STATE, changes.after(states.apply), clear=states.clear), stack
    )
    await config.catch_up()
    check_configured(integrations, states, prefix=connection.prefix)
    await health.follow(Follower(connection, topics.APP_CONFIG, apps.apply, clear=apps.clear), stack)
    check_keks(keyring, apps.all(), integrations.all())
    replays, replay_changes = Replays(), _Changes()
    asked = await health.follow(
        Follower(connection, topics.REPLAYS, replay_changes.after(replays.apply), clear=replays.clear), stack
    )
    producers = await _open_producers(connection, own.worker_id, stack)
    sender = WireSender(allow_private=own.allow_private_addresses)
    stack.push_async_callback(sender.close)

    bounds = Bounds(own.max_unfinished_records, own.max_unfinished_bytes)
    app = health.app = SafeApp(
        "dispatcher",
        connection,
        put_aside=Quarantine(producers.of_results, connection, "dispatcher", now_ms).put,
        bounds=bounds,
        session_timeout_ms=own.session_timeout_ms,
        commit_interval_ms=own.commit_interval_ms,
        instance_id=own.instance_id,
    )
    ended = health.ended
    shared: dict[str, Any] = {
        "connection": connection,
        "partitions": _partitions(settings),
        "worker_id": own.worker_id,
        "now_ms": now_ms,
        "on_fatal": lambda _: ended.set(),
    }
    retries, pacing = Retries(connection, producers.of_retries), Pacing()
    lanes = Lanes(
        deliverer=Attempts(
            config=config,
            integrations=integrations,
            apps=apps,
            states=states,
            keyring=keyring,
            sender=sender,
            brand=settings.header_brand,
            version=version("tenterhook"),
            now_ms=now_ms,
            together=Together(pacing),
            is_cancelled=replays.is_cancelled,
        ),
        retries=retries,
        producer=producers.of_results,
        quarantine=Quarantine(producers.of_results, connection, LANES, now_ms),
        bounds=bounds,
        may_start=lambda: app.is_confirmed,
        session_timeout_ms=own.session_timeout_ms,
        pacing=pacing,
        **shared,
    )
    fan_out = FanOut(
        pacing=pacing,
        config=config,
        integrations=integrations,
        producer=producers.of_deliveries,
        quarantine=Quarantine(producers.of_deliveries, connection, FAN_OUT, now_ms),
        ask_ends=app.ends,
        **shared,
    )
    app.add_processor(connection.topic(topics.EVENTS), fan_out, name=FAN_OUT)
    app.add_processor(connection.topic(topics.DELIVERIES), lanes, name=LANES)
    replaying = ReplayAgent(
        follower=asked,
        replays=replays,
        producer=producers.of_retries,
        config=config,
        integrations=integrations,
        states=states,
        may_start=lambda: app.is_confirmed,
        ask_ends=app.ends,
        **shared,
    )
    app.add_processor(connection.topic(topics.REPLAYS), replaying, name=REPLAYS)
    changes.tell, replay_changes.tell, health.lanes = lanes.wake, replaying.changed, lanes
    readers = _add_retry_readers(app, retries, shared | {"producer": producers.of_retries})

    gauges = Gauges(
        app=app,
        partitions=shared["partitions"],
        lanes=lanes,
        readers=readers,
        replaying=replaying,
        integrations=integrations,
        apps=apps,
        states=states,
        now_ms=now_ms,
    )
    stack.enter_context(metrics.answering(gauges))
    stack.push_async_callback(lanes.finish_leaving, LEAVING_S)
    # Before it has started: where that fails, what runs by then has to end.
    stack.push_async_callback(app.stop)
    await app.start()
    return app, lanes


def _add_retry_readers(app: SafeApp, retries: Retries, shared: dict[str, Any]) -> list[RetryReader]:
    """An agent for each retry topic."""
    own = {name: value for name, value in shared.items() if name != "partitions"}
    connection, producer, now_ms = shared["connection"], shared["producer"], shared["now_ms"]
    ends = DeliveryEnds(connection, shared["partitions"], app.ends)
    readers = []
    for line, delay_s in zip(topics.RETRIES, topics.RETRY_DELAYS_S, strict=True):
        name = RETRY.format(delay_s=delay_s)
        quarantine = Quarantine(producer, connection, name, now_ms)
        may_start = lambda: app.is_confirmed  # noqa: E731  # as for the lanes
        reader = RetryReader(line, retries=retries, ends=ends, quarantine=quarantine, may_start=may_start, **own)
        app.add_processor(connection.topic(line), reader, name=name, bounds=RETRY_BOUNDS)
        readers.append(reader)
    return readers


def _partitions(settings: Settings) -> Partitions:
    return Partitions(settings.partitions.by_app, settings.partitions.by_integration)


class _Producers(NamedTuple):
    """
    Of one worker. A producer has one request a broker under way, so what is slow to be written, the first record of a
    partition or one that a replica is late with, would hold up all else that it has to write. Markers of a source, and
    what they fence, go through the same one.
    """

    #: Fan-out's.
    of_deliveries: AIOKafkaProducer
    #: The lanes'.
    of_results: AIOKafkaProducer
    #: What can wait: retries, on their topics and back, and replays.
    of_retries: AIOKafkaProducer


async def _open_producers(connection: Connection, worker_id: str, stack: AsyncExitStack) -> _Producers:
    opened: list[AIOKafkaProducer] = []
    stack.push_async_callback(_stopped, opened)
    for name in _Producers._fields:
        opened.append(await open_producer(connection, client_id=f"{worker_id}-{name.removeprefix('of_')}"))  # noqa: PERF401  # what is open by then is stopped
    return _Producers(*opened)


async def _stopped(producers: list[AIOKafkaProducer]) -> None:
    """What they have not sent by now, the lanes have waited for: the broker is away, and they would wait for ever."""
    if not producers:
        return
    stopping = [asyncio.ensure_future(each.stop()) for each in producers]
    _, late = await asyncio.wait(stopping, timeout=PRODUCER_STOP_S)
    for task in late:
        task.cancel()


async def _first(*waits: Callable[[], Awaitable[Any]]) -> None:
    """Until one of them is over."""
    tasks = [asyncio.ensure_future(wait()) for wait in waits]
    await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
