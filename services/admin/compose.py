"""From what was asked for to the record that is written: id, versions, everything secret sealed."""

import base64
from typing import Final

import msgspec

from schemas.profiles import Profile
from services.admin.rules import Choice, Wanted
from services.vault.seal import Context, Keyring
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
    keyring: Keyring,
    now_ms: int,
    who: str,
) -> IntegrationConfig:
    """
    The first version of the integration with the id *integration*, asked for by the token named *who*.

    *signing* is the signing secret in plain; None where requests are not signed.
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
        status="active",
        status_reason=None,
        version=_FIRST,
        epoch=_FIRST,
        skip_before=0,
        created_at_ms=now_ms,
        updated_at_ms=now_ms,
        updated_by=who,
    )


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


def _sealed_signing(plain: str, app: str, integration: str, keyring: Keyring, now_ms: int) -> SigningSecret:
    context = Context.of_signing(app, integration, _FIRST)
    return SigningSecret(version=_FIRST, sealed=keyring.seal(plain.encode(), context), created_at_ms=now_ms)
