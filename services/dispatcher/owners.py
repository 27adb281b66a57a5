"""
Who owned the sources of `deliveries` last, as far as a place on it: the newest generation of each whose marker stands
below.

Pure. A rebalance marks all sources with the same generation, so two numbers say it as a rule. Between the first of
those markers and the last they do not: what a frozen owner of a source appends then is told from its successor's only
by the generation of that very source.
"""

from collections.abc import Mapping
from typing import Final, NamedTuple

#: Sources that are named, at most: it has to go into the metadata of a commit, of which Kafka keeps 4,096 bytes.
_MOST_NAMED: Final = 300


class Owners(NamedTuple):
    """Generations below a place. A source's name is `e` and its partition, or its retry topic `/` and its slot."""

    #: The least of those of the partitions of `events`, and of the retry topics and replays.
    events: int = 0
    retries: int = 0
    #: Sources whose owner is a newer one, by name.
    newer: Mapping[str, int] = {}

    @classmethod
    def of(cls, events: Mapping[str, int], retries: Mapping[str, int]) -> "Owners":
        """Of all sources, by name."""
        least = min(events.values(), default=0), min(retries.values(), default=0)
        newer = {name: number for name, number in events.items() if number > least[0]}
        newer |= {name: number for name, number in retries.items() if number > least[1]}
        return cls(*least, dict(list(newer.items())[:_MOST_NAMED]))

    @classmethod
    def read(cls, events: int, retries: int, newer: str) -> "Owners":
        """
        As stored; *newer* as `named` writes it.

        Raises:
            ValueError: that is no such text.
        """
        pairs = [each.rpartition("=") for each in newer.split(",") if each]
        return cls(events, retries, {name: int(number) for name, _, number in pairs})

    def named(self) -> str:
        """The newer ones as text, to be stored; empty as a rule."""
        return ",".join(f"{name}={number}" for name, number in self.newer.items())

    def event_owner(self, name: str) -> int:
        """Of that partition of `events`."""
        return self.newer.get(name, self.events)

    def retry_owner(self, name: str) -> int:
        """Of that slot of a retry topic, or of replays."""
        return self.newer.get(name, self.retries)


class Before(NamedTuple):
    """Where a reading of `deliveries` begins, and the owners whose markers stand below: all others are read."""

    offset: int = 0
    owners: Owners = Owners()
