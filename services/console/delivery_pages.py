"""Deliveries of an integration: how each ended, its attempts with where their time went, sent again, or a sample."""

from typing import Final, get_args

from aiohttp import web

from services.admin.routes.route import Api, refusal
from services.admin.rules import Refused
from services.console.access import Access, Handler, seen
from services.console.at import ONE, acted_on, looked_at
from services.console.attempts import bars, curl, hours
from services.history.query import Wanted
from services.runtime.problems import Problem
from streams.records import Outcome

ON_A_PAGE: Final = 50

_OUTCOMES: Final = (*get_args(Outcome), "open")
_ONE_DELIVERY: Final = ONE + "/deliveries/{delivery:[A-Za-z0-9_-]+}"


def pages(access: Access, api: Api) -> list[tuple[str, str, Handler]]:
    """Method, path and handler of each."""
    it = _Pages(access, api)
    return [
        ("GET", f"{ONE}/deliveries", it.listing),
        ("GET", _ONE_DELIVERY, it.one),
        ("POST", f"{_ONE_DELIVERY}/retry", it.retry),
        ("POST", f"{ONE}/test", it.test),
    ]


class _Pages:
    def __init__(self, access: Access, api: Api) -> None:
        self._access = access
        self._api = api
        self._deliveries = api.deliveries

    async def listing(self, request: web.Request) -> web.Response:
        at = await looked_at(self._access, self._api, request)
        outcome, event_type = request.query.get("outcome", ""), request.query.get("type", "").strip()
        wanted = Wanted(
            app=at.visit.app.app,
            integration=at.config.id,
            outcome=next((each for each in _OUTCOMES if each == outcome), None),
            type=event_type or None,
        )
        listed = await self._deliveries.page(wanted, limit=ON_A_PAGE, cursor=request.query.get("cursor") or None)
        return at.html(
            "deliveries.html",
            deliveries=listed["items"],
            next=listed["next"],
            outcome=outcome,
            event_type=event_type,
            outcomes=_OUTCOMES,
            hours=hours(await self._deliveries.rates(at.place)),
            here=request.path_qs,
        )

    async def one(self, request: web.Request) -> web.Response:
        at = await looked_at(self._access, self._api, request)
        told = await self._deliveries.get(at.visit.app.app, request.match_info["delivery"])
        if told["integration"] != at.config.id:
            raise Problem(404, "delivery_unknown", "No such delivery", "It is one of another integration.")
        attempts = [
            {"told": each, "bar": bar, "curl": curl(each)}
            for each, bar in zip(told["attempts"], bars(told["attempts"]), strict=True)
        ]
        return at.html("delivery.html", delivery=told, attempts=attempts)

    async def retry(self, request: web.Request) -> web.Response:
        at = await acted_on(self._access, self._api, request, "operator")
        await self._deliveries.retry(at.visit.app.app, request.match_info["delivery"], at.visit.caller)
        return seen(f"{at.path}/deliveries")

    async def test(self, request: web.Request) -> web.Response:
        at = await acted_on(self._access, self._api, request, "operator")
        event_type = at.form.get("type", "").strip()
        try:
            await self._deliveries.test(at.place, {"type": event_type} if event_type else None, at.visit.caller)
        except Refused as refused:
            raise refusal(refused) from None
        return seen(f"{at.path}/deliveries")
