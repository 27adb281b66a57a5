"""`tenterhook replay`: past events of an app to one integration again; a dry run, progress, cancelling."""

import asyncio
import json
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from getpass import getuser
from importlib.metadata import version
from typing import Annotated, Any, Final

from cyclopts import App, Parameter
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text
from uuid_utils import uuid7

from services.admin import replays
from services.admin.rules import Refused
from services.cli.errors import Failed, WrongUsage
from services.cli.log_access import LogOptions, ask_log, log_connection, partitions_of, read, reading, spans_of
from services.cli.tables import print_table
from services.cli.times import iso
from services.dispatcher.dry_run import MAX_SAMPLE, SAMPLE, DryRun, Shown, dry_run
from services.dispatcher.replaying import share_done
from services.runtime.clock import now_ms
from services.runtime.problems import Problem
from services.runtime.process import load_settings
from services.runtime.serving import StartupError
from streams import codec, topics
from streams.connection import Connection
from streams.follower import Apply, Follower
from streams.producer import open_producer
from streams.records import IntegrationConfig, Replay
from streams.replays import RUNNING, Replays, row_key
from streams.views import Apps, Integrations

app = App(name="replay")

Several = Annotated[tuple[str, ...], Parameter(consume_multiple=False, negative=(), show_default=False)]

#: How often the bar moves.
_LOOK_S: Final = 0.25
#: Nobody begins for so long: is a dispatcher running?
_BEGUN_S: Final = 15.0


@app.default
@app.command(name="start")
def start(
    application: Annotated[str, Parameter(name="APP")],
    integration: str,
    /,
    *,
    since: Annotated[str, Parameter(name="--from")],
    until: str | None = None,
    type: Several = (),  # noqa: A002  # the field's name
    event: Several = (),
    rate: int = replays.DEFAULT_RATE,
    dry_run: Annotated[bool, Parameter(negative=())] = False,
    sample: int = SAMPLE,
    detach: Annotated[bool, Parameter(negative=())] = False,
    log: LogOptions | None = None,
    as_json: Annotated[bool, Parameter(name="--json", negative=())] = False,
) -> int:
    """
    Send past events of an app to one integration again, and show how far that is.

    Each becomes a new delivery with one attempt, in order, beside live ones. Exits with 1 where the replay did not
    reach its end. Ctrl-C asks whether to cancel it; else it goes on without this command.

    Args:
        application: Whose events.
        integration: Who gets them, int_... or sub_...
        since: Events accepted at this time or later, 2026-01-02T03:04:05Z.
        until: Events accepted before this time; now where absent.
        type: Only events of these types, may be repeated; else those that the integration selects.
        event: Only the events with these ids, may be repeated.
        rate: Events a second, at most.
        dry_run: Send nothing: count, and show the first requests.
        sample: So many requests, with --dry-run.
        detach: Do not wait for its end.
        log: Which log.
        as_json: Print what was done as JSON.
    """
    if not 0 <= sample <= MAX_SAMPLE:
        raise WrongUsage(f"--sample must be from 0 to {MAX_SAMPLE}")
    connection = log_connection(log or LogOptions())
    config, allow_http = ask_log(connection, _configured(connection, application, integration))
    body = {"from": since, "until": until, "types": list(type), "eventIds": list(event), "rate": rate}
    replay_id = f"rpl_{uuid7().hex}"
    try:
        wanted = replays.asked(body, config, replay=replay_id, who=_who(), now_ms=now_ms())
    except Refused as refused:
        raise WrongUsage(str(refused)) from None
    if dry_run:
        found = ask_log(connection, _dry(connection, wanted, config, allow_http=allow_http, sample=sample))
        _show_dry_run(wanted, found, as_json=as_json)
        return 0
    ask_log(connection, _write(connection, wanted))
    if not detach:
        wanted = _follow(connection, wanted, quiet=as_json)
    if as_json:
        print(json.dumps(_document(wanted)))
    else:
        print(_sentence(wanted))
    return 0 if detach or wanted.state == "done" else 1


