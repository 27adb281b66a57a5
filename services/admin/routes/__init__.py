"""
The admin API over HTTP. `ROUTES` of each module is its part of the table; `all_routes` is all of it.

Every request first catches up with the log, then looks at its token.
"""

from collections.abc import Collection

from aiohttp import web

from services.admin.routes import apps, audit, credentials, data_keys, deliveries, integrations, replays, secrets
from services.admin.routes.route import Api, Route, handler_of


def all_routes(api: Api) -> list[Route]:
    """Every path of the API, with what answers it."""
    resources = (apps, credentials, data_keys, integrations, secrets, replays, deliveries, audit)
    return [route for resource in resources for route in resource.routes(api)]


def add_routes(router: web.UrlDispatcher, api: Api) -> None:
    """Add every path of the API."""
    routes = all_routes(api)
    paths = {route.path for route in routes}
    for route in routes:
        router.add_route(route.method, _matched(route.path, paths), handler_of(route))


def _matched(path: str, paths: Collection[str]) -> str:
    """
    The path as the router takes it: its last place stands for no word that another path has there.

    Else `deliveries/retry`, asked for with a method that it has not, would be told those of `deliveries/{delivery}` as
    well.
    """
    above, _, last = path.rpartition("/")
    words = [
        word for before, _, word in (each.rpartition("/") for each in paths) if before == above and "{" not in word
    ]
    if not words or "{" not in last:
        return path
    return f"{above}/{{{last.strip('{}')}:(?!(?:{'|'.join(sorted(words))})$)[^{{}}/]+}}"
