"""
What the admin API shows of apps, their keys, types and tokens, and how it changes them.

As `services.admin.commands` for integrations: rules elsewhere, the change through the owner of the configuration. What
belongs to the whole installation, its tokens, stands in the record of the app `*` and in the audit chain of that name.
"""

from collections.abc import Callable
from typing import Any

from services.admin import idempotency
from services.admin.apps import (
    app_exists,
    app_unknown,
    changed_app,
    check_empty,
    check_types_unused,
    differing,
    loosened,
    new_app,
    next_version,
    patched_app,
    wanted_app,
    wanted_type,
    with_type,
    without_type,
)
from services.admin.bootstrap import empty_app
from services.admin.changes import Change, Changes, Unchanged
from services.admin.commands import check_version
from services.admin.config_log import ConfigLog
from services.admin.credentials import (
    KEY_PREFIXES,
    RANDOM_BYTES,
    TOKEN_PREFIX,
    key_json,
    minted,
    new_key,
    new_token,
    token_json,
    wanted_kind,
    wanted_token,
    with_key,
    with_token,
    without_key,
    without_token,
)
from services.admin.tokens import EVERY_APP, Caller, require_installation
from services.runtime import kinds
from services.runtime.problems import Problem
from services.vault.data_keys import with_data_key
from services.vault.seal import Keyring
from streams import codec
from streams.records import AppConfig, Token, Write
from streams.topics import APP_CONFIG


