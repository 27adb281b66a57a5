"""
Whether `autoPause` was on when a result was folded: what the versions of the configuration say.

Pure. A breaker folds by the newest version that it has met. That is the one that the result was made under, or, since a
breaker may be behind, any that came later; its own following of the configuration may be a little behind too.
"""

from itertools import pairwise
from typing import Final, NamedTuple

from streams import codec
from streams.records import IntegrationConfig

#: A breaker has met a version so long after it was written, and clocks differ by less.
MET_MS: Final = 60_000

BOTH: Final = frozenset({True, False})


class _Version(NamedTuple):
    is_on: bool
    #: When it was written.
    at_ms: int


class AutoPause:
    """`autoPause` in every version of every integration that is kept."""

    def __init__(self) -> None:
        self._versions: dict[str, dict[int, _Version]] = {}

    def apply(self, value: bytes | None) -> None:
        """A record of `config-history`; one that cannot be read is a version that is not kept."""
        if value is None:
            return
        try:
            self.add(codec.decode_as(IntegrationConfig, value))
        except codec.Unreadable:
            return

    def add(self, config: IntegrationConfig) -> None:
        """A version."""
        self._versions.setdefault(config.id, {})[config.version] = _Version(config.auto_pause, config.updated_at_ms)

    def at(self, integration: str, version: int) -> bool | None:
        """What that version says; None where it is not kept."""
        found = self._versions.get(integration, {}).get(version)
        return None if found is None else found.is_on

    def possible(self, integration: str, version: int, at_ms: int) -> frozenset[bool]:
        """
        What a breaker may have gone by that folded a result; both where the version is not kept.

        Args:
            version: that the result was made under.
            at_ms: when it was made.
        """
        versions = self._versions.get(integration, {})
        if version not in versions:
            return BOTH
        if len({each.is_on for each in versions.values()}) == 1:
            return frozenset({versions[version].is_on})
        in_order = sorted(versions)
        replaced_ms = {before: versions[after].at_ms for before, after in pairwise(in_order)}
        return frozenset(
            versions[each].is_on for each in in_order if each >= version or replaced_ms[each] > at_ms - MET_MS
        )
