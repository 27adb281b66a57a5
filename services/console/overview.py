"""The integrations and subscriptions of an app, with how each is doing."""

from collections import Counter
from dataclasses import dataclass
from typing import Any, Final

from aiohttp import web

from services.admin.routes.integrations import COLLECTIONS
from services.admin.routes.route import Api
from services.console.access import Access, Handler
from services.console.at import unless_away
from services.console.attempts import hours
from services.console.rendering import html
from streams.records import IntegrationConfig

STATUSES: Final = ("active", "failing", "paused")
#: Of each collection.
ON_A_PAGE: Final = 50


@dataclass(frozen=True, slots=True)
class Part:
    """A page of a collection."""

    items: list[dict[str, Any]]
    #: How many there are, and how many of them are as was asked for.
    all: int
    wanted: int


def pages(access: Access, api: Api) -> list[tuple[str, str, Handler]]:
    """Method, path and handler of each."""

    async def overview(request: web.Request) -> web.Response:
        visit = await access.visit(request)
        words, status = request.query.get("q", ""), request.query.get("status", "")
        number = page_number(request.query.get("page", ""))
        parts, statuses = {}, Counter[str]()
        for collection, profile in COLLECTIONS.items():
            there = [(each, api.commands.status(each)) for each in api.commands.listed(visit.app.app, profile)]
            statuses.update(each for _, each in there)
            wanted = [each for each, its in there if is_wanted(each, its, words, status)]
            shown = [api.commands.shown(each) for each in wanted[(number - 1) * ON_A_PAGE : number * ON_A_PAGE]]
            parts[collection] = Part(shown, len(there), len(wanted))
        ids = [one["id"] for part in parts.values() for one in part.items]
        rates = await unless_away(api.deliveries.rates_of(visit.app.app, ids), {})
        return html(
            "overview.html",
            **visit.page,
            parts=parts,
            sparks={each: hours(found, height=20, step=5) for each, found in rates.items()},
            q=words,
            wanted_status=status,
            statuses={each: statuses[each] for each in STATUSES},
            number=number,
            has_more=any(part.wanted > number * ON_A_PAGE for part in parts.values()),
            on_a_page=ON_A_PAGE,
            here=request.path_qs,
        )

    return [("GET", "/apps/{app}", overview)]


def page_number(text: str) -> int:
    """The number of a page, from 1; the first where the text is none."""
    return max(1, int(text)) if text.isascii() and text.isdecimal() and len(text) < 6 else 1  # noqa: PLR2004


def is_wanted(config: IntegrationConfig, status: str, words: str, wanted_status: str) -> bool:
    """Whether an integration has this status (empty: any) and every word in its name, address, id or events."""
    if wanted_status and status != wanted_status:
        return False
    if not words:
        return True
    text = " ".join((config.name, config.url, config.id, *config.events)).casefold()
    return all(word in text for word in words.casefold().split())
