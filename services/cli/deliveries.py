"""`tenterhook deliveries`: what became of deliveries, read from the log; sending some of them again, over the API."""

import json
import sys
import time
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Annotated, Any, Final, Literal, Required, TypedDict

from aiokafka import ConsumerRecord
from cyclopts import App, Parameter
from rich.progress import Progress
from rich.table import Table
from rich.text import Text

from services.cli.access import AdminOptions, admin_access
from services.cli.asking import agreed
from services.cli.delivery_rows import Rows, Wanted
from services.cli.errors import WrongUsage
from services.cli.http import admin_client
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
from services.runtime.times import iso
from streams import codec, topics
from streams.connection import Connection
from streams.records import Result
from tenterhook import Conflict, MadeDelivery, NotFound
from tenterhook.deliveries import Deliveries

app = App(name="deliveries")

Ended = Literal["delivered", "rejected", "exhausted", "blocked", "discarded"]
Ending = Ended | Literal["open"]

#: What is listed where no time is given.
DEFAULT_SINCE_S: Final = 86_400
DEFAULT_LIMIT: Final = 50
#: Sent again by one request, at most.
LOT: Final = 1_000
#: More than this many are sent again only when somebody has agreed.
ASK_ABOVE: Final = 10


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
        since: Only those that ended, or were tried last, at this time or later, 2026-01-02T03:04:05Z; else in the last
            24 hours.
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
    outcome: Ended | None = None,
    integration: str | None = None,
    type: str | None = None,  # noqa: A002  # the field's name
    since: str | None = None,
    yes: Annotated[bool, Parameter(negative=())] = False,
    access: AdminOptions | None = None,
    as_json: Annotated[bool, Parameter(name="--json", negative=())] = False,
) -> int:
    """
    Send deliveries again that have ended: each becomes a new delivery with one attempt, and is on the audit log.

    Give their ids, or say which with --outcome: of those, what was sent again and delivered, or is under way, is left
    alone. Exits with 1 where one of them could not be sent again.

    Args:
        ids: One or more ids, dlv_...; none with --outcome.
        outcome: All that ended so.
        integration: Of those, only this integration's.
        type: Of those, only events of this type.
        since: Of those, only those that ended at this time or later, 2026-01-02T03:04:05Z; else of the last 24 hours.
        yes: Do not ask; else more than 10 are sent again only when somebody agrees.
        access: Which app, on which admin API.
        as_json: Print what was done as JSON.
    """
    if bool(ids) == (outcome is not None):
        raise WrongUsage("give the ids of deliveries, or --outcome")
    if ids and (integration, type, since) != (None, None, None):
        raise WrongUsage("--integration, --type and --since go with --outcome")
    admin = admin_access(access or AdminOptions())
    with admin_client(admin) as http:
        if outcome is None:
            _agreed(len(ids), yes=yes)
            http.shows = False
            done = http.run(_each_again(http.client.deliveries, ids, quiet=as_json))
        else:
            wanted: _Wanted = {"outcome": outcome, "since": datetime.fromtimestamp(_since_ms(since) / 1000, UTC)}
            if integration is not None:
                wanted["integration"] = integration
            if type is not None:
                wanted["type"] = type
            _agreed(0 if yes else http.run(_count(http.client.deliveries, wanted)), yes=yes)
            done = http.run(_all_again(http.client.deliveries, wanted))
    _report(*done, as_json=as_json)
    return 1 if done[1] else 0


class _Wanted(TypedDict, total=False):
    outcome: Required[Ended]
    since: Required[datetime]
    integration: str
    type: str


#: By the delivery's id: what was made of those that were sent again, and why others were not.
_Done = tuple[dict[str, MadeDelivery], dict[str, str]]

_WHY: Final = {
    "payload_expired": "its payload has fallen out of retention (deliveries are kept for 7 days)",
    "integration_deleted": "its integration was deleted",
}


def _since_ms(since: str | None) -> int:
    return time_ms(since, "--since") if since is not None else int((time.time() - DEFAULT_SINCE_S) * 1000)


def _agreed(count: int, *, yes: bool) -> None:
    """
    Ask before many are sent again.

    Raises:
        Failed: the answer is no, or nobody is there to ask.
    """
    if count > ASK_ABOVE and not yes:
        many = f"more than {ASK_ABOVE} deliveries"
        agreed(f"Send {many} again?", would=f"{many} would be sent again", not_done="nothing was sent")


async def _count(deliveries: Deliveries, wanted: _Wanted) -> int:
    """How many there are, up to one more than is sent again without asking: a page may come short and have a next."""
    count, cursor = 0, None
    while True:
        page = await deliveries.page(**wanted, limit=ASK_ABOVE + 1, cursor=cursor)
        count, cursor = count + len(page.items), page.next
        if count > ASK_ABOVE or cursor is None:
            return count


async def _each_again(deliveries: Deliveries, ids: tuple[str, ...], *, quiet: bool) -> _Done:
    """These, one after another."""
    made: dict[str, MadeDelivery] = {}
    refused: dict[str, str] = {}
    with progress_bar(quiet=quiet) as progress:
        for each in progress.track(ids, description="Sending again"):
            try:
                made[each] = await deliveries.retry(each)
            except (NotFound, Conflict) as problem:
                refused[each] = _WHY.get(problem.code, problem.detail)
    return made, refused


async def _all_again(deliveries: Deliveries, wanted: _Wanted) -> _Done:
    """Those that fit, as many at once as one request takes."""
    made: dict[str, MadeDelivery] = {}
    refused: dict[str, str] = {}
    cursor: str | None = None
    while True:
        lot = await deliveries.retry_many(**wanted, limit=LOT, cursor=cursor)
        made |= {each.of: each for each in lot.items if each.of is not None}
        refused |= {each.of: _WHY.get(each.code, each.code) for each in lot.refused}
        cursor = lot.next
        # An older release has no cursors, and leaves out what was sent again when it is asked anew.
        if cursor is None and not (lot.more and lot.items):
            return made, refused


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


def _report(made: dict[str, MadeDelivery], refused: dict[str, str], *, as_json: bool) -> None:
    if as_json:
        sent = [{"of": of, "id": each.id, "attempt": each.attempt} for of, each in made.items()]
        print(json.dumps({"sent": sent, "refused": [{"id": of, "why": why} for of, why in refused.items()]}))
        return
    for of, each in made.items():
        print(f"{of} is sent again as {each.id} (attempt {each.attempt})")
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
        "outcome": result.outcome or "open",
        "attempt": result.attempts,
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
            str(each.attempts),
            each.reason,
        )
        table.add_row(*map(Text, cells))
    print_table(table)
