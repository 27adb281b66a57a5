"""From what was asked for to the record that is written: id, versions, everything secret sealed."""

import base64
from typing import Final

from schemas.profiles import Profile
from services.admin.rules import Wanted
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
        status="active",
        status_reason=None,
        version=_FIRST,
        epoch=_FIRST,
        skip_before=0,
        created_at_ms=now_ms,
        updated_at_ms=now_ms,
        updated_by=who,
    )


def _sealed_signing(plain: str, app: str, integration: str, keyring: Keyring, now_ms: int) -> SigningSecret:
    context = Context.of_signing(app, integration, _FIRST)
    return SigningSecret(version=_FIRST, sealed=keyring.seal(plain.encode(), context), created_at_ms=now_ms)
