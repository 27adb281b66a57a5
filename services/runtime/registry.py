"""From settings to the schema registry that records are written and read with."""

import time
from importlib import import_module
from typing import Final

import structlog

from services.runtime.serving import StartupError
from services.runtime.settings import Settings

log = structlog.get_logger(__name__)

#: How long a service waits for a registry that does not answer. Then it ends, for whatever looks after it to try again.
PATIENCE_S: Final = 30.0
_PAUSE_S: Final = 1.0


def use_schema_registry(settings: Settings, *, patience_s: float = 0.0) -> None:
    """
    Register our schemas with the registry of the settings, and use its ids; nothing where they name none. Blocks.

    Raises:
        StartupError: it has not answered for so long, or refuses.
    """
    if settings.schema_registry_url is None:
        return
    # Not at the top: a client that most installations have no use for.
    module = import_module("streams.registry")
    given = settings.schema_registry_credentials
    user, _, password = given.get_secret_value().partition(":") if given else ("", "", "")
    registry = module.SchemaRegistry(settings.schema_registry_url, (user, password) if given else None)
    until = time.monotonic() + patience_s
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
            log.warning("registry.awaited", reason=str(away))
            time.sleep(_PAUSE_S)
        else:
            return
