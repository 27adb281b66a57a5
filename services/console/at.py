"""The integration that a page is about."""

from dataclasses import dataclass
from typing import Any, Final

from aiohttp import web
from multidict import MultiDict

from schemas.profiles import Profile
from services.admin.place import Place
from services.admin.routes.integrations import COLLECTIONS
from services.admin.routes.route import Api
from services.console.access import Access, Visit
from services.console.rendering import html
from streams.records import IntegrationConfig, Role

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
