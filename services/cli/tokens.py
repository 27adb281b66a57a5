"""`tenterhook tokens`: tokens of the admin API, of an app or of the whole installation."""

import asyncio
import json
import secrets
import sys
from typing import Annotated, Any, Final, Literal
from urllib.parse import quote

from cyclopts import App, Parameter
from rich.console import Console
from rich.table import Table
from rich.text import Text
from uuid_utils import uuid7

from services.admin.app_commands import AppCommands
from services.admin.changes import Changes
from services.admin.config_log import ConfigLog
from services.admin.rules import Refused
from services.admin.tokens import EVERY_APP, Caller
from services.cli.access import Access, AdminOptions, admin_access, installation_access
from services.cli.errors import Failed, WrongUsage
from services.cli.http import admin_client, ask
from services.cli.log_access import LogOptions, ask_log, log_connection
from services.cli.tables import print_table
from services.runtime.clock import now_ms
from services.runtime.problems import Problem
from services.runtime.process import load_settings
from services.vault.keks import KekError, load_keyring
from streams.connection import Connection
from streams.topics import Partitions, TopicMismatch

app = App(name="tokens")

AsJson = Annotated[bool, Parameter(name="--json", negative=())]
Installation = Annotated[bool, Parameter(negative=())]

#: How long reading the configuration may take.
_OPEN_S: Final = 30.0


@app.command(name="list")
def list_(*, installation: Installation = False, access: AdminOptions | None = None, as_json: AsJson = False) -> None:
    """
    List an app's tokens, or those of the whole installation, without what opens anything.

    Args:
        installation: Those of the whole installation, in place of one app's.
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
        installation: For the whole installation, in place of one app; takes such a token.
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
        installation: Those of the whole installation, in place of one app's.
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


@app.command
def first(
    name: Annotated[str, Parameter(name="NAME")], /, *, log: LogOptions | None = None, as_json: AsJson = False
) -> None:
    """
    Create the first token of a new installation: an admin's, for everything. It is printed this once.

    Needs the broker and a running admin service, and no token; refused where there is a token of an admin already.

    Args:
        name: Who uses it: the audit log names it so.
        log: Which log.
        as_json: Print the token as JSON.
    """
    connection = log_connection(log or LogOptions())
    with Console(stderr=True, quiet=as_json or not sys.stderr.isatty()).status("Reading the configuration"):
        created = ask_log(connection, _first(connection, name))
    if as_json:
        print(json.dumps(created))
    else:
        _show([created])
        print(f"Token, shown this once: {created['token']}")


async def _first(connection: Connection, name: str) -> dict[str, Any]:
    settings = load_settings()
    config = ConfigLog(connection)
    changes = Changes(connection, config, process=f"command-{uuid7().hex}", now_ms=now_ms, new_id=lambda: uuid7().hex)
    try:
        async with asyncio.timeout(_OPEN_S):
            await config.open(
                Partitions(settings.partitions.by_app, settings.partitions.by_integration),
                replication=settings.replication,
            )
            await changes.open()
        commands = AppCommands(config, changes, load_keyring(settings), now_ms=now_ms, random=secrets.token_bytes)
        return await commands.create_first_token(name, Caller("command", "admin", b"", EVERY_APP))
    except (Refused, Problem, TopicMismatch, KekError) as error:
        raise Failed(str(error)) from None
    except TimeoutError:
        raise Failed("the configuration could not be read in time: is the broker well?") from None
    finally:
        await changes.close()
        await config.close()


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
