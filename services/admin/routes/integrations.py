"""
`/v1/apps/{app}/integrations` and `/v1/apps/{app}/subscriptions`.

A subscription is an integration of the profile `booking`; each path shows and takes only its own.
"""

from typing import Any, Final

from aiohttp import web

from schemas.profiles import BOOKING, INTEGRATION, Profile
from services.admin.routes.route import (
    Api,
    Route,
    admitted,
    answer,
    idempotency_key,
    if_match,
    json_if_any,
    json_of,
    limit_of,
    number_of,
    refusal,
)
from services.admin.rules import MAX_VERSION, Refused

_TAG: Final = ("ETag",)

COLLECTIONS: Final[dict[str, Profile]] = {"integrations": INTEGRATION, "subscriptions": BOOKING}


def routes(api: Api) -> list[Route]:
    """The paths of both collections."""
    found: list[Route] = []
    for collection, profile in COLLECTIONS.items():
        it = _Integrations(api, profile)
        path, one = f"/v1/apps/{{app}}/{collection}", f"/v1/apps/{{app}}/{collection}/{{id}}"
        what = collection.removesuffix("s")
        a_what, name = f"{'an' if what[0] in 'aeiou' else 'a'} {what}", what.capitalize()
        none, moved = ("integration_unknown",), ("integration_unknown", "secret_unreadable")
        found += [
            Route(
                *("POST", path, it.create, "admin", f"Create {a_what}", 201, f"New{name}", "Integration"),
                headers=("Idempotency-Key",),
                gives=("ETag", "Location"),
                # A repeat shows the signing secret again, so it has to open.
                errors=(*(("quota_exceeded",) if profile.quota else ()), "secret_unreadable", "idempotency_key_spent"),
            ),
            Route("GET", path, it.list, "viewer", f"List {collection}", 200, None, "Integrations", ("limit", "cursor")),
            Route("GET", one, it.get, "viewer", f"Get {a_what}", 200, None, "Integration", gives=_TAG, errors=none),
            Route(
                *("PATCH", one, it.patch, "admin", f"Change {a_what}", 200, f"{name}Patch", "Integration"),
                headers=("If-Match",),
                gives=_TAG,
                errors=moved,
            ),
            Route("DELETE", one, it.delete, "admin", f"Delete {a_what}", 204, errors=none),
            Route(
                *("POST", f"{one}/pause", it.pause, "operator", f"Pause {a_what}", 200, None, "Integration"),
                gives=_TAG,
                errors=none,
            ),
            Route(
                *("POST", f"{one}/activate", it.activate, "operator", f"Activate {a_what}", 200, "Held", "Integration"),
                gives=_TAG,
                errors=(*none, "held_choice_required", *(("quota_exceeded",) if profile.quota else ())),
                body_optional=True,
            ),
            Route(
                *("GET", f"{one}/history", it.history, "viewer", f"List the versions of {a_what}", 200),
                answer="Versions",
                errors=none,
            ),
            Route(
                *("GET", f"{one}/history/{{version}}", it.version, "viewer", f"Get a version of {a_what}", 200),
                answer="Version",
                errors=(*none, "version_unknown"),
            ),
            Route(
                *("GET", f"{one}/diff", it.diff, "viewer", f"Compare two versions of {a_what}", 200),
                answer="Differences",
                query=("from", "to"),
                errors=(*none, "version_unknown"),
            ),
            Route(
                *("POST", f"{one}/rollback", it.roll_back, "admin", f"Go back to a version of {a_what}", 200),
                body="RollBack",
                answer="Integration",
                headers=("If-Match",),
                gives=_TAG,
                errors=(*moved, "version_unknown", "secret_missing"),
            ),
        ]
    return found


