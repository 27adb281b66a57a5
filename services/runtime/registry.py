"""From settings to the schema registry that records are written and read with."""

import time
from importlib import import_module
from typing import Final

import structlog

from services.runtime.serving import StartupError
from services.runtime.settings import Settings
from streams.trouble import Trouble

log = structlog.get_logger(__name__)

#: How long a service waits for a registry that does not answer. Then it ends, for whatever looks after it to try again.
PATIENCE_S: Final = 30.0
_PAUSE_S: Final = 1.0


def use_schema_registry(settings: Settings, *, patience_s: float = 0.0) -> None:
    """
    Register our schemas with the registry of the settings, and use its ids; nothing where they name none. Blocks.

    Raises:
        StartupError: it has not answered for so long, or refuses; or its credentials cannot be read.
    """
    if settings.schema_registry_url is None:
        return
    # Not at the top: a client that most installations have no use for.
    module = import_module("streams.registry")
    registry = module.SchemaRegistry(settings.schema_registry_url, _credentials(settings))
    until, trouble = time.monotonic() + patience_s, Trouble(log)
    while True:
        try:
            registry.use()
        except module.RegistryRefused as refused:
            raise StartupError(str(refused)) from None
        except module.RegistryAway as away:
            if time.monotonic() >= until:
                raise StartupError(
                    f"{away}. Start it, or correct TENTERHOOK_SCHEMA_REGISTRY_URL; records that were written with its "
                    "ids cannot be read without it."
                ) from None
            trouble.met("registry.awaited", str(away))
            time.sleep(_PAUSE_S)
        else:
            trouble.over()
            return


def _credentials(settings: Settings) -> tuple[str, str] | None:
    """User and password."""
    given, file = settings.schema_registry_credentials, settings.schema_registry_credentials_file
    if given is not None and file is not None:
        raise StartupError(
            "TENTERHOOK_SCHEMA_REGISTRY_CREDENTIALS and TENTERHOOK_SCHEMA_REGISTRY_CREDENTIALS_FILE are set: take one"
        )
    text = given.get_secret_value() if given is not None else None
    if file is not None:
        try:
            text = file.read_text(encoding="utf-8").rstrip("\r\n")
        except (OSError, UnicodeDecodeError) as error:
            reason = error.strerror if isinstance(error, OSError) else "it is no text"
            raise StartupError(
                f"the file {file} (TENTERHOOK_SCHEMA_REGISTRY_CREDENTIALS_FILE) cannot be read: {reason}"
            ) from None
    if text is None:
        return None
    user, _, password = text.partition(":")
    return user, password
