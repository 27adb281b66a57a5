"""`tenterhook apps`: apps, their settings, their ingest keys and their event types, over the admin API."""

import json
import sys
from typing import Annotated, Any, Literal
from urllib.parse import quote
from uuid import uuid4

from cyclopts import App, Parameter
from rich.table import Table
from rich.text import Text

from services.cli.access import Access, AdminOptions, InstallationOptions, admin_access, installation_access
from services.cli.errors import WrongUsage
from services.cli.http import admin_client, ask, listed
from services.cli.tables import print_table

app = App(name="apps")
keys = App(name="keys", help="List, create and delete an app's ingest keys.")
types = App(name="types", help="List the event types that an app knows, and change its own.")
app.command(keys)
app.command(types)

AsJson = Annotated[bool, Parameter(name="--json", negative=())]


@app.command(name="list")
def list_(*, access: InstallationOptions | None = None, as_json: AsJson = False) -> None:
    """
    List the apps that the token is for.

    Args:
        access: Which admin API.
        as_json: Print them as JSON.
    """
    with admin_client(installation_access(access or InstallationOptions())) as http:
        items = listed(http, "/v1/apps")
    if as_json:
        print(json.dumps({"items": items, "next": None}))
    elif items:
        _show(items)
    else:
        print("There are none. `tenterhook apps create` makes one.", file=sys.stderr)


@app.command
def create(
    app_id: Annotated[str, Parameter(name="ID")],
    /,
    *,
    name: str | None = None,
    origins: str | None = None,
    types: str | None = None,
    allow_http: bool | None = None,
    max_active: int | None = None,
    public_rate: int | None = None,
    access: InstallationOptions | None = None,
    as_json: AsJson = False,
) -> None:
    """
    Create an app. It has no keys then: `tenterhook apps keys create --app ID` makes some.

    Takes a token of the whole installation.

    Args:
        app_id: 1 to 64 of a-z 0-9 _ -.
        name: For people; the id where absent.
        origins: Origins of pages that may use its public keys, with commas; '*' is any. None by default.
        types: Event types of its own, with commas.
        allow_http: Let its integrations have http:// URLs.
        max_active: Active integrations at once; 3 by default.
        public_rate: Events a second that its public keys may post; 100 by default.
        access: Which admin API.
        as_json: Print the answer as JSON.
    """
    body = {"id": app_id} | _settings(name, origins, types, allow_http, max_active, public_rate)
    with admin_client(installation_access(access or InstallationOptions())) as http:
        # The key makes a create that is sent twice on the way one create.
        created = ask(http, "POST", "/v1/apps", json=body, headers={"Idempotency-Key": str(uuid4())})
    _print(created, as_json=as_json)


@app.command
def show(*, access: AdminOptions | None = None, as_json: AsJson = False) -> None:
    """
    Show an app's settings.

    Args:
        access: Which app, on which admin API.
        as_json: Print them as JSON.
    """
    admin = admin_access(access or AdminOptions())
    with admin_client(admin) as http:
        shown = ask(http, "GET", _path(admin))
    _print(shown, as_json=as_json)


@app.command(name="set")
def set_(
    *,
    name: str | None = None,
    origins: str | None = None,
    types: str | None = None,
    allow_http: bool | None = None,
    max_active: int | None = None,
    public_rate: int | None = None,
    access: AdminOptions | None = None,
    as_json: AsJson = False,
) -> None:
    """
    Change an app's settings; those that are not given stay.

    Allowing http and raising a limit takes a token of the whole installation.

    Args:
        name: For people.
        origins: Origins of pages that may use its public keys, with commas, in place of those it has; '*' is any, ''
            none.
        types: Event types of its own, with commas, in place of those it has; see `apps types add` for one.
        allow_http: Let its integrations have http:// URLs. Without it, those that have one are blocked.
        max_active: Active integrations at once. Those that are active stay.
        public_rate: Events a second that its public keys may post.
        access: Which app, on which admin API.
        as_json: Print the answer as JSON.
    """
    body = _settings(name, origins, types, allow_http, max_active, public_rate)
    if not body:
        raise WrongUsage("say what to set: `tenterhook apps set --help` lists the options")
    admin = admin_access(access or AdminOptions())
    with admin_client(admin) as http:
        changed = ask(http, "PATCH", _path(admin), json=body)
    _print(changed, as_json=as_json)


@app.command
def delete(
    app_id: Annotated[str, Parameter(name="ID")],
    /,
    *,
    access: InstallationOptions | None = None,
    as_json: AsJson = False,
) -> None:
    """
    Delete an app that has no integrations, with its keys and tokens.

    Takes a token of the whole installation.

    Args:
        app_id: The app's id.
        access: Which admin API.
        as_json: Print what was deleted as JSON.
    """
    with admin_client(installation_access(access or InstallationOptions())) as http:
        ask(http, "DELETE", f"/v1/apps/{quote(app_id, safe='')}")
    _say_deleted(app_id, as_json=as_json)


@keys.command(name="list")
def list_keys(*, access: AdminOptions | None = None, as_json: AsJson = False) -> None:
    """
    List an app's ingest keys, without what opens anything.

    Args:
        access: Which app, on which admin API.
        as_json: Print them as JSON.
    """
    admin = admin_access(access or AdminOptions())
    with admin_client(admin) as http:
        answer = ask(http, "GET", f"{_path(admin)}/keys")
    if as_json:
        print(json.dumps(answer))
    elif answer["items"]:
        _table(("id", "kind", "createdAt"), answer["items"])
    else:
        print(f"The app {admin.app} has none. `tenterhook apps keys create` makes one.", file=sys.stderr)


