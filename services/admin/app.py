"""
The admin service: the API over the config topics, and the Faust agent that owns them.

The port opens at once, whether there is a broker or not; until the topics are read, requests hear 503, and those about
deliveries until the delivery history is. Any number of
these processes may run: each answers requests, one of them at a time owns the configuration.
"""

import asyncio
import secrets
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from importlib.metadata import version
from typing import Any, Final

import structlog
from aiokafka import AIOKafkaProducer
from uuid_utils import uuid7

from services.admin.app_commands import AppCommands
from services.admin.changes import Changes
from services.admin.commands import Commands
from services.admin.config_log import ConfigLog
from services.admin.data_key_commands import DataKeyCommands
from services.admin.delivery_commands import DeliveryCommands
from services.admin.openapi import described
from services.admin.owner import AGENT, GIVE_UP_MS, GROUP, Owner
from services.admin.replay_commands import ReplayCommands
from services.admin.routes import add_routes
from services.admin.routes.route import MAX_BODY_BYTES, Api
from services.admin.schemas import serve_schemas
from services.admin.secret_commands import SecretCommands
from services.console.app import add_console
from services.history.read_model import History
from services.runtime import metrics
from services.runtime.clock import now_ms
from services.runtime.connection import connection_of
from services.runtime.joining import NOT_JOINED
from services.runtime.liveness import Liveness, broker_answers, keeper_answers
from services.runtime.membership import membership
from services.runtime.metric import Sample
from services.runtime.readiness import tell_readiness
from services.runtime.serving import Served, StartupError, application, serve, serve_description
from services.runtime.settings import Settings
from services.runtime.starting import until_started
from services.vault.data_keys import Vault
from services.vault.keks import KekError, check_keks, load_kek, load_keyring
from services.vault.seal import Keyring
from streams.closed_connections import AiokafkaChanged
from streams.engine.app import SafeApp
from streams.producer import open_producer
from streams.quarantine import Quarantine
from streams.states import check_configured
from streams.topics import COMMANDS, Partitions, TopicMismatch

#: How long a stop waits for requests in flight: a second more than they wait for the owner of the configuration.
DRAIN_S: Final = 11.0

#: How long giving the ownership up may wait for a transaction under way. A healthy one takes 20 ms; what is left open
#: is ended by the next owner.
SETTLE_S: Final = 5.0

#: How long the producer of quarantine may take to end.
PRODUCER_STOP_S: Final = 3.0

log = structlog.get_logger(__name__)


