"""
What the admin API shows of integrations and subscriptions, and how it changes them: rules here, the change through its
owner (`services.admin.changes`), and the answer when everybody meets it.
"""

import hashlib
from collections.abc import Callable
from typing import Any, Final

import msgspec

from schemas.catalogue import ACTIVATED_TYPE, PAUSED_TYPE
from schemas.profiles import Profile
from services.admin import idempotency
from services.admin.apps import app_unknown
from services.admin.changes import Change, Changes, Unchanged, integration_removal, integration_writes
from services.admin.compose import (
    SIGNING_SECRET_BYTES,
    activated,
    changed,
    new_integration,
    paused,
    rolled_back,
    signing_secret,
)
from services.admin.config_log import ConfigLog
from services.admin.differences import differences, version_json
from services.admin.patch import patched
from services.admin.rules import DRAIN, Choice, choice, quota_fault, version_wanted, wanted
from services.admin.shown import integration_json, status_of
from services.admin.tokens import Caller
from services.runtime import kinds
from services.runtime.problems import Problem
from services.runtime.times import iso
from services.vault.opened import open_integration
from services.vault.references import names
from services.vault.seal import Context, Sealer, Unsealable
from streams import codec
from streams.records import AppConfig, Event, IntegrationConfig, Write
from streams.topics import EVENTS

#: Reason of a pause, in the event about it, where it was not the breaker.
BY_PERSON: Final = "paused_by_person"

#: Random bytes of what stands for an erased value while a patch is judged.
_STAND_IN_BYTES: Final = 16


