"""Where a command finds the log, and what it reads of it: everything between two offsets, never as part of a group."""

import asyncio
import sys
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Final, TypeVar

from aiokafka import AIOKafkaConsumer, ConsumerRecord, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import KafkaError
from cyclopts import Parameter
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from services.cli.access import READY_FILE, running_up
from services.cli.errors import Failed, WrongUsage
from services.runtime.connection import security_of
from services.runtime.logs import configure_command_logs
from services.runtime.process import load_settings
from services.runtime.registry import use_schema_registry
from services.runtime.serving import StartupError
from services.runtime.times import read_ms
from streams import schema_topic, takeover
from streams.connection import BrokerAway, Connection, brokers_at
from streams.features import features_of
from streams.reading import committed_offsets, look_at, stop
from streams.security import SecurityUnusable
from streams.topics import SCHEMAS, Topic

T = TypeVar("T")

#: First offset, and the one behind the last record.
Spans = dict[TopicPartition, tuple[int, int]]

#: A broker answers within milliseconds; the election of a new leader takes some seconds.
_PATIENCE_S: Final = 15.0
_FETCH_MS: Final = 200
#: A commit shows within milliseconds. Longer than a transaction that an admin process died over stays open: 10 s, and
#: as much until the broker looks.
_COMMITTED_S: Final = 30.0
_LOOK_S: Final = 0.05


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class LogOptions:
    """Options of every command that reads the log."""

    broker: Annotated[
        str | None,
        Parameter(env_var="TENTERHOOK_BROKER", help="HOST:PORT,... of the log; else that of `up`, else the setting."),
    ] = None
    topic_prefix: Annotated[
        str | None, Parameter(env_var="TENTERHOOK_TOPIC_PREFIX", help="Before every topic's name; else the setting.")
    ] = None


def log_connection(options: LogOptions, ready_file: Path = READY_FILE) -> Connection:
    """
    The log that a command reads.

    Raises:
        Failed: the settings or the ready file cannot be read, or the schema registry does not answer.
    """
    configure_command_logs()
    try:
        settings = load_settings()
        use_schema_registry(settings)
        security = security_of(settings.kafka)
    except (StartupError, SecurityUnusable) as error:
        raise Failed(str(error)) from None
    broker = options.broker or running_up(ready_file).get("broker") or settings.broker
    prefix = options.topic_prefix or settings.topic_prefix
    connection = Connection(str(broker), prefix, settings.idempotence, security)
    schema_topic.use(connection, connection.topic(SCHEMAS))
    return connection


def ask_log(connection: Connection, work: Coroutine[Any, Any, T]) -> T:
    """
    Run what asks the log.

    Raises:
        Failed: the broker does not answer, or refuses.
    """

    async def answered() -> T:
        try:
            await brokers_at(connection)
        except BrokerAway as away:
            work.close()
            remedy = "Start it, or correct --broker" if type(away) is BrokerAway else away.remedy
            raise Failed(f"no broker at {connection.bootstrap}: {away}. {remedy}") from None
        return await work

    try:
        return asyncio.run(answered())
    except (KafkaError, TimeoutError, OSError) as error:
        raise Failed(f"the broker at {connection.bootstrap} could not be read ({error!r}): look at its log") from None


def time_ms(given: str, option: str) -> int:
    """
    A time in ISO 8601 with its zone, milliseconds since 1970 UTC.

    Raises:
        WrongUsage: it is none.
    """
    at_ms = read_ms(given)
    if at_ms is None:
        raise WrongUsage(f"{option} takes a time in ISO 8601 with its zone, for example 2026-01-02T03:04:05Z")
    return at_ms


@asynccontextmanager
async def reading(
    connection: Connection, *, isolation: str = "read_uncommitted"
) -> AsyncIterator["AIOKafkaConsumer[Any, Any]"]:
    """A consumer without a group. *isolation*: `Features.isolation` for topics that are written in transactions."""
    consumer: AIOKafkaConsumer[Any, Any] = AIOKafkaConsumer(
        **connection.client_options,
        enable_auto_commit=False,
        auto_offset_reset="earliest",
        isolation_level=isolation,
    )
    try:
        async with asyncio.timeout(_PATIENCE_S):
            await consumer.start()
        yield consumer
    finally:
        await stop(consumer)


async def partitions_of(connection: Connection, *topics: Topic) -> dict[Topic, list[TopicPartition]]:
    """
    All partitions of these topics, in order.

    Raises:
        Failed: a topic is not there.
    """
    names = {connection.topic(topic): topic for topic in topics}
    admin = AIOKafkaAdminClient(**connection.client_options)
    try:
        await admin.start()
        # Of all topics: asking for one by name makes it on a broker that makes topics by itself.
        shown = {each["topic"]: each["partitions"] for each in await admin.describe_topics()}
    finally:
        await admin.close()
    missing = [name for name in names if not shown.get(name)]
    if missing:
        raise Failed(
            f"there is no topic {missing[0]} at {connection.bootstrap}: correct --broker or --topic-prefix, or start "
            "the services once"
        )
    return {
        topic: [TopicPartition(name, number) for number in sorted(each["partition"] for each in shown[name])]
        for name, topic in names.items()
    }


