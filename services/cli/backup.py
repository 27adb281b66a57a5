"""
`tenterhook backup` and `tenterhook restore`: what is configured and who changed it, as one file, and back again.

The file holds the records of three topics as they are, so secrets in it are ciphertext under the installation's KEK,
which is not in it. What an outage of a whole cluster takes besides (events, deliveries, results, what the breaker knew)
is not in it either: see docs/operating.md.

One JSON object a line, gzip: a head, a record a line, and a foot with the number of records and their SHA-256, so that
a file that was cut off or changed is refused.
"""

import asyncio
import base64
import gzip
import hashlib
import json
import os
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Annotated, Any, Final, NamedTuple

import msgspec
from aiokafka import AIOKafkaProducer, ConsumerRecord
from cyclopts import Parameter

from services.cli.errors import Failed
from services.cli.log_access import (
    LogOptions,
    Spans,
    ask_log,
    log_connection,
    partitions_of,
    progress_bar,
    read,
    reading,
    spans_of,
    until_committed,
)
from services.runtime.process import load_settings
from services.runtime.times import iso
from streams import codec, topics
from streams.connection import Connection
from streams.features import features_of
from streams.records import AppConfig, AuditRecord, IntegrationConfig
from streams.topics import APP_CONFIG, AUDIT, CONFIG_HISTORY, INTEGRATION_CONFIG, Partitions, Topic
from streams.views import Apps, Integrations

#: What is kept, in the order in which it is written back.
KEPT: Final = (AUDIT, CONFIG_HISTORY, APP_CONFIG, INTEGRATION_CONFIG)

_KINDS: Final[dict[str, type[AppConfig | AuditRecord | IntegrationConfig]]] = {
    AUDIT.name: AuditRecord,
    CONFIG_HISTORY.name: IntegrationConfig,
    APP_CONFIG.name: AppConfig,
    INTEGRATION_CONFIG.name: IntegrationConfig,
}

FORMAT: Final = 1

#: Topics are read up to a moment in which none of them has grown since the moment before: what a change writes stands
#: in all of them or in none.
_LOOK_S: Final = 0.2
_LOOKS: Final = 50

#: All of a backup is one transaction, which the broker aborts when it lasts longer: as long as Kafka allows unless told
#: otherwise (`transaction.max.timeout.ms`). 60,000 records took 4 s, and 400 days of audit log may be a million.
_WHOLE_MS: Final = 900_000
#: A few records, while services run: should this process die in the midst of it, nobody can change the configuration
#: until the broker has aborted the transaction.
_FEW_MS: Final = 60_000
_AT_ONCE: Final = 500

AsJson = Annotated[bool, Parameter(name="--json", negative=())]
OnlyUnreadable = Annotated[bool, Parameter(name="--unreadable", negative=())]
Say = Callable[[int, int], object]


class Kept(NamedTuple):
    """One record."""

    topic: str
    key: bytes | None
    value: bytes | None
    at_ms: int


def backup(file: Path, *, log: LogOptions | None = None, as_json: AsJson = False) -> None:
    """
    Write the configuration and its audit log to a file: apps, keys (hashed), integrations with their history, secrets.

    Secrets are in it as they are on the log, sealed under the KEK. Keep the KEK elsewhere: without it they are lost.
    Nobody but the user who makes the file can read it.

    Args:
        file: Where to; replaced when it is there.
        log: Which log.
        as_json: Print as JSON how many records of each topic.
    """
    connection = log_connection(log or LogOptions())
    with progress_bar(quiet=as_json) as progress:
        task = progress.add_task("Reading the configuration", total=None)
        records = ask_log(
            connection, _read(connection, lambda done, all_: progress.update(task, completed=done, total=all_))
        )
    made = file.with_name(f"{file.name}.new")
    try:
        made.unlink(missing_ok=True)  # of one that was interrupted; its mode would stay
        descriptor = os.open(made, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600)
        with os.fdopen(descriptor, "wb") as plain, gzip.open(plain, "wt", encoding="ascii") as output:
            output.writelines(f"{line}\n" for line in lines_of(records, at_ms=int(time.time() * 1000)))
        made.replace(file)
    except OSError as error:
        raise Failed(f"{file} cannot be written: {error.strerror}. Name another file") from None
    _tell(records, f"written to {file}", as_json=as_json)