class AppCommands:
    """
    Apps and what opens them. Randomness and time come in, so that tests own them.

    Whoever calls has let the log catch up before, once a request. An *app* may be `*` where tokens are meant.
    """

    def __init__(
        self,
        log: ConfigLog,
        changes: Changes,
        keyring: Keyring,
        *,
        now_ms: Callable[[], int],
        random: Callable[[int], bytes],
    ) -> None:
        self._log = log
        self._changes = changes
        self._keyring = keyring
        self._now_ms = now_ms
        self._random = random

    # -- apps ------------------------------------------------------------------------------------------------

    def listed(self, caller: Caller) -> list[AppConfig]:
        """The apps that the caller may see, by id: all with a token of the installation, else the token's own."""
        if caller.app == EVERY_APP:
            return [each for each in self._log.apps.all() if each.app != EVERY_APP]
        return [self._now(caller.app)]

    async def create(self, body: Any, caller: Caller, key: str | None) -> AppConfig:
        """
        Create an app, without keys and tokens. *key* is the `Idempotency-Key`.

        Raises:
            Refused: the body asks for what cannot be.
            Problem: 403 `installation_token_required`, 409 `app_exists`, `idempotency_key_reused` or
                `idempotency_key_spent`, 503 `broker_unavailable`.
        """
        require_installation(caller, "Creating an app")
        wanted = wanted_app(body)
        used = None if key is None else idempotency.scope(caller.token_hash, EVERY_APP, "app", key)

        def decide() -> Change[AppConfig] | Unchanged[AppConfig]:
            now_ms = self._now_ms()
            if used is not None and (before := self._log.chains.created(used, now_ms)) is not None:
                idempotency.check_same(before, key or "", body)
                made = self._log.app(before.target)
                if made is None:
                    raise idempotency.gone(before)
                return Unchanged(made)
            if self._log.app(wanted.app) is not None:
                raise app_exists(wanted.app)
            config = with_data_key(new_app(wanted, now_ms=now_ms, who=caller.name), self._random, self._keyring, now_ms)
            details = {"version": str(config.version)} | idempotency.details(key, used, body)
            return Change("app.create", config.app, config, details, [_write(config)])

        return await self._changes.make(wanted.app, caller, decide)

    async def patch(self, app: str, body: Any, if_match: str | None, caller: Caller) -> AppConfig:
        """
        Change settings by a merge patch. *if_match* is the header: the version that the patch was made for.

        Raises:
            Refused: the patch asks for what cannot be.
            Problem: 403 `installation_token_required`: it takes a limit off the app; 404 `app_unknown`, 409
                `type_in_use`, 412 `version_mismatch`, 503 `broker_unavailable`.
        """

        def decide() -> Change[AppConfig] | Unchanged[AppConfig]:
            before = self._now(app)
            check_version(before, if_match)
            after = changed_app(before, patched_app(before, body))
            if after == before:
                return Unchanged(before)
            if raised := loosened(before, after):
                require_installation(caller, f"Raising {' and '.join(raised)}")
            check_types_unused(before, after, self._log.integrations.of_app(app))
            details = {"fields": " ".join(differing(before, after))}
            return self._change("app.update", app, caller, after, details)

        return await self._changes.make(app, caller, decide)

    async def delete(self, app: str, caller: Caller) -> None:
        """
        Delete an app with its keys and tokens. Its events stay on the log as long as others do.

        Raises:
            Problem: 403 `installation_token_required`, 404 `app_unknown`, 409 `app_in_use`, 503 `broker_unavailable`.
        """
        require_installation(caller, "Deleting an app")

        def decide() -> Change[None]:
            check_empty(self._now(app), self._log.integrations.of_app(app))
            return Change("app.delete", app, None, writes=[Write(topic=APP_CONFIG.name, key=app, value=None)])

        await self._changes.make(app, caller, decide)

    # -- event types -----------------------------------------------------------------------------------------

    async def add_type(self, app: str, body: Any, caller: Caller) -> str:
        """
        Add an event type to the app's own; one that it has stays as it is.

        Raises:
            Refused: the body asks for what cannot be.
            Problem: 404 `app_unknown`, 409 `limit_reached`, 503 `broker_unavailable`.
        """
        event_type = wanted_type(body)

        def decide() -> Change[AppConfig] | Unchanged[AppConfig]:
            before = self._now(app)
            after = with_type(before, event_type)
            return Unchanged(before) if after is before else self._change("type.add", event_type, caller, after)

        await self._changes.make(app, caller, decide)
        return event_type

    async def remove_type(self, app: str, event_type: str, caller: Caller) -> None:
        """
        Remove an event type from the app's own.

        Raises:
            Problem: 404 `app_unknown` or `no_such_type`, 409 `type_in_use`, 503 `broker_unavailable`.
        """

        def decide() -> Change[AppConfig]:
            before = self._now(app)
            after = without_type(before, event_type)
            check_types_unused(before, after, self._log.integrations.of_app(app))
            return self._change("type.remove", event_type, caller, after)

        await self._changes.make(app, caller, decide)

    # -- keys ------------------------------------------------------------------------------------------------

    async def create_key(self, app: str, body: Any, caller: Caller, key: str | None) -> dict[str, Any]:
        """
        Create a key of ingest; its JSON with the plain key, which no other answer has. *key*: the `Idempotency-Key`.

        Raises:
            Refused: the body asks for what cannot be.
            Problem: 404 `app_unknown`, 409 `limit_reached`, `shown_once` or `idempotency_key_reused`, 503
                `broker_unavailable`.
        """
        kind = wanted_kind(body)
        used = None if key is None else idempotency.scope(caller.token_hash, app, "key", key)
        plain = minted(KEY_PREFIXES[kind], self._random(RANDOM_BYTES))
        made = new_key(plain, kind, now_ms=self._now_ms())

        def decide() -> Change[AppConfig]:
            self._check_not_shown(used, key, body)
            details = {"kind": kind} | idempotency.details(key, used, body)
            return self._change("key.create", made.id, caller, with_key(self._now(app), made), details)

        await self._changes.make(app, caller, decide)
        return key_json(made) | {"key": plain}

    async def delete_key(self, app: str, key_id: str, caller: Caller) -> None:
        """
        Delete a key of ingest: events that come with it are refused.

        Raises:
            Problem: 404 `app_unknown` or `no_such_key`, 503 `broker_unavailable`.
        """

        def decide() -> Change[AppConfig]:
            before = self._now(app)
            after = without_key(before, key_id)
            kind = next(each.kind for each in before.keys if each.id == key_id)
            return self._change("key.delete", key_id, caller, after, {"kind": kind})

        await self._changes.make(app, caller, decide)

    # -- tokens ----------------------------------------------------------------------------------------------

    async def create_token(self, app: str, body: Any, caller: Caller, key: str | None) -> dict[str, Any]:
        """
        Create a token; its JSON with the plain token, which no other answer has. *key*: the `Idempotency-Key`.

        Raises:
            Refused: the body asks for what cannot be.
            Problem: 403 `installation_token_required`, 404 `app_unknown`, 409 `token_exists`, `limit_reached`,
                `shown_once` or `idempotency_key_reused`, 503 `broker_unavailable`.
        """
        _check_scope(app, caller)
        name, role = wanted_token(body)
        used = None if key is None else idempotency.scope(caller.token_hash, app, "token", key)
        plain = minted(TOKEN_PREFIX, self._random(RANDOM_BYTES))
        made = new_token(plain, name, role, now_ms=self._now_ms())

        def decide() -> Change[AppConfig]:
            self._check_not_shown(used, key, body)
            details = {"role": role} | idempotency.details(key, used, body)
            return self._change("token.create", name, caller, with_token(self._now(app), made), details)

        await self._changes.make(app, caller, decide)
        return token_json(made) | {"token": plain}

    async def create_first_token(self, name: str, caller: Caller) -> dict[str, Any]:
        """
        Create the first token of an admin of the whole installation, for whoever can reach the log itself.

        Raises:
            Refused: the name is none.
            Problem: 409 `not_first`: there is one; 503 `broker_unavailable`.
        """
        name, role = wanted_token({"name": name, "role": "admin"})
        plain = minted(TOKEN_PREFIX, self._random(RANDOM_BYTES))
        made = new_token(plain, name, role, now_ms=self._now_ms())

        def decide() -> Change[AppConfig]:
            before = self._log.app(EVERY_APP) or empty_app(EVERY_APP, self._now_ms())
            if any(each.role == "admin" for each in before.tokens):
                raise Problem(
                    kinds.NOT_FIRST,
                    "The installation has a token of an admin, which can make others. Use that one.",
                )
            return self._change("token.create", name, caller, with_token(before, made), {"role": role})

        await self._changes.make(EVERY_APP, caller, decide)
        return token_json(made) | {"token": plain}

    async def delete_token(self, app: str, name: str, caller: Caller) -> None:
        """
        Delete a token: requests that come with it are refused.

        Raises:
            Problem: 403 `installation_token_required`, 404 `app_unknown` or `no_such_token`, 409 `last_admin_token`,
                503 `broker_unavailable`.
        """
        _check_scope(app, caller)

        def decide() -> Change[AppConfig]:
            before = self._now(app)
            after = without_token(before, name)
            role = next(each.role for each in before.tokens if each.name == name)
            return self._change("token.delete", name, caller, after, {"role": role})

        await self._changes.make(app, caller, decide)

    def tokens(self, app: str, caller: Caller) -> list[Token]:
        """
        The tokens of an app, or of the installation (`*`), oldest first.

        Raises:
            Problem: 403 `installation_token_required`, 404 `app_unknown`.
        """
        _check_scope(app, caller)
        return self._now(app).tokens

    # -- parts -----------------------------------------------------------------------------------------------

    def _change(
        self, action: str, target: str, caller: Caller, after: AppConfig, details: dict[str, str] | None = None
    ) -> Change[AppConfig]:
        """The change that makes an app into *after*, in its next version."""
        config = next_version(after, now_ms=self._now_ms(), who=caller.name)
        return Change(action, target, config, {"version": str(config.version)} | (details or {}), [_write(config)])

    def _now(self, app: str) -> AppConfig:
        """The app as it is now: it may have changed since the request was admitted."""
        config = self._log.app(app)
        if config is None:
            raise app_unknown(app)
        return config

    def _check_not_shown(self, used: str | None, key: str | None, body: Any) -> None:
        """
        Raises:
            Problem: 409: something was created under this `Idempotency-Key` before.
        """
        if used is not None and (before := self._log.chains.created(used, self._now_ms())) is not None:
            idempotency.check_same(before, key or "", body)
            raise idempotency.shown_once(before)


def _check_scope(app: str, caller: Caller) -> None:
    if app == EVERY_APP:
        require_installation(caller, "What concerns tokens of the whole installation")


def _write(config: AppConfig) -> Write:
    return Write(topic=APP_CONFIG.name, key=config.app, value=codec.encode(config))
