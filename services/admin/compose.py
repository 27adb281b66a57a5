"""From what was asked for to the record that is written: id, versions, everything secret sealed."""

import base64
from typing import Final

import msgspec

from schemas.profiles import Profile
from services.admin.rules import Choice, Wanted
from services.vault.opened import OpenedSecrets
from services.vault.seal import Context, Sealer
from streams.records import IntegrationConfig, Secret, SigningSecret

#: Random bytes of a signing secret. Source: contract, "What a receiver gets".
SIGNING_SECRET_BYTES: Final = 32

_FIRST: Final = 1


def signing_secret(random: bytes) -> str:
    """A signing secret as it is shown: `whsec_` and base64 of 32 random bytes."""
    if len(random) != SIGNING_SECRET_BYTES:
        raise ValueError(f"a signing secret takes {SIGNING_SECRET_BYTES} random bytes, not {len(random)}")
    return "whsec_" + base64.b64encode(random).decode()


def new_integration(
    wanted: Wanted,
    *,
    integration: str,
    app: str,
    profile: Profile,
    signing: str | None,
    keyring: Sealer,
    now_ms: int,
    who: str,
) -> IntegrationConfig:
    """
    The first version of the integration with the id *integration*, asked for by the token named *who*.

    *signing* is the signing secret in plain; None where requests are not signed. *keyring*: a `Vault`, or the keys of
    the app that is written with it.
    """
    return IntegrationConfig(
        id=integration,
        app=app,
        profile=profile.name,
        name=wanted.name,
        url=wanted.url,
        events=wanted.events,
        headers={
            name: keyring.seal(value.encode(), Context.of_header(app, integration, name))
            for name, value in wanted.headers.items()
        },
        secrets={
            name: Secret(
                version=_FIRST,
                sealed=keyring.seal(value.encode(), Context.of_secret(app, integration, name, _FIRST)),
                created_at_ms=now_ms,
            )
            for name, value in wanted.secrets.items()
        },
        signing_secrets=[] if signing is None else [_sealed_signing(signing, app, integration, keyring, now_ms)],
        signing=wanted.signing,
        timeout_ms=wanted.timeout_ms,
        retry_policy=wanted.retry_policy,
        max_attempts=wanted.max_attempts,
        delays_ms=wanted.delays_ms,
        retry_on_429=wanted.retry_on_429,
        ordering=wanted.ordering,
        max_in_flight=wanted.max_in_flight,
        while_paused=wanted.while_paused,
        auto_pause=wanted.auto_pause,
        template=wanted.template,
        send_traceparent=wanted.send_traceparent,
        status="active",
        status_reason=None,
        version=_FIRST,
        epoch=_FIRST,
        skip_before=0,
        created_at_ms=now_ms,
        updated_at_ms=now_ms,
        updated_by=who,
    )


def changed(
    config: IntegrationConfig,
    wanted: Wanted,
    opened: OpenedSecrets,
    *,
    signing: str | None,
    keyring: Sealer,
    now_ms: int,
    who: str,
) -> IntegrationConfig:
    """
    The next version: as *wanted*. What is as it was keeps its ciphertext, and a secret its version.

    Args:
        opened: the secrets of *config*.
        signing: a new signing secret in plain, where requests begin to be signed and there is none; else None.
    """
    return msgspec.structs.replace(
        config,
        name=wanted.name,
        url=wanted.url,
        events=wanted.events,
        headers={
            name: config.headers[name]
            if opened.headers.get(name) == value
            else keyring.seal(value.encode(), Context.of_header(config.app, config.id, name))
            for name, value in wanted.headers.items()
        },
        secrets={
            name: config.secrets[name]
            if opened.secrets.get(name) == value
            else _next_secret(config, name, value, keyring, now_ms)
            for name, value in wanted.secrets.items()
        },
        signing_secrets=config.signing_secrets
        if signing is None
        else [_sealed_signing(signing, config.app, config.id, keyring, now_ms)],
        signing=wanted.signing,
        timeout_ms=wanted.timeout_ms,
        retry_policy=wanted.retry_policy,
        max_attempts=wanted.max_attempts,
        delays_ms=wanted.delays_ms,
        retry_on_429=wanted.retry_on_429,
        ordering=wanted.ordering,
        max_in_flight=wanted.max_in_flight,
        while_paused=wanted.while_paused,
        auto_pause=wanted.auto_pause,
        template=wanted.template,
        send_traceparent=wanted.send_traceparent,
        version=config.version + 1,
        updated_at_ms=now_ms,
        updated_by=who,
    )