@keys.command(name="create")
def create_key(
    *, kind: Literal["public", "secret"], access: AdminOptions | None = None, as_json: AsJson = False
) -> None:
    """
    Create an ingest key. It is printed this once; only its hash is kept.

    Args:
        kind: public for web pages (pk_...), secret for servers (sk_...).
        access: Which app, on which admin API.
        as_json: Print the answer as JSON.
    """
    admin = admin_access(access or AdminOptions())
    with admin_client(admin) as http:
        # Without an Idempotency-Key: a key cannot be shown again, so a repeat could only say that it was made.
        created = ask(http, "POST", f"{_path(admin)}/keys", json={"kind": kind})
    if as_json:
        print(json.dumps(created))
    else:
        _table(("id", "kind", "createdAt"), [created])
        print(f"Key, shown this once: {created['key']}")


@keys.command(name="delete")
def delete_keys(*ids: str, access: AdminOptions | None = None, as_json: AsJson = False) -> None:
    """
    Delete ingest keys by id. Ingest refuses them from then on.

    Args:
        ids: One or more ids, key_...
        access: Which app, on which admin API.
        as_json: Print what was deleted as JSON.
    """
    _delete_each(
        "keys", ids, "give the id of at least one key: `tenterhook apps keys list` shows them", access, as_json
    )


@types.command(name="list")
def list_types(*, access: AdminOptions | None = None, as_json: AsJson = False) -> None:
    """
    List the event types that the app's integrations can select.

    Args:
        access: Which app, on which admin API.
        as_json: Print them as JSON, each with a sample payload where one is known.
    """
    admin = admin_access(access or AdminOptions())
    with admin_client(admin) as http:
        answer = ask(http, "GET", f"{_path(admin)}/event-types")
    if as_json:
        print(json.dumps(answer))
    else:
        _table(("type", "source", "description"), answer["items"])


@types.command
def add(*names: str, access: AdminOptions | None = None, as_json: AsJson = False) -> None:
    """
    Add event types of the app's own: integrations can select them, and public keys post them.

    Args:
        names: One or more types: 1 to 128 of A-Z a-z 0-9 _ . -.
        access: Which app, on which admin API.
        as_json: Print each as a line of JSON.
    """
    if not names:
        raise WrongUsage("give at least one type")
    admin = admin_access(access or AdminOptions())
    with admin_client(admin) as http:
        for each in names:
            added = ask(http, "POST", f"{_path(admin)}/event-types", json={"type": each})
            print(json.dumps(added) if as_json else f"The app {admin.app} has the type {each}")


@types.command
def remove(*names: str, access: AdminOptions | None = None, as_json: AsJson = False) -> None:
    """
    Remove event types of the app's own that no integration selects.

    Args:
        names: One or more types.
        access: Which app, on which admin API.
        as_json: Print what was removed as JSON.
    """
    _delete_each(
        "event-types", names, "give at least one type: `tenterhook apps types list` shows them", access, as_json
    )


def _settings(
    name: str | None,
    origins: str | None,
    types: str | None,
    allow_http: bool | None,
    max_active: int | None,
    public_rate: int | None,
) -> dict[str, Any]:
    """The fields that were given."""
    given = {
        "name": name,
        "origins": _separate(origins),
        "eventTypes": _separate(types),
        "allowHttp": allow_http,
        "maxActive": max_active,
        "publicRatePerS": public_rate,
    }
    return {field: value for field, value in given.items() if value is not None}


def _separate(given: str | None) -> list[str] | None:
    return None if given is None else [each.strip() for each in given.split(",") if each.strip()]


def _delete_each(what: str, ids: tuple[str, ...], missing: str, access: AdminOptions | None, as_json: bool) -> None:
    if not ids:
        raise WrongUsage(missing)
    admin = admin_access(access or AdminOptions())
    with admin_client(admin) as http:
        for each in ids:
            ask(http, "DELETE", f"{_path(admin)}/{what}/{quote(each, safe='')}")
            _say_deleted(each, as_json=as_json)


def _say_deleted(what: str, *, as_json: bool) -> None:
    print(json.dumps({"deleted": what}) if as_json else f"Deleted {what}")


def _path(admin: Access) -> str:
    return f"/v1/apps/{quote(admin.app, safe='')}"


def _print(shown: dict[str, Any], *, as_json: bool) -> None:
    if as_json:
        print(json.dumps(shown))
    else:
        _show([shown])


def _show(items: list[dict[str, Any]]) -> None:
    table = Table("id", "name", "origins", "own types", "http", "max active", "public events/s")
    for item in items:
        origins, own = (", ".join(item[field]) or "none" for field in ("origins", "eventTypes"))
        http = "allowed" if item["allowHttp"] else "no"
        limits = (str(item["maxActive"]), str(item["publicRatePerS"]))
        # As Text: names may hold what rich takes for markup.
        table.add_row(*map(Text, (item["id"], item["name"], origins, own, http, *limits)))
    print_table(table)


def _table(fields: tuple[str, ...], items: list[dict[str, Any]]) -> None:
    table = Table(*("created" if field == "createdAt" else field for field in fields))
    for item in items:
        table.add_row(*(Text(item[field] or "") for field in fields))
    print_table(table)