def restore(
    file: Path, *, unreadable: OnlyUnreadable = False, log: LogOptions | None = None, as_json: AsJson = False
) -> None:
    """
    Write a backup's records to an installation that has none of its own yet, before its services are started.

    Args:
        file: What `tenterhook backup` wrote.
        unreadable: While services run: write only the apps and integrations whose newest record cannot be read, each
            as in the newest version that the log or the backup still has.
        log: Which log.
        as_json: Print as JSON how many records of each topic, and how many of all cannot be read by this process.
    """
    try:
        with gzip.open(file, "rt", encoding="ascii") as given:
            records = list(records_of(given))
    except (OSError, EOFError, UnicodeDecodeError, ValueError) as error:
        raise Failed(f"{file} is no whole backup ({error}): take another one") from None
    connection = log_connection(log or LogOptions())
    if unreadable:
        written, left = ask_log(connection, _mend(connection, records))
        _tell(written, "written again", as_json=as_json, unreadable=unreadable_of(written))
        if left:
            raise Failed(
                f"no version that can be read, neither here nor in {file}: {', '.join(left)}. Try an older one"
            )
        return
    records = [for_a_new_log(record) for record in records]
    settings = load_settings()
    partitions = Partitions(settings.partitions.by_app, settings.partitions.by_integration)
    with progress_bar(quiet=as_json) as progress:
        task = progress.add_task("Writing the configuration", total=len(records))
        ask_log(
            connection,
            _write(
                connection, partitions, settings.replication, records, lambda n, _: progress.update(task, completed=n)
            ),
        )
    _tell(records, "restored", as_json=as_json, unreadable=unreadable_of(records))


def lines_of(records: Iterable[Kept], *, at_ms: int) -> Iterator[str]:
    """The file's lines."""
    yield json.dumps({"tenterhook": "backup", "format": FORMAT, "at": iso(at_ms)})
    count, digest = 0, hashlib.sha256()
    for record in records:
        line = json.dumps([record.topic, _text(record.key), _text(record.value), record.at_ms])
        digest.update(line.encode())
        count += 1
        yield line
    yield json.dumps({"records": count, "sha256": digest.hexdigest()})


def records_of(lines: Iterable[str]) -> Iterator[Kept]:
    """
    The records of a file's lines.

    Raises:
        ValueError: it is none, of another format, cut off, or changed; known at the end only.
    """
    rest = iter(lines)
    head = json.loads(next(rest, "null"))
    if not isinstance(head, dict) or head.get("tenterhook") != "backup":
        raise ValueError("it does not begin as one")
    if head.get("format") != FORMAT:
        raise ValueError(f"its format is {head.get('format')}, and this version reads {FORMAT}")
    known, count, digest = {topic.name for topic in KEPT}, 0, hashlib.sha256()
    for line in rest:
        found = json.loads(line)
        if isinstance(found, dict):
            if found != {"records": count, "sha256": digest.hexdigest()}:
                raise ValueError("it was changed")
            return
        topic, key, value, at_ms = found
        if topic not in known:
            raise ValueError(f"it has records of topic {topic}")
        digest.update(line.rstrip("\n").encode())
        count += 1  # noqa: SIM113  # the foot is no record
        yield Kept(topic, _bytes(key), _bytes(value), int(at_ms))
    raise ValueError("its end is missing")


