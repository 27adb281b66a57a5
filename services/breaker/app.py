"""The breaker's process: followers, producer, and the Faust app with its table and its agent."""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from functools import partial
from typing import Any, Final

import structlog
from aiokafka import AIOKafkaProducer

from services.breaker.agent import Breaker, rank
from services.breaker.gauges import Gauges
from services.runtime import metrics
from services.runtime.clock import now_ms
from services.runtime.connection import connection_of
from services.runtime.joining import Joining
from services.runtime.readiness import tell_readiness
from services.runtime.serving import StartupError, application, serve
from services.runtime.settings import Settings
from services.runtime.starting import until_started
from streams import schema_topic, topics
from streams.closed_connections import AiokafkaChanged
from streams.connection import Connection
from streams.engine.app import Bounds, SafeApp
from streams.follower import Follower
from streams.producer import open_producer
from streams.quarantine import Quarantine
from streams.states import States, check_configured
from streams.topics import Partitions, TopicMismatch
from streams.views import Integrations

log = structlog.get_logger("breaker.app")

#: Names of the consumer group, of the table and of the Faust agent; the first two make the changelog's name.
GROUP: Final = "breaker"
TABLE: Final = "rows"
AGENT: Final = "breaker"

#: What is not on the broker after this long is given up and written again, if it is still ours to write: shorter than
#: a session, so that little of a worker that was cut off arrives after its successor has begun.
GIVE_UP_MS: Final = 4_000

#: Results that come one by one would each cost a fetch and a write of their row, 0.85 ms of CPU here and as much on the
#: broker. What comes within this time is folded together, and each row written once; a pause comes that much later.
LINGER_S: Final = 0.1

#: How long the producer may flush at the end.
PRODUCER_STOP_S: Final = 3.0


async def main(settings: Settings, stop: asyncio.Event) -> None:
    """
    Run the breaker until *stop* is set.

    Raises:
        StartupError: it cannot run like this; the message says what to do.
    """
    connection = connection_of(settings)
    try:
        async with AsyncExitStack() as stack:
            health = _Health("breaker", connection)
            own = settings.breaker
            server = await serve(
                application(live=health.live, ready=health.ready, service="breaker"), own.host, own.port
            )
            stack.push_async_callback(server.stop)
            await stack.enter_async_context(health.watched())
            log.info("breaker.listening", url=server.url)

            async def start(opened: AsyncExitStack) -> SafeApp:
                opened.callback(health.forget)  # before anything that may end this start: one that begins anew moves
                await topics.ensure(connection, _partitions(settings), replication=settings.replication)
                return await _start(settings, connection, health, opened)

            started = await until_started("breaker", connection, start, stop=stop)
            if started is not None:
                app, opened = started
                async with opened:
                    telling = partial(
                        tell_readiness, health.ready, ready="breaker.ready", not_ready="breaker.not_ready"
                    )
                    await _first(stop.wait, app.wait_until_stopped, telling)
                    if not stop.is_set():
                        raise StartupError(
                            "the breaker ended by the error above; what it had not finished is done again"
                        )
    except (TopicMismatch, AiokafkaChanged) as error:
        raise StartupError(str(error)) from error


class _Health(Joining):
    """What the probes say, from before the broker answers to the end."""

    def live(self) -> str | None:
        has_stopped = self.app is not None and self.app.should_stop
        return "the breaker has crashed" if has_stopped else self.stuck

    def ready(self) -> str | None:
        if self.app is None:
            return "waiting for the broker"
        if self.app.is_ready:
            return self.app.stopped
        return self.app.shortened or "partitions are being assigned, or the table is being read"


async def _start(settings: Settings, connection: Connection, health: _Health, stack: AsyncExitStack) -> SafeApp:
    """Returns when the breaker is a member of its group, with everything that ends it on the stack."""
    own, partitions = settings.breaker, _partitions(settings)
    producer = await open_producer(
        connection,
        client_id=own.worker_id,
        # Idempotent, it would try for ever, and a state could appear long after it was true. Twice does no harm.
        enable_idempotence=False,
        request_timeout_ms=GIVE_UP_MS,
    )
    stack.push_async_callback(_stopped, producer)
    app = SafeApp(
        GROUP,
        connection,
        put_aside=Quarantine(producer, connection, AGENT, now_ms).put,
        bounds=Bounds(own.max_unfinished_records, own.max_unfinished_bytes),
        session_timeout_ms=own.session_timeout_ms,
        commit_interval_ms=own.commit_interval_ms,
        linger_s=LINGER_S,
        instance_id=own.instance_id,
    )
    breaker, gauges = await _followed(connection, partitions, producer, app, health, stack)
    app.add_processor(connection.topic(topics.RESULTS), breaker, name=AGENT)
    stack.enter_context(metrics.answering(gauges))
    health.app = app
    breaker.start()
    stack.push_async_callback(breaker.stop)
    # Before it has started: where that fails, what runs by then has to end.
    stack.push_async_callback(app.stop)
    await app.start()
    return app


async def _followed(
    connection: Connection,
    partitions: Partitions,
    producer: AIOKafkaProducer,
    app: SafeApp,
    health: _Health,
    stack: AsyncExitStack,
) -> tuple[Breaker, Gauges]:
    """The agent, with what it follows; and what it tells of itself."""
    integrations, states = Integrations(), States()
    table = app.add_rows(TABLE, partitions.by_integration, rank, producer)
    made: list[Breaker] = []

    def apply_config(key: bytes | None, value: bytes | None, offset: int) -> None:
        integrations.apply(key, value, offset)
        for breaker in made:
            breaker.see_config(key)

    def apply_state(key: bytes | None, value: bytes | None, offset: int) -> None:
        states.apply(key, value, offset)
        for breaker in made:
            breaker.see_state(key, value, offset)

    shared = Follower(connection, topics.SCHEMAS, schema_topic.learn)
    config = Follower(connection, topics.INTEGRATION_CONFIG, apply_config, clear=integrations.clear)
    published = Follower(connection, topics.INTEGRATION_STATE, apply_state, clear=states.clear)
    for follower in (shared, config, published):
        await health.follow(follower, stack)
    await config.catch_up()
    check_configured(integrations, states, prefix=connection.prefix)
    breaker = Breaker(
        connection=connection,
        partitions=partitions,
        producer=producer,
        table=table,
        config=config,
        integrations=integrations,
        published=published,
        states=states,
        now_ms=now_ms,
        may_write=lambda: app.is_confirmed,
        turn=lambda: app.turn,
    )
    made.append(breaker)
    return breaker, Gauges(app, breaker, integrations, states)


def _partitions(settings: Settings) -> Partitions:
    return Partitions(settings.partitions.by_app, settings.partitions.by_integration)


async def _stopped(producer: AIOKafkaProducer) -> None:
    """What it has not sent by now, nobody waits for."""
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
