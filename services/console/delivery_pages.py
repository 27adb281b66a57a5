"""Deliveries of an app or of one integration: how each ended, its attempts, sent again, or a sample."""

from collections.abc import Mapping
from typing import Any, Final

from aiohttp import web

from services.admin.routes.integrations import COLLECTIONS
from services.admin.routes.route import Api
from services.console.access import Access, Handler, Visit
from services.console.at import ONE, acted_on, known_types, looked_at, unless_away
from services.console.attempts import LABELS, bars, curl, hours
from services.console.filters import CAUSES, OUTCOMES, Asked, asked
from services.console.rendering import html
from services.runtime import kinds
from services.runtime.problems import Problem
from streams.records import IntegrationConfig

ON_A_PAGE: Final = 50
#: Integrations that a form offers by name; of more, one is asked for by its id.
MOST_NAMED: Final = 200

_ONE_DELIVERY: Final = ONE + "/deliveries/{delivery:[A-Za-z0-9_-]+}"
_COLLECTION_OF: Final = {profile.name: collection for collection, profile in COLLECTIONS.items()}


def pages(access: Access, api: Api) -> list[tuple[str, str, Handler]]:
    """Method, path and handler of each."""
    it = _Pages(access, api)
    return [
        ("GET", "/apps/{app}/deliveries", it.of_app),
        ("GET", f"{ONE}/deliveries", it.of_one),
        ("GET", _ONE_DELIVERY, it.one),
        ("POST", f"{_ONE_DELIVERY}/retry", it.retry),
        ("POST", f"{ONE}/test", it.test),
    ]


class _Pages:
    def __init__(self, access: Access, api: Api) -> None:
        self._access = access
        self._api = api
        self._deliveries = api.deliveries

    async def of_app(self, request: web.Request) -> web.Response:
        visit = await self._access.visit(request)
        wanted = asked(request.query, visit.app.app)
        there = self._api.log.integrations.of_app(visit.app.app)
        return html(
            "app_deliveries.html",
            **visit.page,
            **await self._listed(request, visit, wanted, f"/apps/{visit.app.app}/deliveries"),
            named=[(each.id, each.name) for each in there] if len(there) <= MOST_NAMED else [],
        )

    async def of_one(self, request: web.Request) -> web.Response:
        at = await looked_at(self._access, self._api, request)
        wanted = asked(request.query, at.visit.app.app, at.config.id)
        rates = await unless_away(self._deliveries.rates(at.place), [])
        return at.html(
            "deliveries.html",
            **await self._listed(request, at.visit, wanted, f"{at.path}/deliveries"),
            hours=hours(rates, height=40, step=12),
        )

    async def _listed(self, request: web.Request, visit: Visit, wanted: Asked, path: str) -> dict[str, Any]:
        """A part of a list, and the form that asks for it."""
        cursor = request.query.get("cursor") or None
        listed = await self._deliveries.page(wanted.wanted, limit=ON_A_PAGE, cursor=cursor)
        return {
            "deliveries": [
                with_place(each, self._api.log.integrations.get(each["integration"])) for each in listed["items"]
            ],
            "next": listed["next"],
            "is_first": cursor is None,
            "asked": wanted,
            "path": path,
            "here": request.path_qs,
            "done": request.query.get("done", ""),
            "outcomes": OUTCOMES,
            "causes": CAUSES,
            "types": sorted(known_types(visit.app)),
        }

    async def one(self, request: web.Request) -> web.Response:
        at = await looked_at(self._access, self._api, request)
        told = await self._deliveries.get_as_sent(at.visit.app.app, request.match_info["delivery"])
        if told["integration"] != at.config.id:
            raise Problem(kinds.DELIVERY_UNKNOWN, "It is one of another integration.")
        attempts = [
            {"told": each, "bar": bar, "curl": curl(each)}
            for each, bar in zip(told["attempts"], bars(told["attempts"]), strict=True)
        ]
        return at.html("delivery.html", delivery=told, attempts=attempts, labels=LABELS, here=request.path)

    async def retry(self, request: web.Request) -> web.Response:
        at = await acted_on(self._access, self._api, request, "operator")
        await self._deliveries.retry(at.visit.app.app, request.match_info["delivery"], at.visit.caller)
        return at.done("sent-again", "/deliveries")

    async def test(self, request: web.Request) -> web.Response:
        at = await acted_on(self._access, self._api, request, "operator")
        event_type = at.form.get("type", "").strip()
        await self._deliveries.test(at.place, {"type": event_type} if event_type else None, at.visit.caller)
        return at.done("tested", "/deliveries")


def with_place(delivery: Mapping[str, Any], config: IntegrationConfig | None) -> dict[str, Any]:
    """
    The delivery with its integration's name, and the path of its page.

    Args:
        config: of its integration; None where that is deleted.
    """
    if config is None:
        return {**delivery, "to": None, "page": None}
    page = f"/apps/{config.app}/{_COLLECTION_OF[config.profile]}/{config.id}"
    return {**delivery, "to": config.name, "page": page}
