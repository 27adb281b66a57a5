"""One integration: how it is doing, its settings, its versions, and why nothing arrives."""

import secrets
from typing import Any, Final

from aiohttp import web

from schemas.catalogue import ALL_TYPES
from schemas.profiles import DEFAULT_TIMEOUT_MS, Profile
from services.admin.routes.integrations import COLLECTIONS
from services.admin.routes.route import Api
from services.admin.rules import Refused
from services.console.access import Access, Handler, Visit, seen
from services.console.at import COLLECTION, ONE, At, acted_on, known_types, looked_at, unless_away
from services.console.attempts import hours
from services.console.delivery_pages import with_place
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
from services.console.why import Emitted, checks, emits
from services.history.query import Wanted
from services.runtime.problems import Problem

#: How far back "does the app emit them?" looks into the log, and at how many events: half a second's work.
LOOK_MINUTES: Final = 60
MOST_LOOKED_AT: Final = 20_000

#: Deliveries that an integration's page shows.
NEWEST: Final = 8

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
        ("POST", f"{ONE}/select", it.select),
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
            return at.done("changed")
        return _shown_once(at.visit, at.path, after)

    # -- how it is doing -------------------------------------------------------------------------------------

    async def one(self, request: web.Request) -> web.Response:
        at = await looked_at(self._access, self._api, request)
        return at.html(
            "integration.html",
            held=self._commands.held(at.config),
            hours=hours(await unless_away(self._api.deliveries.rates(at.place), []), height=40, step=12),
            deliveries=[with_place(each, at.config) for each in await self._newest(at, NEWEST)],
            done=request.query.get("done", ""),
            here=request.path,
        )

    async def _newest(self, at: At, limit: int) -> list[dict[str, Any]]:
        wanted = Wanted(app=at.visit.app.app, integration=at.config.id)
        found = await unless_away(self._api.deliveries.page(wanted, limit=limit, cursor=None), {"items": []})
        return list(found["items"])

    async def pause(self, request: web.Request) -> web.Response:
        at = await acted_on(self._access, self._api, request, "operator")
        await self._commands.pause(at.visit.app.app, at.profile, at.config.id, at.visit.caller)
        return at.done("paused")

    async def activate(self, request: web.Request) -> web.Response:
        at = await acted_on(self._access, self._api, request, "operator")
        await self._commands.activate(at.visit.app, at.profile, at.config.id, _choice(at.form), at.visit.caller)
        return at.done("activated")

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
        found = checks(at.shown, self._commands.held(at.config), await self._tried(at))
        emission = emits(at.config.events, emitted, known_types(at.visit.app, at.profile))
        return at.html(
            "why.html",
            checks=found,
            emission=emission,
            is_looked=emitted is not None,
            done=request.query.get("done", ""),
            here=request.path,
        )

    async def _tried(self, at: At) -> dict[str, Any] | None:
        """The delivery that was begun last, with its attempts; None where none is known."""
        newest = await self._newest(at, 1)
        return await unless_away(self._api.deliveries.get(at.config.app, newest[0]["id"]), None) if newest else None

    async def _emitted(self, at: At) -> Emitted:
        """Counts the last hour's events on the log."""
        since_ms = self._api.now_ms() - LOOK_MINUTES * _MINUTE_MS
        by_type, is_all = await self._api.replays.emitted(at.place, since_ms, at.visit.caller, most=MOST_LOOKED_AT)
        return Emitted(LOOK_MINUTES, by_type, is_all)

    async def select(self, request: web.Request) -> web.Response:
        """One event type more; `*`: all."""
        at = await acted_on(self._access, self._api, request, "admin")
        event_type = at.form.get("event", "").strip()
        events = [ALL_TYPES] if event_type == ALL_TYPES else list(dict.fromkeys([*at.config.events, event_type]))
        if_match = f'"{at.config.version}"'
        await self._commands.patch(
            at.visit.app, at.profile, at.config.id, {"events": events}, if_match, at.visit.caller
        )
        return at.done("selected")

    # -- versions --------------------------------------------------------------------------------------------

    async def history(self, request: web.Request) -> web.Response:
        at = await looked_at(self._access, self._api, request)
        return at.html("history.html", versions=self._commands.history(at.config))

    async def roll_back(self, request: web.Request) -> web.Response:
        at = await acted_on(self._access, self._api, request, "admin")
        to = at.form.get("to", "")
        body = {"version": int(to) if to.isascii() and to.isdecimal() and len(to) < 10 else 0}  # noqa: PLR2004
        if_match = f'"{at.form.get("version", "")}"'
        await self._commands.roll_back(at.visit.app, at.profile, at.config.id, body, if_match, at.visit.caller)
        return at.done("rolled-back")


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
        "sendTraceparent": False,
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
        offered=choices(known_types(visit.app, profile), values["events"]),
        key=key,
        secret_rows=range(SECRET_ROWS),
    )


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
