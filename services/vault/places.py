"""Where an integration's record holds sealed values: each with its context. Pure."""

from collections.abc import Callable, Iterator

import msgspec

from services.vault.seal import Context
from streams.records import IntegrationConfig


def sealed_values(config: IntegrationConfig) -> Iterator[tuple[bytes, Context]]:
    """Every sealed value of the integration, and where it belongs: headers, secrets, signing secrets."""
    for name, sealed in config.headers.items():
        yield sealed, Context.of_header(config.app, config.id, name)
    for name, secret in config.secrets.items():
        yield secret.sealed, Context.of_secret(config.app, config.id, name, secret.version)
    for signing in config.signing_secrets:
        yield signing.sealed, Context.of_signing(config.app, config.id, signing.version)


def with_sealed_values(config: IntegrationConfig, changed: Callable[[bytes, Context], bytes]) -> IntegrationConfig:
    """The integration with every sealed value replaced by what *changed* gives for it; equal where all stay."""
    new = {context: changed(sealed, context) for sealed, context in sealed_values(config)}
    return msgspec.structs.replace(
        config,
        headers={name: new[Context.of_header(config.app, config.id, name)] for name in config.headers},
        secrets={
            name: msgspec.structs.replace(
                secret, sealed=new[Context.of_secret(config.app, config.id, name, secret.version)]
            )
            for name, secret in config.secrets.items()
        },
        signing_secrets=[
            msgspec.structs.replace(each, sealed=new[Context.of_signing(config.app, config.id, each.version)])
            for each in config.signing_secrets
        ],
    )
