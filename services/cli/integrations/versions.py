"""What an integration is set to and was: show, change, history, differences, going back, over the admin API."""

import json
from pathlib import Path
from typing import Annotated, Any

from cyclopts import App, Parameter
from rich.table import Table
from rich.text import Text

from schemas.profiles import Ordering, WhilePaused
from services.cli.access import AdminOptions
from services.cli.errors import WrongUsage
from services.cli.http import admin_client, ask
from services.cli.integrations.shared import files, one, pairs, template_of, with_ids
from services.cli.tables import print_table

Several = Annotated[tuple[str, ...], Parameter(consume_multiple=False, negative=(), show_default=False)]
AsJson = Annotated[bool, Parameter(name="--json", negative=())]


def add_to(app: App) -> None:
    """Add these commands."""
    for command, name in (
        (show, "show"),
        (change, "set"),
        (history, "history"),
        (diff, "diff"),
        (rollback, "rollback"),
    ):
        app.command(command, name=name)


def show(integration: str, /, *, access: AdminOptions | None = None, as_json: AsJson = False) -> None:
    """
    Show an integration or subscription: its settings, status and last delivery.

    Args:
        integration: Its id, int_... or sub_...
        access: Which admin API.
        as_json: Print it as JSON.
    """
    admin = with_ids((integration,), access)
    with admin_client(admin) as http:
        found = ask(http, "GET", one(admin, integration))
    _show(found, as_json=as_json)


def change(
    integration: str,
    /,
    *,
    name: str | None = None,
    url: str | None = None,
    events: Several = (),
    header: Several = (),
    no_header: Several = (),
    secret: Several = (),
    secret_file: Several = (),
    no_secret: Several = (),
    ordering: Ordering | None = None,
    max_in_flight: int | None = None,
    timeout_ms: int | None = None,
    max_attempts: int | None = None,
    while_paused: WhilePaused | None = None,
    auto_pause: bool | None = None,
    signing: bool | None = None,
    send_traceparent: bool | None = None,
    template_file: Path | None = None,
    no_template: Annotated[bool, Parameter(negative=())] = False,
    if_version: int | None = None,
    access: AdminOptions | None = None,
    as_json: AsJson = False,
) -> None:
    """
    Change an integration or subscription. What is not given stays.

    Args:
        integration: Its id, int_... or sub_...
        name: For people.
        url: Where its events go. May hold references, {secret.NAME}.
        events: Types it gets from now on, with commas, instead of those before; '*' is all, '' none.
        header: NAME=VALUE, may be repeated; others stay.
        no_header: NAME of a header that is taken away, may be repeated.
        secret: NAME=VALUE, may be repeated. Sealed, and never shown again.
        secret_file: NAME=FILE, may be repeated. As --secret, out of sight of the process list and the shell's history.
        no_secret: NAME of a secret that is taken away, may be repeated.
        ordering: Which order is kept.
        max_in_flight: Requests at once, where the ordering allows several; 1 to 100.
        timeout_ms: Over the whole request; 1 to 10,000.
        max_attempts: 1 to 20. The waits between them start anew from the defaults.
        while_paused: What becomes of deliveries while it is paused.
        auto_pause: Whether 20 failed attempts in a row pause it.
        signing: Sign requests. Where they begin to be, the secret is printed this once.
        send_traceparent: Tell receivers the trace of a request that is traced.
        template_file: File with the template of its bodies.
        no_template: Take the template away: bodies have the profile's own shape.
        if_version: Change it only if this is its version; `show` tells it.
        access: Which admin API.
        as_json: Print the answer as JSON.
    """
    settings: dict[str, Any] = {
        "name": name,
        "url": url,
        "events": _events(events),
        "headers": pairs(header, "--header") | dict.fromkeys(no_header),
        "secrets": pairs(secret, "--secret") | files(secret_file) | dict.fromkeys(no_secret),
        "ordering": ordering,
        "maxInFlight": max_in_flight,
        "timeoutMs": timeout_ms,
        "retry": None if max_attempts is None else {"maxAttempts": max_attempts},
        "whilePaused": while_paused,
        "autoPause": auto_pause,
        "signing": signing,
        "sendTraceparent": send_traceparent,
    }
    patch = {field: value for field, value in settings.items() if value is not None and value != {}}
    if template_file is not None or no_template:
        patch["template"] = None if template_file is None else template_of(template_file)
    if not patch:
        raise WrongUsage("say what to change: `tenterhook integrations set --help` lists the settings")
    admin = with_ids((integration,), access)
    headers = {} if if_version is None else {"If-Match": f'"{if_version}"'}
    with admin_client(admin) as http:
        changed = ask(http, "PATCH", one(admin, integration), json=patch, headers=headers)
    if as_json:
        print(json.dumps(changed))
        return
    print(f"{integration} is at version {changed['version']}")
    if "signingSecret" in changed:
        print(f"Signing secret, shown this once: {changed['signingSecret']}")


