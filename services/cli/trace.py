"""`tenterhook trace`: one event's life, from all topics."""

import json
import sys
from dataclasses import asdict
from typing import Annotated, Any, Final

from aiokafka import ConsumerRecord, TopicPartition
from cyclopts import Parameter
from rich.console import Console
from rich.progress import Progress
from rich.table import Table
from rich.text import Text

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
    starts_at,
    time_ms,
)
from services.cli.moments import Moment, is_about, moment, put_aside, timeline
from services.cli.picture import picture
from services.cli.tables import print_table
from services.runtime.times import iso
from streams import codec, topics
from streams.connection import Connection
from streams.records import Delivery, Event, FanOutReceipt, Quarantined, Record, Result

#: Columns of a picture that is no terminal's.
_IN_A_FILE: Final = 160

#: Clocks of ingest and of the broker may differ by so much: the topics are read from that much before the event on.
_SLACK_MS = 60_000


def trace(
    event: str,
    /,
    *,
    app: Annotated[str | None, Parameter(env_var="TENTERHOOK_APP")] = None,
    since: str | None = None,
    table: Annotated[bool, Parameter(negative=())] = False,
    log: LogOptions | None = None,
    as_json: Annotated[bool, Parameter(name="--json", negative=())] = False,
) -> None:
    """
    Show one event's life across all topics: accepted, fanned out, and of each integration the attempts and waits.

    Bars show when, as wide as the terminal; time is stretched where much happens.

    Args:
        event: Its id, as ingest answered it, or the id of its record, rec_...
        app: Only this app's: apps may use the same ids.
        since: Look for it only among events accepted at this time or later, 2026-01-02T03:04:05Z; quicker where much is
            kept.
        table: Each record on a line of its own, with the place where it stands.
        log: Which log.
        as_json: Print the moments as JSON.
    """
    connection = log_connection(log or LogOptions())
    since_ms = time_ms(since, "--since") if since is not None else 0
    with progress_bar(quiet=as_json) as progress:
        found = timeline(ask_log(connection, _Trace(connection, event, app, since_ms, progress).run()))
    if not found:
        raise Failed(f"no event {event} is kept: events are for 7 days. Check the id, --app and --topic-prefix")
    if as_json:
        print(json.dumps([_document(each) for each in found]))
    elif table:
        _show(found)
    else:
        _draw(event, found)


class _Trace:
    """One look at the log."""

    def __init__(self, connection: Connection, event: str, app: str | None, since_ms: int, progress: Progress) -> None:
        self._connection = connection
        self._event = event
        self._app = app
        self._since_ms = since_ms
        self._progress = progress
        self._names = {connection.topic(topic): topic.name for topic in topics.TOPICS}
        self._moments: list[Moment] = []
        self._record_ids: set[str] = set()
        self._deliveries: set[str] = set()
        self._accepted_ms = 2**62
        #: Where the events stand, since what cannot be read is quarantined by its place alone.
        self._places: set[tuple[int, int]] = set()

    async def run(self) -> list[Moment]:
        """Every moment, in no order."""
        others = (topics.FAN_OUT, topics.DELIVERIES, topics.RESULTS, topics.QUARANTINE, *topics.RETRIES)
        there = await partitions_of(self._connection, topics.EVENTS, *others)
        async with reading(self._connection) as consumer:
            events = await spans_of(consumer, self._connection, there[topics.EVENTS])
            events = await starts_at(consumer, self._connection, events, self._since_ms)
            await self._read("Looking for the event", events, self._see_event)
            if not self._record_ids:
                return []
            sources = {partition for partition, _ in self._places}
            wanted = [
                each
                for topic in others
                for each in there[topic]
                if topic is not topics.FAN_OUT or each.partition in sources
            ]
            spans = await spans_of(consumer, self._connection, wanted)
            spans = await starts_at(consumer, self._connection, spans, self._accepted_ms - _SLACK_MS)
        await self._read("Reading what became of it", spans, self._see)
        return self._moments

    async def _read(self, title: str, spans: Spans, see: Any) -> None:
        task = self._progress.add_task(title, total=sum(end - start for start, end in spans.values()))

        def seen(record: "ConsumerRecord[Any, Any]") -> None:
            self._progress.advance(task)
            found = _decoded(record.value)
            if found is not None:
                see(record, found)

        await read(self._connection, spans, seen)

    def _see_event(self, record: "ConsumerRecord[Any, Any]", found: Record) -> None:
        if not isinstance(found, Event) or self._event not in {found.event_id, found.record_id}:
            return
        if self._app is not None and found.app != self._app:
            return
        self._record_ids.add(found.record_id)
        self._places.add((record.partition, record.offset))
        self._accepted_ms = min(self._accepted_ms, record.timestamp)
        self._add(record, found)

    def _see(self, record: "ConsumerRecord[Any, Any]", found: Record) -> None:
        if isinstance(found, Quarantined):
            self._see_quarantined(record, found)
            return
        if not is_about(found, self._record_ids, self._deliveries):
            return
        if isinstance(found, Delivery | Result):
            self._deliveries.add(found.delivery_id)
        self._add(record, found)

    def _see_quarantined(self, record: "ConsumerRecord[Any, Any]", found: Quarantined) -> None:
        was = _decoded(found.value)
        is_event = self._names.get(found.topic) == topics.EVENTS.name
        is_ours = (is_event and (found.partition, found.offset) in self._places) or (
            isinstance(was, Delivery | FanOutReceipt | Result) and was.record_id in self._record_ids
        )
        if is_ours:
            at = {"at_ms": record.timestamp, "partition": record.partition, "offset": record.offset}
            self._moments.append(put_aside(found, was, **at))

    def _add(self, record: "ConsumerRecord[Any, Any]", found: Record) -> None:
        at = TopicPartition(self._names[record.topic], record.partition)
        one = moment(found, at_ms=record.timestamp, topic=at.topic, partition=at.partition, offset=record.offset)
        if one is not None:
            self._moments.append(one)


def _decoded(value: bytes | None) -> Record | None:
    try:
        return codec.decode(value)
    except codec.Unreadable:
        return None


def _document(one: Moment) -> dict[str, Any]:
    fields = asdict(one)
    return {"at": iso(fields.pop("at_ms"))} | fields


def _draw(event: str, moments: list[Moment]) -> None:
    console = Console(width=None if sys.stdout.isatty() else _IN_A_FILE, highlight=False, soft_wrap=True)
    print(f"{event}, {iso(moments[0].at_ms)}")
    for line in picture(moments, width=console.width, ascii_only=console.options.ascii_only):
        console.print(line)


def _show(moments: list[Moment]) -> None:
    start_ms = moments[0].at_ms
    table = Table("at", "after", "what", "integration", "delivery", "details", "where")
    for one in moments:
        details = ", ".join(f"{name} {value}" for name, value in one.details.items())
        where = f"{one.topic} {one.partition}@{one.offset}"
        after = f"{(one.at_ms - start_ms) / 1000:.3f} s"
        cells = (iso(one.at_ms), after, one.what, one.integration or "", one.delivery or "", details, where)
        table.add_row(*map(Text, cells))
    print_table(table)
