"""What the handlers share: who may, what the body says, how an answer looks."""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import msgspec
from aiohttp import web

from services.admin.changes import Changes
from services.admin.client_ip import Network, client_ip
from services.admin.commands import Commands
from services.admin.config_log import ConfigLog
from services.admin.idempotency import key_fault
from services.admin.replay_commands import ReplayCommands
from services.admin.rules import Refused
from services.admin.secret_commands import SecretCommands
from services.admin.tokens import EVERY_APP, Caller, caller_of, presented_token, require
from services.runtime.problems import Problem
from streams.records import AppConfig, Role

#: 50 secrets and 50 headers at their longest, in JSON, with room for its escapes.
MAX_BODY_BYTES: Final = 1_048_576

DEFAULT_LIMIT: Final = 50
MAX_LIMIT: Final = 200

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


@dataclass(frozen=True, slots=True)
class Route:
    """One path and method, and what the API's description says of it."""

    method: str
    path: str
    handler: Handler
    #: The least role that may.
    role: Role
    #: One line for people.
    summary: str
    #: Status of the answer when it is done.
    status: int = 200
    #: Names of the bodies' schemas in the API's description.
    body: str | None = None
    answer: str | None = None
    #: Parameters of the query.
    query: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Api:
    """What the handlers work with."""

    log: ConfigLog
    changes: Changes
    commands: Commands
    secrets: SecretCommands
    replays: ReplayCommands
    #: Whose `X-Forwarded-For` counts.
    trusted_proxies: Sequence[Network]
    now_ms: Callable[[], int]


async def admitted(api: Api, request: web.Request, least: Role) -> tuple[AppConfig, Caller]:
    """
    The app that the path names, and who asks, when they may.

    Raises:
        Problem: 401, 403, 404 `app_unknown`, or 503.
    """
    token = presented_token(request.headers.get("Authorization"))
    await api.log.catch_up()
    name = request.match_info["app"]
    app = api.log.apps.get(name)
    caller = caller_of(token, [app, api.log.apps.get(EVERY_APP)])
    if app is None or name == EVERY_APP:
        raise Problem(404, "app_unknown", "No such app", f"There is no app {name[:64]!r}. Check its name.")
    require(caller, least)
    forwarded = ",".join(request.headers.getall("X-Forwarded-For", ()))
    return app, replace(caller, ip=client_ip(request.remote, forwarded, api.trusted_proxies))


async def json_of(request: web.Request) -> Any:
    """
    The body as JSON.

    Raises:
        Problem: 400 `invalid_json`.
    """
    body = await request.read()
    try:
        return msgspec.json.decode(body)
    except (msgspec.DecodeError, RecursionError) as error:
        # msgspec's messages tell the position and never quote the body.
        raise Problem(400, "invalid_json", "Not JSON", f"The body is not JSON: {error}. Correct it.") from None


def refusal(refused: Refused) -> Problem:
    """400 with the name of every field that has to change."""
    fields = [{"field": each.field, "detail": each.detail} for each in refused.refusals]
    return Problem(400, "invalid_fields", "Fields to correct", f"{refused}.", field=fields[0]["field"], errors=fields)


def idempotency_key(request: web.Request) -> str | None:
    """
    The header `Idempotency-Key`; None where there is none.

    Raises:
        Problem: 400 `invalid_header`.
    """
    key = request.headers.get("Idempotency-Key")
    if key is not None and (fault := key_fault(key)):
        raise Problem(400, "invalid_header", "Header to correct", f"Idempotency-Key {fault}.", field="Idempotency-Key")
    return key


def limit_of(request: web.Request) -> int:
    """
    How many the page may have: `?limit=`.

    Raises:
        Problem: 400 `invalid_query`.
    """
    return number_of(request, "limit", DEFAULT_LIMIT, most=MAX_LIMIT)


def number_of(request: web.Request, name: str, default: int | None, *, most: int) -> int:
    """
    A whole number from 1 in the query.

    Raises:
        Problem: 400 `invalid_query`: it is none, or it is missing and has no default.
    """
    given = request.query.get(name)
    if given is None and default is not None:
        return default
    if given is None or not (given.isascii() and given.isdecimal() and 1 <= int(given[:18]) <= most):
        raise invalid_query(name, f"must be a number from 1 to {most}")
    return int(given)


def time_of(request: web.Request, name: str) -> int | None:
    """
    A time with its zone in the query, in milliseconds since 1970 UTC; None where there is none.

    Raises:
        Problem: 400 `invalid_query`.
    """
    given = request.query.get(name)
    if given is None:
        return None
    try:
        # A plus that was not encoded arrives as a space.
        at = datetime.fromisoformat(given.replace(" ", "+"))
    except ValueError:
        at = None
    if at is None or at.tzinfo is None:
        raise invalid_query(name, "must be a time in ISO 8601 with its zone, for example 2026-01-02T03:04:05Z")
    return (at - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(milliseconds=1)


def invalid_query(name: str, detail: str) -> Problem:
    """A parameter of the query that has to change."""
    return Problem(400, "invalid_query", "Query to correct", f"{name} {detail}.", field=name)


def answer(content: Any, status: int = 200, **headers: str) -> web.Response:
    """*content* as JSON, that nobody keeps: it is about one moment, and may hold what is shown once."""
    return web.Response(
        status=status,
        body=msgspec.json.encode(content),
        content_type="application/json",
        headers={"Cache-Control": "no-store", **headers},
    )
