"""
The admin service: the API over the config topics.

The port opens at once, whether there is a broker or not; until both topics are read, requests hear 503.
"""

import asyncio
import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Final

import structlog
from uuid_utils import uuid7

from services.admin.commands import Commands
from services.admin.config_log import ConfigLog
from services.admin.routes import MAX_BODY_BYTES, add_routes
from services.runtime.clock import now_ms
from services.runtime.connection import connection_of
from services.runtime.serving import Served, StartupError, application, serve
from services.runtime.settings import Settings
from services.vault.keks import KekError, load_kek
from services.vault.seal import Keyring
from streams.topics import Partitions, TopicMismatch

#: How long a stop waits for requests in flight: a second more than they wait for the broker.
DRAIN_S: Final = 6.0

log = structlog.get_logger(__name__)


class Admin:
    """One admin process: its HTTP side, and the configuration that it follows and writes."""

    def __init__(self, settings: Settings) -> None:
        keyring = keyring_of(settings)
        partitions = Partitions(settings.partitions.by_app, settings.partitions.by_integration)
        self.config = ConfigLog(connection_of(settings))
        self.http = application(lambda: None, lambda: self.config.trouble, max_body_bytes=MAX_BODY_BYTES)
        self.commands = Commands(
            self.config,
            keyring,
            brand=settings.header_brand,
            now_ms=now_ms,
            random=secrets.token_bytes,
            new_id=lambda: uuid7().hex,
        )
        add_routes(self.http.router, self.config, self.commands)
        #: Done when the configuration is read; fails when this process can never read it.
        self.opened = asyncio.ensure_future(self.config.open(partitions, replication=settings.replication))
        self.served: Served

    async def stop(self) -> None:
        """Finish the requests in flight, then close."""
        await self.served.stop()
        self.opened.cancel()
        with suppress(asyncio.CancelledError, TopicMismatch):
            await self.opened
        await self.config.close()


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
        admin.opened.cancel()
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
        StartupError: there is no usable KEK, the port is taken, or the topics are not as they must be.
    """
    async with running(settings) as admin:
        stopping = asyncio.ensure_future(stop.wait())
        try:
            await asyncio.wait((stopping, admin.opened), return_when=asyncio.FIRST_COMPLETED)
            if not stop.is_set():
                await admin.opened
                log.info("admin.ready")
            await stopping
        except TopicMismatch as mismatch:
            raise StartupError(str(mismatch)) from mismatch
        finally:
            stopping.cancel()


def keyring_of(settings: Settings) -> Keyring:
    """
    The keyring of the KEK in the settings.

    Raises:
        StartupError: there is none, or it is unusable.
    """
    try:
        return Keyring(load_kek(settings))
    except KekError as error:
        raise StartupError(str(error)) from error
