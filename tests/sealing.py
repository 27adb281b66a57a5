"""Apps with data keys, and integrations sealed for them."""

import itertools
from typing import Any

from services.vault.data_keys import AppKeys, with_data_key
from services.vault.seal import Context, Keyring, Sealer
from streams.records import AppConfig, IntegrationConfig, Secret, SigningSecret
from tests.apps import make_app
from tests.records import make_integration

KEK, NEW_KEK = bytes(range(32)), bytes(range(1, 33))
KEYRING = Keyring(KEK)
#: Of a process while the KEK is being replaced.
BOTH = Keyring(NEW_KEK, KEK)

_drawn = itertools.count(1)


def random(count: int) -> bytes:
    """Never the same twice."""
    return next(_drawn).to_bytes(count, "big")


def app_with_key(app: str = "demo", keyring: Keyring = KEYRING, **changes: Any) -> AppConfig:
    return with_data_key(make_app(app, **changes), random, keyring, 1_000)


def keys_of(app: AppConfig, keyring: Keyring = KEYRING) -> AppKeys:
    return AppKeys(keyring, app.app, app.data_keys)


def sealed_integration(
    sealer: Sealer,
    integration: str = "int_1",
    app: str = "demo",
    *,
    headers: dict[str, str] | None = None,
    secrets: dict[str, str] | None = None,
    signing: tuple[str, ...] = (),
    **changes: Any,
) -> IntegrationConfig:
    """*signing*: newest first."""
    count = len(signing)
    return make_integration(
        integration,
        app,
        headers={
            name: sealer.seal(value.encode(), Context.of_header(app, integration, name))
            for name, value in (headers or {}).items()
        },
        secrets={
            name: Secret(
                version=1,
                sealed=sealer.seal(value.encode(), Context.of_secret(app, integration, name, 1)),
                created_at_ms=0,
            )
            for name, value in (secrets or {}).items()
        },
        signing_secrets=[
            SigningSecret(
                version=count - at,
                sealed=sealer.seal(text.encode(), Context.of_signing(app, integration, count - at)),
                created_at_ms=0,
            )
            for at, text in enumerate(signing)
        ],
        **{"signing": bool(signing)} | changes,
    )
