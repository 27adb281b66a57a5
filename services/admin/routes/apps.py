"""`/v1/apps`: apps, their settings, and the event types that their integrations can select."""

from typing import Any, Final

from aiohttp import web

from services.admin.apps import app_json, catalogue_json, type_json
from services.admin.routes.route import (
    Api,
    Route,
    admitted,
    admitted_anywhere,
    answer,
    idempotency_key,
    if_match,
    json_of,
    limit_of,
    refusal,
)
from services.admin.rules import Refused
from streams.records import AppConfig

_TAG: Final = ("ETag",)


def routes(api: Api) -> list[Route]:
    """The paths of apps and of their event types."""
    it = _Apps(api)
    every, one = "/v1/apps", "/v1/apps/{app}"
    types = f"{one}/event-types"
    return [
        Route(
            *("POST", every, it.create, "admin", "Create an app", 201, "NewApp", "App"),
            headers=("Idempotency-Key",),
            gives=("ETag", "Location"),
            errors=("installation_token_required", "app_exists", "idempotency_key_spent"),
        ),
        Route("GET", every, it.list, "viewer", "List apps", 200, None, "Apps", ("limit", "cursor")),
        Route("GET", one, it.get, "viewer", "Get an app", 200, None, "App", gives=_TAG),
        Route(
            *("PATCH", one, it.patch, "admin", "Change an app", 200, "AppPatch", "App"),
            headers=("If-Match",),
            gives=_TAG,
            errors=("installation_token_required", "type_in_use"),
        ),
        Route(
            *("DELETE", one, it.delete, "admin", "Delete an app", 204),
            errors=("installation_token_required", "app_in_use"),
        ),
        Route("GET", types, it.list_types, "viewer", "List event types", 200, None, "EventTypes"),
        Route(
            *("POST", types, it.add_type, "admin", "Add an event type", 201, "NewEventType", "EventType"),
            gives=("Location",),
            errors=("limit_reached",),
        ),
        Route(
            *("DELETE", f"{types}/{{eventType}}", it.remove_type, "admin", "Remove an event type", 204),
            errors=("no_such_type", "type_in_use"),
        ),
    ]


class _Apps:
    """The handlers."""

    def __init__(self, api: Api) -> None:
        self._api = api

    async def create(self, request: web.Request) -> web.Response:
        """201 with the app; it has no keys yet."""
        caller = await admitted_anywhere(self._api, request, "admin")
        key = idempotency_key(request)
        body = await json_of(request)
        try:
            created = await self._api.apps.create(body, caller, key)
        except Refused as refused:
            raise refusal(refused) from None
        return _shown(created, 201, Location=f"/v1/apps/{created.app}")

    async def list(self, request: web.Request) -> web.Response:
        """200 with `items`, those that the token is for, by id, and `next`: the cursor of the page after, or null."""
        caller = await admitted_anywhere(self._api, request, "viewer")
        limit, cursor = limit_of(request), request.query.get("cursor", "")
        listed = [each for each in self._api.apps.listed(caller) if each.app > cursor]
        page = listed[:limit]
        after = page[-1].app if len(listed) > limit else None
        return answer({"items": [app_json(each) for each in page], "next": after})

    async def get(self, request: web.Request) -> web.Response:
        """200 with the app; its version is the `ETag`."""
        app, _ = await admitted(self._api, request, "viewer")
        return _shown(app)

    async def patch(self, request: web.Request) -> web.Response:
        """200 with the app."""
        app, caller = await admitted(self._api, request, "admin")
        body, version = await json_of(request), if_match(request)
        try:
            changed = await self._api.apps.patch(app.app, body, version, caller)
        except Refused as refused:
            raise refusal(refused) from None
        return _shown(changed)

    async def delete(self, request: web.Request) -> web.Response:
        """204."""
        app, caller = await admitted(self._api, request, "admin")
        await self._api.apps.delete(app.app, caller)
        return web.Response(status=204)

    async def list_types(self, request: web.Request) -> web.Response:
        """200 with `items`: every type that can be selected, with what it means and a sample where that is known."""
        app, _ = await admitted(self._api, request, "viewer")
        return answer({"items": catalogue_json(app), "next": None})

    async def add_type(self, request: web.Request) -> web.Response:
        """201 with the type, also where the app has had it before."""
        app, caller = await admitted(self._api, request, "admin")
        body = await json_of(request)
        try:
            added = await self._api.apps.add_type(app.app, body, caller)
        except Refused as refused:
            raise refusal(refused) from None
        return answer(type_json(added), 201, Location=f"{request.path}/{added}")

    async def remove_type(self, request: web.Request) -> web.Response:
        """204."""
        app, caller = await admitted(self._api, request, "admin")
        await self._api.apps.remove_type(app.app, request.match_info["eventType"], caller)
        return web.Response(status=204)


def _shown(app: AppConfig, status: int = 200, **headers: Any) -> web.Response:
    return answer(app_json(app), status, ETag=f'"{app.version}"', **headers)
