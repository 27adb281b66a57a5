"""
Create and delete integrations: rules, then the record, then the wait until it is met.

One create or delete of an app at a time, so that two that race for the last place cannot both have it.
That holds in this process: run one admin service to an installation (a second one sees the other's writes,
but a race between the two for the last place can be won twice).
"""

import asyncio
from collections import defaultdict
from collections.abc import Callable
from typing import Any

from schemas.profiles import Profile
from services.admin.compose import SIGNING_SECRET_BYTES, new_integration, signing_secret
from services.admin.config_log import ConfigLog
from services.admin.idempotency import Creates, Remembered, fingerprint
from services.admin.rules import quota_fault, wanted
from services.admin.shown import integration_json
from services.admin.tokens import Caller
from services.runtime.problems import Problem
from services.vault.seal import Context, Keyring
from streams.records import AppConfig, IntegrationConfig


class Commands:
    """
    What the admin API shows and changes. Randomness, ids and time come in, so that tests own them.

    Whoever calls has let the log catch up before, once a request.
    """

    def __init__(
        self,
        log: ConfigLog,
        keyring: Keyring,
        *,
        brand: str,
        now_ms: Callable[[], int],
        random: Callable[[int], bytes],
        new_id: Callable[[], str],
    ) -> None:
        self._log = log
        self._keyring = keyring
        self._brand = brand
        self._now_ms = now_ms
        self._random = random
        self._new_id = new_id
        self._creates = Creates()
        # One small lock an app, kept: apps are few, and a lock given away too early would be none.
        self._locks: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)

    async def create(
        self, app: AppConfig, profile: Profile, body: Any, caller: Caller, key: str | None
    ) -> dict[str, Any]:
        """
        Create an integration; its JSON, with `signingSecret` where requests are signed.

        *key* is the `Idempotency-Key`. The same body under it again gets the same answer, signing secret included,
        since nobody repeats a create whose answer arrived; another body under it is refused.

        Raises:
            Refused: the body asks for what cannot be.
            Problem: 409 `quota_exceeded` or `idempotency_key_reused`, 503 `broker_unavailable`.
        """
        scope = None if key is None else (caller.token_hash, app.app, profile.name, key)
        async with self._locks[app.app]:
            now_ms = self._now_ms()
            before = self._creates.find(scope, now_ms) if scope else None
            if before and (config := self._stored_before(before, body)):
                return self._answer(config)
            plan = wanted(body, app, profile, self._brand)
            if fault := quota_fault(app, self._log.integrations.of_app(app.app), profile):
                raise Problem(409, "quota_exceeded", "No place left", fault, limit=app.max_active)
            create = before or Remembered(fingerprint(body), profile.id_prefix + self._new_id(), now_ms)
            if scope:
                self._creates.remember(scope, create)
            config = new_integration(
                plan,
                integration=create.integration,
                app=app.app,
                profile=profile,
                signing=signing_secret(self._random(SIGNING_SECRET_BYTES)) if plan.signing else None,
                keyring=self._keyring,
                now_ms=now_ms,
                who=caller.name,
            )
            await self._log.write(config.id, config)
            create.stored = config
            return self._answer(config)

    async def delete(self, app: str, profile: Profile, integration: str) -> None:
        """
        Delete an integration; events accepted from now on do not meet it.

        Raises:
            Problem: 404 `integration_unknown`, 503 `broker_unavailable`.
        """
        async with self._locks[app]:
            self.get(app, profile, integration)
            await self._log.write(integration, None)

    def get(self, app: str, profile: Profile, integration: str) -> IntegrationConfig:
        """
        The integration of this app and profile.

        Raises:
            Problem: 404 `integration_unknown`, the same for one of another app.
        """
        config = self._log.integrations.get(integration)
        if config is None or config.app != app or config.profile != profile.name:
            what = "subscription" if profile.name == "booking" else "integration"
            raise Problem(
                404,
                "integration_unknown",
                f"No such {what}",
                f"The app {app} has no {what} of this id. List them to find it; it may have been deleted.",
            )
        return config

    def listed(self, app: str, profile: Profile) -> list[IntegrationConfig]:
        """The app's integrations of this profile, oldest first: ids rise with time."""
        mine = [each for each in self._log.integrations.of_app(app) if each.profile == profile.name]
        return sorted(mine, key=lambda each: each.id)

    def shown(self, config: IntegrationConfig) -> dict[str, Any]:
        """The integration as JSON, without a secret."""
        return integration_json(config, self._keyring)

    def _stored_before(self, create: Remembered, body: Any) -> IntegrationConfig | None:
        """What the first try stored; None where its end is not known and nothing of it is on the log."""
        if create.fingerprint != fingerprint(body):
            raise Problem(
                409,
                "idempotency_key_reused",
                "Key used for something else",
                "This Idempotency-Key came with another body before. Take a new key for a new create.",
            )
        create.stored = create.stored or self._log.integrations.get(create.integration)
        return create.stored

    def _answer(self, config: IntegrationConfig) -> dict[str, Any]:
        """The answer to a create: the JSON, and the signing secret, which no other answer has."""
        answer = self.shown(config)
        if config.signing_secrets:
            newest = config.signing_secrets[0]
            context = Context.of_signing(config.app, config.id, newest.version)
            answer["signingSecret"] = self._keyring.open(newest.sealed, context).decode()
        return answer