def for_a_new_log(record: Kept) -> Kept:
    """
    The record as it means the same on a log that begins anew.

    What an activation left out is told by an offset of `integration-config`. The new topic counts from 0 again, so that
    the old number would leave out what is still to come; and of what it did leave out nothing is there any more.
    """
    if record.topic != INTEGRATION_CONFIG.name or record.value is None:
        return record
    try:
        config = codec.decode_as(IntegrationConfig, record.value)
    except codec.Unreadable:
        return record  # no service of this release goes by it either
    if config.skip_before == config.from_before == 0:
        return record
    anew = msgspec.structs.replace(config, skip_before=0, from_before=0, from_ms=0)
    return record._replace(value=codec.encode(anew))


def unreadable_of(records: Iterable[Kept]) -> int:
    """How many of these records this process cannot read as what their topic holds."""
    return sum(not _is_readable(record) for record in records)


def _is_readable(record: Kept) -> bool:
    if record.value is None:
        return True  # what it was the configuration of has been deleted
    try:
        codec.decode_as(_KINDS[record.topic], record.value)
    except codec.Unreadable:
        return False
    return True


def _text(given: bytes | None) -> str | None:
    return None if given is None else base64.b64encode(given).decode()


def _bytes(given: str | None) -> bytes | None:
    return None if given is None else base64.b64decode(given, validate=True)


def _tell(records: list[Kept], what: str, *, as_json: bool, unreadable: int | None = None) -> None:
    """*unreadable*: how many of them; None where nobody asks."""
    counts = {topic.name: sum(record.topic == topic.name for record in records) for topic in KEPT}
    if as_json:
        print(json.dumps({"records": counts} | ({} if unreadable is None else {"unreadable": unreadable})))
    else:
        print(f"{len(records):,} records {what}: " + ", ".join(f"{count:,} {name}" for name, count in counts.items()))
    if unreadable:
        print(
            f"{unreadable:,} of them cannot be read by this process, and are written as they were. Where they have ids "
            "of a schema registry, set TENTERHOOK_SCHEMA_REGISTRY_URL to one that has them; where a newer release "
            "wrote them, take that one; then restore into other topics",
            file=sys.stderr,
        )


async def _read(connection: Connection, say: Say) -> list[Kept]:
    features = await features_of(connection)
    spans = await _still(connection)
    names = {connection.topic(topic): topic.name for topic in KEPT}
    total, found = sum(end - start for start, end in spans.values()), list[Kept]()

    def see(record: "ConsumerRecord[Any, Any]") -> None:
        found.append(Kept(names[record.topic], record.key, record.value, record.timestamp))
        if len(found) % _AT_ONCE == 0:
            say(len(found), total)

    await read(connection, spans, see, isolation=features.isolation)
    say(total, total)
    order = {topic.name: number for number, topic in enumerate(KEPT)}
    return sorted(found, key=lambda record: order[record.topic])


async def _still(connection: Connection) -> Spans:
    """Where the topics begin and end, in a moment in which nothing is being written."""
    partitions = [each for of_topic in (await partitions_of(connection, *KEPT)).values() for each in of_topic]
    async with reading(connection) as consumer:
        before: Spans | None = None
        for _ in range(_LOOKS):
            spans = await spans_of(consumer, connection, partitions)
            if spans == before:
                return spans
            before = spans
            await asyncio.sleep(_LOOK_S)
    raise Failed("the configuration is being changed all the time: try again when it is quieter")


async def _write(
    connection: Connection, partitions: Partitions, replication: int, records: list[Kept], say: Say
) -> None:
    try:
        await topics.ensure(connection, partitions, replication=replication)
    except topics.TopicMismatch as error:
        raise Failed(str(error)) from None
    there = [partition.topic for partition, (start, end) in (await _still(connection)).items() if end > start]
    if there:
        raise Failed(
            f"there are records on {', '.join(there)}: a backup is restored into an installation that has none, before "
            "its services are started for the first time. Use another --topic-prefix or another cluster"
        )
    by_name: dict[str, Topic] = {topic.name: topic for topic in KEPT}
    async with _writer(connection, _WHOLE_MS) as producer:
        for start in range(0, len(records), _AT_ONCE):
            pending = [
                await producer.send(
                    connection.topic(by_name[record.topic]), record.value, key=record.key, timestamp_ms=record.at_ms
                )
                for record in records[start : start + _AT_ONCE]
            ]
            await asyncio.gather(*pending)
            say(start + len(pending), len(records))
    await _until_readable(connection)


