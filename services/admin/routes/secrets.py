"""`…/{id}/secrets` and `…/{id}/rotate`, of integrations and subscriptions."""

from aiohttp import web

from schemas.profiles import Profile
from services.admin.place import Place
from services.admin.routes.integrations import COLLECTIONS
from services.admin.routes.route import Api, Route, admitted, answer, json_if_any, json_of, refusal
from services.admin.rules import Refused


def routes(api: Api) -> list[Route]:
    """The paths of both collections."""
    found: list[Route] = []
    for collection, profile in COLLECTIONS.items():
        it = _Secrets(api, profile)
        one = f"/v1/apps/{{app}}/{collection}/{{id}}"
        secret = f"{one}/secrets/{{name}}"
        none, unknown = ("integration_unknown",), ("integration_unknown", "secret_unknown")
        found += [
            Route(
                "GET", f"{one}/secrets", it.list, "viewer", "Names of the secrets", 200, None, "Secrets", errors=none
            ),
            Route(
                "PUT",
                secret,
                it.put,
                "admin",
                "Store a secret",
                200,
                "NewSecret",
                "Secret",
                errors=(*none, "secret_unreadable"),
            ),
            Route("DELETE", secret, it.delete, "admin", "Delete a secret", 204, errors=(*unknown, "secret_in_use")),
            Route(
                "POST",
                f"{secret}/reveal",
                it.reveal,
                "admin",
                "Show a secret, once",
                answer="RevealedSecret",
                errors=(*unknown, "already_revealed", "reveal_limit", "secret_unreadable"),
            ),
            Route(
                "POST",
                f"{one}/rotate",
                it.rotate,
                "admin",
                "Replace the signing secret",
                body="Rotate",
                body_optional=True,
                answer="Rotated",
                errors=(*none, "signing_off", "rotations_under_way", "secret_unreadable"),
            ),
        ]
    return found


class _Secrets:
    """The handlers of one profile's path."""

    def __init__(self, api: Api, profile: Profile) -> None:
        self._api = api
        self._profile = profile
        self._secrets = api.secrets

    async def list(self, request: web.Request) -> web.Response:
        """200 with `items`: names, versions and times, never a value."""
        await admitted(self._api, request, "viewer")
        return answer({"items": self._secrets.listed(self._place(request)), "next": None})

    async def put(self, request: web.Request) -> web.Response:
        """200 with the secret's name and version: `{"value": "…"}`."""
        _, caller = await admitted(self._api, request, "admin")
        body = await json_of(request)
        try:
            return answer(await self._secrets.put(self._place(request), request.match_info["name"], body, caller))
        except Refused as refused:
            raise refusal(refused) from None

    async def delete(self, request: web.Request) -> web.Response:
        """204."""
        _, caller = await admitted(self._api, request, "admin")
        await self._secrets.delete(self._place(request), request.match_info["name"], caller)
        return web.Response(status=204)

    async def reveal(self, request: web.Request) -> web.Response:
        """200 with the value. Also a try without the role for it is recorded."""
        _, caller = await admitted(self._api, request, "viewer")
        return answer(await self._secrets.reveal(self._place(request), request.match_info["name"], caller))

    async def rotate(self, request: web.Request) -> web.Response:
        """200 with the new signing secret: `{"overlapMs": 3600000}` or `{"now": true}`, a day without a body."""
        _, caller = await admitted(self._api, request, "admin")
        body = await json_if_any(request)
        try:
            return answer(await self._secrets.rotate(self._place(request), body, caller))
        except Refused as refused:
            raise refusal(refused) from None

    def _place(self, request: web.Request) -> Place:
        return Place(request.match_info["app"], self._profile, request.match_info["id"])
