"""`tenterhook results`: follow the result stream, every attempt of every delivery as it happens."""

import json
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any, Final, Literal

from aiokafka import ConsumerRecord
from cyclopts import Parameter
from rich.console import Console
from rich.progress import Progress
from rich.text import Text

from services.cli.errors import WrongUsage
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
from services.history.shown import attempt_json
from services.runtime.times import iso
from streams import codec
from streams.connection import Connection
from streams.records import Result
from streams.topics import RESULTS

_STYLES: Final = {
    "delivered": "green",
    "rejected": "red",
    "exhausted": "bold red",
    "blocked": "magenta",
    "discarded": "dim",
}

_POLL_MS: Final = 500


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which results are shown; None: all."""

    app: str | None = None
    integration: str | None = None
    type: str | None = None
    event: str | None = None
    cause: str | None = None
    #: `open`: attempts that another one follows; `failed`: every attempt that did not deliver.
    outcome: str | None = None

    def has(self, result: Result) -> bool:
        """Whether this one is among them."""
        pairs = (
            (self.app, result.app),
            (self.integration, result.integration),
            (self.type, result.type),
            (self.event, result.event_id),
            (self.cause, result.cause),
        )
        if any(wanted is not None and wanted != given for wanted, given in pairs):
            return False
        if self.outcome == "failed":
            return result.outcome != "delivered"
        return self.outcome is None or (result.outcome or "open") == self.outcome


def results(
    *,
    of_app: Annotated[str | None, Parameter(name="--app")] = None,
    integration: str | None = None,
    type: str | None = None,  # noqa: A002  # the field's name
    event: str | None = None,
    cause: Literal["live", "retry", "replay", "test"] | None = None,
    outcome: Literal["delivered", "rejected", "exhausted", "blocked", "discarded", "open", "failed"] | None = None,
    since: str | None = None,
    follow: bool = True,
    log: LogOptions | None = None,
    as_json: Annotated[bool, Parameter(name="--json", negative=())] = False,
) -> int:
    """
    Follow the results of attempts as they come, until Ctrl-C.

    Args:
        of_app: Only of this app.
        integration: Only of this integration.
        type: Only of events of this type.
        event: Only of the event with this id.
        cause: Only of deliveries that were made so: live, or what a person asked for.
        outcome: Only these; open: another attempt follows; failed: whatever did not deliver.
        since: Begin with results of this time or later, 2026-01-02T03:04:05Z; else with the next one.
        follow: Go on with those to come. --no-follow ends with the newest; takes --since.
        log: Which log.
        as_json: Print each as a line of JSON.
    """
    if not follow and since is None:
        raise WrongUsage("--no-follow takes --since: there is nothing to show otherwise")
    since_ms = None if since is None else time_ms(since, "--since")
    connection = log_connection(log or LogOptions())
    wanted = Wanted(of_app, integration, type, event, cause, outcome)
    console = Console(highlight=False, soft_wrap=True)

    def show(result: Result) -> None:
        if wanted.has(result):
            if as_json:
                print(json.dumps(_document(result)), flush=True)
            else:
                console.print(_line(result))

    try:
        ask_log(connection, _followed(connection, since_ms, show, follow=follow))
    except KeyboardInterrupt:
        print(file=sys.stderr)
    return 0


async def _followed(
    connection: Connection, since_ms: int | None, show: Callable[[Result], None], *, follow: bool
) -> None:
    there = await partitions_of(connection, RESULTS)
    async with reading(connection) as consumer:
        spans = await spans_of(consumer, connection, there[RESULTS])
        if since_ms is not None:
            starts = await starts_at(consumer, connection, spans, since_ms)
            with progress_bar(quiet=False) as progress:
                past = await _past(connection, starts, since_ms, progress)
            for each in past:
                show(each)
        if follow:
            consumer.assign(list(spans))
            for partition, (_, end) in spans.items():
                consumer.seek(partition, end)
            while True:
                for records in (await consumer.getmany(timeout_ms=_POLL_MS)).values():
                    for each in filter(None, map(_result, records)):
                        show(each)


async def _past(connection: Connection, spans: Spans, since_ms: int, progress: Progress) -> list[Result]:
    """Results of that time or later, in the order in which they were made."""
    found: list[Result] = []
    task = progress.add_task("Reading results", total=sum(end - start for start, end in spans.values()))

    def keep(record: "ConsumerRecord[Any, Any]") -> None:
        progress.advance(task)
        result = _result(record)
        if result is not None and result.finished_at_ms >= since_ms:
            found.append(result)

    await read(connection, spans, keep)
    return sorted(found, key=lambda each: each.finished_at_ms)


def _result(record: "ConsumerRecord[Any, Any]") -> Result | None:
    """The result that stands there; None for what is none."""
    try:
        found = codec.decode(record.value)
    except codec.Unreadable:
        return None
    return found if isinstance(found, Result) else None


def _document(result: Result) -> dict[str, Any]:
    return {
        "deliveryId": result.delivery_id,
        "app": result.app,
        "integration": result.integration,
        "event": result.type,
        "eventId": result.event_id,
        "cause": result.cause,
        **attempt_json(result),
    }


def _line(result: Result) -> Text:
    took_ms = result.finished_at_ms - result.started_at_ms
    met = result.reason if result.status is None else str(result.status)
    ending = result.outcome or f"again at {iso(result.next_due_at_ms)}" if result.next_due_at_ms else result.outcome
    line = Text(f"{iso(result.finished_at_ms)}  {result.integration}  {result.type}  ")
    line.append(f"attempt {result.attempt}  {met}  {took_ms} ms  ")
    line.append(ending or "open", _STYLES.get(result.outcome or "", "yellow"))
    return line
