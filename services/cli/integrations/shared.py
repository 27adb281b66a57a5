"""What the commands on integrations share: paths, pages, and NAME=VALUE options."""

from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

from rich.table import Table
from rich.text import Text

from schemas.profiles import ProfileName
from services.cli.access import Access, AdminOptions, admin_access
from services.cli.errors import WrongUsage
from services.cli.tables import print_table

COLLECTIONS: Final[dict[ProfileName, str]] = {"integration": "integrations", "booking": "subscriptions"}


def with_ids(ids: tuple[str, ...], access: AdminOptions | None) -> Access:
    """Which admin API; refuses to go on without an id."""
    if not ids:
        raise WrongUsage("give the id of at least one integration: `tenterhook integrations list` shows them")
    return admin_access(access or AdminOptions())


def one(admin: Access, integration: str) -> str:
    """The path of an integration; its id tells which kind it is."""
    profile: ProfileName = "booking" if integration.startswith("sub_") else "integration"
    return f"{path_of(admin, profile)}/{quote(integration, safe='')}"


def path_of(admin: Access, profile: ProfileName) -> str:
    """The path of all integrations of a profile."""
    return f"/v1/apps/{quote(admin.app, safe='')}/{COLLECTIONS[profile]}"


def pairs(given: tuple[str, ...], option: str) -> dict[str, str]:
    """NAME=VALUE options as a dictionary."""
    found = {}
    for each in given:
        name, equals, value = each.partition("=")
        if not equals or not name:
            raise WrongUsage(f"{option} takes NAME=VALUE")
        found[name.strip()] = value
    return found


def files(given: tuple[str, ...]) -> dict[str, str]:
    """The content of each file, without the line end that editors add."""
    try:
        return {
            name: Path(path).read_text(encoding="utf-8").removesuffix("\n").removesuffix("\r")
            for name, path in pairs(given, "--secret-file").items()
        }
    except (OSError, UnicodeDecodeError) as error:
        raise WrongUsage(f"--secret-file: a file cannot be read as text ({type(error).__name__})") from None


def template_of(path: Path) -> str:
    """The template in that file."""
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise WrongUsage(f"--template-file: {path} cannot be read as text ({type(error).__name__})") from None


def show_table(items: list[dict[str, Any]]) -> None:
    """Print integrations as a table."""
    table = Table("id", "name", "status", "events", "ordering", "url")
    for item in items:
        events = ", ".join(item["events"]) or "none"
        # As Text: names and URLs may hold what rich takes for markup.
        table.add_row(*map(Text, (item["id"], item["name"], item["status"], events, item["ordering"], item["url"])))
    print_table(table)
