"""`tenterhook quarantine`: what was put aside, read from the log, and putting it back to where it came from."""

import asyncio
import base64
import getpass
import json
import os
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Annotated, Any, Final

import msgspec
from aiokafka import AIOKafkaProducer, ConsumerRecord, TopicPartition
from aiokafka.errors import KafkaError
from cyclopts import App, Parameter
from rich.table import Table
from rich.text import Text

from services.cli.asides import Aside, Asides
from services.cli.asking import agreed
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
)
from services.cli.tables import print_table
from streams import codec
from streams.connection import Connection
from streams.producer import open_producer
from streams.records import Delivery, Event, PutBack
from streams.topics import PUT_BACK_HEADER, QUARANTINE, TOPICS

app = App(name="quarantine")

AsJson = Annotated[bool, Parameter(name="--json", negative=())]

#: Records that are listed where nothing else is said.
DEFAULT_LIMIT: Final = 50

#: A broker answers within milliseconds; the election of a new leader takes some seconds.
_PATIENCE_S: Final = 15.0


@app.default
@app.command(name="list")
def list_(
    *,
    code: str | None = None,
    topic: str | None = None,
    left: Annotated[bool, Parameter(negative=())] = False,
    limit: int = DEFAULT_LIMIT,
    log: LogOptions | None = None,
    as_json: AsJson = False,
) -> None:
    """
    List what was put aside, the newest last: why, where it stood, and whether it was put back. Nothing of payloads.

    Args:
        code: Only what was put aside as this, record.unreadable for example.
        topic: Only what comes from this topic, without prefix.
        left: Only what was not put back.
        limit: So many at most, the newest.
        log: Which log.
        as_json: Print them as JSON.
    """
    if limit < 1:
        raise WrongUsage("--limit must be at least 1")
    found = _asides(log_connection(log or LogOptions()), quiet=as_json).those(code=code, topic=topic, only_left=left)
    shown = found[-limit:]
    if as_json:
        print(json.dumps({"items": [each.document() for each in shown], "leftOut": len(found) - len(shown)}))
        return
    if not shown:
        print("There are none of that kind." if code or topic or left else "There are none.", file=sys.stderr)
        return
    _show(shown)
    if len(shown) < len(found):
        print(f"{len(found) - len(shown)} older ones are left out: --limit shows more.", file=sys.stderr)


@app.command
def show(
    id_: Annotated[int, Parameter(name="ID")],
    /,
    *,
    payload: Annotated[bool, Parameter(negative=())] = False,
    log: LogOptions | None = None,
    as_json: AsJson = False,
) -> None:
    """
    Show one record that was put aside.

    Args:
        id_: Its id, as listed: its offset on the topic quarantine.
        payload: Show also what it holds: its bytes in base64, and the payload of an event or a delivery.
        log: Which log.
        as_json: Print it as JSON.
    """
    aside = _one(_asides(log_connection(log or LogOptions()), quiet=as_json), id_)
    found = aside.document()
    if payload:
        was, value = aside.was, aside.record.value
        found["payload"] = was.payload.decode(errors="replace") if isinstance(was, Event | Delivery) else None
        found["value"] = None if value is None else base64.b64encode(value).decode()
    if as_json:
        print(json.dumps(found))
        return
    for name, value in found.items():
        print(f"{name + ':':<11} {'' if value is None else json.dumps(value) if isinstance(value, dict) else value}")


@app.command(name="put-back")
def put_back(
    *ids: int,
    code: str | None = None,
    topic: str | None = None,
    again: Annotated[bool, Parameter(negative=())] = False,
    yes: Annotated[bool, Parameter(negative=())] = False,
    log: LogOptions | None = None,
    as_json: AsJson = False,
) -> int:
    """
    Put what was put aside back to the end of the partition that it came from, as it was: it is worked on, out of order.

    Give ids, or say which with --code: of those, what was put back before is left alone. Only events and deliveries,
    and only what this release can read. Exits with 1 where one of them could not be put back. The user of the broker
    must be allowed to write there and to quarantine, which notes that it was done.

    Args:
        ids: One or more ids, as listed; none with --code.
        code: All that were put aside as this and not put back; asks first.
        topic: Of those, only what comes from this topic, without prefix.
        again: Also what was put back before.
        yes: Do not ask.
        log: Which log.
        as_json: Print what was done as JSON.
    """
    if bool(ids) == (code is not None):
        raise WrongUsage("give the ids of records, or --code")
    if ids and topic is not None:
        raise WrongUsage("--topic goes with --code")
    connection = log_connection(log or LogOptions())
    there = _asides(connection, quiet=as_json)
    chosen = (
        [_one(there, each) for each in dict.fromkeys(ids)]
        if code is None
        else there.those(code=code, topic=topic, only_left=not again)
    )
    if code is not None and chosen and not yes:
        many = f"{len(chosen)} records"
        agreed(f"Put {many} back?", would=f"{many} would be put back", not_done="nothing was put back")
    done, refused = ask_log(connection, _put_all_back(connection, chosen, again=again)) if chosen else ([], {})
    if as_json:
        put = [{"id": each.quarantine_offset, "partition": each.partition, "offset": each.offset} for each in done]
        print(json.dumps({"putBack": put, "refused": [{"id": of, "why": why} for of, why in refused.items()]}))
    else:
        for each in done:
            print(f"{each.quarantine_offset} is put back to {each.topic} {each.partition}@{each.offset}")
        for of, why in refused.items():
            print(f"{of} is not put back: {why}", file=sys.stderr)
        if not chosen:
            print("There are none of that kind that were not put back.", file=sys.stderr)
    return 1 if refused else 0