class _Integrations:
    """The handlers of one profile's path."""

    def __init__(self, api: Api, profile: Profile) -> None:
        self._api = api
        self._profile = profile
        self._commands = api.commands

    async def create(self, request: web.Request) -> web.Response:
        """201 with the integration, and its `signingSecret` where requests are signed."""
        app, caller = await admitted(self._api, request, "admin")
        key = idempotency_key(request)
        body = await json_of(request)
        try:
            created = await self._commands.create(app, self._profile, body, caller, key)
        except Refused as refused:
            raise refusal(refused) from None
        return _shown(created, 201, Location=f"{request.path}/{created['id']}")

    async def list(self, request: web.Request) -> web.Response:
        """200 with `items`, oldest first, and `next`: the cursor of the page after, or null."""
        app, _ = await admitted(self._api, request, "viewer")
        limit, cursor = limit_of(request), request.query.get("cursor", "")
        listed = [each for each in self._commands.listed(app.app, self._profile) if each.id > cursor]
        page = listed[:limit]
        return answer(
            {
                "items": [self._commands.shown(each) for each in page],
                "next": page[-1].id if len(listed) > limit else None,
            }
        )

    async def get(self, request: web.Request) -> web.Response:
        """200 with the integration; its version is the `ETag`."""
        app, _ = await admitted(self._api, request, "viewer")
        return _shown(self._commands.shown(self._commands.get(app.app, self._profile, request.match_info["id"])))

    async def patch(self, request: web.Request) -> web.Response:
        """200 with the integration, and its `signingSecret` where requests begin to be signed."""
        app, caller = await admitted(self._api, request, "admin")
        body, version = await json_of(request), if_match(request)
        try:
            shown = await self._commands.patch(app, self._profile, request.match_info["id"], body, version, caller)
        except Refused as refused:
            raise refusal(refused) from None
        return _shown(shown)

    async def delete(self, request: web.Request) -> web.Response:
        """204."""
        app, caller = await admitted(self._api, request, "admin")
        await self._commands.delete(app.app, self._profile, request.match_info["id"], caller)
        return web.Response(status=204)

    async def pause(self, request: web.Request) -> web.Response:
        """200 with the integration."""
        app, caller = await admitted(self._api, request, "operator")
        return _shown(await self._commands.pause(app.app, self._profile, request.match_info["id"], caller))

    async def activate(self, request: web.Request) -> web.Response:
        """200 with the integration."""
        app, caller = await admitted(self._api, request, "operator")
        body = await json_if_any(request)
        try:
            shown = await self._commands.activate(app, self._profile, request.match_info["id"], body, caller)
        except Refused as refused:
            raise refusal(refused) from None
        return _shown(shown)

    async def history(self, request: web.Request) -> web.Response:
        """200 with `items`: the versions that are kept, newest first, each with who, when and what."""
        app, _ = await admitted(self._api, request, "viewer")
        config = self._commands.get(app.app, self._profile, request.match_info["id"])
        return answer({"items": self._commands.history(config), "next": None})

    async def version(self, request: web.Request) -> web.Response:
        """200 with the integration as it was configured in that version."""
        app, _ = await admitted(self._api, request, "viewer")
        config = self._commands.get(app.app, self._profile, request.match_info["id"])
        given = request.match_info["version"]
        number = int(given) if given.isascii() and given.isdecimal() and len(given) < 10 else 0  # noqa: PLR2004
        return answer(self._commands.version_shown(self._commands.version(config, number)))

    async def diff(self, request: web.Request) -> web.Response:
        """200 with the fields in which two versions differ: `?from=3&to=5`, `to` the newest where it is absent."""
        app, _ = await admitted(self._api, request, "viewer")
        config = self._commands.get(app.app, self._profile, request.match_info["id"])
        before = self._commands.version(config, number_of(request, "from", None, most=MAX_VERSION))
        after = self._commands.version(config, number_of(request, "to", config.version, most=MAX_VERSION))
        return answer({"from": before.version, "to": after.version, "changes": self._commands.diff(before, after)})

    async def roll_back(self, request: web.Request) -> web.Response:
        """200 with the integration: `{"version": 3}`."""
        app, caller = await admitted(self._api, request, "admin")
        body, version = await json_of(request), if_match(request)
        try:
            shown = await self._commands.roll_back(app, self._profile, request.match_info["id"], body, version, caller)
        except Refused as refused:
            raise refusal(refused) from None
        return _shown(shown)


def _shown(integration: dict[str, Any], status: int = 200, **headers: str) -> web.Response:
    return answer(integration, status, ETag=f'"{integration["version"]}"', **headers)