def rolled_back(config: IntegrationConfig, to: IntegrationConfig, *, now_ms: int, who: str) -> IntegrationConfig:
    """
    The next version: configured as *to*, an earlier one of it.

    Secrets and signing secrets stay the present ones: an old one may have been replaced because it was seen. So does
    what is no setting: status, epoch, what activations have left out.
    """
    return msgspec.structs.replace(
        to,
        secrets=config.secrets,
        signing_secrets=config.signing_secrets,
        status=config.status,
        status_reason=config.status_reason,
        epoch=config.epoch,
        skip_before=config.skip_before,
        from_before=config.from_before,
        from_ms=config.from_ms,
        version=config.version + 1,
        updated_at_ms=now_ms,
        updated_by=who,
    )


def _next_secret(config: IntegrationConfig, name: str, plain: str, keyring: Sealer, now_ms: int) -> Secret:
    before = config.secrets.get(name)
    version = _FIRST if before is None else before.version + 1
    context = Context.of_secret(config.app, config.id, name, version)
    return Secret(version=version, sealed=keyring.seal(plain.encode(), context), created_at_ms=now_ms)


def paused(config: IntegrationConfig, *, now_ms: int, who: str) -> IntegrationConfig:
    """The next version: paused by the person whose token is named *who*. The epoch stays: only activation raises it."""
    return msgspec.structs.replace(
        config,
        status="paused",
        status_reason=f"paused by {who}",
        version=config.version + 1,
        updated_at_ms=now_ms,
        updated_by=who,
    )


def activated(config: IntegrationConfig, choice: Choice, *, offset: int, now_ms: int, who: str) -> IntegrationConfig:
    """
    The next version, active in a new epoch: what the breaker says of the one before does not count any more.

    `skip_before` and `from_before` become *offset* + 1. A delivery's `config_offset` is its fan-out's position in
    `integration-config`: the offset of the next record, so that all below it were applied. A fan-out that has not
    met this record is at *offset* or lower, one that has is at *offset* + 1 or higher. So exactly the deliveries that
    were made before this activation was met have a `config_offset` below *offset* + 1.

    They only rise, and so does `from_ms`: what an earlier activation has left out stays left out, and the filters of
    a drain are those of before.

    Args:
        offset: of this record in `integration-config`. Where another process's write came before it, the record
            stands further up: deliveries that were made in between are sent, and not left out.
    """
    made_before = offset + 1
    return msgspec.structs.replace(
        config,
        status="active",
        status_reason=None,
        skip_before=max(config.skip_before, made_before) if choice.kind == "skip" else config.skip_before,
        from_before=max(config.from_before, made_before) if choice.kind == "from" else config.from_before,
        from_ms=max(config.from_ms, choice.from_ms) if choice.kind == "from" else config.from_ms,
        version=config.version + 1,
        epoch=config.epoch + 1,
        updated_at_ms=now_ms,
        updated_by=who,
    )


def _sealed_signing(plain: str, app: str, integration: str, keyring: Sealer, now_ms: int) -> SigningSecret:
    context = Context.of_signing(app, integration, _FIRST)
    return SigningSecret(version=_FIRST, sealed=keyring.seal(plain.encode(), context), created_at_ms=now_ms)