async def _mend(connection: Connection, kept: list[Kept]) -> tuple[list[Kept], list[str]]:
    """What was written of *kept* and of what the log has before its unreadable ends, and what nothing was found for."""
    there = await _read(connection, lambda *_: None)
    found, left = versions_for(there, kept)
    if found:
        async with _writer(connection, _FEW_MS) as producer:
            for record in found:
                await producer.send_and_wait(f"{connection.prefix}{record.topic}", record.value, key=record.key)
        await _until_readable(connection)
    return found, left


def versions_for(there: Iterable[Kept], kept: Iterable[Kept]) -> tuple[list[Kept], list[str]]:
    """
    Of each app and integration whose newest record cannot be read: the newest version that can, as it is to be written.

    Also names, with their topic, of those that there is none of. Pure.

    Args:
        there: what the log has, in its order.
        kept: what a backup has.
    """
    there, apps, integrations = list(there), Apps(), Integrations()
    views: dict[str, Apps | Integrations] = {APP_CONFIG.name: apps, INTEGRATION_CONFIG.name: integrations}
    for offset, record in enumerate(there):
        if record.topic in views:
            views[record.topic].apply(record.key, record.value, offset)
    newest: dict[tuple[str, str], tuple[int, Kept]] = {}
    for record in (*kept, *there):
        config = _config_in(record)
        if config is None:
            continue
        topic, name = (APP_CONFIG, config.app) if isinstance(config, AppConfig) else (INTEGRATION_CONFIG, config.id)
        before = newest.get((topic.name, name))
        if before is None or config.version >= before[0]:
            newest[topic.name, name] = config.version, record._replace(topic=topic.name)
    wanted = [(topic, name) for topic, view in views.items() for name in sorted(view.unread)]
    found = [newest[each][1] for each in wanted if each in newest]
    return found, [f"{name} ({topic})" for topic, name in wanted if (topic, name) not in newest]


def _config_in(record: Kept) -> AppConfig | IntegrationConfig | None:
    """The configuration that the record is under its own key; None where it is none."""
    if record.topic == AUDIT.name:
        return None
    try:
        config = codec.decode(record.value)
    except codec.Unreadable:
        return None
    if isinstance(config, AppConfig):
        return config if record.key == config.app.encode() else None
    return config if isinstance(config, IntegrationConfig) and record.key == config.id.encode() else None


async def _until_readable(connection: Connection) -> None:
    """A commit is acknowledged before it shows: whoever asks the services next would be told of what was before."""
    try:
        await until_committed(connection, *KEPT)
    except TimeoutError:
        raise Failed(
            f"all is written, and cannot be read yet: the broker at {connection.bootstrap} holds back what is "
            "committed, look at its log. There is nothing to repeat"
        ) from None


@asynccontextmanager
async def _writer(connection: Connection, transaction_ms: int) -> "AsyncIterator[AIOKafkaProducer]":
    """Writes all or nothing, where the broker has transactions; *transaction_ms*: how long one may last."""
    has_transactions = (await features_of(connection)).transactions
    own: dict[str, Any] = {"enable_idempotence": False}
    if has_transactions:
        own = {"transactional_id": f"{connection.prefix}restore", "transaction_timeout_ms": transaction_ms}
    producer = AIOKafkaProducer(
        **connection.client_options, acks="all", max_request_size=topics.MAX_MESSAGE_BYTES, **own
    )
    await producer.start()
    try:
        if has_transactions:
            async with producer.transaction():
                yield producer
        else:
            yield producer
    finally:
        await producer.stop()
