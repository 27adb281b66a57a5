"""`tenterhook deliveries`: what became of deliveries, read from the log, and sending some of them again."""

import json
import sys
import time
from collections.abc import Iterable
from typing import Annotated, Any, Final, Literal

from aiokafka import AIOKafkaConsumer, ConsumerRecord, TopicPartition
from cyclopts import App, Parameter
from rich.progress import Progress
from rich.table import Table
from rich.text import Text
from uuid_utils import uuid7

from services.admin.again import again
from services.cli.delivery_rows import Rows, Wanted
from services.cli.errors import Failed, WrongUsage
from services.cli.log_access import (
    LogOptions,
    ask_log,
    log_connection,
    partitions_of,
    progress_bar,
    read,
    reading,
    spans_of,
    starts_at,
    time_ms,
)
from services.cli.tables import print_table
from services.cli.times import iso
from streams import codec, topics
from streams.connection import Connection
from streams.producer import open_producer
from streams.records import Delivery, Result

app = App(name="deliveries")

Ending = Literal["delivered", "rejected", "exhausted", "blocked", "discarded", "open"]

#: What is listed where no time is given.
DEFAULT_SINCE_S: Final = 86_400
DEFAULT_LIMIT: Final = 50
#: Sent again at once, at most: each is held in memory meanwhile.
MAX_RETRIED: Final = 10_000
#: More than this many are sent again only when somebody has agreed.
ASK_ABOVE: Final = 10

_POLL_MS: Final = 10_000


@app.default
@app.command(name="list")
def list_(
    *,
    outcome: Ending | None = None,
    integration: str | None = None,
    type: str | None = None,  # noqa: A002  # the field's name
    since: str | None = None,
    limit: int = DEFAULT_LIMIT,
    log: LogOptions | None = None,
    as_json: Annotated[bool, Parameter(name="--json", negative=())] = False,
) -> None:
    """
    List deliveries with how they ended, the newest last.

    Args:
        outcome: Only those that ended so; open: those that wait for another attempt.
        integration: Only those of this integration.
        type: Only those of events of this type.
        since: Only those with a result at this time or later, 2026-01-02T03:04:05Z; else of the last 24 hours.
        limit: So many at most, the newest.
        log: Which log.
        as_json: Print them as JSON.
    """
    if limit < 1:
        raise WrongUsage("--limit must be at least 1")
    connection = log_connection(log or LogOptions())
    wanted = Wanted(outcome, integration, type, since_ms=_since_ms(since))
    with progress_bar(quiet=as_json) as progress:
        rows = ask_log(connection, _rows(connection, wanted, limit, progress))
    found = rows.newest_last()
    if as_json:
        print(json.dumps({"items": [_document(each) for each in found], "leftOut": rows.left_out}))
    elif found:
        _show(found)
    else:
        print("There are none of that kind. --since goes further back than 24 hours.", file=sys.stderr)
    if rows.left_out and not as_json:
        print(f"{rows.left_out} older ones are left out: --limit shows more.", file=sys.stderr)


@app.command
def retry(
    *ids: str,
    outcome: Ending | None = None,
    integration: str | None = None,
    type: str | None = None,  # noqa: A002  # the field's name
    since: str | None = None,
    yes: Annotated[bool, Parameter(negative=())] = False,
    log: LogOptions | None = None,
    as_json: Annotated[bool, Parameter(name="--json", negative=())] = False,
) -> int:
    """
    Send deliveries again that have ended: each becomes a new delivery with one attempt.

    Give their ids, or say which with --outcome. Exits with 1 where one of them could not be sent again.

    Args:
        ids: Ids of deliveries, dlv_...
        outcome: All that ended so.
        integration: Of those, only this integration's.
        type: Of those, only events of this type.
        since: Of those, only with a result at this time or later; else of the last 24 hours. With ids: all kept.
        yes: Do not ask, however many there are.
        log: Which log.
        as_json: Print what was done as JSON.
    """
    if bool(ids) == (outcome is not None):
        raise WrongUsage("give the ids of deliveries, or --outcome")
    if outcome == "open":
        raise WrongUsage("what is open is still being tried: only what has ended can be sent again")
    since_ms = 0 if ids and since is None else _since_ms(since)
    wanted = Wanted(outcome, integration, type, frozenset(ids), since_ms)
    connection = log_connection(log or LogOptions())
    with progress_bar(quiet=as_json) as progress:
        rows = ask_log(connection, _rows(connection, wanted, MAX_RETRIED, progress))
    found = rows.newest_last()
    if rows.left_out:
        raise Failed(f"more than {MAX_RETRIED} fit: narrow it down with --integration, --type or --since")
    _agreed(len(found), yes=yes)
    refused = dict.fromkeys(ids, "there is no result of it that is kept")
    for each in found:
        refused.pop(each.delivery_id, None)
    still_open = [each for each in found if each.outcome is None]
    refused |= {each.delivery_id: "it is still being tried" for each in still_open}
    ended = [each for each in found if each.outcome is not None]
    made = ask_log(connection, _sent_again(connection, ended, uuid7().hex))
    refused |= {each.delivery_id: _TOO_OLD for each in ended if each.delivery_id not in made}
    _report(made, refused, as_json=as_json)
    return 1 if refused else 0


