"""What the handlers share: who may, what the body says, how an answer looks."""

import re
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

import msgspec
import structlog
from aiohttp import web

from services.admin.app_commands import AppCommands
from services.admin.apps import app_unknown
from services.admin.changes import Changes
from services.admin.client_ip import Network, client_ip
from services.admin.commands import Commands
from services.admin.config_log import ConfigLog
from services.admin.data_key_commands import DataKeyCommands
from services.admin.delivery_commands import DeliveryCommands
from services.admin.fields import shortened
from services.admin.idempotency import key_fault
from services.admin.replay_commands import ReplayCommands
from services.admin.rules import Refused
from services.admin.secret_commands import SecretCommands
from services.admin.tokens import EVERY_APP, Caller, caller_of, presented_token, require
from services.runtime import kinds
from services.runtime.problems import Problem
from services.runtime.serving import body_of
from services.runtime.times import read_ms
from services.vault.seal import Unsealable
from streams.records import AppConfig, Role

#: 50 secrets and 50 headers at their longest, in JSON, with room for its escapes.
MAX_BODY_BYTES: Final = 1_048_576

DEFAULT_LIMIT: Final = 50
MAX_LIMIT: Final = 200

#: Levels of arrays and objects in a body: many more than anything has, and few enough for all that recurs over them.
MAX_DEPTH: Final = 100

#: Merge patches have a type of their own; beacons and `curl -d` name theirs without being asked.
_MEDIA_TYPES: Final = frozenset(
    {"", "application/json", "application/merge-patch+json", "text/plain", "application/x-www-form-urlencoded"}
)

#: Entity tags in a list, or any. Source: RFC 9110, sections 8.8.3 and 13.1.1.
_IF_MATCH: Final = re.compile(r'\*|(?:W/)?"[^"\x00-\x20\x7f]*"(?:[ \t]*,[ \t]*(?:W/)?"[^"\x00-\x20\x7f]*")*')
#: As many digits as any limit has, so that turning them into a number costs nothing.
_NUMBER: Final = re.compile(r"[0-9]{1,10}")

