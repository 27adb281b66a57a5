"""`tenterhook secrets`: an integration's secrets, and the keys that secrets are sealed under, over the admin API."""

import json
import sys
from typing import Annotated, Any
from urllib.parse import quote

from cyclopts import App, Parameter
from rich.console import Console
from rich.progress import track
from rich.table import Table
from rich.text import Text

from services.cli.access import Access, AdminOptions, admin_access
from services.cli.errors import Failed, WrongUsage
from services.cli.http import admin_client, ask, listed
from services.cli.integrations.shared import files, one, pairs, with_ids
from services.cli.tables import print_table

app = App(name="secrets")

AsJson = Annotated[bool, Parameter(name="--json", negative=())]
Several = Annotated[tuple[str, ...], Parameter(consume_multiple=False, negative=(), show_default=False)]


@app.command(name="list")
def list_(integration: str, /, *, access: AdminOptions | None = None, as_json: AsJson = False) -> None:
    """
    List the names of an integration's secrets, never a value.

    Args:
        integration: Its id, int_... or sub_...
        access: Which admin API.
        as_json: Print them as JSON.
    """
    found = _asked("GET", integration, "/secrets", access)
    if as_json:
        print(json.dumps(found))
        return
    table = Table("name", "version", "stored", "revealed")
    for each in found["items"]:
        cells = (each["name"], str(each["version"]), each["createdAt"], each["revealedAt"] or "")
        table.add_row(*map(Text, cells))
    print_table(table)


@app.command
def put(
    integration: str,
    /,
    *,
    secret: Several = (),
    secret_file: Several = (),
    access: AdminOptions | None = None,
    as_json: AsJson = False,
) -> None:
    """
    Store secrets of an integration: new ones, or the next version of those that are there.

    Args:
        integration: Its id, int_... or sub_...
        secret: NAME=VALUE, may be repeated.
        secret_file: NAME=FILE, may be repeated. As --secret, out of sight of the process list and the shell's history.
        access: Which admin API.
        as_json: Print each as a line of JSON.
    """
    given = pairs(secret, "--secret") | files(secret_file)
    if not given:
        raise WrongUsage("give at least one --secret NAME=VALUE or --secret-file NAME=FILE")
    for name, value in given.items():
        stored = _asked("PUT", integration, f"/secrets/{quote(name, safe='')}", access, json={"value": value})
        print(json.dumps(stored) if as_json else f"{stored['name']} is at version {stored['version']}")


@app.command
def delete(integration: str, name: str, /, *, access: AdminOptions | None = None, as_json: AsJson = False) -> None:
    """
    Delete a secret of an integration. Refused while its URL or headers refer to it.

    Args:
        integration: Its id, int_... or sub_...
        name: Of the secret.
        access: Which admin API.
        as_json: Print what was deleted as JSON.
    """
    _asked("DELETE", integration, f"/secrets/{quote(name, safe='')}", access)
    print(json.dumps({"deleted": name}) if as_json else f"Deleted {name}")


@app.command
def reveal(integration: str, name: str, /, *, access: AdminOptions | None = None, as_json: AsJson = False) -> None:
    """
    Show a secret of an integration, once a version. Every try is on the audit log.

    Args:
        integration: Its id, int_... or sub_...
        name: Of the secret.
        access: Which admin API.
        as_json: Print it as JSON.
    """
    shown = _asked("POST", integration, f"/secrets/{quote(name, safe='')}/reveal", access)
    print(json.dumps(shown) if as_json else shown["value"])


@app.command
def rotate(
    integration: str,
    /,
    *,
    overlap_hours: float | None = None,
    now: Annotated[bool, Parameter(negative=())] = False,
    access: AdminOptions | None = None,
    as_json: AsJson = False,
) -> None:
    """
    Replace the signing secret of an integration; the new one is printed this once.

    Args:
        integration: Its id, int_... or sub_...
        overlap_hours: How long the old one stays valid; 24 by default.
        now: End the old one at once.
        access: Which admin API.
        as_json: Print the answer as JSON.
    """
    if now and overlap_hours is not None:
        raise WrongUsage("give one of --overlap-hours and --now")
    body: dict[str, Any] = {"now": True} if now else {}
    if overlap_hours is not None:
        body = {"overlapMs": round(overlap_hours * 3_600_000)}
    rotated = _asked("POST", integration, "/rotate", access, json=body)
    if as_json:
        print(json.dumps(rotated))
        return
    print(f"Signing secret, shown this once: {rotated['signingSecret']}")
    until = rotated["previousValidUntil"]
    print("The one before is not valid any more." if until is None else f"The one before is valid until {until}.")


@app.command
def rewrap(
    *,
    all_apps: Annotated[bool, Parameter(name="--all", negative=())] = False,
    new_data_keys: Annotated[bool, Parameter(negative=())] = False,
    access: AdminOptions | None = None,
    as_json: AsJson = False,
) -> int:
    """
    Move secrets under the present key-encryption key, while everything runs.

    Before it, every service has the new key as TENTERHOOK_KEK and the old one as TENTERHOOK_KEK_PREVIOUS; after it, the
    old one can go. Takes a token of the installation. Exits with 1 where something did not open.

    Args:
        all_apps: Of every app, not of one.
        new_data_keys: Make each app a new data key too: for a key-encryption key that somebody else may have had.
        access: Which admin API.
        as_json: Print each app as a line of JSON.
    """
    admin = admin_access(access or AdminOptions())
    left = 0
    with admin_client(admin) as http:
        apps = [each["id"] for each in listed(http, "/v1/apps")] if all_apps else [admin.app]
        console = Console(stderr=True, quiet=as_json or not sys.stderr.isatty())
        http.shows = False
        for name in track(apps, "Moving secrets", console=console, transient=True):
            body = {"newDataKeys": True} if new_data_keys else {}
            moved = ask(http, "POST", f"/v1/apps/{quote(name, safe='')}/rewrap", json=body)
            left += len(moved["left"])
            print(json.dumps(moved) if as_json else f"{name}: {moved['integrations']} integrations written")
            for each in moved["left"]:
                print(f"{name}: {each} does not open, and was left: store it anew", file=sys.stderr)
    return 1 if left else 0


@app.command
def erase(application: str, /, *, confirm: str, access: AdminOptions | None = None, as_json: AsJson = False) -> None:
    """
    Erase every secret that an app has stored, for good. Deliveries that need one are blocked until it is stored anew.

    Args:
        application: The app whose secrets they are.
        confirm: The app's name once more.
        access: Which admin API; takes a token of the installation.
        as_json: Print the answer as JSON.
    """
    if confirm != application:
        raise Failed("--confirm must be the app's name: every secret that it has stored is lost for good")
    admin = admin_access(access or AdminOptions(app=application))
    with admin_client(admin) as http:
        done = ask(http, "POST", f"/v1/apps/{quote(application, safe='')}/erase", json={"confirm": confirm})
    print(json.dumps(done) if as_json else f"{application}: {done['erased']} data keys erased")


def _asked(method: str, integration: str, path: str, access: AdminOptions | None, **request: Any) -> Any:
    admin: Access = with_ids((integration,), access)
    with admin_client(admin) as http:
        return ask(http, method, one(admin, integration) + path, **request)
