"""
The admin API over HTTP: `/v1/apps/{app}/integrations` and `/v1/apps/{app}/subscriptions`.

A subscription is an integration of the profile `booking`; each path shows and takes only its own. Every
request first catches up with the log, then looks at its token.
"""

from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Any, Final

import msgspec
from aiohttp import web

from schemas.profiles import BOOKING, INTEGRATION, Profile
from services.admin.commands import Commands
from services.admin.config_log import ConfigLog
from services.admin.idempotency import key_fault
from services.admin.rules import Refused
from services.admin.tokens import EVERY_APP, Caller, caller_of, presented_token, require
from services.runtime.problems import Problem
from streams.records import AppConfig, Role

#: 50 secrets and 50 headers at their longest, in JSON, with room for its escapes.
MAX_BODY_BYTES: Final = 1_048_576

DEFAULT_LIMIT: Final = 50
MAX_LIMIT: Final = 200

COLLECTIONS: Final[dict[str, Profile]] = {"integrations": INTEGRATION, "subscriptions": BOOKING}

Handler = Callable[[web.Request], Awaitable[web.Response]]


class Routes:
    """The handlers of one profile's path."""

    def __init__(self, profile: Profile, log: ConfigLog, commands: Commands) -> None:
        self._profile = profile
        self._log = log
        self._commands = commands

    async def create(self, request: web.Request) -> web.Response:
        """201 with the integration, and its `signingSecret` where requests are signed."""
        app, caller = await self._admitted(request, "admin")
        key = _idempotency_key(request)
        body = await _json(request)
        try:
            created = await self._commands.create(app, self._profile, body, caller, key)
        except Refused as refused:
            raise _refusal(refused) from None
        return _answer(created, 201, Location=f"{request.path}/{created['id']}")

    async def list(self, request: web.Request) -> web.Response:
        """200 with `items`, oldest first, and `next`: the cursor of the page after, or null."""
        app, _ = await self._admitted(request, "viewer")
        limit, cursor = _limit(request), request.query.get("cursor", "")
        listed = [each for each in self._commands.listed(app.app, self._profile) if each.id > cursor]
        page = listed[:limit]
        return _answer(
            {
                "items": [self._commands.shown(each) for each in page],
                "next": page[-1].id if len(listed) > limit else None,
            }
        )

    async def get(self, request: web.Request) -> web.Response:
        """200 with the integration."""
        app, _ = await self._admitted(request, "viewer")
        return _answer(self._commands.shown(self._commands.get(app.app, self._profile, request.match_info["id"])))

    async def delete(self, request: web.Request) -> web.Response:
        """204."""
        app, caller = await self._admitted(request, "admin")
        await self._commands.delete(app.app, self._profile, request.match_info["id"], caller)
        return web.Response(status=204)

    async def pause(self, request: web.Request) -> web.Response:
        """200 with the integration."""
        app, caller = await self._admitted(request, "operator")
        return _answer(await self._commands.pause(app.app, self._profile, request.match_info["id"], caller))

    async def activate(self, request: web.Request) -> web.Response:
        """200 with the integration."""
        app, caller = await self._admitted(request, "operator")
        body = await _json(request) if request.can_read_body else None
        try:
            shown = await self._commands.activate(app, self._profile, request.match_info["id"], body, caller)
        except Refused as refused:
            raise _refusal(refused) from None
        return _answer(shown)

    async def _admitted(self, request: web.Request, least: Role) -> tuple[AppConfig, Caller]:
        """The app that the path names, and who asks, when they may."""
        token = presented_token(request.headers.get("Authorization"))
        await self._log.catch_up()
        name = request.match_info["app"]
        app = self._log.apps.get(name)
        caller = caller_of(token, [app, self._log.apps.get(EVERY_APP)])
        if app is None or name == EVERY_APP:
            raise Problem(404, "app_unknown", "No such app", f"There is no app {name[:64]!r}. Check its name.")
        require(caller, least)
        return app, replace(caller, ip=request.remote)


def add_routes(router: web.UrlDispatcher, log: ConfigLog, commands: Commands) -> None:
    """Adds every path of the API."""
    for collection, profile in COLLECTIONS.items():
        routes = Routes(profile, log, commands)
        path = f"/v1/apps/{{app}}/{collection}"
        router.add_post(path, routes.create)
        router.add_get(path, routes.list)
        router.add_get(path + "/{id}", routes.get)
        router.add_delete(path + "/{id}", routes.delete)
        router.add_post(path + "/{id}/pause", routes.pause)
        router.add_post(path + "/{id}/activate", routes.activate)


async def _json(request: web.Request) -> Any:
    body = await request.read()
    try:
        return msgspec.json.decode(body)
    except (msgspec.DecodeError, RecursionError) as error:
        # msgspec's messages tell the position and never quote the body.
        raise Problem(400, "invalid_json", "Not JSON", f"The body is not JSON: {error}. Correct it.") from None


def _refusal(refused: Refused) -> Problem:
    fields = [{"field": each.field, "detail": each.detail} for each in refused.refusals]
    return Problem(400, "invalid_fields", "Fields to correct", f"{refused}.", field=fields[0]["field"], errors=fields)


def _idempotency_key(request: web.Request) -> str | None:
    key = request.headers.get("Idempotency-Key")
    if key is not None and (fault := key_fault(key)):
        raise Problem(400, "invalid_header", "Header to correct", f"Idempotency-Key {fault}.", field="Idempotency-Key")
    return key


def _limit(request: web.Request) -> int:
    given = request.query.get("limit", str(DEFAULT_LIMIT))
    if not (given.isascii() and given.isdecimal() and 1 <= int(given[:9]) <= MAX_LIMIT):
        raise Problem(
            400, "invalid_query", "Query to correct", f"limit must be a number from 1 to {MAX_LIMIT}.", field="limit"
        )
    return int(given)


def _answer(content: Any, status: int = 200, **headers: str) -> web.Response:
    return web.Response(
        status=status,
        body=msgspec.json.encode(content),
        content_type="application/json",
        headers={"Cache-Control": "no-store", **headers},
    )
