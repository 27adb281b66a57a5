"""The admin service for tests: really listening, really on a broker."""

import base64
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx

from services.admin.app import Admin, running
from services.admin.bootstrap import Bootstrapped, bootstrap
from services.admin.tokens import hash_of
from services.runtime.settings import AdminSettings, PartitionSettings, Settings
from streams import codec
from streams.connection import Connection
from streams.producer import open_producer
from streams.records import AppConfig, Token
from streams.topics import APP_CONFIG, Partitions, ensure

KEK = bytes(range(32))
PARTITIONS = Partitions(by_app=1, by_integration=1)

#: What a fresh installation has, the same in every test.
KNOWN = Bootstrapped("demo", public_key="pk_test", secret_key="sk_test", token="tok_test")


def admin_settings(connection: Connection, **changes: Any) -> Settings:
    given: dict[str, Any] = {
        "broker": connection.bootstrap,
        "topic_prefix": connection.prefix,
        "kek": base64.b64encode(KEK).decode(),
        "partitions": PartitionSettings(by_app=PARTITIONS.by_app, by_integration=PARTITIONS.by_integration),
        "admin": AdminSettings(port=0),
    }
    return Settings(**given | changes)


async def furnish(connection: Connection, partitions: Partitions = PARTITIONS) -> None:
    """Topics, the app `demo`, and the token `tok_test`."""
    await ensure(connection, partitions)
    await bootstrap(connection, now_ms=1_000, random=bytes, known=KNOWN)


async def put_apps(connection: Connection, *apps: AppConfig) -> None:
    """Writes apps as they are."""
    producer = await open_producer(connection, client_id="test")
    try:
        for app in apps:
            await producer.send_and_wait(connection.topic(APP_CONFIG), codec.encode(app), key=app.app.encode())
    finally:
        await producer.stop()


def make_token(token: str, role: str, name: str | None = None) -> Token:
    return Token(name=name or token.removeprefix("tok_"), role=role, hash=hash_of(token), created_at_ms=0)


@asynccontextmanager
async def admin_at(connection: Connection, **changes: Any) -> AsyncIterator[Admin]:
    """An admin service that is ready; its topics are there already."""
    async with running(admin_settings(connection, **changes)) as admin:
        await admin.opened
        await admin.history.caught_up()
        yield admin


def client_of(admin: Admin, token: str | None = KNOWN.token) -> httpx.AsyncClient:
    headers = {} if token is None else {"Authorization": f"Bearer {token}"}
    return httpx.AsyncClient(base_url=admin.served.url, headers=headers, timeout=30)