class Admin:
    """One admin process: its HTTP side, the configuration that it follows, and the owner that it may be."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._keyring = keyring_of(settings)
        self._connection = connection_of(settings)
        self.config = ConfigLog(self._connection)
        self.http = application(self._not_live, self.not_ready, service="admin", max_body_bytes=MAX_BODY_BYTES)
        self.changes = Changes(
            self._connection, self.config, process=f"admin-{uuid7().hex}", now_ms=now_ms, new_id=lambda: uuid7().hex
        )
        vault = self.vault = Vault(self._keyring, self.config.apps.get)
        self.commands = Commands(
            self.config,
            self.changes,
            vault,
            brand=settings.header_brand,
            now_ms=now_ms,
            random=secrets.token_bytes,
            new_id=lambda: uuid7().hex,
        )
        secret_commands = SecretCommands(
            self.config, self.changes, self.commands, vault, now_ms=now_ms, random=secrets.token_bytes
        )
        replay_commands = ReplayCommands(
            self._connection,
            self.config,
            self.changes,
            self.commands,
            events_partitions=settings.partitions.by_app,
            brand=settings.header_brand,
            version=version("tenterhook"),
            now_ms=now_ms,
            new_id=lambda: uuid7().hex,
        )
        self.history = History(self._connection, settings.history, settings.partitions.by_integration, now_ms=now_ms)
        delivery_commands = DeliveryCommands(
            self._connection,
            self.config,
            self.changes,
            self.commands,
            self.history,
            now_ms=now_ms,
            new_id=lambda: uuid7().hex,
        )
        app_commands = AppCommands(self.config, self.changes, self._keyring, now_ms=now_ms, random=secrets.token_bytes)
        data_key_commands = DataKeyCommands(
            self.config, self.changes, self._keyring, now_ms=now_ms, random=secrets.token_bytes
        )
        api = Api(
            log=self.config,
            changes=self.changes,
            commands=self.commands,
            apps=app_commands,
            data_keys=data_key_commands,
            secrets=secret_commands,
            replays=replay_commands,
            deliveries=delivery_commands,
            trusted_proxies=settings.admin.trusted_proxies,
            now_ms=now_ms,
        )
        add_routes(self.http.router, api)
        add_console(self.http, api, load_kek(settings))
        self._owning: SafeApp | None = None
        self._joins = 0
        self._liveness = Liveness(
            "admin",
            self,
            (*self.config.followers, self.changes.replies),
            self._broker_answers,
        )
        self._stack = AsyncExitStack()
        self._stack.enter_context(metrics.answering(self._gauges))
        self._stack.push_async_callback(self.history.stop)
        #: Done when the configuration is read; fails when this process can never read it.
        self.opened = asyncio.ensure_future(self._open())
        self._watching = asyncio.ensure_future(self._liveness.watch())
        self.served: Served
        serve_description(self.http, described())
        serve_schemas(self.http)

    async def _open(self) -> None:
        settings = self._settings
        partitions = Partitions(settings.partitions.by_app, settings.partitions.by_integration)
        self._stack.push_async_callback(self.config.close)
        await self.config.open(partitions, replication=settings.replication, check=self._check)
        self.history.start()
        self._stack.push_async_callback(self.changes.close)
        await self.changes.open()
        await self._own()

    def _check(self) -> None:
        config = self.config
        check_configured(config.integrations, config.states, prefix=self._connection.prefix)
        check_keks(self._keyring, config.apps.all(), config.integrations.all())

    async def _own(self) -> None:
        """Join those of whom one owns the configuration."""
        started = await until_started("admin", self._connection, self._join)
        if started is not None:
            self._owning, joined = started
            self._stack.push_async_callback(joined.aclose)

    async def _join(self, stack: AsyncExitStack) -> SafeApp:
        self._joins += 1
        connection = self._connection
        producer = await open_producer(
            connection,
            client_id="tenterhook-admin-quarantine",
            enable_idempotence=False,
            request_timeout_ms=GIVE_UP_MS,
        )
        stack.push_async_callback(_stopped, producer)
        app = SafeApp(
            GROUP,
            connection,
            put_aside=Quarantine(producer, connection, AGENT, now_ms).put,
            settle_timeout_s=SETTLE_S,
            instance_id=self._settings.admin.instance_id,
        )
        owner = Owner(
            connection, self.config.chains, self.config.audit, now_ms=now_ms, may_write=lambda: app.is_confirmed
        )
        app.add_processor(connection.topic(COMMANDS), owner, name=AGENT)
        stack.push_async_callback(owner.stop)
        # Before it has started: a stop in between has to end what runs by then.
        stack.push_async_callback(app.stop)
        await app.start()
        return app

    def _gauges(self) -> Iterator[Sample]:
        yield from self.history.gauges()
        if self._owning is not None:
            yield from membership(self._owning, "admin")

    def _not_live(self) -> str | None:
        app = self._owning
        if app is not None and app.should_stop:
            return "the owner of the configuration has crashed"
        return (app.stuck if app is not None else None) or self._liveness.stuck

    @property
    def missing(self) -> str | None:
        """See `Opening`: it has to read the configuration, and to be one of those of whom one owns it."""
        if not self.opened.done():
            return "the configuration is not opened"
        return None if self._owning is None or self._owning.is_confirmed else NOT_JOINED

    async def _broker_answers(self) -> bool:
        """Any; where the group is not joined, the one that keeps it: without that nobody joins."""
        if self.missing == NOT_JOINED:
            return await keeper_answers(self._connection, GROUP)
        return await broker_answers(self._connection)

    @property
    def tries(self) -> int:
        """Another number whenever a step towards that has begun, or more is read of what has not been read once."""
        unread = (each.position for each in self.config.followers if not each.has_started)
        rebalances = self._owning.rebalances if self._owning is not None else 0
        return self.config.tries + self._joins + sum(unread) + rebalances

    def not_ready(self) -> str | None:
        """Why not every question can be answered, and every change be made, now; None when all is well."""
        shortened = self._owning.shortened if self._owning is not None else None
        return self.config.trouble or shortened or self.history.holds_up

    @property
    def owning(self) -> SafeApp | None:
        """The group of those of whom one owns the configuration, once this process has joined it."""
        return self._owning

    async def stop(self) -> None:
        """Finish the requests in flight, then close."""
        await self.served.stop()
        await self.close()

    async def close(self) -> None:
        """Close what is open, but for the port."""
        self._watching.cancel()
        self.opened.cancel()
        await asyncio.gather(self._watching, return_exceptions=True)
        with suppress(asyncio.CancelledError, StartupError, TopicMismatch, AiokafkaChanged, KekError):
            await self.opened
        await self._stack.aclose()


@asynccontextmanager
async def running(settings: Settings) -> AsyncIterator[Admin]:
    """
    An admin service that listens; it may not be ready yet.

    Raises:
        StartupError: there is no usable KEK, or the port is taken.
    """
    admin = Admin(settings)
    try:
        admin.served = await serve(admin.http, settings.admin.host, settings.admin.port, drain_s=DRAIN_S)
    except StartupError:
        await admin.close()
        raise
    log.info("admin.listening", url=admin.served.url)
    try:
        yield admin
    finally:
        await admin.stop()


async def main(settings: Settings, stop: asyncio.Event) -> None:
    """
    Run the admin service until *stop* is set.

    Raises:
        StartupError: there is no usable KEK, or not the one that stored secrets want; the port is taken; the topics are
            not as they must be; the broker forbids something; or the owner of the configuration ended by itself.
    """
    async with running(settings) as admin:
        stopping = asyncio.ensure_future(stop.wait())
        saying: asyncio.Task[None] | None = None
        try:
            await asyncio.wait((stopping, admin.opened), return_when=asyncio.FIRST_COMPLETED)
            if not stop.is_set():
                await admin.opened
                telling = tell_readiness(admin.not_ready, ready="admin.ready", not_ready="admin.not_ready")
                saying = asyncio.ensure_future(telling)
            await _until_stopped(admin, stopping)
        except (TopicMismatch, AiokafkaChanged, KekError) as error:
            raise StartupError(str(error)) from error
        finally:
            stopping.cancel()
            if saying is not None:
                saying.cancel()


async def _until_stopped(admin: Admin, stopping: "asyncio.Task[Any]") -> None:
    if admin.owning is None:
        await stopping
        return
    ended = asyncio.ensure_future(admin.owning.wait_until_stopped())
    try:
        await asyncio.wait((stopping, ended), return_when=asyncio.FIRST_COMPLETED)
    finally:
        ended.cancel()
    if not stopping.done():
        raise StartupError(
            "the owner of the configuration ended by the error above; what it had not made is made again"
        )


async def _stopped(producer: AIOKafkaProducer) -> None:
    """What it has not sent by now, nobody waits for."""
    _, late = await asyncio.wait((asyncio.ensure_future(producer.stop()),), timeout=PRODUCER_STOP_S)
    for task in late:
        task.cancel()


def keyring_of(settings: Settings) -> Keyring:
    """
    The keyring of the KEKs in the settings.

    Raises:
        StartupError: there is none, or one is unusable.
    """
    try:
        return load_keyring(settings)
    except KekError as error:
        raise StartupError(str(error)) from error
