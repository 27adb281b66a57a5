"""
The topics, as data in one place, and their creation.

`TOPICS` is the list that `docs/topics.md` describes and `ensure` creates. Partition counts of `events`,
`fan-out`, `deliveries` and `delivery-results` are chosen once: changing them would move keys.
"""

import asyncio
import time
from collections.abc import Mapping
from dataclasses import KW_ONLY, dataclass
from typing import Any, Final, Literal

import structlog
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from aiokafka.errors import InvalidReplicationFactorError, KafkaError, NoError, TopicAlreadyExistsError, for_code

from streams import installation, schema_topic
from streams.connection import Connection

log = structlog.get_logger(__name__)

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
    #: Which of the two counts of `Partitions` it has, or one partition, or one a jitter slot.
    partitioned_by: Literal["app", "integration", "one", "slot"]
    #: Size of a segment where that matters: only what is not in the newest one is compacted.
    segment_bytes: int | None = None
    _: KW_ONLY
    #: What it is about, for people.
    what: str
    #: Names of the schemas of its values, the one that it is for first.
    values: tuple[str, ...]
    #: Record headers, name and meaning.
    headers: tuple[tuple[str, str], ...] = ()
    #: When a record without a value comes; None: never.
    tombstone: str | None = None
    #: Of no use to anybody but us, and free to change.
    is_internal: bool = False


@dataclass(frozen=True, slots=True)
class Partitions:
    """Partition counts, chosen once for an installation."""

    #: Of `events` and `fan-out`.
    by_app: int = 8
    #: Of `deliveries` and `delivery-results`: one count, so that a delivery and its results share a number.
    by_integration: int = 16


#: Kafka's least. Of topics that are written to all the time and read from the beginning at a start or a takeover: with
#: the default of 1 GiB a takeover would read days of rows that have been replaced long since.
SMALL_SEGMENT_BYTES: Final = 1_048_576

#: Record header of what was in quarantine and was put back: `streams.quarantine.was_put_back`.
PUT_BACK_HEADER: Final = "tenterhook-quarantine"
_PUT_BACK: Final = (PUT_BACK_HEADER, "Of one that was put back from quarantine: its offset there.")
#: Record headers that `tenterhook mend` writes: `streams.mending`.
MOVED_HEADER: Final = "tenterhook-moved-from"
FILLER_HEADER: Final = "tenterhook-filler"
#: On topics that groups commit and that are not compacted.
_MENDED: Final = (
    (MOVED_HEADER, "Of one that `tenterhook mend` has moved: its offset before."),
    (FILLER_HEADER, "Of one without key and value: it fills an offset until `tenterhook mend` deletes it."),
)
#: On records of what is traced. See `streams.trace_context`.
_OF_A_TRACE: Final = (
    ("traceparent", "W3C trace context of what caused the record, where that is traced."),
    ("tracestate", "Beside it, as the sender of the event gave it."),
)

EVENTS: Final = Topic(
    "events",
    "app",
    "delete",
    7 * DAY_MS,
    "app",
    what="accepted events, the log of record",
    values=("event",),
    headers=(_PUT_BACK, *_OF_A_TRACE, *_MENDED),
)
FAN_OUT: Final = Topic(
    "fan-out",
    "app",
    "delete",
    30 * DAY_MS,
    "app",
    what="who an event was fanned out to, under which configuration, or whose repeat it is; the first one by offset "
    "counts",
    values=("fan_out_receipt", "marker"),
)
DELIVERIES: Final = Topic(
    "deliveries",
    "integration",
    "delete",
    7 * DAY_MS,
    "integration",
    what="one event for one integration",
    values=("delivery", "marker"),
    headers=(
        (
            "tenterhook-retry",
            "Of one that was put back for its next attempt: line/partition/offset/generation of what waited.",
        ),
        _PUT_BACK,
        *_OF_A_TRACE,
        *_MENDED,
    ),
)
RESULTS: Final = Topic(
    "delivery-results",
    "integration",
    "delete",
    30 * DAY_MS,
    "integration",
    what="every attempt and every outcome",
    values=("result", "hand_over", "marker"),
    headers=(*_OF_A_TRACE, *_MENDED),
)
INTEGRATION_CONFIG: Final = Topic(
    "integration-config",
    "integration",
    "compact",
    None,
    "one",
    what="configuration, secrets as ciphertext",
    values=("integration_config",),
    tombstone="where the integration was deleted",
)
INTEGRATION_STATE: Final = Topic(
    "integration-state",
    "integration",
    "compact",
    None,
    "one",
    SMALL_SEGMENT_BYTES,
    what="breaker and health",
    values=("integration_state",),
    tombstone="where the integration was deleted",
)
APP_CONFIG: Final = Topic(
    "app-config",
    "app",
    "compact",
    None,
    "one",
    what="keys and tokens (hashed), origins, catalogue, data keys (sealed); the record under key * holds tokens of the "
    "whole installation",
    values=("app_config",),
)
AUDIT: Final = Topic("audit", "app", "delete", 400 * DAY_MS, "one", what="who did what", values=("audit_record",))
QUARANTINE: Final = Topic(
    "quarantine",
    "none",
    "delete",
    30 * DAY_MS,
    "one",
    what="records no code could read or finish, as they were, with the reason",
    values=("quarantined", "put_back"),
)