@app.command
def cancel(
    *ids: str,
    log: LogOptions | None = None,
    as_json: Annotated[bool, Parameter(name="--json", negative=())] = False,
) -> int:
    """
    Cancel replays: nothing more of them is sent, but for what is under way.

    Exits with 1 where one of them had ended already.

    Args:
        ids: Of replays, rpl_...
        log: Which log.
        as_json: Print each as a line of JSON.
    """
    if not ids:
        raise WrongUsage("give the id of a replay, rpl_...; `tenterhook replay list` shows them")
    connection = log_connection(log or LogOptions())
    there = ask_log(connection, _all(connection))
    has_failed = False
    for each in ids:
        found = there.get(each)
        if found is None:
            raise Failed(f"there is no replay {each}: `tenterhook replay list` shows them")
        try:
            row = replays.cancelled(found, who=_who(), now_ms=now_ms())
        except Problem as problem:
            print(problem.detail, file=sys.stderr)
            has_failed = True
            continue
        ask_log(connection, _write(connection, row))
        print(json.dumps({"cancelled": each}) if as_json else f"{each} is cancelled")
    return 1 if has_failed else 0


@app.command(name="list")
def list_(
    *,
    log: LogOptions | None = None,
    as_json: Annotated[bool, Parameter(name="--json", negative=())] = False,
) -> None:
    """
    List replays, the newest last. Those that ended 30 days ago are forgotten.

    Args:
        log: Which log.
        as_json: Print them as JSON.
    """
    connection = log_connection(log or LogOptions())
    found = ask_log(connection, _all(connection)).all()
    if as_json:
        print(json.dumps({"items": [_document(each) for each in found]}))
        return
    if not found:
        print("There are none.", file=sys.stderr)
        return
    table = Table("replay", "integration", "from", "until", "status", "done", "ended", "by")
    for each in found:
        shown = _document(each)
        cells = (each.id, each.integration, shown["from"], shown["until"], each.state, f"{share_done(each):.0%}")
        table.add_row(*map(Text, (*cells, _counts(each), each.asked_by)))
    print_table(table)


# -- the log -------------------------------------------------------------------------------------------------


async def _folded(connection: Connection, topic: topics.Topic, apply: Apply) -> None:
    """All that stands on a topic of one partition, now."""
    there = await partitions_of(connection, topic)
    async with reading(connection) as consumer:
        spans = await spans_of(consumer, connection, there[topic])
    await read(connection, spans, lambda record: apply(record.key, record.value, record.offset))


async def _configured(connection: Connection, application: str, integration: str) -> tuple[IntegrationConfig, bool]:
    """The integration, and whether its app may deliver to `http://` URLs."""
    integrations, apps = Integrations(), Apps()
    await _folded(connection, topics.INTEGRATION_CONFIG, integrations.apply)
    await _folded(connection, topics.APP_CONFIG, apps.apply)
    config, owner = integrations.get(integration), apps.get(application)
    if config is None or config.app != application:
        raise Failed(
            f"the app {application} has no integration {integration}: `tenterhook integrations list` shows them"
        )
    return config, owner is not None and owner.allow_http


async def _all(connection: Connection) -> Replays:
    found = Replays()
    await _folded(connection, topics.REPLAYS, found.apply)
    return found


async def _dry(
    connection: Connection, wanted: Replay, config: IntegrationConfig, *, allow_http: bool, sample: int
) -> DryRun:
    try:
        brand = load_settings().header_brand
    except StartupError as error:
        raise Failed(str(error)) from None
    there = await partitions_of(connection, topics.EVENTS)
    return await dry_run(
        connection,
        len(there[topics.EVENTS]),
        wanted,
        config,
        brand=brand,
        version=version("tenterhook"),
        now_ms=now_ms(),
        allow_http=allow_http,
        sample=sample,
    )


async def _write(connection: Connection, row: Replay) -> None:
    producer = await open_producer(connection, client_id="tenterhook-replay")
    try:
        await producer.send_and_wait(connection.topic(topics.REPLAYS), codec.encode(row), key=row_key(row))
    finally:
        await producer.stop()


@asynccontextmanager
async def _followed(connection: Connection) -> AsyncIterator[Replays]:
    found = Replays()
    follower = Follower(connection, topics.REPLAYS, found.apply, clear=found.clear)
    await follower.start()
    try:
        yield found
    finally:
        await follower.stop()


