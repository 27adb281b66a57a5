"""
Create, pause, activate and delete integrations: rules, then the audit log, then the record, then the wait until it is
met.

One change of an app at a time, so that two that race for the last place cannot both have it.
That holds in this process: run one admin service to an installation (a second one sees the other's writes,
but a race between the two for the last place can be won twice).
"""

import asyncio
import hashlib
from collections import defaultdict
from collections.abc import Callable
from typing import Any

import msgspec
import structlog

from schemas.catalogue import ACTIVATED_TYPE
from schemas.profiles import Profile
from services.admin.audit import chained
from services.admin.compose import SIGNING_SECRET_BYTES, activated, new_integration, paused, signing_secret
from services.admin.config_log import ConfigLog
from services.admin.idempotency import Creates, Remembered, fingerprint
from services.admin.rules import DRAIN, Choice, choice, quota_fault, wanted
from services.admin.shown import integration_json, iso
from services.admin.tokens import Caller
from services.runtime.problems import Problem
from services.vault.seal import Context, Keyring
from streams.records import AppConfig, Event, IntegrationConfig

log = structlog.get_logger(__name__)


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
            self._has_place(app, profile)
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
            await self._audit(app.app, caller, "integration.create", config.id, {"profile": profile.name})
            await self._log.write(config.id, config)
            create.stored = config
            return self._answer(config)

    async def pause(self, app: str, profile: Profile, integration: str, caller: Caller) -> dict[str, Any]:
        """
        Pause an integration; its JSON. One that a person has paused stays as it is.

        Raises:
            Problem: 404 `integration_unknown`, 503 `broker_unavailable`.
        """
        async with self._locks[app]:
            config = self.get(app, profile, integration)
            if config.status == "active":
                config = paused(config, now_ms=self._now_ms(), who=caller.name)
                await self._audit(app, caller, "integration.pause", config.id, {"version": str(config.version)})
                await self._log.write(config.id, config)
            return self.shown(config)

    async def activate(
        self, app: AppConfig, profile: Profile, integration: str, body: Any, caller: Caller
    ) -> dict[str, Any]:
        """
        Activate an integration that a person or the breaker has paused; its JSON. One that is active stays as it is.

        *body* says what becomes of the deliveries that are held: required when there are any. How many there are is
        about two seconds old (`ConfigLog`): those that were held in between are drained where nothing was chosen.

        Raises:
            Refused: the body asks for what cannot be.
            Problem: 404 `integration_unknown`, 409 `held_choice_required` or `quota_exceeded`,
                503 `broker_unavailable`.
        """
        async with self._locks[app.app]:
            before = self.get(app.app, profile, integration)
            chosen = choice(body, self._now_ms())
            if not self._log.states.is_paused(before):
                return self.shown(before)
            self._has_place(app, profile)
            if chosen is None and (held := self._held(before)):
                raise Problem(
                    409,
                    "held_choice_required",
                    "What becomes of what is held?",
                    f"{held} deliveries were held while it was paused. Say what becomes of them, once: "
                    '{"held": "drain"} sends them in order, {"held": "skip"} discards them, and '
                    '{"held": {"from": "2026-01-02T03:04:05Z"}} discards those of events accepted before that time.',
                    held=held,
                )
            return await self._activated(before, chosen or DRAIN, caller)

    async def _activated(self, before: IntegrationConfig, chosen: Choice, caller: Caller) -> dict[str, Any]:
        now_ms = self._now_ms()
        details = {"version": str(before.version + 1), "epoch": str(before.epoch + 1), "held": chosen.kind}
        if chosen.kind == "from":
            details["from"] = iso(chosen.from_ms)
        await self._audit(before.app, caller, "integration.activate", before.id, details)
        config = await self._log.write_with_offset(
            before.id, lambda offset: activated(before, chosen, offset=offset, now_ms=now_ms, who=caller.name)
        )
        try:
            await self._log.announce(self._activation_event(config, chosen))
        except Problem:
            # It is active, whoever hears of it: the answer must not say otherwise.
            log.warning("activation.not_announced", integration=config.id, epoch=config.epoch)
        return self.shown(config)

    def _activation_event(self, config: IntegrationConfig, chosen: Choice) -> Event:
        """The event of the app that tells of it; one id an epoch."""
        told = {
            "integration": config.id,
            "name": config.name,
            "profile": config.profile,
            "status": "active",
            "held": chosen.kind,
            "by": config.updated_by,
            "epoch": config.epoch,
        }
        digest = hashlib.sha256(f"{config.id}:{config.epoch}:active".encode()).hexdigest()[:32]
        return Event(
            record_id=f"rec_{self._new_id()}",
            app=config.app,
            event_id=f"evt_{digest}",
            id_space="secret",
            id_supplied=True,
            type=ACTIVATED_TYPE,
            payload=msgspec.json.encode(told),
            occurred_at_ms=config.updated_at_ms,
            accepted_at_ms=config.updated_at_ms,
            ordering_key=config.id,
        )

    async def delete(self, app: str, profile: Profile, integration: str, caller: Caller) -> None:
        """
        Delete an integration; events accepted from now on do not meet it.

        Raises:
            Problem: 404 `integration_unknown`, 503 `broker_unavailable`.
        """
        async with self._locks[app]:
            self.get(app, profile, integration)
            await self._audit(app, caller, "integration.delete", integration, {})
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
        row = self._log.rows.get(config.id)
        oldest_at_ms = None if row is None else row.oldest_at_ms
        age_ms = None if oldest_at_ms is None else max(0, self._now_ms() - oldest_at_ms)
        return integration_json(
            config,
            self._keyring,
            queue_age_ms=age_ms,
            state=self._log.states.get(config.id),
            now_ms=self._now_ms(),
        )

    def _has_place(self, app: AppConfig, profile: Profile) -> None:
        """
        Hold the app to its quota, before one more of the profile is active.

        Raises:
            Problem: 409 `quota_exceeded`.
        """
        taking = [one for one in self._log.integrations.of_app(app.app) if not self._log.states.is_paused(one)]
        if fault := quota_fault(app, taking, profile):
            raise Problem(409, "quota_exceeded", "No place left", fault, limit=app.max_active)

    def _held(self, config: IntegrationConfig) -> int:
        """How many of its deliveries wait, as its row says; what a retry topic holds is not among them."""
        row = self._log.rows.get(config.id)
        return 0 if row is None else row.held + len(row.open)

    async def _audit(self, app: str, caller: Caller, action: str, target: str, details: dict[str, str]) -> None:
        """Put what is about to be done on the audit log; the app's lock is held, so that its chain is one."""
        record = chained(
            id=f"aud_{self._new_id()}",
            app=app,
            at_ms=self._now_ms(),
            who=caller.name,
            ip=caller.ip,
            action=action,
            target=target,
            allowed=True,
            details=details,
            previous_hash=self._log.chains.last(app),
        )
        await self._log.audit(record)

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
