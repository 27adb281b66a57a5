"""The integration that a page is about."""

from collections.abc import Awaitable
from dataclasses import dataclass
from typing import Any, Final, TypeVar

from aiohttp import web
from multidict import MultiDict

from schemas.catalogue import BOOKING_TYPES, CATALOGUE, OWN_TYPES
from schemas.profiles import Profile
from services.admin.place import Place
from services.admin.routes.integrations import COLLECTIONS
from services.admin.routes.route import Api
from services.console.access import Access, Visit, seen
from services.console.rendering import html
from services.runtime.problems import Problem
from streams.records import AppConfig, IntegrationConfig, Role

T = TypeVar("T")

COLLECTION: Final = "/apps/{app}/{collection:" + "|".join(COLLECTIONS) + "}"
ONE: Final = COLLECTION + "/{id:[a-z]+_[0-9A-Za-z_-]+}"


@dataclass(frozen=True, slots=True)
class At:
    """A visit of one integration's pages."""

    visit: Visit
    collection: str
    profile: Profile
    config: IntegrationConfig
    #: As the API shows it.
    shown: dict[str, Any]
    form: MultiDict[str]

    @property
    def place(self) -> Place:
        """It, as commands name it."""
        return Place(self.visit.app.app, self.profile, self.config.id)

    @property
    def path(self) -> str:
        """Of its page."""
        return f"/apps/{self.visit.app.app}/{self.collection}/{self.config.id}"

    def html(self, template: str, status: int = 200, **values: Any) -> web.Response:
        """A page about it."""
        about = {"base": self.path, "collection": self.collection, "one": self.shown, "profile": self.profile}
        return html(template, status, **self.visit.page, **about, **values)

    def done(self, what: str, page: str = "") -> web.Response:
        """
        What a form asked for is done: look at it, with a line that says so.

        Args:
            what: a key of `told` in macros.html.
            page: below the integration's. A form that stands on the page of checks leads back there.
        """
        page = "/why" if self.form.get("back") == "why" else page
        return seen(f"{self.path}{page}?done={what}")


async def looked_at(access: Access, api: Api, request: web.Request, least: Role = "viewer") -> At:
    """
    The integration that a page is asked for of.

    Raises:
        SignedOut, Problem: as `Access.visit`; 404 `integration_unknown`.
    """
    return _at(api, request, await access.visit(request, least), MultiDict())


async def acted_on(access: Access, api: Api, request: web.Request, least: Role) -> At:
    """
    The integration that a form is sent about.

    Raises:
        SignedOut, Problem: as `Access.posted`; 404 `integration_unknown`.
    """
    visit, form = await access.posted(request, least)
    return _at(api, request, visit, form)


def _at(api: Api, request: web.Request, visit: Visit, form: MultiDict[str]) -> At:
    collection = request.match_info["collection"]
    profile = COLLECTIONS[collection]
    config = api.commands.get(visit.app.app, profile, request.match_info["id"])
    return At(visit, collection, profile, config, api.commands.shown(config), form)


def known_types(app: AppConfig, profile: Profile | None = None) -> frozenset[str]:
    """Event types that an integration of this profile can select; None: one of any profile."""
    if profile is not None and profile.name == "booking":
        return BOOKING_TYPES
    return CATALOGUE | OWN_TYPES | set(app.event_types)


async def unless_away(answer: Awaitable[T], otherwise: T) -> T:
    """What the history answers; *otherwise* where it cannot be asked now, so that a page shows the rest."""
    try:
        return await answer
    except Problem as problem:
        if problem.code != "history_unavailable":
            raise
        return otherwise