#: Jitter of a retry is a slot: slot s of a retry topic waits exactly so many tenths of the topic's delay. With a random
#: due time a record, each would wait for the latest one before it (docs/why/delay-lines.md).
SLOT_TENTHS: Final = (8, 9, 10, 11, 12)

#: Delays of the retry topics in seconds: four times apart, so that the two profiles' waits are one of them.
RETRY_DELAYS_S: Final = (1, 5, 20, 80, 320, 1_280, 5_120, 20_480)

RETRIES: Final = tuple(
    # A week more than the delay: what waits must outlive an outage of everybody who reads it.
    Topic(
        f"retry.{delay_s}s",
        "slot",
        "delete",
        7 * DAY_MS + delay_s * 1_000,
        "slot",
        what=f"waits for its next attempt, {delay_s} s times 0.8, 0.9, 1.0, 1.1 or 1.2 by partition",
        values=("delivery",),
        headers=(_PUT_BACK, *_OF_A_TRACE, *_MENDED),
    )
    for delay_s in RETRY_DELAYS_S
)

#: Ids that clients supplied, and who won them: see `services.dispatcher.event_ids`. Internal. An event may be fanned
#: out 7 days late, and repeat an id of the day before it.
EVENT_IDS: Final = Topic(
    "event-ids",
    "none",
    "delete",
    9 * DAY_MS,
    "app",
    what="ids that clients supplied and the records that won them, packed, in the partition of the events",
    values=("won_ids", "marker"),
    is_internal=True,
)

#: What the topics were when the installation began: see `streams.installation`. Internal.
INSTALLATION: Final = Topic(
    "installation",
    "constant",
    "compact",
    None,
    "one",
    what="ids and partition counts of the topics that nothing can be made of again, as they were at the first start",
    values=("installation",),
    is_internal=True,
)

#: The schemas of all releases that have run here: see `streams.schema_topic`. Internal.
SCHEMAS: Final = Topic(
    "schemas",
    "schema",
    "compact",
    None,
    "one",
    what="the released schemas, so that an older release reads what a newer one writes",
    values=("shared_schema",),
    is_internal=True,
)

#: How far the integrations are whose deliveries wait on the log: see `services.dispatcher.rows`. Internal.
LANE_ROWS: Final = Topic(
    "lane-rows",
    "integration/generation",
    "compact",
    None,
    "integration",
    SMALL_SEGMENT_BYTES,
    what="how far an integration is whose deliveries wait on the log",
    values=("lane_row", "marker"),
    tombstone="where none wait any more, or another owner has written the row as its own",
    is_internal=True,
)

#: Changes of the configuration that API processes ask for, and what became of them: see `services.admin.owner`. One
#: partition, as `integration-config` has: one owner at a time. Nobody waits for either for longer than some seconds.
#: Internal.
COMMANDS: Final = Topic(
    "commands",
    "app",
    "delete",
    DAY_MS,
    "one",
    what="a change of the configuration that an API process asks its owner for",
    values=("command",),
    headers=_MENDED,
    is_internal=True,
)
COMMAND_REPLIES: Final = Topic(
    "command-replies",
    "process",
    "delete",
    DAY_MS,
    "one",
    what="what became of a command",
    values=("command_reply",),
    is_internal=True,
)

