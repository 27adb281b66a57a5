"""`/v1/apps/{app}/audit`: who did what, newest first. `/v1/audit`: the same of what is of no one app."""

from typing import Any

from aiohttp import web

from services.admin.routes.route import Api, Route, admitted, admitted_anywhere, answer, limit_of, time_of
from services.admin.tokens import EVERY_APP, require_installation
from services.runtime.times import iso
from streams.records import AuditRecord


def routes(api: Api) -> list[Route]:
    """The paths of the audit log."""

    async def list_audit(request: web.Request) -> web.Response:
        """200 with `items`, newest first, and `next`: the cursor of the page after, or null."""
        app, _ = await admitted(api, request, "viewer")
        return page_of(app.app, request)

    async def list_of_all(request: web.Request) -> web.Response:
        """200 as above."""
        require_installation(await admitted_anywhere(api, request, "viewer"), "Reading the installation's audit log")
        return page_of(EVERY_APP, request)

    def page_of(app: str, request: web.Request) -> web.Response:
        limit, cursor = limit_of(request), request.query.get("cursor")
        since, until = time_of(request, "since"), time_of(request, "until")
        wanted = {name: request.query[name] for name in ("action", "target", "who") if name in request.query}
        page: list[AuditRecord] = []
        is_behind = cursor is None
        for record in api.log.chains.newest_first(app):
            if is_behind and _is_wanted(record, since, until, wanted):
                page.append(record)
            is_behind = is_behind or record.id == cursor
            if len(page) > limit:
                break
        shown = page[:limit]
        return answer(
            {"items": [audit_json(each) for each in shown], "next": shown[-1].id if len(page) > limit else None}
        )

    query = ("action", "target", "who", "since", "until", "limit", "cursor")
    return [
        Route("GET", "/v1/apps/{app}/audit", list_audit, "viewer", "The audit log", 200, None, "Audit", query),
        Route(
            *("GET", "/v1/audit", list_of_all, "viewer", "The installation's audit log", 200, None, "Audit", query),
            errors=("installation_token_required",),
        ),
    ]


def audit_json(record: AuditRecord) -> dict[str, Any]:
    """A record of the audit log as JSON; hashes in hexadecimal."""
    return {
        "id": record.id,
        "app": record.app,
        "at": iso(record.at_ms),
        "who": record.who,
        "ip": record.ip,
        "action": record.action,
        "target": record.target,
        "allowed": record.allowed,
        "details": record.details,
        "previousHash": record.previous_hash.hex(),
        "hash": record.hash.hex(),
    }


def _is_wanted(record: AuditRecord, since: int | None, until: int | None, wanted: dict[str, str]) -> bool:
    if (since is not None and record.at_ms < since) or (until is not None and record.at_ms >= until):
        return False
    of_record = {"action": record.action, "target": record.target, "who": record.who}
    return all(of_record[name] == value for name, value in wanted.items())
