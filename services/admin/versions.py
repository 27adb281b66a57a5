"""
Every version of every integration, from topic `config-history`: what was configured, by whom and since when.

Folding is pure. The newest versions of each integration are kept, also when it is deleted.
"""

from collections import deque
from typing import Final

import structlog

from streams import codec
from streams.records import IntegrationConfig

log = structlog.get_logger(__name__)

#: Versions of one integration that are kept in memory, the newest. The topic has all of 400 days.
KEPT: Final = 100


class Versions:
    """The newest versions of each integration."""

    def __init__(self) -> None:
        self._by_integration: dict[str, deque[IntegrationConfig]] = {}

    def apply(self, key: bytes | None, value: bytes | None, offset: int) -> None:
        """Fold one record of topic `config-history` in; a deletion changes nothing of what was before it."""
        if value is None:
            return
        try:
            config = codec.decode_as(IntegrationConfig, value)
        except codec.Unreadable as error:
            _log_unreadable(key, offset, error)
            return
        kept = self._by_integration.setdefault(config.id, deque(maxlen=KEPT))
        if not kept or kept[-1].version < config.version:
            kept.append(config)

    def clear(self) -> None:
        """Forget everything; see `Follower`."""
        self._by_integration.clear()

    def newest_first(self, integration: str) -> list[IntegrationConfig]:
        """The versions of the integration that are kept."""
        return list(reversed(self._by_integration.get(integration, ())))

    def get(self, integration: str, version: int) -> IntegrationConfig | None:
        """That version; None where it is not kept."""
        return next((each for each in self._by_integration.get(integration, ()) if each.version == version), None)


def _log_unreadable(key: bytes | None, offset: int, error: codec.Unreadable) -> None:
    log.error("history.unreadable", key=key, offset=offset, reason=str(error), hint="the version is missing in history")