def _one(there: Asides, id_: int) -> Aside:
    found = there.get(id_)
    if found is None:
        raise Failed(f"nothing in quarantine has the id {id_}: `tenterhook quarantine list` shows what is there")
    return found


# -- the log -------------------------------------------------------------------------------------------------


def _asides(connection: Connection, *, quiet: bool) -> Asides:
    found = Asides({connection.topic(topic): topic.name for topic in TOPICS})
    with progress_bar(quiet=quiet) as progress:
        task = progress.add_task("Reading quarantine", total=None)

        def see(record: "ConsumerRecord[Any, Any]") -> None:
            progress.advance(task)
            try:
                found.see(record.offset, codec.decode(record.value))
            except codec.Unreadable:
                return  # nobody of ours wrote it

        ask_log(connection, _read(connection, see))
    return found


async def _read(connection: Connection, see: "Callable[[ConsumerRecord[Any, Any]], None]") -> None:
    there = await partitions_of(connection, QUARANTINE)
    async with reading(connection) as consumer:
        spans = await spans_of(consumer, connection, there[QUARANTINE])
    await read(connection, spans, see)


async def _put_all_back(
    connection: Connection, chosen: list[Aside], *, again: bool
) -> tuple[list[PutBack], dict[int, str]]:
    """What was put back, in order; and by id, why others were not."""
    done: list[PutBack] = []
    refused: dict[int, str] = {}
    producer = await open_producer(connection, client_id="tenterhook-quarantine")
    try:
        for each in chosen:
            whole = await _with_value(connection, each)
            why = whole.refusal(again=again)
            if why is not None:
                refused[each.id] = why
                continue
            try:
                async with asyncio.timeout(_PATIENCE_S):
                    done.append(await _put_one_back(connection, producer, whole))
            except (KafkaError, TimeoutError) as error:
                raise Failed(
                    f"{len(done)} records were put back, and of {each.id} it is not known ({error!r}): `tenterhook "
                    "trace` shows whether it is there"
                ) from None
    finally:
        await producer.stop()
    return done, refused


async def _with_value(connection: Connection, aside: Aside) -> Aside:
    """What was too large to be copied, from where it stood, as long as that is kept."""
    record = aside.record
    if record.value is not None or aside.topic is None:
        return aside
    place = TopicPartition(record.topic, record.partition)
    found: list[ConsumerRecord[Any, Any]] = []
    async with reading(connection) as consumer:
        start, end = (await spans_of(consumer, connection, [place]))[place]
    if start <= record.offset < end:
        await read(connection, {place: (record.offset, record.offset + 1)}, found.append)
    if not found or found[0].value is None:
        return aside
    return replace(aside, record=msgspec.structs.replace(record, key=found[0].key, value=found[0].value))


async def _put_one_back(connection: Connection, producer: AIOKafkaProducer, aside: Aside) -> PutBack:
    """
    Append it, and note that.

    One after the other: who reads `deliveries` reads what is not committed too, so that a transaction would keep
    nothing together.
    """
    record = aside.record
    headers = [(each.name, each.value) for each in record.headers if each.name != PUT_BACK_HEADER]
    appended = await producer.send_and_wait(
        record.topic,
        record.value,
        key=record.key,
        partition=record.partition,
        headers=[*headers, (PUT_BACK_HEADER, str(aside.id).encode())],
    )
    note = PutBack(
        quarantine_offset=aside.id,
        topic=record.topic,
        partition=record.partition,
        offset=appended.offset,
        by=_user(),
        at_ms=time.time_ns() // 1_000_000,
    )
    await producer.send_and_wait(connection.topic(QUARANTINE), codec.encode(note))
    return note


def _user() -> str:
    try:
        return getpass.getuser()
    except (OSError, KeyError):  # a container's, without a name
        return f"uid {os.getuid()}"


def _show(asides: list[Aside]) -> None:
    table = Table("id", "at", "code", "stood at", "key", "is", "put back", "reason")
    for each in asides:
        found = each.document()
        named = found["delivery"] or found["eventId"] or found["kind"] or "unreadable"
        back = "" if each.back is None else f"{found['putBack']['at']} by {each.back.by}"
        where = f"{found['topic']} {found['partition']}@{found['offset']}"
        cells = (str(each.id), found["at"], found["code"], where, found["key"] or "", named, back, found["reason"])
        table.add_row(*map(Text, cells))
    print_table(table)