def history(integration: str, /, *, access: AdminOptions | None = None, as_json: AsJson = False) -> None:
    """
    Show the versions of an integration or subscription, newest first: who changed what, and when.

    Args:
        integration: Its id, int_... or sub_...
        access: Which admin API.
        as_json: Print them as JSON.
    """
    admin = with_ids((integration,), access)
    with admin_client(admin) as http:
        found = ask(http, "GET", f"{one(admin, integration)}/history")
    if as_json:
        print(json.dumps(found))
        return
    table = Table("version", "at", "by", "changed")
    for each in found["items"]:
        fields = "" if each["changes"] is None else ", ".join(change["field"] for change in each["changes"])
        table.add_row(*map(Text, (str(each["version"]), each["updatedAt"], each["updatedBy"], fields)))
    print_table(table)


def diff(
    integration: str,
    before: int,
    after: int | None = None,
    /,
    *,
    access: AdminOptions | None = None,
    as_json: AsJson = False,
) -> None:
    """
    Show in which settings two versions of an integration or subscription differ.

    Args:
        integration: Its id, int_... or sub_...
        before: The one version.
        after: The other; the present one by default.
        access: Which admin API.
        as_json: Print them as JSON.
    """
    admin = with_ids((integration,), access)
    wanted = {"from": before} | ({} if after is None else {"to": after})
    with admin_client(admin) as http:
        found = ask(http, "GET", f"{one(admin, integration)}/diff", params=wanted)
    if as_json:
        print(json.dumps(found))
        return
    table = Table("setting", f"version {found['from']}", f"version {found['to']}")
    for each in found["changes"]:
        table.add_row(*map(Text, (each["field"], _plain(each["from"]), _plain(each["to"]))))
    print_table(table)


def rollback(integration: str, version: int, /, *, access: AdminOptions | None = None, as_json: AsJson = False) -> None:
    """
    Set an integration or subscription to what it was in an earlier version. Its secrets stay the present ones.

    Args:
        integration: Its id, int_... or sub_...
        version: To go back to; `history` lists them.
        access: Which admin API.
        as_json: Print the answer as JSON.
    """
    admin = with_ids((integration,), access)
    with admin_client(admin) as http:
        changed = ask(http, "POST", f"{one(admin, integration)}/rollback", json={"version": version})
    print(json.dumps(changed) if as_json else f"{integration} is at version {changed['version']}, set as in {version}")


def _events(given: tuple[str, ...]) -> list[str] | None:
    """None: they stay. One that is empty: none any more."""
    if not given:
        return None
    return [event.strip() for each in given for event in each.split(",") if event.strip()]


def _show(found: dict[str, Any], *, as_json: bool) -> None:
    if as_json:
        print(json.dumps(found))
        return
    table = Table("setting", "value", show_header=False)
    for name, value in found.items():
        table.add_row(name, Text(_plain(value)))
    print_table(table)


def _plain(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)
