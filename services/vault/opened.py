"""An integration's secrets in plain, at the moment of use. Never log, keep or send what this gives."""

from dataclasses import dataclass, field

from services.vault.seal import Context, DataKeyErased, Opener
from streams.records import IntegrationConfig


@dataclass(frozen=True, slots=True)
class OpenedSecrets:
    """What a delivery needs in plain. `repr` shows no value."""

    #: Header name to value, `{secret.name}` references inside not filled in yet.
    headers: dict[str, str] = field(repr=False)
    #: Secret name to value.
    secrets: dict[str, str] = field(repr=False)
    #: Signing secrets as shown (`whsec_...`), newest first, each with the end of its validity in
    #: milliseconds since 1970 UTC; None: until further notice.
    signing: list[tuple[str, int | None]] = field(repr=False)


def open_integration(config: IntegrationConfig, keys: Opener, *, erased: str | None = None) -> OpenedSecrets:
    """
    All secrets of an integration, in plain.

    Args:
        keys: a `Vault`; a `Keyring` opens only what no data key sealed.
        erased: stands for a value whose data key was erased, where nothing is sent with it.

    Raises:
        Unsealable: one of them does not open; nothing is given then.
    """

    def opened(sealed: bytes, context: Context) -> str:
        try:
            return keys.open(sealed, context).decode()
        except DataKeyErased:
            if erased is None:
                raise
            return erased

    return OpenedSecrets(
        headers={
            name: opened(sealed, Context.of_header(config.app, config.id, name))
            for name, sealed in config.headers.items()
        },
        secrets={
            name: opened(secret.sealed, Context.of_secret(config.app, config.id, name, secret.version))
            for name, secret in config.secrets.items()
        },
        signing=[
            (opened(secret.sealed, Context.of_signing(config.app, config.id, secret.version)), secret.valid_until_ms)
            for secret in config.signing_secrets
        ],
    )
