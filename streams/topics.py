"""
The topics, as data in one place, and their creation.

`TOPICS` is the list that `docs/topics.md` describes and `ensure` creates. Partition counts of `events`,
`fan-out`, `deliveries` and `delivery-results` are chosen once: changing them would move keys.
"""

from dataclasses import dataclass
from typing import Final, Literal

DAY_MS: Final = 86_400_000

Cleanup = Literal["delete", "compact"]


@dataclass(frozen=True, slots=True)
class Topic:
    """One topic: name without prefix, what its key is, and how long its records stay."""

    name: str
    key: str
    cleanup: Cleanup
    #: None: for ever (compacted topics).
    retention_ms: int | None
    #: Which of the two counts of `Partitions` it has, or exactly one partition.
    partitioned_by: Literal["app", "integration", "one"]


@dataclass(frozen=True, slots=True)
class Partitions:
    """Partition counts, chosen once for an installation."""

    #: Of `events` and `fan-out`.
    by_app: int = 8
    #: Of `deliveries` and `delivery-results`: one count, so that a delivery and its results share a number.
    by_integration: int = 16


EVENTS: Final = Topic("events", "app", "delete", 7 * DAY_MS, "app")
FAN_OUT: Final = Topic("fan-out", "app", "delete", 30 * DAY_MS, "app")
DELIVERIES: Final = Topic("deliveries", "integration", "delete", 7 * DAY_MS, "integration")
RESULTS: Final = Topic("delivery-results", "integration", "delete", 30 * DAY_MS, "integration")
INTEGRATION_CONFIG: Final = Topic("integration-config", "integration", "compact", None, "one")
INTEGRATION_STATE: Final = Topic("integration-state", "integration", "compact", None, "one")
APP_CONFIG: Final = Topic("app-config", "app", "compact", None, "one")
AUDIT: Final = Topic("audit", "app", "delete", 400 * DAY_MS, "one")
QUARANTINE: Final = Topic("quarantine", "none", "delete", 30 * DAY_MS, "one")

TOPICS: Final = (
    EVENTS,
    FAN_OUT,
    DELIVERIES,
    RESULTS,
    INTEGRATION_CONFIG,
    INTEGRATION_STATE,
    APP_CONFIG,
    AUDIT,
    QUARANTINE,
)


def partition_count(topic: Topic, partitions: Partitions) -> int:
    """How many partitions the topic has in an installation with these counts."""
    return {"app": partitions.by_app, "integration": partitions.by_integration, "one": 1}[topic.partitioned_by]
