"""The integrations and subscriptions of an app, with how each is doing."""

from collections.abc import Mapping
from typing import Any, Final

from aiohttp import web

from services.admin.routes.integrations import COLLECTIONS
from services.admin.routes.route import Api
from services.console.access import Access, Handler
from services.console.rendering import html

STATUSES: Final = ("active", "failing", "paused")


def pages(access: Access, api: Api) -> list[tuple[str, str, Handler]]:
    """Method, path and handler of each."""

    async def overview(request: web.Request) -> web.Response:
        visit = await access.visit(request)
        words, status = request.query.get("q", ""), request.query.get("status", "")
        listed = {
            collection: [api.commands.shown(each) for each in api.commands.listed(visit.app.app, profile)]
            for collection, profile in COLLECTIONS.items()
        }
        found = {
            collection: [each for each in items if is_wanted(each, words, status)]
            for collection, items in listed.items()
        }
        return html(
            "overview.html",
            **visit.page,
            listed=listed,
            found=found,
            q=words,
            wanted_status=status,
            statuses=STATUSES,
            here=request.path_qs,
        )

    return [("GET", "/apps/{app}", overview)]


def is_wanted(shown: Mapping[str, Any], words: str, status: str) -> bool:
    """Whether an integration has this status (empty: any) and every word in its name, address, id or events."""
    if status and shown["status"] != status:
        return False
    text = " ".join((shown["name"], shown["url"], shown["id"], *shown["events"])).casefold()
    return all(word in text for word in words.casefold().split())