_TOO_OLD: Final = "its payload has fallen out of retention (deliveries are kept for 7 days)"


def _since_ms(since: str | None) -> int:
    return time_ms(since, "--since") if since is not None else int((time.time() - DEFAULT_SINCE_S) * 1000)


def _agreed(count: int, *, yes: bool) -> None:
    """
    Ask before many are sent again.

    Raises:
        Failed: the answer is no, or nobody is there to ask.
    """
    if count <= ASK_ABOVE or yes:
        return
    if not sys.stdin.isatty():
        raise Failed(f"{count} deliveries would be sent again: repeat it with --yes")
    if input(f"Send {count} deliveries again? [y/N] ").strip().lower() not in {"y", "yes"}:
        raise Failed("nothing was sent")


async def _rows(connection: Connection, wanted: Wanted, limit: int, progress: Progress) -> Rows:
    rows = Rows(wanted, limit)
    there = await partitions_of(connection, topics.RESULTS)
    async with reading(connection) as consumer:
        spans = await spans_of(consumer, connection, there[topics.RESULTS])
        spans = await starts_at(consumer, connection, spans, wanted.since_ms)
    task = progress.add_task("Reading results", total=sum(end - start for start, end in spans.values()))

    def see(record: "ConsumerRecord[Any, Any]") -> None:
        progress.advance(task)
        try:
            found = codec.decode(record.value)
        except codec.Unreadable:
            return
        if isinstance(found, Result):
            rows.see(found)

    await read(connection, spans, see)
    return rows


async def _sent_again(connection: Connection, ended: list[Result], run: str) -> dict[str, Delivery]:
    """By delivery, the new one that was appended; nothing for those that are not kept any more."""
    if not ended:
        return {}
    there = await partitions_of(connection, topics.DELIVERIES, topics.INTEGRATION_CONFIG)
    made: dict[str, Delivery] = {}
    async with reading(connection) as consumer:
        [(_, config_offset)] = (await spans_of(consumer, connection, there[topics.INTEGRATION_CONFIG])).values()
        spans = await spans_of(consumer, connection, there[topics.DELIVERIES])
        for each in ended:
            place = TopicPartition(connection.topic(topics.DELIVERIES), each.source_partition)
            start, end = spans.get(place, (0, 0))
            is_kept = start <= each.source_offset < end
            first = await _delivery_at(consumer, place, each.source_offset) if is_kept else None
            if first is not None and first.delivery_id == each.delivery_id:
                made[each.delivery_id] = again(first, last_attempt=each.attempt, run=run, config_offset=config_offset)
    producer = await open_producer(connection, client_id="tenterhook-deliveries")
    try:
        topic = connection.topic(topics.DELIVERIES)
        pending = [
            await producer.send(topic, codec.encode(each), key=each.integration.encode()) for each in made.values()
        ]
        for future in pending:
            await future
    finally:
        await producer.stop()
    return made


async def _delivery_at(consumer: "AIOKafkaConsumer[Any, Any]", place: TopicPartition, offset: int) -> Delivery | None:
    """The delivery there; None where it cannot be read."""
    consumer.assign([place])
    consumer.seek(place, offset)
    records = (await consumer.getmany(place, timeout_ms=_POLL_MS, max_records=1)).get(place, [])
    if not records or records[0].offset != offset:
        return None
    try:
        return codec.decode_as(Delivery, records[0].value)
    except codec.Unreadable:
        return None


def _report(made: dict[str, Delivery], refused: dict[str, str], *, as_json: bool) -> None:
    if as_json:
        sent = [{"of": of, "id": each.delivery_id, "attempt": each.attempt} for of, each in made.items()]
        print(json.dumps({"sent": sent, "refused": [{"id": of, "why": why} for of, why in refused.items()]}))
        return
    for of, each in made.items():
        print(f"{of} is sent again as {each.delivery_id} (attempt {each.attempt})")
    for of, why in refused.items():
        print(f"{of} is not sent again: {why}", file=sys.stderr)
    if not made and not refused:
        print("There are none of that kind.", file=sys.stderr)


def _document(result: Result) -> dict[str, Any]:
    return {
        "id": result.delivery_id,
        "integration": result.integration,
        "app": result.app,
        "event": result.type,
        "eventId": result.event_id,
        "cause": result.cause,
        "of": result.of,
        "outcome": result.outcome,
        "attempt": result.attempt,
        "status": result.status,
        "reason": result.reason,
        "detail": result.detail,
        "at": iso(result.finished_at_ms),
        "nextDueAt": None if result.next_due_at_ms is None else iso(result.next_due_at_ms),
    }


def _show(results: Iterable[Result]) -> None:
    table = Table("at", "delivery", "integration", "event", "cause", "outcome", "attempts", "last")
    for each in results:
        cells = (
            iso(each.finished_at_ms),
            each.delivery_id,
            each.integration,
            each.type,
            each.cause,
            each.outcome or "open",
            str(each.attempt),
            each.reason,
        )
        table.add_row(*map(Text, cells))
    print_table(table)