# -- following one -------------------------------------------------------------------------------------------


def _follow(connection: Connection, wanted: Replay, *, quiet: bool) -> Replay:
    """The replay when it has ended, or as it is when somebody has seen enough."""
    latest = [wanted]
    try:
        ask_log(connection, _until_ended(connection, latest, quiet=quiet))
    except KeyboardInterrupt:
        if not sys.stdin.isatty():
            print(f"{wanted.id} goes on: `tenterhook replay cancel {wanted.id}` ends it", file=sys.stderr)
        elif input(f"Cancel {wanted.id}? [y/N] ").strip().lower() in {"y", "yes"}:
            row = replays.cancelled(latest[0], who=_who(), now_ms=now_ms())
            ask_log(connection, _write(connection, row))
            return row
    return latest[0]


async def _until_ended(connection: Connection, latest: list[Replay], *, quiet: bool) -> None:
    console = Console(stderr=True, quiet=quiet or not sys.stderr.isatty())
    columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.fields[said]}"), TimeRemainingColumn())
    replay, began_s = latest[0].id, time.monotonic()
    async with _followed(connection) as found:
        with Progress(*columns, console=console, transient=True) as progress:
            task = progress.add_task(replay, total=1.0, said="waiting for a dispatcher")
            while True:
                there = found.get(replay)
                if there is not None:
                    latest[0] = there
                    progress.update(task, completed=share_done(there))
                row = found.progress(replay)
                if there is not None and there.state != RUNNING and (row is None or row.state != RUNNING):
                    return
                if there is not None and row is not None:
                    progress.update(task, said=_counts(there))
                elif time.monotonic() - began_s > _BEGUN_S:
                    began_s = float("inf")
                    print("No dispatcher has begun it yet: is one running?", file=sys.stderr)
                await asyncio.sleep(_LOOK_S)


def _who() -> str:
    try:
        return f"{getuser()} (command)"
    except (OSError, KeyError):
        return "command"


# -- showing -------------------------------------------------------------------------------------------------


def _document(replay: Replay) -> dict[str, Any]:
    return replays.replay_json(replay, share_done(replay))


def _counts(replay: Replay) -> str:
    return ", ".join(f"{count} {outcome}" for outcome, count in sorted(replay.outcomes.items())) or "0"


def _sentence(replay: Replay) -> str:
    reason = f" ({replay.reason})" if replay.reason else ""
    return f"{replay.id} is {replay.state}{reason}: {_counts(replay)}"


def _show_dry_run(wanted: Replay, found: DryRun, *, as_json: bool) -> None:
    if as_json:
        print(
            json.dumps(
                {
                    "events": found.count,
                    "byType": dict(sorted(found.by_type.items())),
                    "repeatsLeftOut": found.repeats,
                    "seconds": round(found.count / wanted.rate, 1),
                    "sample": [_request(each) for each in found.sample],
                }
            )
        )
        return
    table = Table("event type", "events")
    for name, count in sorted(found.by_type.items()):
        table.add_row(Text(name), str(count))
    print_table(table)
    print(f"{found.count} events, {found.count / wanted.rate:.0f} s at {wanted.rate} a second. Nothing was sent.")
    for each in found.sample:
        request = _request(each)
        print(f"\n{each.event_id} of {request['acceptedAt']}")
        if each.refusal is not None:
            print(f"  would be blocked: {each.refusal[1]}")
        if each.url:
            print(f"  POST {each.url}")
            for name, value in each.headers:
                print(f"  {name}: {value}")
            print(f"\n  {request['body']}")


def _request(each: Shown) -> dict[str, Any]:
    return {
        "eventId": each.event_id,
        "event": each.type,
        "acceptedAt": iso(each.accepted_at_ms),
        "wasDeliveredLive": each.was_delivered_live,
        "url": each.url,
        "headers": [list(header) for header in each.headers],
        "body": each.body.decode(errors="replace"),
        "refusal": None if each.refusal is None else {"code": each.refusal[0], "detail": each.refusal[1]},
    }