async def spans_of(
    consumer: "AIOKafkaConsumer[Any, Any]", connection: Connection, partitions: Iterable[TopicPartition]
) -> Spans:
    """Where each begins and ends now."""
    wanted = list(partitions)
    look_at(consumer, wanted)
    async with asyncio.timeout(_PATIENCE_S):
        beginnings = await consumer.beginning_offsets(wanted)
        ends = await consumer.end_offsets(wanted)
        if not (await features_of(connection)).exact_ends:
            ends |= await _behind_last_batches(consumer, {each: end for each, end in ends.items() if end > 0})
    return {each: (beginnings[each], ends[each]) for each in wanted}


async def _behind_last_batches(
    consumer: "AIOKafkaConsumer[Any, Any]", ends: Mapping[TopicPartition, int]
) -> dict[TopicPartition, int]:
    """True ends, by reading each last batch, which begins one before the end that was told: `Features.exact_ends`."""
    if not ends:
        return {}
    consumer.assign(list(ends))
    for partition, end in ends.items():
        consumer.seek(partition, end - 1)
    found: dict[TopicPartition, int] = {}
    while len(found) < len(ends):
        for partition, records in (await consumer.getmany(timeout_ms=_FETCH_MS)).items():
            found[partition] = max(found.get(partition, 0), records[-1].offset + 1)
    # What one fetch brought may come in two portions.
    for partition, records in (await consumer.getmany(timeout_ms=0)).items():
        found[partition] = records[-1].offset + 1
    consumer.unsubscribe()
    return found


async def until_committed(connection: Connection, *topics: Topic) -> None:
    """
    Wait until those who read what is committed can read all that is written to these topics now.

    A commit is acknowledged first, and becomes visible in one partition after the other.

    Raises:
        TimeoutError: a transaction on them is open still.
    """
    features = await features_of(connection)
    if not features.transactions:
        return
    partitions = [each for of_topic in (await partitions_of(connection, *topics)).values() for each in of_topic]
    async with reading(connection) as all_, reading(connection, isolation=features.isolation) as committed:
        written = await spans_of(all_, connection, partitions)
        async with asyncio.timeout(_COMMITTED_S):
            while True:
                shown = await spans_of(committed, connection, partitions)
                if all(shown[each][1] >= end for each, (_, end) in written.items()):
                    return
                await asyncio.sleep(_LOOK_S)


async def committed_by_dispatchers(
    connection: Connection, partitions: Iterable[TopicPartition]
) -> dict[TopicPartition, int]:
    """Below which offset the dispatchers have finished all, of those partitions of which they have committed one."""
    # With the group's name, to ask; without subscribing, so that it is no member.
    consumer: AIOKafkaConsumer[Any, Any] = AIOKafkaConsumer(
        **connection.client_options, group_id=f"{connection.prefix}dispatcher", enable_auto_commit=False
    )
    try:
        async with asyncio.timeout(_PATIENCE_S):
            await consumer.start()
            stored = await committed_offsets(consumer, list(partitions))
    finally:
        await stop(consumer)
    return {partition: at.offset for partition, at in stored.items()}


async def starts_at(consumer: "AIOKafkaConsumer[Any, Any]", connection: Connection, spans: Spans, at_ms: int) -> Spans:
    """The part of each span that was written at this time or later; all of it where the broker cannot tell."""
    if not (await features_of(connection)).exact_ends or not spans:
        return spans
    async with asyncio.timeout(_PATIENCE_S):
        found = await consumer.offsets_for_times(dict.fromkeys(spans, at_ms))
    return {each: (end if found[each] is None else found[each].offset, end) for each, (_, end) in spans.items()}


async def read(
    connection: Connection,
    spans: Mapping[TopicPartition, tuple[int, int]],
    see: "Callable[[ConsumerRecord[Any, Any]], None]",
    *,
    isolation: str = "read_uncommitted",
) -> None:
    """Call *see* for every record of each span, each partition in its order; *isolation* as in `reading`."""
    await takeover.read_back(connection, spans, see, isolation=isolation)


@contextmanager
def progress_bar(*, quiet: bool) -> Iterator[Progress]:
    """A bar on stderr, where people watch."""
    console = Console(stderr=True, quiet=quiet or not sys.stderr.isatty())
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True) as progress:
        yield progress
