"""
The first app, its keys and a token, for a fresh installation: what `up` needs before anybody can ask the API.

Only hashes go onto the log. Plain keys are returned, once; whoever calls keeps them, and hands them in again at the
next start, so that they stay the same on a broker that kept them and on one that forgot.
"""

import base64
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

import msgspec

from schemas.profiles import MAX_ACTIVE_INTEGRATIONS
from services.admin.tokens import EVERY_APP, hash_of
from services.vault.data_keys import with_data_key
from services.vault.seal import Keyring
from streams import codec
from streams.connection import Connection
from streams.follower import Follower
from streams.producer import open_producer
from streams.records import AppConfig, IngestKey, KeyKind, Token
from streams.topics import APP_CONFIG
from streams.views import Apps

DEMO: Final = "demo"

#: 192 bits, so that guessing is no matter, and 32 letters in base64.
KEY_BYTES: Final = 24

#: Name of the token and of the writer in the records.
WHO: Final = "up"


class ConfigUnreadable(Exception):
    """A record of the configuration cannot be read. Says whose, and what to do."""


@dataclass(frozen=True, slots=True)
class Bootstrapped:
    """An app and what opens it. `repr` shows only the app."""

    app: str
    #: `pk_...`, for web pages of any origin.
    public_key: str = field(repr=False)
    #: `sk_...`, for servers.
    secret_key: str = field(repr=False)
    #: `tok_...`, an admin's, for all apps.
    token: str = field(repr=False)


async def bootstrap(
    connection: Connection,
    *,
    now_ms: int,
    random: Callable[[int], bytes],
    known: Bootstrapped | None = None,
    app: str = DEMO,
    keyring: Keyring | None = None,
) -> Bootstrapped:
    """
    Make sure that there is the app, with two keys and an admin token that the caller knows, and with a data key.

    The topics must be there, and nobody else may write `app-config` meanwhile.

    Args:
        random: gives that many random bytes.
        known: what an earlier call returned. It is taken again; what the log has lost of it is written anew.
        app: name of the app, where *known* does not tell. A new one takes http:// URLs and any origin.
        keyring: seals the app's data key, where it has none; None leaves it without.

    Raises:
        ConfigUnreadable: what there is cannot be read, and must not be written over.
    """
    known = known or _fresh(app, random)
    before = await _read(connection)
    for key in (known.app, EVERY_APP):
        if before.is_broken(key):
            raise ConfigUnreadable(
                f"the newest record of {key} on {connection.topic(APP_CONFIG)} cannot be read, and nothing is there"
                " from before. Write it again out of a backup: tenterhook restore FILE --unreadable"
            )
    with_keys = _with_keys(before.get(known.app), known, now_ms)
    if keyring is not None:
        # One write is one version.
        is_changed = with_keys != before.get(known.app)
        with_keys = with_data_key(with_keys, random, keyring, now_ms, who=None if is_changed else WHO)
    wanted = (with_keys, _with_token(before.get(EVERY_APP), known, now_ms))
    await _write(connection, [config for config in wanted if config != before.get(config.app)])
    return known


def _fresh(app: str, random: Callable[[int], bytes]) -> Bootstrapped:
    def key(prefix: str) -> str:
        return prefix + base64.urlsafe_b64encode(random(KEY_BYTES)).decode()

    return Bootstrapped(app, public_key=key("pk_"), secret_key=key("sk_"), token=key("tok_"))


async def _read(connection: Connection) -> Apps:
    apps = Apps()
    follower = Follower(connection, APP_CONFIG, apps.apply)
    await follower.start()
    await follower.stop()
    return apps


async def _write(connection: Connection, configs: list[AppConfig]) -> None:
    if not configs:
        return
    producer = await open_producer(connection, client_id="tenterhook-bootstrap")
    try:
        for config in configs:
            await producer.send_and_wait(connection.topic(APP_CONFIG), codec.encode(config), key=config.app.encode())
    finally:
        await producer.stop()


def _with_keys(config: AppConfig | None, known: Bootstrapped, now_ms: int) -> AppConfig:
    """The app with both keys among its own; as it is, where they are."""
    config = config or empty_app(known.app, now_ms)
    kinds: dict[str, KeyKind] = {known.public_key: "public", known.secret_key: "secret"}
    held = {key.hash for key in config.keys}
    missing = [
        IngestKey(id=f"key_{hash_of(key).hex()[:16]}", kind=kind, hash=hash_of(key), created_at_ms=now_ms)
        for key, kind in kinds.items()
        if hash_of(key) not in held
    ]
    return _changed(config, now_ms, keys=[*config.keys, *missing]) if missing else config


def _with_token(config: AppConfig | None, known: Bootstrapped, now_ms: int) -> AppConfig:
    """What belongs to no single app, with the token among its own; as it is, where it is."""
    config = config or empty_app(EVERY_APP, now_ms)
    token = Token(name=WHO, role="admin", hash=hash_of(known.token), created_at_ms=now_ms)
    if token.hash in {each.hash for each in config.tokens}:
        return config
    return _changed(config, now_ms, tokens=[*config.tokens, token])


def _changed(config: AppConfig, now_ms: int, **changes: object) -> AppConfig:
    return msgspec.structs.replace(config, version=config.version + 1, updated_at_ms=now_ms, updated_by=WHO, **changes)


def empty_app(app: str, now_ms: int) -> AppConfig:
    """An app for trying out; version 0, since it is written with its first change."""
    return AppConfig(
        app=app,
        name=app,
        keys=[],
        tokens=[],
        origins=[] if app == EVERY_APP else ["*"],
        event_types=[],
        allow_http=app != EVERY_APP,
        max_active=MAX_ACTIVE_INTEGRATIONS,
        version=0,
        created_at_ms=now_ms,
        updated_at_ms=now_ms,
        updated_by=WHO,
    )
