"""`/v1/apps/{app}/rewrap` and `/v1/apps/{app}/erase`: what an operator of the installation does with data keys."""

from aiohttp import web

from services.admin.routes.route import Api, Route, admitted, answer, json_if_any, json_of, refusal
from services.admin.rules import Refused
from services.admin.tokens import require_installation


def routes(api: Api) -> list[Route]:
    """The paths of data keys."""

    async def rewrap(request: web.Request) -> web.Response:
        """200 with how many integrations were written, and what did not open."""
        app, caller = await admitted(api, request, "admin")
        require_installation(caller, "Moving secrets under another key")
        body = await json_if_any(request)
        try:
            return answer(await api.data_keys.rewrap(app.app, body, caller))
        except Refused as refused:
            raise refusal(refused) from None

    async def erase(request: web.Request) -> web.Response:
        """200 with how many data keys were erased."""
        app, caller = await admitted(api, request, "admin")
        require_installation(caller, "Erasing secrets")
        body = await json_of(request)
        try:
            return answer(await api.data_keys.erase(app.app, body, caller))
        except Refused as refused:
            raise refusal(refused) from None

    path = "/v1/apps/{app}"
    return [
        Route(
            *("POST", f"{path}/rewrap", rewrap, "admin", "Move secrets under the present KEK", 200),
            body="Rewrap",
            answer="Rewrapped",
            errors=("installation_token_required", "secret_unreadable"),
            body_optional=True,
        ),
        Route(
            *("POST", f"{path}/erase", erase, "admin", "Erase every secret of an app for good", 200),
            body="Erase",
            answer="Erased",
            errors=("installation_token_required", "secret_unreadable"),
        ),
    ]