#: Every version of every integration, as it was written: what history, diff and roll back read. Internal.
CONFIG_HISTORY: Final = Topic(
    "config-history",
    "integration",
    "delete",
    400 * DAY_MS,
    "one",
    what="every version of every integration as it was written, secrets as ciphertext",
    values=("integration_config",),
    tombstone="where the integration was deleted",
    is_internal=True,
)

#: Replays: what was asked for, and how far each is; see `streams.replays`. One partition: one worker carries them out.
#: Internal.
REPLAYS: Final = Topic(
    "replays",
    "replay/generation",
    "compact",
    None,
    "one",
    SMALL_SEGMENT_BYTES,
    what="what was asked for, under the replay's id alone, and how far it is",
    values=("replay",),
    tombstone="where the replay has long ended, or another owner has written the row as its own",
    is_internal=True,
)

#: The breaker's table, as Faust names it: `<group>-<table>-changelog`. See `services.breaker`. Internal.
BREAKER_ROWS: Final = Topic(
    "breaker-rows-changelog",
    "integration",
    "compact",
    None,
    "integration",
    SMALL_SEGMENT_BYTES,
    what="the breaker's table, one row an integration",
    values=("breaker_row",),
    tombstone="where the integration was deleted",
    is_internal=True,
)

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
    EVENT_IDS,
    INSTALLATION,
    SCHEMAS,
    LANE_ROWS,
    BREAKER_ROWS,
    COMMANDS,
    COMMAND_REPLIES,
    CONFIG_HISTORY,
    REPLAYS,
    *RETRIES,
)


#: What is made again of other topics when it was deleted, or that nobody waits for: the breaker makes states of its
#: rows, and rows of results (docs/breaker.md tells to delete both), each process adds its schemas, and who asked for a
#: change is told that there is no answer. `installation` is deleted to accept a loss. Others hold what is lost then.
MADE_AGAIN: Final = frozenset({INTEGRATION_STATE, BREAKER_ROWS, SCHEMAS, COMMANDS, COMMAND_REPLIES, INSTALLATION})
KEPT: Final = tuple(topic for topic in TOPICS if topic not in MADE_AGAIN)


def partition_count(topic: Topic, partitions: Partitions) -> int:
    """How many partitions the topic has in an installation with these counts."""
    counts = {"app": partitions.by_app, "integration": partitions.by_integration, "one": 1, "slot": len(SLOT_TENTHS)}
    return counts[topic.partitioned_by]


#: A batch of records, at most. A payload of 64 KiB stands in a Delivery with some hundred bytes around it; the rest
#: is room for producers to batch, and for `quarantine` to hold what others wrote. Kafka's default is 1 MiB.
MAX_MESSAGE_BYTES: Final = 4_194_304

#: On so many brokers a topic has three replicas, and a record is acknowledged when two have it.
_REPLICATED: Final = 3

#: How long new topics may take to appear, and a broker that has just started to accept them.
_CREATE_S: Final = 30.0
_PAUSE_S: Final = 0.05
#: A node of three that is away is asked four times in a row once in 81 starts.
_TRIES: Final = 4


class TopicMismatch(Exception):
    """The topics there are not as these settings want them, or cannot be made so. Says what differs and what to do."""

    code = "topic.mismatch"
    when = (
        "the topics are not as the settings want them, or not those that this installation began with, or `schemas` "
        "has another schema under an id of this release"
    )
    remedy = "what the message says of each topic that differs"

    def __init__(self, reason: str) -> None:
        super().__init__(f"{self.code}: {reason}")


