"""The audit log of an app."""

from typing import Final

from aiohttp import web

from services.admin.routes.audit import audit_json
from services.admin.routes.route import Api
from services.console.access import Access, Handler
from services.console.rendering import html

ON_A_PAGE: Final = 50

_FILTERS: Final = ("action", "target", "who")


def pages(access: Access, api: Api) -> list[tuple[str, str, Handler]]:
    """Method, path and handler of each."""

    async def audit(request: web.Request) -> web.Response:
        visit = await access.visit(request)
        wanted = {name: request.query[name].strip() for name in _FILTERS if request.query.get(name, "").strip()}
        cursor = request.query.get("cursor") or None
        found = []
        is_behind = cursor is None
        for record in api.log.chains.newest_first(visit.app.app):
            if is_behind and all(getattr(record, name) == value for name, value in wanted.items()):
                found.append(audit_json(record))
            is_behind = is_behind or record.id == cursor
            if len(found) > ON_A_PAGE:
                break
        has_more = len(found) > ON_A_PAGE
        return html(
            "audit.html",
            **visit.page,
            records=found[:ON_A_PAGE],
            wanted=wanted,
            next=found[ON_A_PAGE - 1]["id"] if has_more else None,
        )

    return [("GET", "/apps/{app}/audit", audit)]