log = structlog.get_logger(__name__)

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
    #: Parameters of the query; any other is refused.
    query: tuple[str, ...] = ()
    #: Headers of the request that it heeds, beside `Authorization`.
    headers: tuple[str, ...] = ()
    #: Headers of the answer when it is done.
    gives: tuple[str, ...] = ()
    #: Codes of the problems that are its own. Those that its kind has follow from the rest: `services.admin.openapi`.
    errors: tuple[str, ...] = ()
    #: Whether the body may be left out.
    body_optional: bool = False
    #: Status and schema of the other answers that it has when it is done.
    also: tuple[tuple[int, str], ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Api:
    """What the handlers work with."""

    log: ConfigLog
    changes: Changes
    commands: Commands
    apps: AppCommands
    data_keys: DataKeyCommands
    secrets: SecretCommands
    replays: ReplayCommands
    deliveries: DeliveryCommands
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
    caller = _caller(api, token, (name, EVERY_APP))
    app = api.log.app(name)
    if app is None or name == EVERY_APP:
        raise app_unknown(name)
    require(caller, least)
    return app, replace(caller, ip=_address_of(api, request))


def _caller(api: Api, token: str, apps: Collection[str]) -> Caller:
    """
    Whose token it is, among those of these apps.

    Raises:
        Problem: 401 `token_unknown`, or 503 `config_unreadable` where it may be of an app that cannot be read.
    """
    try:
        return caller_of(token, map(api.log.apps.get, apps))
    except Problem:
        for each in apps:
            api.log.app(each)
        raise


def _address_of(api: Api, request: web.Request) -> str | None:
    """Where the request came from, as far as proxies that are trusted say."""
    forwarded = ",".join(request.headers.getall("X-Forwarded-For", ()))
    return client_ip(request.remote, forwarded, api.trusted_proxies)


def handler_of(route: Route) -> Handler:
    """The route's handler, behind what holds for every route: its query is one that it has, its secrets open."""

    async def handle(request: web.Request) -> web.StreamResponse:
        check_query(request, route.query)
        try:
            return await route.handler(request)
        except Unsealable as error:
            log.error("secret.unsealable", route=route.path, reason=str(error))  # noqa: TRY400  # the reason is enough
            raise Problem(
                kinds.SECRET_UNREADABLE,
                f"A secret that this needs does not open: {error}.",
            ) from None

    return handle


def check_query(request: web.Request, known: Collection[str]) -> None:
    """
    Refuse what the query has beyond the parameters that are *known*: a misspelt filter must not pass in silence.

    Raises:
        Problem: 400 `invalid_query`.
    """
    if not request.query_string:
        return
    for name in request.query:
        if name not in known:
            raise invalid_query(shortened(name), f"is unknown; {_known(known)}")
        if len(request.query.getall(name)) > 1:
            raise invalid_query(name, "is given more than once")


def _known(names: Collection[str]) -> str:
    return f"this takes {', '.join(names)}" if names else "this takes no parameters"


async def admitted_anywhere(api: Api, request: web.Request, least: Role) -> Caller:
    """
    Who asks, with a token of whichever app or of the installation, when they may.

    Raises:
        Problem: 401, 403, or 503.
    """
    token = presented_token(request.headers.get("Authorization"))
    await api.log.catch_up()
    caller = _caller(api, token, {each.app for each in api.log.apps.all()} | api.log.apps.unread)
    require(caller, least)
    return replace(caller, ip=_address_of(api, request))


async def json_of(request: web.Request) -> Any:
    """
    The body as JSON.

    Raises:
        Problem: 400 `invalid_json` or `body_incomplete`, 408 `body_too_slow`, 413 `request_too_large`, 415
            `unsupported_media_type`.
    """
    body = await body_of(request)
    check_headers(request.headers)
    return json_in(body)


async def json_if_any(request: web.Request) -> Any:
    """The body as `json_of` has it; None where there is none."""
    return await json_of(request) if await body_of(request) else None


def json_in(body: bytes) -> Any:
    """
    What these bytes say.

    Raises:
        Problem: 400 `invalid_json`.
    """
    try:
        decoded = msgspec.json.decode(body)
    except UnicodeDecodeError as error:
        raise _invalid_json(f"byte {error.start} of a text is not UTF-8") from None
    except RecursionError:
        raise _too_deep() from None
    except msgspec.DecodeError as error:
        # msgspec's messages tell the position and never quote the body.
        raise _invalid_json("it is empty" if not body else str(error)) from None
    if _is_too_deep(body, decoded):
        raise _too_deep()
    return decoded


def _is_too_deep(body: bytes, decoded: Any) -> bool:
    """Whether it is nested deeper than `MAX_DEPTH`. Level by level, since what is asked for is where recursion ends."""
    if body.count(b"[") + body.count(b"{") <= MAX_DEPTH:
        return False
    level = [decoded]
    for _ in range(MAX_DEPTH):
        level = [
            inner
            for each in level
            if isinstance(each, dict | list)
            for inner in (each.values() if isinstance(each, dict) else each)
        ]
    return any(isinstance(each, dict | list) for each in level)


def _too_deep() -> Problem:
    return _invalid_json(f"it is nested deeper than {MAX_DEPTH} levels")


def _invalid_json(reason: str) -> Problem:
    return Problem(kinds.INVALID_JSON, f"The body is not JSON as it is taken: {reason}. Correct it.")


def check_headers(headers: Mapping[str, str]) -> None:
    """
    Refuse a body that says it is something other than JSON.

    What `curl -d` says of everything it sends is let pass. Compressed bodies are not taken: what they unfold to has no
    bound.

    Raises:
        Problem: 415 `unsupported_media_type`.
    """
    if headers.get("Content-Encoding", "identity").strip().lower() != "identity":
        raise _unsupported("a Content-Encoding")
    media_type = headers.get("Content-Type", "").partition(";")[0].strip().lower()
    if media_type not in _MEDIA_TYPES:
        raise _unsupported("this Content-Type")


def _unsupported(what: str) -> Problem:
    return Problem(
        kinds.UNSUPPORTED_MEDIA_TYPE,
        f"Bodies with {what} are not taken. Send application/json, in UTF-8 and not compressed.",
    )


def refusal(refused: Refused) -> Problem:
    """400 with the name of every field that has to change."""
    fields = [{"field": each.field, "detail": each.detail} for each in refused.refusals]
    return Problem(kinds.INVALID_FIELDS, f"{refused}.", field=fields[0]["field"], errors=fields)


def idempotency_key(request: web.Request) -> str | None:
    """
    The header `Idempotency-Key`; None where there is none.

    Raises:
        Problem: 400 `invalid_header`.
    """
    key = request.headers.get("Idempotency-Key")
    if key is not None and (fault := key_fault(key)):
        raise Problem(kinds.INVALID_HEADER, f"Idempotency-Key {fault}.", field="Idempotency-Key")
    return key


def if_match(request: web.Request) -> str | None:
    """
    The header `If-Match`; None where there is none.

    Raises:
        Problem: 400 `invalid_header`.
    """
    given = request.headers.getall("If-Match", None)
    if given is None:
        return None
    joined = ", ".join(each.strip() for each in given)
    if not _IF_MATCH.fullmatch(joined):
        raise Problem(
            kinds.INVALID_HEADER,
            'If-Match must be the ETag of an answer, quotes included, for example "7", or *.',
            field="If-Match",
        )
    return joined


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
    if given is None or not _NUMBER.fullmatch(given) or not 1 <= int(given) <= most:
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
    # A plus that was not encoded arrives as a space.
    at_ms = read_ms(given.replace(" ", "+"))
    if at_ms is None:
        raise invalid_query(name, "must be a time in ISO 8601 with its zone, for example 2026-01-02T03:04:05Z")
    return at_ms


def invalid_query(name: str, detail: str) -> Problem:
    """A parameter of the query that has to change."""
    return Problem(kinds.INVALID_QUERY, f"{name} {detail}.", field=name)


def answer(content: Any, status: int = 200, **headers: str) -> web.Response:
    """*content* as JSON, that nobody keeps: it is about one moment, and may hold what is shown once."""
    return web.Response(
        status=status,
        body=msgspec.json.encode(content),
        content_type="application/json",
        headers={"Cache-Control": "no-store", **headers},
    )
