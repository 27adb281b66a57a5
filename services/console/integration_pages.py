"""One integration: how it is doing, its settings, its versions, and why nothing arrives."""

import secrets
from collections.abc import Callable
from typing import Any, Final

from aiohttp import web

from schemas.catalogue import BOOKING_TYPES, CATALOGUE, OWN_TYPES
from schemas.profiles import DEFAULT_TIMEOUT_MS, Profile
from services.admin.routes.integrations import COLLECTIONS
from services.admin.routes.route import Api, refusal
from services.admin.rules import Refused
from services.console.access import Access, Handler, Visit, seen
from services.console.at import COLLECTION, ONE, At, acted_on, looked_at
from services.console.forms import (
    SECRET_ROWS,
    by_field,
    choices,
    patch_of,
    secrets_of,
    settings_of,
    still_masked,
    typed,
    values_of,
)
from services.console.rendering import html
from services.console.why import Emitted, checks
from services.runtime.problems import Problem
from services.runtime.times import iso
from streams.records import AppConfig

#: How far back "does the app emit them?" looks into the log.
LOOK_MINUTES: Final = 60

_MINUTE_MS: Final = 60_000

_CONFLICT: Final = 409


def pages(access: Access, api: Api) -> list[tuple[str, str, Handler]]:
    """Method, path and handler of each."""
    it = _Pages(access, api)
    return [
        ("GET", f"{COLLECTION}/new", it.new),
        ("POST", f"{COLLECTION}/new", it.create),
        ("GET", ONE, it.one),
        ("GET", f"{ONE}/edit", it.edit),
        ("POST", f"{ONE}/edit", it.change),
        ("POST", f"{ONE}/pause", it.pause),
        ("POST", f"{ONE}/activate", it.activate),
        ("GET", f"{ONE}/delete", it.ask_delete),
        ("POST", f"{ONE}/delete", it.delete),
        ("GET", f"{ONE}/history", it.history),
        ("POST", f"{ONE}/rollback", it.roll_back),
        ("GET", f"{ONE}/why", it.why),
    ]


class _Pages:
    def __init__(self, access: Access, api: Api) -> None:
        self._access = access
        self._api = api
        self._commands = api.commands

    # -- settings --------------------------------------------------------------------------------------------

    async def new(self, request: web.Request) -> web.Response:
        visit = await self._access.visit(request, "admin")
        collection = request.match_info["collection"]
        values = _defaults(COLLECTIONS[collection])
        return _form(visit, collection, values, {}, key=secrets.token_hex(16))

    async def create(self, request: web.Request) -> web.Response:
        visit, form = await self._access.posted(request, "admin")
        collection = request.match_info["collection"]
        profile = COLLECTIONS[collection]
        body, faults = settings_of(form)
        body["secrets"] = secrets_of(form)
        key = form.get("key", "")[:64] or None
        try:
            if faults:
                raise Refused(faults)  # noqa: TRY301
            created = await self._commands.create(visit.app, profile, body, visit.caller, key)
        except Refused as refused:
            return _form(visit, collection, typed(form), by_field(refused.refusals), 400, key=key)
        except Problem as problem:
            if problem.status != _CONFLICT:
                raise
            return _form(visit, collection, typed(form), {"": [problem.detail]}, _CONFLICT, key=key)
        path = f"/apps/{visit.app.app}/{collection}/{created['id']}"
        if "signingSecret" not in created:
            return seen(f"{path}?done=created")
        return _shown_once(visit, path, created)

    async def edit(self, request: web.Request) -> web.Response:
        at = await looked_at(self._access, self._api, request, "admin")
        return _form(at.visit, at.collection, values_of(at.shown), {}, at=at)

    async def change(self, request: web.Request) -> web.Response:
        at = await acted_on(self._access, self._api, request, "admin")
        body, faults = settings_of(at.form)
        faults += still_masked(body["headers"], at.shown["headers"])
        version = at.form.get("version", "")
        try:
            if faults:
                raise Refused(faults)  # noqa: TRY301
            patch = patch_of(body, at.shown)
            after = await self._commands.patch(
                at.visit.app, at.profile, at.config.id, patch, f'"{version}"', at.visit.caller
            )
        except Refused as refused:
            return _form(at.visit, at.collection, typed(at.form), by_field(refused.refusals), 400, at=at)
        if "signingSecret" not in after:
            return seen(f"{at.path}?done=changed")
        return _shown_once(at.visit, at.path, after)

    # -- how it is doing -------------------------------------------------------------------------------------

    async def one(self, request: web.Request) -> web.Response:
        at = await looked_at(self._access, self._api, request)
        return at.html(
            "integration.html",
            held=self._commands.held(at.config),
            done=request.query.get("done", ""),
            here=request.path,
        )

    async def pause(self, request: web.Request) -> web.Response:
        at = await acted_on(self._access, self._api, request, "operator")
        await self._commands.pause(at.visit.app.app, at.profile, at.config.id, at.visit.caller)
        return seen(f"{at.path}?done=paused")

    async def activate(self, request: web.Request) -> web.Response:
        at = await acted_on(self._access, self._api, request, "operator")
        await _granted(
            lambda: self._commands.activate(at.visit.app, at.profile, at.config.id, _choice(at.form), at.visit.caller)
        )
        return seen(f"{at.path}?done=activated")

    async def ask_delete(self, request: web.Request) -> web.Response:
        at = await looked_at(self._access, self._api, request, "admin")
        return at.html("delete.html", held=self._commands.held(at.config))

    async def delete(self, request: web.Request) -> web.Response:
        at = await acted_on(self._access, self._api, request, "admin")
        await self._commands.delete(at.visit.app.app, at.profile, at.config.id, at.visit.caller)
        return seen(f"/apps/{at.visit.app.app}")

    async def why(self, request: web.Request) -> web.Response:
        at = await looked_at(self._access, self._api, request)
        emitted = await self._emitted(at) if "look" in request.query else None
        return at.html("why.html", checks=checks(at.shown, emitted))

    async def _emitted(self, at: At) -> Emitted:
        """Counts the last hour's events on the log; a dry run of a replay of all types does just that."""
        since = iso(self._api.now_ms() - LOOK_MINUTES * _MINUTE_MS)
        found = await self._api.replays.dry_run(at.place, {"from": since, "types": ["*"], "sample": 0}, at.visit.caller)
        return Emitted(LOOK_MINUTES, found["byType"])

    # -- versions --------------------------------------------------------------------------------------------

    async def history(self, request: web.Request) -> web.Response:
        at = await looked_at(self._access, self._api, request)
        return at.html("history.html", versions=self._commands.history(at.config))

    async def roll_back(self, request: web.Request) -> web.Response:
        at = await acted_on(self._access, self._api, request, "admin")
        to = at.form.get("to", "")
        body = {"version": int(to) if to.isascii() and to.isdecimal() and len(to) < 10 else 0}  # noqa: PLR2004
        if_match = f'"{at.form.get("version", "")}"'
        await _granted(
            lambda: self._commands.roll_back(at.visit.app, at.profile, at.config.id, body, if_match, at.visit.caller)
        )
        return seen(f"{at.path}?done=rolled-back")


