"""
What each service has to be allowed at a broker that asks (Kafka's ACLs), as data: that, and no more.

`deploy/strimzi.py` makes users of it. `tests/integration/test_secured_kafka.py` runs every service with its own.
Whoever gets hold of a dispatcher's password can read all deliveries and forge some, but no event, and no configuration.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Literal

from streams import topics
from streams.topics import Topic

Kind = Literal["topic", "group", "transactional_id"]
Operation = Literal["Read", "Write", "Delete", "Describe", "DescribeConfigs"]


@dataclass(frozen=True, slots=True)
class Grant:
    """Some operations on one resource, or on all whose names begin so."""

    kind: Kind
    #: Without the installation's prefix.
    name: str
    operations: tuple[Operation, ...]
    is_prefix: bool = False


def _on(operations: tuple[Operation, ...], *names: Topic) -> tuple[Grant, ...]:
    return tuple(Grant("topic", each.name, operations) for each in names)


#: At its start each service looks at all topics, and at what they were when the installation began, which it records
#: where it is the first; and it adds the schemas of its release to those that are there. None may make a topic: under
#: ACLs they are made before (`deploy/kubernetes/strimzi`).
_EVERYONE: Final = (
    Grant("topic", "", ("Describe", "DescribeConfigs"), is_prefix=True),
    *_on(("Read", "Write"), topics.INSTALLATION, topics.SCHEMAS),
)

#: What the commands that read the log need: `trace`, `reconcile`, `doctor`, `backup`, ….
_READING: Final = (
    Grant("topic", "", ("Describe", "DescribeConfigs", "Read"), is_prefix=True),
    Grant("group", "", ("Describe",), is_prefix=True),
)

#: By the name of the service. Two are people: `operator` runs the commands that read the log, `maintainer` also those
#: that write to it by themselves (`quarantine put-back`, `mend`, `restore`, `tokens first`).
GRANTS: Final[Mapping[str, tuple[Grant, ...]]] = {
    "ingest": (
        *_EVERYONE,
        *_on(("Write",), topics.EVENTS),
        *_on(("Read",), topics.APP_CONFIG),
    ),
    "dispatcher": (
        *_EVERYONE,
        *_on(("Read",), topics.EVENTS, topics.INTEGRATION_CONFIG, topics.INTEGRATION_STATE, topics.APP_CONFIG),
        *_on(
            ("Read", "Write"),
            *(topics.FAN_OUT, topics.DELIVERIES, topics.RESULTS, topics.EVENT_IDS, topics.LANE_ROWS, topics.REPLAYS),
            *topics.RETRIES,
        ),
        *_on(("Write",), topics.QUARANTINE),
        Grant("group", "dispatcher", ("Read",)),
    ),
    "breaker": (
        *_EVERYONE,
        *_on(("Read",), topics.RESULTS, topics.INTEGRATION_CONFIG),
        *_on(("Read", "Write"), topics.INTEGRATION_STATE, topics.BREAKER_ROWS),
        # Of its own it announces `integration_paused` and the like.
        *_on(("Write",), topics.EVENTS, topics.QUARANTINE),
        Grant("group", "breaker", ("Read",)),
    ),
    "admin": (
        *_EVERYONE,
        *_on(("Read",), topics.RESULTS, topics.INTEGRATION_STATE, topics.LANE_ROWS),
        # A dry run of a replay reads what there was.
        *_on(("Read",), topics.FAN_OUT),
        *_on(
            ("Read", "Write"),
            *(topics.INTEGRATION_CONFIG, topics.APP_CONFIG, topics.CONFIG_HISTORY, topics.AUDIT, topics.REPLAYS),
            *(topics.COMMANDS, topics.COMMAND_REPLIES),
            # What is sent again, and sample events.
            *(topics.DELIVERIES, topics.EVENTS),
        ),
        *_on(("Write",), topics.QUARANTINE),
        Grant("group", "admin", ("Read",)),
        Grant("transactional_id", "admin", ("Describe", "Write")),
    ),
    "operator": _READING,
    "maintainer": (
        *_READING,
        # What groups read, `mend` writes again, and deletes what stood before. Kafka has no smaller right than the one
        # to delete the topic too. `put-back` appends to the first ten, `tokens first` to the last.
        *_on(("Write", "Delete"), topics.EVENTS, topics.DELIVERIES, *topics.RETRIES, topics.RESULTS, topics.COMMANDS),
        *_on(("Write",), topics.QUARANTINE),
        # `restore`, which is the first to come to a new installation.
        *_on(("Write",), topics.AUDIT, topics.CONFIG_HISTORY, topics.APP_CONFIG, topics.INTEGRATION_CONFIG),
        *_on(("Write",), topics.INSTALLATION, topics.SCHEMAS),
        Grant("transactional_id", "restore", ("Describe", "Write")),
        # `mend` commits for them, that a partition is not whole.
        *(Grant("group", name, ("Read",)) for name in ("dispatcher", "breaker", "admin")),
    ),
}
