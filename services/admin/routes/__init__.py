"""
The admin API over HTTP. `ROUTES` of each module is its part of the table; `all_routes` is all of it.

Every request first catches up with the log, then looks at its token.
"""

from aiohttp import web

from services.admin.routes import apps, audit, credentials, data_keys, deliveries, integrations, replays, secrets
from services.admin.routes.route import Api, Route, handler_of


def all_routes(api: Api) -> list[Route]:
    """Every path of the API, with what answers it."""
    resources = (apps, credentials, data_keys, integrations, secrets, replays, deliveries, audit)
    return [route for resource in resources for route in resource.routes(api)]


def add_routes(router: web.UrlDispatcher, api: Api) -> None:
    """Add every path of the API."""
    for route in all_routes(api):
        router.add_route(route.method, route.path, handler_of(route))
