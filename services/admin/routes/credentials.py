"""
Keys of ingest, and tokens: of an app under `/v1/apps/{app}/tokens`, of the whole installation under `/v1/tokens`.

A plain key or token is in the answer to its create, which is marked `no-store`, and in nothing that is logged.
"""

from aiohttp import web

from services.admin.credentials import key_json, token_json
from services.admin.routes.route import (
    Api,
    Route,
    admitted,
    admitted_anywhere,
    answer,
    idempotency_key,
    json_of,
    refusal,
)
from services.admin.rules import Refused
from services.admin.tokens import EVERY_APP, Caller
from streams.records import Role


def routes(api: Api) -> list[Route]:
    """The paths of keys and tokens."""
    keys, one_key = "/v1/apps/{app}/keys", "/v1/apps/{app}/keys/{key}"
    of_app, of_all = _Tokens(api, of_app=True), _Tokens(api, of_app=False)
    it = _Keys(api)
    found = [
        Route(
            *("POST", keys, it.create, "admin", "Create a key", 201, "NewKey", "CreatedKey"),
            headers=("Idempotency-Key",),
            gives=("Location",),
            errors=("limit_reached", "shown_once"),
        ),
        Route("GET", keys, it.list, "viewer", "List keys", 200, None, "Keys"),
        Route("DELETE", one_key, it.delete, "admin", "Delete a key", 204, errors=("no_such_key",)),
    ]
    installation = ("installation_token_required",)
    for path, them, whose, who, last in (
        ("/v1/apps/{app}/tokens", of_app, "an app", (), ()),
        ("/v1/tokens", of_all, "the installation", installation, ("last_admin_token",)),
    ):
        found += [
            Route(
                *("POST", path, them.create, "admin", f"Create a token of {whose}", 201, "NewToken", "CreatedToken"),
                headers=("Idempotency-Key",),
                gives=("Location",),
                errors=(*who, "token_exists", "limit_reached", "shown_once"),
            ),
            Route("GET", path, them.list, "viewer", f"List tokens of {whose}", 200, None, "Tokens", errors=who),
            Route(
                *("DELETE", f"{path}/{{token}}", them.delete, "admin", f"Delete a token of {whose}", 204),
                errors=(*who, "no_such_token", *last),
            ),
        ]
    return found


class _Keys:
    """The handlers of keys."""

    def __init__(self, api: Api) -> None:
        self._api = api

    async def create(self, request: web.Request) -> web.Response:
        """201 with the key in plain, this once."""
        app, caller = await admitted(self._api, request, "admin")
        key = idempotency_key(request)
        body = await json_of(request)
        try:
            created = await self._api.apps.create_key(app.app, body, caller, key)
        except Refused as refused:
            raise refusal(refused) from None
        return answer(created, 201, Location=f"{request.path}/{created['id']}")

    async def list(self, request: web.Request) -> web.Response:
        """200 with `items`, oldest first."""
        app, _ = await admitted(self._api, request, "viewer")
        return answer({"items": [key_json(each) for each in app.keys], "next": None})

    async def delete(self, request: web.Request) -> web.Response:
        """204; ingest refuses the key from now on."""
        app, caller = await admitted(self._api, request, "admin")
        await self._api.apps.delete_key(app.app, request.match_info["key"], caller)
        return web.Response(status=204)


class _Tokens:
    """The handlers of tokens, of an app or of the installation."""

    def __init__(self, api: Api, *, of_app: bool) -> None:
        self._api = api
        self._of_app = of_app

    async def create(self, request: web.Request) -> web.Response:
        """201 with the token in plain, this once."""
        app, caller = await self._admitted(request, "admin")
        key = idempotency_key(request)
        body = await json_of(request)
        try:
            created = await self._api.apps.create_token(app, body, caller, key)
        except Refused as refused:
            raise refusal(refused) from None
        return answer(created, 201, Location=f"{request.path}/{created['name']}")

    async def list(self, request: web.Request) -> web.Response:
        """200 with `items`, oldest first."""
        app, caller = await self._admitted(request, "viewer")
        listed = self._api.apps.tokens(app, caller)
        return answer({"items": [token_json(each) for each in listed], "next": None})

    async def delete(self, request: web.Request) -> web.Response:
        """204; requests with the token are refused from now on."""
        app, caller = await self._admitted(request, "admin")
        await self._api.apps.delete_token(app, request.match_info["token"], caller)
        return web.Response(status=204)

    async def _admitted(self, request: web.Request, least: Role) -> tuple[str, Caller]:
        """Whose tokens they are: the app, or `*`; and who asks."""
        if not self._of_app:
            return EVERY_APP, await admitted_anywhere(self._api, request, least)
        app, caller = await admitted(self._api, request, least)
        return app.app, caller
