"""Past events again: what a replay would send, and its start, progress and end."""

from collections.abc import Sequence
from typing import Any, Final

from aiohttp import web
from multidict import MultiMapping

from services.admin.routes.route import Api
from services.admin.rules import Refused
from services.console.access import Access, Handler, seen
from services.console.at import ONE, At, acted_on, looked_at

_REPLAY: Final = ONE + "/replays/{replay:rpl_[0-9a-f]+}"


def pages(access: Access, api: Api) -> list[tuple[str, str, Handler]]:
    """Method, path and handler of each."""
    it = _Pages(access, api)
    return [
        ("GET", f"{ONE}/replays", it.listing),
        ("POST", f"{ONE}/replays", it.ask),
        ("POST", f"{_REPLAY}/cancel", it.cancel),
    ]


class _Pages:
    def __init__(self, access: Access, api: Api) -> None:
        self._access = access
        self._api = api
        self._replays = api.replays

    async def listing(self, request: web.Request) -> web.Response:
        return self._page(await looked_at(self._access, self._api, request))

    async def ask(self, request: web.Request) -> web.Response:
        at = await acted_on(self._access, self._api, request, "operator")
        body = asked(at.form)
        try:
            if at.form.get("act") == "start":
                await self._replays.start(at.place, body, at.visit.caller)
                return seen(f"{at.path}/replays")
            return self._page(at, dry=await self._replays.dry_run(at.place, body, at.visit.caller))
        except Refused as refused:
            return self._page(at, 400, faults=[f"{each.field} {each.detail}" for each in refused.refusals])

    async def cancel(self, request: web.Request) -> web.Response:
        at = await acted_on(self._access, self._api, request, "operator")
        await self._replays.cancel(at.place, request.match_info["replay"], at.visit.caller)
        return seen(f"{at.path}/replays")

    def _page(self, at: At, status: int = 200, *, dry: Any = None, faults: Sequence[str] = ()) -> web.Response:
        values = {name: at.form.get(name, "") for name in ("from", "until", "types", "rate")}
        listed = self._replays.listed(at.place)
        return at.html("replays.html", status, replays=listed, dry=dry, faults=faults, values=values, here=at.path)


def asked(form: MultiMapping[str]) -> dict[str, Any]:
    """The JSON of a replay that a form asks for. Fields of the browser's have no zone: the page says that it is UTC."""
    body: dict[str, Any] = {name: form[name].strip() + "Z" for name in ("from", "until") if form.get(name, "").strip()}
    types = form.get("types", "").replace(",", " ").split()
    if types:
        body["types"] = types
    rate = form.get("rate", "").strip()
    if rate:
        body["rate"] = int(rate) if rate.isascii() and rate.isdecimal() and len(rate) < 10 else rate  # noqa: PLR2004
    return body
