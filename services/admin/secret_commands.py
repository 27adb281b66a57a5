"""
What the admin API does with an integration's secrets: list, put, delete, reveal, rotate.

Who may see a secret is asked of the owner of the configuration like every change: a version is revealed once, whichever
process is asked, and the audit record is on the log before the value is in an answer. Tries that are refused are
recorded too.
"""

from collections.abc import Callable
from itertools import takewhile
from typing import Any

from services.admin.changes import Change, Changes, integration_writes
from services.admin.commands import Commands
from services.admin.compose import SIGNING_SECRET_BYTES
from services.admin.config_log import ConfigLog
from services.admin.named_secrets import (
    REVEAL,
    REVEAL_WINDOW_MS,
    Revealed,
    reveal_details,
    revealed,
    reveals_of,
    secret_of,
    secrets_json,
    with_secret,
    without_secret,
)
from services.admin.place import Place
from services.admin.rotation import Rotated, overlap_ms, rotated
from services.admin.tokens import Caller, require
from services.runtime.problems import Problem
from services.runtime.times import iso
from services.vault.seal import Sealer
from streams.records import IntegrationConfig


class SecretCommands:
    """Secrets of integrations. Randomness and time come in. Whoever calls has let the log catch up before."""

    def __init__(
        self,
        log: ConfigLog,
        changes: Changes,
        commands: Commands,
        vault: Sealer,
        *,
        now_ms: Callable[[], int],
        random: Callable[[int], bytes],
    ) -> None:
        self._log = log
        self._changes = changes
        self._commands = commands
        self._vault = vault
        self._now_ms = now_ms
        self._random = random

    def listed(self, place: Place) -> list[dict[str, Any]]:
        """
        The secrets by name, never a value.

        Raises:
            Problem: 404 `integration_unknown`.
        """
        return secrets_json(self._config(place))

    async def put(self, place: Place, name: str, body: Any, caller: Caller) -> dict[str, Any]:
        """
        Store a secret, new or the next version; as `listed` shows it.

        Raises:
            Refused: name or value is none that a secret can have.
            Problem: 404 `integration_unknown`, 503 `broker_unavailable`.
        """

        def decide() -> Change[IntegrationConfig]:
            before = self._config(place)
            after = with_secret(before, name, body, vault=self._vault, now_ms=self._now_ms(), who=caller.name)
            details = {"secret": name, "version": str(after.secrets[name].version)}
            return Change("secret.put", after.id, after, details, integration_writes(after))

        config = await self._changes.make(place.app, caller, decide)
        return next(each for each in secrets_json(config) if each["name"] == name)

    async def delete(self, place: Place, name: str, caller: Caller) -> None:
        """
        Take a secret away.

        Raises:
            Problem: 404 `integration_unknown` or `secret_unknown`, 409 `secret_in_use`, 503 `broker_unavailable`.
        """

        def decide() -> Change[None]:
            before = self._config(place)
            after = without_secret(before, name, vault=self._vault, now_ms=self._now_ms(), who=caller.name)
            details = {"secret": name, "version": str(secret_of(before, name).version)}
            return Change("secret.delete", after.id, None, details, integration_writes(after))

        await self._changes.make(place.app, caller, decide)

    async def reveal(self, place: Place, name: str, caller: Caller) -> dict[str, Any]:
        """
        A secret in plain, once a version; every try is on the audit log when this returns or raises.

        Raises:
            Problem: 403 `role_insufficient`, 404 `integration_unknown` or `secret_unknown`, 409 `already_revealed` or
                `secret_unreadable`, 429 `reveal_limit`, 503 `broker_unavailable`.
        """

        def decide() -> Change[Revealed | Problem]:
            before = self._config(place)
            try:
                require(caller, "admin")
                shown = revealed(
                    before,
                    name,
                    self._reveals_ms(place),
                    vault=self._vault,
                    now_ms=self._now_ms(),
                    who=caller.name,
                )
            except Problem as problem:
                return Change(REVEAL, before.id, problem, reveal_details(before, name, problem), allowed=False)
            return Change(REVEAL, before.id, shown, reveal_details(before, name), integration_writes(shown.config))

        shown = await self._changes.make(place.app, caller, decide)
        if isinstance(shown, Problem):
            raise shown
        return {"name": shown.name, "version": shown.version, "value": shown.value}

    async def rotate(self, place: Place, body: Any, caller: Caller) -> dict[str, Any]:
        """
        A new signing secret, shown in this answer alone; the one before stays valid for the overlap that *body* says.

        Raises:
            Refused: the body says no overlap.
            Problem: 404 `integration_unknown`, 409 `signing_off` or `rotations_under_way`, 503 `broker_unavailable`.
        """
        random = self._random(SIGNING_SECRET_BYTES)

        def decide() -> Change[Rotated]:
            before = self._config(place)
            overlap = overlap_ms(body)
            new = rotated(before, overlap, random=random, vault=self._vault, now_ms=self._now_ms(), who=caller.name)
            details = {"version": str(new.version), "overlapMs": str(overlap)}
            return Change("secret.rotate", before.id, new, details, integration_writes(new.config))

        new = await self._changes.make(place.app, caller, decide)
        until = None if new.old_until_ms is None else iso(new.old_until_ms)
        return {"signingSecret": new.secret, "version": new.version, "previousValidUntil": until}

    def _config(self, place: Place) -> IntegrationConfig:
        return self._commands.get(place.app, place.profile, place.integration)

    def _reveals_ms(self, place: Place) -> list[int]:
        since_ms = self._now_ms() - REVEAL_WINDOW_MS
        recent = takewhile(lambda record: record.at_ms >= since_ms, self._log.chains.newest_first(place.app))
        return reveals_of(recent, place.integration)
