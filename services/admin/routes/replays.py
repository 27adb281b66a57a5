"""`…/{id}/replay` and `…/{id}/replays`, of integrations and subscriptions, and all replays of an app."""

from functools import partial
from typing import Any

from aiohttp import web

from schemas.profiles import Profile
from services.admin.place import Place
from services.admin.routes.integrations import COLLECTIONS
from services.admin.routes.route import Api, Route, admitted, answer, json_of, limit_of, refusal
from services.admin.rules import Refused


def routes(api: Api) -> list[Route]:
    """The paths of both collections."""
    found = [
        Route(
            "GET",
            "/v1/apps/{app}/replays",
            partial(_all_of_app, api),
            "viewer",
            "List an app's replays",
            answer="Replays",
            query=("limit", "cursor"),
        )
    ]
    for collection, profile in COLLECTIONS.items():
        it = _Replays(api, profile)
        one = f"/v1/apps/{{app}}/{collection}/{{id}}"
        replay = f"{one}/replays/{{replay}}"
        none, unknown = ("integration_unknown",), ("integration_unknown", "replay_unknown")
        found += [
            Route(
                "POST",
                f"{one}/replay",
                it.start,
                "operator",
                "Send past events again",
                202,
                "NewReplay",
                "Replay",
                gives=("Location",),
                errors=none,
                also=((200, "DryRun"),),
            ),
            Route(
                "GET",
                f"{one}/replays",
                it.list,
                "viewer",
                "List replays",
                answer="Replays",
                query=("limit", "cursor"),
                errors=none,
            ),
            Route("GET", replay, it.get, "viewer", "How far a replay is", 200, None, "Replay", errors=unknown),
            Route(
                "POST",
                f"{replay}/cancel",
                it.cancel,
                "operator",
                "Cancel a replay",
                answer="Replay",
                errors=(*unknown, "replay_ended"),
            ),
        ]
    return found


async def _all_of_app(api: Api, request: web.Request) -> web.Response:
    """200 with `items`, newest first, of all integrations and subscriptions, and `next`."""
    await admitted(api, request, "viewer")
    return _page(request, api.replays.listed_of_app(request.match_info["app"]))


def _page(request: web.Request, newest_first: list[dict[str, Any]]) -> web.Response:
    limit, cursor = limit_of(request), request.query.get("cursor")
    listed = [each for each in newest_first if not cursor or each["id"] < cursor]
    page = listed[:limit]
    return answer({"items": page, "next": page[-1]["id"] if len(listed) > limit else None})


class _Replays:
    """The handlers of one profile's path."""

    def __init__(self, api: Api, profile: Profile) -> None:
        self._api = api
        self._profile = profile
        self._replays = api.replays

    async def start(self, request: web.Request) -> web.Response:
        """202 with the replay; with `"dryRun": true` 200 with what it would send."""
        _, caller = await admitted(self._api, request, "operator")
        body = await json_of(request)
        place = self._place(request)
        try:
            if isinstance(body, dict) and body.get("dryRun") is True:
                return answer(await self._replays.dry_run(place, body, caller))
            started = await self._replays.start(place, body, caller)
        except Refused as refused:
            raise refusal(refused) from None
        return answer(started, 202, Location=f"{request.path}s/{started['id']}")

    async def list(self, request: web.Request) -> web.Response:
        """200 with `items`, newest first, and `next`: the cursor of the page after, or null."""
        await admitted(self._api, request, "viewer")
        return _page(request, self._replays.listed(self._place(request)))

    async def get(self, request: web.Request) -> web.Response:
        """200 with the replay."""
        await admitted(self._api, request, "viewer")
        return answer(self._replays.get(self._place(request), request.match_info["replay"]))

    async def cancel(self, request: web.Request) -> web.Response:
        """200 with the replay."""
        _, caller = await admitted(self._api, request, "operator")
        return answer(await self._replays.cancel(self._place(request), request.match_info["replay"], caller))

    def _place(self, request: web.Request) -> Place:
        return Place(request.match_info["app"], self._profile, request.match_info["id"])