class Commands:
    """
    What the admin API shows and changes. Randomness, ids and time come in, so that tests own them.

    Whoever calls has let the log catch up before, once a request.
    """

    def __init__(
        self,
        log: ConfigLog,
        changes: Changes,
        vault: Sealer,
        *,
        brand: str,
        now_ms: Callable[[], int],
        random: Callable[[int], bytes],
        new_id: Callable[[], str],
    ) -> None:
        self._log = log
        self._changes = changes
        self._vault = vault
        #: What our own header names begin with.
        self.brand = brand
        self._now_ms = now_ms
        self._random = random
        self._new_id = new_id

    async def create(
        self, app: AppConfig, profile: Profile, body: Any, caller: Caller, key: str | None
    ) -> dict[str, Any]:
        """
        Create an integration; its JSON, with `signingSecret` where requests are signed.

        *key* is the `Idempotency-Key`. The same body under it again gets the same answer, signing secret included until
        it is rotated, since nobody repeats a create whose answer arrived; another body under it is refused.

        Raises:
            Refused: the body asks for what cannot be.
            Problem: 409 `quota_exceeded`, `idempotency_key_reused` or `idempotency_key_spent`, 503
                `broker_unavailable`.
        """
        used = None if key is None else idempotency.scope(caller.token_hash, app.app, profile.name, key)
        integration = profile.id_prefix + self._new_id()

        def decide() -> Change[IntegrationConfig] | Unchanged[IntegrationConfig]:
            now_ms = self._now_ms()
            if used is not None and (before := self._log.chains.created(used, now_ms)) is not None:
                idempotency.check_same(before, key or "", body)
                made = self._log.integration(before.target)
                if made is None:
                    raise idempotency.gone(before)
                return Unchanged(made)
            current = self._app(app)
            plan = wanted(body, current, profile, self.brand)
            self._has_place(current, profile)
            config = new_integration(
                plan,
                integration=integration,
                app=app.app,
                profile=profile,
                signing=self._new_signing_secret() if plan.signing else None,
                keyring=self._vault,
                now_ms=now_ms,
                who=caller.name,
            )
            details = {"profile": profile.name, "version": str(config.version)} | idempotency.details(key, used, body)
            return Change("integration.create", config.id, config, details, integration_writes(config))

        config = await self._changes.make(app.app, caller, decide)
        return self._with_signing_secret(config) if _has_first_secret(config) else self.shown(config)

    async def patch(
        self, app: AppConfig, profile: Profile, integration: str, body: Any, if_match: str | None, caller: Caller
    ) -> dict[str, Any]:
        """
        Change settings by a merge patch; the JSON, with `signingSecret` where requests begin to be signed.

        *if_match* is the header: the version that the patch was made for.

        Raises:
            Refused: the patch asks for what cannot be.
            Problem: 404 `integration_unknown`, 412 `version_mismatch`, 503 `broker_unavailable`.
        """

        def decide() -> Change[tuple[IntegrationConfig, bool]] | Unchanged[tuple[IntegrationConfig, bool]]:
            before = self.get(app.app, profile, integration)
            check_version(before, if_match)
            # What was erased stays so unless the patch replaces it or takes it away; nobody can give this value.
            opened = open_integration(before, self._vault, erased=self._random(_STAND_IN_BYTES).hex())
            plan = wanted(patched(before, opened, body), self._app(app), profile, self.brand)
            is_new = plan.signing and not before.signing_secrets
            after = changed(
                before,
                plan,
                opened,
                signing=self._new_signing_secret() if is_new else None,
                keyring=self._vault,
                now_ms=self._now_ms(),
                who=caller.name,
            )
            if _says_the_same(before, after):
                return Unchanged((before, False))
            fields = sorted({each["field"] for each in differences(before, after, self._vault)})
            details = {"version": str(after.version), "fields": " ".join(fields)}
            return Change("integration.update", after.id, (after, is_new), details, integration_writes(after))

        config, is_new = await self._changes.make(app.app, caller, decide)
        return self._with_signing_secret(config) if is_new else self.shown(config)

    async def roll_back(
        self,
        app: AppConfig,
        profile: Profile,
        integration: str,
        body: Any,
        if_match: str | None,
        caller: Caller,
    ) -> dict[str, Any]:
        """
        Configure an integration as it was in an earlier version; its JSON. Secrets stay the present ones.

        Raises:
            Refused: the body does not say which.
            Problem: 404 `integration_unknown` or `version_unknown`, 409 `secret_missing`, 412 `version_mismatch`, 503
                `broker_unavailable`.
        """

        def decide() -> Change[IntegrationConfig] | Unchanged[IntegrationConfig]:
            before = self.get(app.app, profile, integration)
            check_version(before, if_match)
            version = version_wanted(body)
            to = self.version(before, version)
            after = rolled_back(before, to, now_ms=self._now_ms(), who=caller.name)
            if missing := sorted(self._referred(after) - after.secrets.keys()):
                raise Problem(
                    kinds.SECRET_MISSING,
                    f"Version {version} refers to {{secret.{missing[0]}}}, and there is no secret of that name any "
                    "more. Put it first.",
                )
            if _says_the_same(before, after):
                return Unchanged(before)
            details = {"version": str(after.version), "to": str(version)}
            return Change("integration.roll_back", after.id, after, details, integration_writes(after))

        return self.shown(await self._changes.make(app.app, caller, decide))

    async def pause(self, app: str, profile: Profile, integration: str, caller: Caller) -> dict[str, Any]:
        """
        Pause an integration; its JSON. One that a person has paused stays as it is. The app is told, unless the breaker
        has told it already.

        Raises:
            Problem: 404 `integration_unknown`, 503 `broker_unavailable`.
        """

        def decide() -> Change[IntegrationConfig] | Unchanged[IntegrationConfig]:
            before = self.get(app, profile, integration)
            if before.status != "active":
                return Unchanged(before)
            after = paused(before, now_ms=self._now_ms(), who=caller.name)
            details = {"version": str(after.version)}
            writes = integration_writes(after)
            if not self._log.states.is_paused(before):
                writes.append(_telling(self._pause_event(after)))
            return Change("integration.pause", after.id, after, details, writes)

        return self.shown(await self._changes.make(app, caller, decide))

    async def activate(
        self, app: AppConfig, profile: Profile, integration: str, body: Any, caller: Caller
    ) -> dict[str, Any]:
        """
        Activate an integration that a person or the breaker has paused; its JSON. One that is active stays as it is.

        *body* says what becomes of the deliveries that are held: required when there are any. How many there are is
        a few seconds old (`ConfigLog`): those that were held in between are drained where nothing was chosen.

        Raises:
            Refused: the body asks for what cannot be.
            Problem: 404 `integration_unknown`, 409 `held_choice_required` or `quota_exceeded`,
                503 `broker_unavailable`.
        """

        def decide() -> Change[IntegrationConfig] | Unchanged[IntegrationConfig]:
            before = self.get(app.app, profile, integration)
            chosen = choice(body, self._now_ms())
            if not self._log.states.is_paused(before):
                return Unchanged(before)
            self._has_place(self._app(app), profile)
            if chosen is None and (held := self.held(before)):
                raise Problem(
                    kinds.HELD_CHOICE_REQUIRED,
                    f"{held} deliveries were held while it was paused. Say what becomes of them, once: "
                    '{"held": "drain"} sends them in order, {"held": "skip"} discards them, and '
                    '{"held": {"from": "2026-01-02T03:04:05Z"}} discards those of events accepted before that time.',
                    held=held,
                )
            return self._activation(before, chosen or DRAIN, caller)

        return self.shown(await self._changes.make(app.app, caller, decide))

    def _activation(self, before: IntegrationConfig, chosen: Choice, caller: Caller) -> Change[IntegrationConfig]:
        after = activated(before, chosen, offset=self._log.next_offset(), now_ms=self._now_ms(), who=caller.name)
        details = {"version": str(after.version), "epoch": str(after.epoch), "held": chosen.kind}
        if chosen.kind == "from":
            details["from"] = iso(chosen.from_ms)
        writes = [*integration_writes(after), _telling(self._activation_event(after, chosen))]
        return Change("integration.activate", after.id, after, details, writes)

    def _activation_event(self, config: IntegrationConfig, chosen: Choice) -> Event:
        """The event of the app that tells of it; one id an epoch."""
        return self._event(config, ACTIVATED_TYPE, "active", {"held": chosen.kind})

    def _pause_event(self, config: IntegrationConfig) -> Event:
        """As the breaker tells of its own pauses, with the same id: an epoch is paused once."""
        state = self._log.states.get(config.id)
        is_current = state is not None and state.epoch == config.epoch
        told = {
            "consecutiveFailures": state.consecutive_failures if state is not None and is_current else 0,
            "reason": BY_PERSON,
            "since": iso(config.updated_at_ms),
            "delivery": None,
            "attempt": None,
        }
        return self._event(config, PAUSED_TYPE, "paused", told)

    def _event(self, config: IntegrationConfig, event_type: str, status: str, told: dict[str, Any]) -> Event:
        told = {
            "integration": config.id,
            "name": config.name,
            "profile": config.profile,
            "status": status,
            **told,
            "by": config.updated_by,
            "epoch": config.epoch,
        }
        digest = hashlib.sha256(f"{config.id}:{config.epoch}:{status}".encode()).hexdigest()[:32]
        return Event(
            record_id=f"rec_{self._new_id()}",
            app=config.app,
            event_id=f"evt_{digest}",
            id_space="secret",
            id_supplied=True,
            type=event_type,
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

        def decide() -> Change[None]:
            self.get(app, profile, integration)
            return Change("integration.delete", integration, None, writes=integration_removal(integration))

        await self._changes.make(app, caller, decide)

    # -- what is shown ---------------------------------------------------------------------------------------

    def get(self, app: str, profile: Profile, integration: str) -> IntegrationConfig:
        """
        The integration of this app and profile.

        Raises:
            Problem: 404 `integration_unknown`, the same for one of another app; 503 `config_unreadable`.
        """
        config = self._log.integration(integration)
        if config is None or config.app != app or config.profile != profile.name:
            what = "subscription" if profile.name == "booking" else "integration"
            raise Problem(
                kinds.INTEGRATION_UNKNOWN,
                f"The app {app} has no {what} of this id. List them to find it; it may have been deleted.",
            )
        return config

    def listed(self, app: str, profile: Profile) -> list[IntegrationConfig]:
        """The app's integrations of this profile, oldest first: ids rise with time."""
        return [each for each in self._log.integrations.of_app(app) if each.profile == profile.name]

    def shown(self, config: IntegrationConfig) -> dict[str, Any]:
        """The integration as JSON, without a secret."""
        row = self._log.rows.get(config.id)
        oldest_at_ms = None if row is None else row.oldest_at_ms
        age_ms = None if oldest_at_ms is None else max(0, self._now_ms() - oldest_at_ms)
        return integration_json(
            config,
            self._vault,
            queue_age_ms=age_ms,
            state=self._log.states.get(config.id),
            now_ms=self._now_ms(),
        )

    def status(self, config: IntegrationConfig) -> str:
        """`active`, `failing` or `paused`, as `shown` has it, for far less."""
        return status_of(config, self._log.states.get(config.id))[0]

    def signing_secrets(self, config: IntegrationConfig) -> list[str]:
        """Its signing secrets in plain, newest first; none where they cannot be opened. Not for anybody to see."""
        try:
            return [
                self._vault.open(each.sealed, Context.of_signing(config.app, config.id, each.version)).decode()
                for each in config.signing_secrets
            ]
        except Unsealable:
            return []

    def held(self, config: IntegrationConfig) -> int:
        """How many of its deliveries wait, as its row says; what a retry topic holds is not among them."""
        row = self._log.rows.get(config.id)
        return 0 if row is None else row.held + len(row.open)

    def history(self, config: IntegrationConfig) -> list[dict[str, Any]]:
        """The versions that are kept, newest first: who wrote each, when, and what it changed (null: not known)."""
        versions = self._versions(config)
        return [
            {
                "version": each.version,
                "updatedAt": iso(each.updated_at_ms),
                "updatedBy": each.updated_by,
                "changes": None if before is None else differences(before, each, self._vault),
            }
            for each, before in zip(versions, [*versions[1:], None], strict=True)
        ]

    def version(self, config: IntegrationConfig, version: int) -> IntegrationConfig:
        """
        An integration as it was in that version.

        Raises:
            Problem: 404 `version_unknown`.
        """
        found = config if version == config.version else self._log.versions.get(config.id, version)
        if found is None:
            raise Problem(
                kinds.VERSION_UNKNOWN,
                f"There is no version {version} of this integration, or it is not kept any more. See its history.",
            )
        return found

    def version_shown(self, config: IntegrationConfig) -> dict[str, Any]:
        """A version as JSON, without a secret."""
        return version_json(config, self._vault)

    def diff(self, before: IntegrationConfig, after: IntegrationConfig) -> list[dict[str, Any]]:
        """What differs between two versions."""
        return differences(before, after, self._vault)

    def _versions(self, config: IntegrationConfig) -> list[IntegrationConfig]:
        kept = self._log.versions.newest_first(config.id)
        return kept if kept and kept[0].version == config.version else [config, *kept]

    # -- rules -----------------------------------------------------------------------------------------------

    def _app(self, app: AppConfig) -> AppConfig:
        """
        The app as it is now: it may have changed since the request was admitted.

        Raises:
            Problem: 404 `app_unknown`: it was deleted since.
        """
        now = self._log.app(app.app)
        if now is None:
            raise app_unknown(app.app)
        return now

    def _has_place(self, app: AppConfig, profile: Profile) -> None:
        """
        Hold the app to its quota, before one more of the profile is active.

        Raises:
            Problem: 409 `quota_exceeded`.
        """
        taking = [one for one in self._log.integrations.of_app(app.app) if not self._log.states.is_paused(one)]
        if fault := quota_fault(app, taking, profile):
            raise Problem(kinds.QUOTA_EXCEEDED, fault, limit=app.max_active)

    def _referred(self, config: IntegrationConfig) -> set[str]:
        """Names of the secrets that URL and headers refer to."""
        opened = open_integration(config, self._vault, erased="")
        return set().union(names(config.url), *map(names, opened.headers.values()))

    def _new_signing_secret(self) -> str:
        return signing_secret(self._random(SIGNING_SECRET_BYTES))

    def _with_signing_secret(self, config: IntegrationConfig) -> dict[str, Any]:
        """The JSON, and the signing secret, which no other answer has."""
        newest = config.signing_secrets[0]
        plain = self._vault.open(newest.sealed, Context.of_signing(config.app, config.id, newest.version))
        return self.shown(config) | {"signingSecret": plain.decode()}


def _telling(event: Event) -> Write:
    return Write(topic=EVENTS.name, key=event.app, value=codec.encode(event))


def check_version(config: IntegrationConfig | AppConfig, if_match: str | None) -> None:
    """
    Hold a change to the version that it was made for: `If-Match: "7"`; absent or `*`, any.

    Raises:
        Problem: 412 `version_mismatch`.
    """
    if if_match is None or if_match.strip() == "*":
        return
    if f'"{config.version}"' not in (each.strip() for each in if_match.split(",")):
        raise Problem(
            kinds.VERSION_MISMATCH,
            f"It is at version {config.version}, and If-Match names another. Get it again, and make the change anew.",
            version=config.version,
        )


def _has_first_secret(config: IntegrationConfig) -> bool:
    """Whether it signs with the secret that its create made: a later one is no answer to a create."""
    newest = next(iter(config.signing_secrets), None)
    return newest is not None and newest.version == 1 and newest.created_at_ms == config.created_at_ms


def _says_the_same(before: IntegrationConfig, after: IntegrationConfig) -> bool:
    """Whether nothing but who, when and which version differs."""
    return before == msgspec.structs.replace(
        after, version=before.version, updated_at_ms=before.updated_at_ms, updated_by=before.updated_by
    )
