"""`tenterhook tokens`: tokens of the admin API, of an app or of the whole installation."""

import json
from typing import Annotated, Literal
from urllib.parse import quote

from cyclopts import App, Parameter
from rich.table import Table
from rich.text import Text

from services.cli.access import Access, AdminOptions, admin_access, installation_access
from services.cli.errors import WrongUsage
from services.cli.http import admin_client, ask
from services.cli.tables import print_table

app = App(name="tokens")

AsJson = Annotated[bool, Parameter(name="--json", negative=())]
Installation = Annotated[bool, Parameter(negative=())]


@app.command(name="list")
def list_(*, installation: Installation = False, access: AdminOptions | None = None, as_json: AsJson = False) -> None:
    """
    List an app's tokens, or those of the whole installation, without what opens anything.

    Args:
        installation: Those of the whole installation.
        access: Which app, on which admin API.
        as_json: Print them as JSON.
    """
    admin, path = _where(access, installation=installation)
    with admin_client(admin) as http:
        answer = ask(http, "GET", path)
    if as_json:
        print(json.dumps(answer))
    else:
        _show(answer["items"])


@app.command
def create(
    name: Annotated[str, Parameter(name="NAME")],
    /,
    *,
    role: Literal["viewer", "operator", "admin"],
    installation: Installation = False,
    access: AdminOptions | None = None,
    as_json: AsJson = False,
) -> None:
    """
    Create a token. It is printed this once; only its hash is kept.

    Args:
        name: Who uses it: the audit log names it so.
        role: viewer reads; operator also pauses, activates, retries and replays; admin also creates and deletes.
        installation: For the whole installation; takes such a token.
        access: Which app, on which admin API.
        as_json: Print the answer as JSON.
    """
    admin, path = _where(access, installation=installation)
    with admin_client(admin) as http:
        created = ask(http, "POST", path, json={"name": name, "role": role})
    if as_json:
        print(json.dumps(created))
    else:
        _show([created])
        print(f"Token, shown this once: {created['token']}")


@app.command
def delete(
    *names: str,
    installation: Installation = False,
    access: AdminOptions | None = None,
    as_json: AsJson = False,
) -> None:
    """
    Delete tokens by name. They open nothing from then on.

    Args:
        names: One or more names.
        installation: Those of the whole installation.
        access: Which app, on which admin API.
        as_json: Print what was deleted as JSON.
    """
    if not names:
        raise WrongUsage("give the name of at least one token: `tenterhook tokens list` shows them")
    admin, path = _where(access, installation=installation)
    with admin_client(admin) as http:
        for each in names:
            ask(http, "DELETE", f"{path}/{quote(each, safe='')}")
            print(json.dumps({"deleted": each}) if as_json else f"Deleted {each}")


def _where(access: AdminOptions | None, *, installation: bool) -> tuple[Access, str]:
    """The admin API, and the path of the tokens that are meant."""
    options = access or AdminOptions()
    if installation:
        return installation_access(options), "/v1/tokens"
    admin = admin_access(options)
    return admin, f"/v1/apps/{quote(admin.app, safe='')}/tokens"


def _show(items: list[dict[str, str]]) -> None:
    table = Table("name", "role", "created")
    for item in items:
        table.add_row(*map(Text, (item["name"], item["role"], item["createdAt"])))
    print_table(table)
