"""The secrets of an integration: stored, taken away, shown once, replaced. What a reveal records is said before it."""

from aiohttp import web

from services.admin.named_secrets import secret_of
from services.admin.routes.route import Api
from services.admin.rules import Refused
from services.console.access import Access, Handler
from services.console.at import ONE, acted_on, looked_at
from services.console.rendering import html

_SECRET = ONE + "/secrets/{name:[A-Za-z0-9_-]{1,64}}"


def pages(access: Access, api: Api) -> list[tuple[str, str, Handler]]:
    """Method, path and handler of each."""
    it = _Pages(access, api)
    return [
        ("GET", f"{ONE}/secrets", it.list),
        ("POST", f"{ONE}/secrets", it.put),
        ("POST", f"{_SECRET}/delete", it.delete),
        ("GET", f"{_SECRET}/reveal", it.ask_reveal),
        ("POST", f"{_SECRET}/reveal", it.reveal),
        ("POST", f"{ONE}/rotate", it.rotate),
    ]


class _Pages:
    def __init__(self, access: Access, api: Api) -> None:
        self._access = access
        self._api = api
        self._secrets = api.secrets

    async def list(self, request: web.Request) -> web.Response:
        at = await looked_at(self._access, self._api, request)
        done = request.query.get("done", "")
        return at.html("secrets.html", secrets=self._secrets.listed(at.place), fault=None, name="", done=done)

    async def put(self, request: web.Request) -> web.Response:
        at = await acted_on(self._access, self._api, request, "admin")
        name = at.form.get("name", "").strip()
        try:
            await self._secrets.put(at.place, name, {"value": at.form.get("value", "")}, at.visit.caller)
        except Refused as refused:
            listed = self._secrets.listed(at.place)
            return at.html("secrets.html", 400, secrets=listed, fault=str(refused), name=name, done="")
        return at.done("stored", "/secrets")

    async def delete(self, request: web.Request) -> web.Response:
        at = await acted_on(self._access, self._api, request, "admin")
        await self._secrets.delete(at.place, request.match_info["name"], at.visit.caller)
        return at.done("deleted", "/secrets")

    async def ask_reveal(self, request: web.Request) -> web.Response:
        at = await looked_at(self._access, self._api, request, "admin")
        name = request.match_info["name"]
        return at.html("reveal.html", name=name, version=secret_of(at.config, name).version)

    async def reveal(self, request: web.Request) -> web.Response:
        """Also a try without the role for it is recorded, as over the API."""
        at = await acted_on(self._access, self._api, request, "viewer")
        shown = await self._secrets.reveal(at.place, request.match_info["name"], at.visit.caller)
        return html(
            "shown_once.html",
            **at.visit.page,
            base=f"{at.path}/secrets",
            title="Secret",
            what=f"{shown['name']}, version {shown['version']}",
            value=shown["value"],
            note="This was recorded in the audit log.",
        )

    async def rotate(self, request: web.Request) -> web.Response:
        at = await acted_on(self._access, self._api, request, "admin")
        body = {"now": True} if at.form.get("overlap") == "now" else None
        new = await self._secrets.rotate(at.place, body, at.visit.caller)
        until = new["previousValidUntil"]
        old = "The one before is not used any more." if until is None else f"The one before stays valid until {until}."
        return html(
            "shown_once.html",
            **at.visit.page,
            base=at.path,
            title="Signing secret",
            what=f"The new signing secret of {at.config.name}",
            value=new["signingSecret"],
            note=f"{old} Give the new one to the endpoint.",
        )
