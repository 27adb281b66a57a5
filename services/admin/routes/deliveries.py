"""`/v1/apps/{app}/deliveries`, and what concerns the deliveries of one integration: its rates, a sample event."""

from typing import Any, Final, get_args

from aiohttp import web

from schemas.profiles import Profile
from services.admin.place import Place
from services.admin.routes.integrations import COLLECTIONS
from services.admin.routes.route import (
    Api,
    Handler,
    Route,
    admitted,
    answer,
    invalid_query,
    json_if_any,
    json_of,
    limit_of,
    refusal,
    time_of,
)
from services.admin.rules import Refused
from services.history.query import Wanted
from streams.records import Cause, Outcome

_OUTCOMES: Final = (*get_args(Outcome), "open")
_CAUSES: Final = get_args(Cause)


def routes(api: Api) -> list[Route]:
    """The paths of deliveries."""
    it = _Deliveries(api)
    path, one = "/v1/apps/{app}/deliveries", "/v1/apps/{app}/deliveries/{delivery}"
    query = ("integration", "outcome", "type", "event", "cause", "since", "until", "limit", "cursor")
    found = [
        Route(
            *("GET", path, it.list, "viewer", "List deliveries", 200, None, "Deliveries", query),
            errors=("cursor_invalid", "history_unavailable"),
        ),
        Route(
            *("POST", f"{path}/retry", it.retry_many, "operator", "Send several again", 202, "RetryFilter", "Retried"),
            errors=("cursor_invalid", "history_unavailable"),
        ),
        Route(
            *("GET", one, it.get, "viewer", "A delivery with its attempts", 200, None, "Delivery"),
            errors=("delivery_unknown", "history_unavailable"),
        ),
        Route(
            *("POST", f"{one}/retry", it.retry, "operator", "Send it again", 202, None, "MadeDelivery"),
            errors=(
                "delivery_unknown",
                "delivery_open",
                "integration_deleted",
                "payload_expired",
                "history_unavailable",
            ),
        ),
    ]
    for collection, profile in COLLECTIONS.items():
        of_one = f"/v1/apps/{{app}}/{collection}/{{id}}"
        test, rates = it.test_of(profile), it.rates_of(profile)
        found += [
            Route(
                *("POST", f"{of_one}/test", test, "operator", "Send a sample event", 202),
                body="BookingTest" if profile.name == "booking" else "Test",
                answer="SampleDelivery",
                errors=("integration_unknown",),
                body_optional=True,
            ),
            Route(
                *("GET", f"{of_one}/rates", rates, "viewer", "Outcomes by hour", 200, None, "Rates"),
                errors=("integration_unknown", "history_unavailable"),
            ),
        ]
    return found


class _Deliveries:
    def __init__(self, api: Api) -> None:
        self._api = api
        self._deliveries = api.deliveries

    async def list(self, request: web.Request) -> web.Response:
        """200 with `items`, newest first, and `next`: the cursor of the page after, or null."""
        app, _ = await admitted(self._api, request, "viewer")
        given = request.query
        wanted = Wanted(
            app=app.app,
            integration=given.get("integration"),
            outcome=_one_of(request, "outcome", _OUTCOMES),
            type=given.get("type"),
            cause=_one_of(request, "cause", _CAUSES),
            event=given.get("event"),
            since_ms=time_of(request, "since"),
            until_ms=time_of(request, "until"),
        )
        return answer(await self._deliveries.page(wanted, limit=limit_of(request), cursor=given.get("cursor")))

    async def get(self, request: web.Request) -> web.Response:
        """200 with the delivery and every attempt."""
        app, _ = await admitted(self._api, request, "viewer")
        return answer(await self._deliveries.get(app.app, request.match_info["delivery"]))

    async def retry(self, request: web.Request) -> web.Response:
        """202 with the delivery that repeats it."""
        app, caller = await admitted(self._api, request, "operator")
        return answer(await self._deliveries.retry(app.app, request.match_info["delivery"], caller), 202)

    async def retry_many(self, request: web.Request) -> web.Response:
        """202 with what was sent again, and what could not be."""
        app, caller = await admitted(self._api, request, "operator")
        body = await json_of(request)
        try:
            return answer(await self._deliveries.retry_many(app.app, body, caller), 202)
        except Refused as refused:
            raise refusal(refused) from None

    def test_of(self, profile: Profile) -> Handler:
        """202 with the delivery of a sample event."""

        async def test(request: web.Request) -> web.Response:
            app, caller = await admitted(self._api, request, "operator")
            body = await json_if_any(request)
            place = Place(app.app, profile, request.match_info["id"])
            try:
                return answer(await self._deliveries.test(place, body, caller), 202)
            except Refused as refused:
                raise refusal(refused) from None

        return test

    def rates_of(self, profile: Profile) -> Handler:
        """200 with `items`: 24 hours, oldest first."""

        async def rates(request: web.Request) -> web.Response:
            app, _ = await admitted(self._api, request, "viewer")
            place = Place(app.app, profile, request.match_info["id"])
            return answer({"items": await self._deliveries.rates(place), "next": None})

        return rates


def _one_of(request: web.Request, name: str, choices: tuple[str, ...]) -> Any:
    """The parameter of that name, one of these texts; None where it is not given."""
    given = request.query.get(name)
    if given is not None and given not in choices:
        raise invalid_query(name, f"must be one of {', '.join(choices)}")
    return given