async def _granted(ask: Callable[[], Any]) -> Any:
    """The answer; a refusal of fields as a problem, where the page has no place beside each."""
    try:
        return await ask()
    except Refused as refused:
        raise refusal(refused) from None


def _choice(form: Any) -> dict[str, Any] | None:
    """What an activation's form says of what is held: the JSON of the API."""
    held = form.get("held")
    if not held:
        return None
    if held != "from":
        return {"held": held}
    # A field of the browser's has no zone: the page says that it is UTC.
    return {"held": {"from": form.get("from", "") + "Z"}}


def _defaults(profile: Profile) -> dict[str, Any]:
    """A form for what is new."""
    return {
        "name": "",
        "url": "",
        "events": [],
        "headers": "",
        "timeoutMs": DEFAULT_TIMEOUT_MS,
        "retryPolicy": profile.retry_policy,
        "maxAttempts": profile.max_attempts,
        "delays": ", ".join(f"{each // 1000}" for each in profile.delays_ms),
        "on429": False,
        "ordering": "integration",
        "maxInFlight": "",
        "whilePaused": "hold",
        "autoPause": True,
        "signing": profile.signing,
        "template": "",
    }


def _form(
    visit: Visit,
    collection: str,
    values: dict[str, Any],
    refusals: dict[str, list[str]],
    status: int = 200,
    *,
    at: At | None = None,
    key: str | None = None,
) -> web.Response:
    profile = COLLECTIONS[collection]
    return html(
        "form.html",
        status,
        **visit.page,
        base=None if at is None else at.path,
        one=None if at is None else at.shown,
        collection=collection,
        profile=profile,
        values=values,
        refusals=refusals,
        offered=choices(_known(visit.app, profile), values["events"]),
        key=key,
        secret_rows=range(SECRET_ROWS),
    )


def _known(app: AppConfig, profile: Profile) -> frozenset[str]:
    """Event types that can be selected."""
    return BOOKING_TYPES if profile.name == "booking" else CATALOGUE | OWN_TYPES | set(app.event_types)


def _shown_once(visit: Visit, path: str, shown: dict[str, Any]) -> web.Response:
    return html(
        "shown_once.html",
        **visit.page,
        base=path,
        title="Signing secret",
        what=f"The signing secret of {shown['name']}",
        value=shown["signingSecret"],
        note="Give it to the endpoint, which verifies every request with it.",
    )