def configs(topic: Topic, replicas: int) -> dict[str, str]:
    """The topic's own settings on the broker, by Kafka's names."""
    common = {
        "cleanup.policy": topic.cleanup,
        "max.message.bytes": str(MAX_MESSAGE_BYTES),
        "min.insync.replicas": "2" if replicas >= _REPLICATED else "1",
        "unclean.leader.election.enable": "false",
    }
    if topic.retention_ms is None:
        # Small topics, read from the beginning at every start: compact early, and let a segment end so that it can be.
        segments = {} if topic.segment_bytes is None else {"segment.bytes": str(topic.segment_bytes)}
        return common | segments | {"min.cleanable.dirty.ratio": "0.1", "segment.ms": str(DAY_MS // 4)}
    return common | {"retention.ms": str(topic.retention_ms), "retention.bytes": "-1"}


async def ensure(connection: Connection, partitions: Partitions, *, replication: int = 0) -> None:
    """
    Make the topics that are missing, and compare the others. Idempotent, also for several processes at once.

    Returns when the broker shows them all with a leader for every partition, and has the schemas of this release:
    whoever is about to write calls this first.

    Args:
        replication: replicas; 0 takes three where there are three brokers or more, else one.

    Raises:
        TopicMismatch: one is there and differs, or the broker refuses to make it.
        KafkaError: the broker went away, and has not come back within half a minute.
    """
    until = time.monotonic() + _CREATE_S
    while True:
        try:
            differs = await _ensure_once(connection, partitions, replication)
        except KafkaError as error:  # one of three is away, and the admin client asked that one
            if not error.retriable or time.monotonic() > until:
                raise
            await asyncio.sleep(_PAUSE_S)
        else:
            break
    if differs:
        raise TopicMismatch("; ".join(differs))


async def examine(
    connection: Connection, partitions: Partitions, *, replication: int = 0
) -> tuple[list[str], list[str]]:
    """
    Names of the topics that are missing, and what differs of the others, a sentence each. Makes and changes nothing.

    Raises:
        KafkaError: the broker went away.
    """
    admin = AIOKafkaAdminClient(**connection.client_options)
    try:
        await admin.start()
        brokers = len((await admin.describe_cluster())["brokers"])
        replicas = replication or (_REPLICATED if brokers >= _REPLICATED else 1)
        wanted = {connection.topic(topic): topic for topic in TOPICS}
        shown = await _shown(admin, wanted)
        there = {name: topic for name, topic in wanted.items() if name in shown}
        differs = _differences(shown, there, partitions, replicas)
        differs += await _config_differences(admin, there, replicas) if there else []
        return [name for name in wanted if name not in shown], differs
    finally:
        await admin.close()


async def _ensure_once(connection: Connection, partitions: Partitions, replication: int) -> list[str]:
    """Make what is missing; what differs from what is wanted, a sentence each."""
    admin = AIOKafkaAdminClient(**connection.client_options)
    try:
        await admin.start()
        brokers = len((await admin.describe_cluster())["brokers"])
        replicas = replication or (_REPLICATED if brokers >= _REPLICATED else 1)
        wanted = {connection.topic(topic): topic for topic in TOPICS}
        shown = await _create_missing(admin, wanted, partitions, replicas)
        found = _differences(shown, wanted, partitions, replicas) + await _config_differences(admin, wanted, replicas)
        kept = {connection.topic(topic): partition_count(topic, partitions) for topic in KEPT}
        # Nothing is recorded that has to be changed.
        found = found or await schema_topic.share(connection, connection.topic(SCHEMAS))
        return found or await installation.differences(connection, connection.topic(INSTALLATION), kept)
    finally:
        await admin.close()


async def _create_missing(
    admin: AIOKafkaAdminClient, wanted: Mapping[str, Topic], partitions: Partitions, replicas: int
) -> dict[str, dict[str, Any]]:
    """The wanted topics as the broker shows them, when it shows all. aiokafka's admin raises no error of a reply."""
    until = time.monotonic() + _CREATE_S
    while True:
        shown = await _shown(admin, wanted)
        missing = [name for name in wanted if name not in shown]
        if not missing and all(_has_leaders(topic) for topic in shown.values()):
            return shown
        refused = await _create(admin, {name: wanted[name] for name in missing}, partitions, replicas)
        if time.monotonic() > until:
            what = ", ".join(refused or missing or sorted(shown))
            raise TopicMismatch(
                f"not ready within {_CREATE_S:.0f} s: {what}. Look at the brokers: are all up, and do they log errors?"
            )
        await asyncio.sleep(_PAUSE_S)


async def _create(
    admin: AIOKafkaAdminClient, missing: Mapping[str, Topic], partitions: Partitions, replicas: int
) -> list[str]:
    """Ask for these topics. What was refused and may go through when asked again: name and reason."""
    if not missing:
        return []
    answer = await admin.create_topics(
        [
            NewTopic(name, partition_count(topic, partitions), replicas, topic_configs=configs(topic, replicas))
            for name, topic in missing.items()
        ]
    )
    again = []
    for name, number, *message in answer.topic_errors:
        error = for_code(number)
        if error in {NoError, TopicAlreadyExistsError}:  # another process was faster
            continue
        reason = f"{name} ({error.__name__}: {message[0] if message else ''})"
        # Brokers of a cluster that starts come one after another.
        if not error.retriable and error is not InvalidReplicationFactorError:
            raise TopicMismatch(f"the broker refuses to make topic {reason}. Make it by hand, or allow it there.")
        again.append(reason)
    return again


async def _shown(admin: AIOKafkaAdminClient, wanted: Mapping[str, Topic]) -> dict[str, dict[str, Any]]:
    """Of all topics, since asking for one by name would make it on a broker that makes topics by itself."""
    return {topic["topic"]: topic for topic in await admin.describe_topics() if topic["topic"] in wanted}


def _has_leaders(topic: Mapping[str, Any]) -> bool:
    return bool(topic["partitions"]) and all(partition["leader"] >= 0 for partition in topic["partitions"])


def _differences(
    shown: Mapping[str, Mapping[str, Any]], wanted: Mapping[str, Topic], partitions: Partitions, replicas: int
) -> list[str]:
    """What the broker shows otherwise than wanted, a sentence each."""
    found = []
    for name, topic in wanted.items():
        count, want = len(shown[name]["partitions"]), partition_count(topic, partitions)
        if count != want:
            setting = f"set TENTERHOOK_PARTITIONS__BY_{topic.partitioned_by.upper()}={count}, or use another "
            remedy = "use another " if topic.partitioned_by in ("one", "slot") else setting
            found.append(
                f"topic {name} has {count} partitions, and these settings want {want}. The count is chosen once, since "
                f"changing it moves keys: {remedy}TENTERHOOK_TOPIC_PREFIX"
            )
        fewest = min(len(set(partition["replicas"])) for partition in shown[name]["partitions"])
        if replicas > 1 and fewest < replicas:
            found.append(
                f"topic {name} has {fewest} replicas, and these settings want {replicas}. Reassign its partitions, or "
                f"set TENTERHOOK_REPLICATION={fewest} to accept that one broker's disk holds the only copy"
            )
    return found


async def _config_differences(admin: AIOKafkaAdminClient, wanted: Mapping[str, Topic], replicas: int) -> list[str]:
    """
    As `_differences`, of the topics' own settings. What the broker does not tell is not compared: the embedded one
    knows only what it was given, and some clusters hide it.
    """
    told = await _told_configs(admin, list(wanted))
    return [
        f"topic {name} has {key}={has}, and must have {want}: set it there (kafka-configs.sh --alter --entity-type "
        f"topics --entity-name {name} --add-config {key}={want})"
        for name, topic in wanted.items()
        for key, want in configs(topic, replicas).items()
        if (has := told.get(name, {}).get(key)) is not None and not _is_enough(key, has, want)
    ]


async def _told_configs(admin: AIOKafkaAdminClient, names: list[str]) -> dict[str, dict[str, Any]]:
    """The topics' settings by topic and key, as far as the broker tells them."""
    for _ in range(_TRIES):
        try:
            answers = await admin.describe_configs([ConfigResource(ConfigResourceType.TOPIC, name) for name in names])
            return {
                resource[3]: {entry[0]: entry[1] for entry in resource[4]}
                for answer in answers
                for resource in answer.resources
                if for_code(resource[0]) is NoError
            }
        except (KafkaError, LookupError, TypeError, AttributeError) as error:
            log.warning("topics.settings_not_told", reason=repr(error))
            await asyncio.sleep(_PAUSE_S)
    return {}


def _is_enough(key: str, has: str, want: str) -> bool:
    """Whether the promises hold with the value that is there; more retention, room or safety does no harm."""
    match key:
        case "retention.ms" | "retention.bytes":
            return has == "-1" or (want != "-1" and int(has) >= int(want))
        case "max.message.bytes" | "min.insync.replicas":
            return int(has) >= int(want)
        case "cleanup.policy" | "unclean.leader.election.enable":
            return has == want
    return True
