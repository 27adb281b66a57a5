"""
Where a command finds the services, and with which keys: options, then variables, then files, then a running `up`.

`up` writes `.tenterhook/ready.json` in the folder it runs in. Its keys are used for its own addresses alone: with
another address given, they stay here.
"""

import json
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Final

from cyclopts import Parameter

from services.cli.errors import Failed, WrongUsage

READY_FILE: Final = Path(".tenterhook/ready.json")

#: Where the services listen unless they are told otherwise.
DEFAULT_ADMIN: Final = "http://127.0.0.1:8081"
DEFAULT_INGEST: Final = "http://127.0.0.1:8080"

#: Stands for no app in particular.
EVERY_APP: Final = "*"


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class InstallationOptions:
    """Options of every command that asks the admin API about more than one app."""

    admin: Annotated[
        str | None, Parameter(env_var="TENTERHOOK_ADMIN_URL", help="Address of the admin API; else that of `up`.")
    ] = None
    token: Annotated[
        str | None, Parameter(env_var="TENTERHOOK_TOKEN", help="Bearer token of the admin API; else that of `up`.")
    ] = field(default=None, repr=False)


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class AdminOptions(InstallationOptions):
    """Options of every command that asks the admin API about an app."""

    app: Annotated[str | None, Parameter(env_var="TENTERHOOK_APP", help="Which app; else that of `up`.")] = None


@dataclass(frozen=True, slots=True)
class Access:
    """A service's address, the app, and what opens it."""

    url: str
    #: `*`: none in particular.
    app: str
    credential: str = field(repr=False)


def admin_access(options: AdminOptions, ready_file: Path = READY_FILE) -> Access:
    """
    The admin API that a command asks, and its token.

    Raises:
        WrongUsage: no app or no token is known.
        Failed: there is a ready file, and it cannot be read.
    """
    ready = running_up(ready_file)
    url, token = _admin(options, ready)
    return Access(url, _app(options.app, ready), token)


def installation_access(options: InstallationOptions, ready_file: Path = READY_FILE) -> Access:
    """
    The admin API that a command asks about no one app, and its token.

    Raises:
        WrongUsage: no token is known.
        Failed: there is a ready file, and it cannot be read.
    """
    url, token = _admin(options, running_up(ready_file))
    return Access(url, EVERY_APP, token)


def ingest_access(app: str | None, ingest: str | None, key: str | None, ready_file: Path = READY_FILE) -> Access:
    """
    The ingest service that a command sends to, and a key of the app.

    Raises:
        WrongUsage: no app or no key is known.
        Failed: there is a ready file, and it cannot be read.
    """
    ready = running_up(ready_file)
    url = _address(ingest or ready.get("ingest") or DEFAULT_INGEST, "--ingest")
    name = _app(app, ready)
    key = (
        key
        or filed("TENTERHOOK_KEY")
        or (ready.get("secretKey") if (url, name) == (ready.get("ingest"), ready.get("app")) else None)
    )
    if not key:
        raise WrongUsage(_missing(f"key of the app {name}", "--key", "TENTERHOOK_KEY"))
    return Access(url, name, key)


def _admin(options: InstallationOptions, ready: dict[str, Any]) -> tuple[str, str]:
    """Address and token."""
    url = _address(options.admin or ready.get("admin") or DEFAULT_ADMIN, "--admin")
    token = options.token or filed("TENTERHOOK_TOKEN") or (ready.get("token") if url == ready.get("admin") else None)
    if not token:
        raise WrongUsage(_missing("token of the admin API", "--token", "TENTERHOOK_TOKEN"))
    return url, str(token)


def filed(variable: str) -> str | None:
    """
    What stands in the file that `<variable>_FILE` names; None where that is not set.

    Raises:
        Failed: it cannot be read, or nothing is in it.
    """
    path = os.environ.get(f"{variable}_FILE")
    if not path:
        return None
    try:
        text = Path(path).read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise Failed(f"the file {path} ({variable}_FILE) cannot be read ({type(error).__name__})") from None
    if not text:
        raise Failed(f"the file {path} ({variable}_FILE) is empty")
    return text


def _app(given: str | None, ready: dict[str, Any]) -> str:
    app = given or ready.get("app")
    if not app:
        raise WrongUsage(_missing("app", "--app", "TENTERHOOK_APP"))
    return str(app)


def _missing(what: str, option: str, variable: str) -> str:
    return (
        f"no {what}: give {option}, set {variable}, or call this in the folder where `tenterhook up` runs "
        f"(it writes {READY_FILE})"
    )


def _address(given: str, option: str) -> str:
    if not given.startswith(("http://", "https://")):
        raise WrongUsage(f"{option} must start with http:// or https://")
    return given.rstrip("/")


def running_up(path: Path) -> dict[str, Any]:
    """What a running `up` has written; empty where there is none."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise Failed(
            f"{path} cannot be read ({type(error).__name__}): start `tenterhook up` again, or remove it"
        ) from None
    return content if isinstance(content, dict) else {}
