"""`tenterhook replay`: past events of an app to one integration again; a dry run, progress, cancelling."""

import json
import sys
import time
from dataclasses import replace
from typing import Annotated, Any, Final
from urllib.parse import quote

from cyclopts import App, Parameter
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from services.cli.access import Access, AdminOptions, InstallationOptions, admin_access, installation_access
from services.cli.asking import says_yes
from services.cli.errors import Failed, WrongUsage
from services.cli.http import Waiting, admin_client, ask, listed
from services.cli.integrations.shared import one
from services.cli.log_access import time_ms
from services.cli.tables import print_table
from streams.replays import RUNNING

app = App(name="replay")

Several = Annotated[tuple[str, ...], Parameter(consume_multiple=False, negative=(), show_default=False)]
AsJson = Annotated[bool, Parameter(name="--json", negative=())]

#: How often the bar moves.
_LOOK_S: Final = 0.5
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
    rate: int | None = None,
    dry_run: Annotated[bool, Parameter(negative=())] = False,
    sample: int | None = None,
    detach: Annotated[bool, Parameter(negative=())] = False,
    access: InstallationOptions | None = None,
    as_json: AsJson = False,
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
        rate: Events a second, at most: 1 to 1,000; 20 where absent.
        dry_run: Send nothing: count by type, and show the first requests.
        sample: So many requests, with --dry-run; 3 where absent.
        detach: Do not wait for its end.
        access: Which admin API.
        as_json: Print what was done as JSON.
    """
    if sample is not None and not dry_run:
        raise WrongUsage("--sample is for --dry-run")
    for given, option in ((since, "--from"), (until, "--until")):
        if given is not None:
            time_ms(given, option)
    body = {"from": since, "until": until, "types": [*type], "eventIds": [*event], "rate": rate, "sample": sample}
    body = {name: value for name, value in body.items() if value not in (None, [])}
    admin = replace(installation_access(access or InstallationOptions()), app=application)
    path = one(admin, integration)
    with admin_client(admin) as http:
        if dry_run:
            _show_dry_run(ask(http, "POST", f"{path}/replay", json=body | {"dryRun": True}), as_json=as_json)
            return 0
        replay = ask(http, "POST", f"{path}/replay", json=body)
        if not detach:
            replay = _follow(http, f"{path}/replays/{replay['id']}", replay, quiet=as_json)
    print(json.dumps(replay) if as_json else _sentence(replay))
    return 0 if detach or replay["status"] == "done" else 1


@app.command
def cancel(
    *ids: str,
    access: AdminOptions | None = None,
    as_json: AsJson = False,
) -> int:
    """
    Cancel replays: nothing more of them is sent, but for what is under way.

    Exits with 1 where one of them had ended already.

    Args:
        ids: One or more ids of replays, rpl_...
        access: Which app, on which admin API.
        as_json: Print each as a line of JSON.
    """
    if not ids:
        raise WrongUsage("give the id of a replay, rpl_...; `tenterhook replay list` shows them")
    admin = admin_access(access or AdminOptions())
    has_failed = False
    with admin_client(admin) as http:
        # Whose they are: a replay is named below its integration.
        there = {each["id"]: each["integration"] for each in listed(http, _all(admin))}
        for each in ids:
            if each not in there:
                raise Failed(f"the app {admin.app} has no replay {each}: `tenterhook replay list` shows them")
            try:
                ask(http, "POST", f"{one(admin, there[each])}/replays/{each}/cancel")
            except Failed as failed:
                print(failed, file=sys.stderr)
                has_failed = True
                continue
            print(json.dumps({"cancelled": each}) if as_json else f"{each} is cancelled")
    return 1 if has_failed else 0


@app.command(name="list")
def list_(*, access: AdminOptions | None = None, as_json: AsJson = False) -> None:
    """
    List an app's replays, the newest last. Those that ended 30 days ago are forgotten.

    Args:
        access: Which app, on which admin API.
        as_json: Print them as JSON.
    """
    admin = admin_access(access or AdminOptions())
    with admin_client(admin) as http:
        found = listed(http, _all(admin))[::-1]
    if as_json:
        print(json.dumps({"items": found}))
        return
    if not found:
        print("There are none.", file=sys.stderr)
        return
    table = Table("replay", "integration", "from", "until", "status", "done", "ended", "by")
    for each in found:
        range_ = (each["from"], each["until"], each["status"], f"{each['progress']['share']:.0%}")
        table.add_row(*map(Text, (each["id"], each["integration"], *range_, _counts(each), each["createdBy"])))
    print_table(table)


def _all(admin: Access) -> str:
    return f"/v1/apps/{quote(admin.app, safe='')}/replays"


# -- following one -------------------------------------------------------------------------------------------


def _follow(http: Waiting, path: str, replay: dict[str, Any], *, quiet: bool) -> dict[str, Any]:
    """The replay when it has ended, or as it is when somebody has seen enough."""
    latest = [replay]
    http.shows = False
    try:
        _until_ended(http, path, latest, quiet=quiet)
    except KeyboardInterrupt:
        if not sys.stdin.isatty():
            print(f"{replay['id']} goes on: `tenterhook replay cancel {replay['id']}` ends it", file=sys.stderr)
        elif says_yes(f"Cancel {replay['id']}?"):
            cancelled: dict[str, Any] = ask(http, "POST", f"{path}/cancel")
            return cancelled
    return latest[0]


def _until_ended(http: Waiting, path: str, latest: list[dict[str, Any]], *, quiet: bool) -> None:
    console = Console(stderr=True, quiet=quiet or not sys.stderr.isatty())
    columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.fields[said]}"), TimeRemainingColumn())
    began_s = time.monotonic()
    with Progress(*columns, console=console, transient=True) as progress:
        task = progress.add_task(latest[0]["id"], total=1.0, said="waiting for a dispatcher")
        while latest[0]["status"] == RUNNING:
            time.sleep(_LOOK_S)
            latest[0] = ask(http, "GET", path)
            has_begun = latest[0]["progress"]["reachedAt"] is not None or latest[0]["progress"]["ended"] > 0
            if has_begun:
                progress.update(task, completed=latest[0]["progress"]["share"], said=_counts(latest[0]))
            elif time.monotonic() - began_s > _BEGUN_S:
                began_s = float("inf")
                print("It has not begun yet: is a dispatcher running, and the integration active?", file=sys.stderr)


# -- showing -------------------------------------------------------------------------------------------------


def _counts(replay: dict[str, Any]) -> str:
    return ", ".join(f"{count} {outcome}" for outcome, count in replay["progress"]["outcomes"].items()) or "0"


def _sentence(replay: dict[str, Any]) -> str:
    reason = f" ({replay['reason']})" if replay["reason"] else ""
    return f"{replay['id']} is {replay['status']}{reason}: {_counts(replay)}"


def _show_dry_run(found: dict[str, Any], *, as_json: bool) -> None:
    if as_json:
        print(json.dumps(found))
        return
    table = Table("event type", "events")
    for name, count in found["byType"].items():
        table.add_row(Text(name), str(count))
    print_table(table)
    print(f"{found['events']} events, in {found['seconds']:.0f} s. Nothing was sent.")
    for each in found["sample"]:
        print(f"\n{each['eventId']} of {each['acceptedAt']}")
        if each["refusal"] is not None:
            print(f"  would be blocked: {each['refusal']['detail']}")
        if each["url"]:
            print(f"  POST {each['url']}")
            for header in each["headers"]:
                print(f"  {header['name']}: {header['value']}")
            print(f"\n  {each['body']}")
