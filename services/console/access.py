"""Who may see a page, and whether a form is ours: sessions instead of bearer tokens, the same roles as in the API."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from typing import Any, Final
from urllib.parse import parse_qsl, urlsplit

from aiohttp import web
from multidict import MultiDict

from services.admin.client_ip import client_ip, is_trusted
from services.admin.routes.route import Api, refusal
from services.admin.rules import Refused
from services.admin.tokens import EVERY_APP, Caller, holder_of, require
from services.console.rendering import html
from services.console.session import ID_BYTES, NONCE_BYTES, SESSION_MS, Session, Sessions
from services.runtime import kinds
from services.runtime.problems import Problem
from services.runtime.serving import body_of
from streams.records import AppConfig, Role

COOKIE: Final = "tenterhook_session"

_FORM_TYPE: Final = "application/x-www-form-urlencoded"
#: 500 event types and every other field, several times.
_MAX_FIELDS: Final = 2_000

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class SignedOut(Exception):
    """Nobody is signed in, or not any more."""


@dataclass(frozen=True, slots=True)
class Visit:
    """Somebody who is signed in, at an app's pages."""

    app: AppConfig
    caller: Caller
    session: Session
    #: Apps that the token may see, by name.
    apps: list[str]
    form_token: str
    #: Why deliveries cannot be shown yet; None where they can.
    unread: str | None

    @property
    def page(self) -> dict[str, Any]:
        """What every page shows."""
        return {
            "app": self.app.app,
            "apps": self.apps,
            "caller": self.caller,
            "form_token": self.form_token,
            "unread": self.unread,
            "may_operate": self.caller.role in ("operator", "admin"),
            "may_admin": self.caller.role == "admin",
        }


class Access:
    """Sessions over the tokens of the API."""

    def __init__(self, api: Api, sessions: Sessions, random: Callable[[int], bytes]) -> None:
        self._api = api
        self._sessions = sessions
        self._random = random

    async def visit(self, request: web.Request, least: Role = "viewer") -> Visit:
        """
        Who looks at the app that the path names, when they may.

        Raises:
            SignedOut: nobody is signed in whose token there is.
            Problem: 403 `role_insufficient`, 404 `app_unknown`, 503 `broker_unavailable` or `config_unreadable`.
        """
        session = self._session(request)
        await self._api.log.catch_up()
        visit = self.look(request, session)
        if visit is None:
            self._api.log.app(request.match_info["app"])
            self._api.log.app(EVERY_APP)
            if not self.apps_of(session.token_hash):
                raise SignedOut
            raise Problem(kinds.APP_UNKNOWN, "There is no such app, or the token that signed in is of another.")
        require(visit.caller, least)
        return visit

    def look(self, request: web.Request, session: Session) -> Visit | None:
        """The visit as the configuration stands in memory; None where the token is none of the app."""
        name = request.match_info["app"]
        app = self._api.log.apps.get(name)
        if app is None or name == EVERY_APP:
            return None
        caller = holder_of(session.token_hash, [app, self._api.log.apps.get(EVERY_APP)])
        if caller is None:
            return None
        return Visit(
            app,
            replace(caller, ip=self._address_of(request)),
            session,
            self.apps_of(session.token_hash),
            self._sessions.form_token(session),
            self._api.deliveries.unread,
        )

    def is_still(self, request: web.Request, visit: Visit) -> bool:
        """Whether the visit may go on: session and token are there."""
        return self._api.now_ms() < visit.session.until_ms and self.look(request, visit.session) is not None

    async def signed_in(self, request: web.Request) -> tuple[Session, list[str]]:
        """
        The session, and the apps that its token may see.

        Raises:
            SignedOut, Problem: as `visit`.
        """
        session = self._session(request)
        await self._api.log.catch_up()
        apps = self.apps_of(session.token_hash)
        if not apps and holder_of(session.token_hash, [self._api.log.app(EVERY_APP)]) is None:
            raise SignedOut
        return session, apps

    def apps_of(self, token_hash: bytes) -> list[str]:
        """Names of the apps that the token may see."""
        every = self._api.log.apps.get(EVERY_APP)
        return [
            app.app
            for app in self._api.log.apps.all()
            if app.app != EVERY_APP and holder_of(token_hash, [app, every]) is not None
        ]

    def _session(self, request: web.Request) -> Session:
        session = self._sessions.opened(request.cookies.get(COOKIE, ""), self._api.now_ms())
        if session is None:
            raise SignedOut
        return session

    # -- forms -----------------------------------------------------------------------------------------------

    async def posted(self, request: web.Request, least: Role) -> tuple[Visit, MultiDict[str]]:
        """
        Who sent a form of ours, and what is in it.

        Raises:
            SignedOut, Problem: as `visit`; 403 `form_foreign`, 400 `invalid_form`.
        """
        visit = await self.visit(request, least)
        form = await form_of(request)
        self.check_form(visit.session, form)
        return visit, form

    def check_form(self, session: Session, form: MultiDict[str]) -> None:
        """
        Hold a form to its session.

        Raises:
            Problem: 403 `form_foreign`.
        """
        if not self._sessions.is_own_form(session, form.get("form_token", "")):
            raise form_foreign()

    # -- in and out ------------------------------------------------------------------------------------------

    def sign_in(self, request: web.Request, response: web.StreamResponse, token_hash: bytes) -> None:
        """Set the cookie of a new session."""
        session = Session(token_hash, self._api.now_ms() + SESSION_MS, self._random(ID_BYTES))
        response.set_cookie(
            COOKIE,
            self._sessions.sealed(session, self._random(NONCE_BYTES)),
            max_age=SESSION_MS // 1000,
            path="/",
            httponly=True,
            samesite="Strict",
            secure=self._is_https(request),
        )

    def sign_out(self, request: web.Request, response: web.StreamResponse) -> None:
        """Take the cookie away."""
        response.del_cookie(COOKIE, path="/", httponly=True, samesite="Strict", secure=self._is_https(request))

    def _address_of(self, request: web.Request) -> str | None:
        """Where the request came from, for the audit log."""
        forwarded = ",".join(request.headers.getall("X-Forwarded-For", ()))
        return client_ip(request.remote, forwarded, self._api.trusted_proxies)

    def _is_https(self, request: web.Request) -> bool:
        """Whether the browser sees https: here, or at a proxy whose word counts."""
        if request.secure:
            return True
        said = request.headers.get("X-Forwarded-Proto", "").rpartition(",")[2].strip().lower()
        return said == "https" and is_trusted(request.remote, self._api.trusted_proxies)


async def form_of(request: web.Request) -> MultiDict[str]:
    """
    The fields of a form that a page of this port has sent.

    Raises:
        Problem: 403 `form_foreign`, 400 `invalid_form`.
    """
    site, origin = request.headers.get("Sec-Fetch-Site"), request.headers.get("Origin")
    if site is None and origin is not None:
        # An old browser. Behind a proxy that changes Host, it cannot send forms.
        site = "same-origin" if urlsplit(origin).netloc == request.host else "cross-site"
    if site not in (None, "same-origin", "none"):
        raise form_foreign()
    if request.content_type != _FORM_TYPE:
        raise Problem(kinds.INVALID_FORM, f"A form is sent as {_FORM_TYPE}. Use the page's own.")
    try:
        text = (await body_of(request)).decode("ascii")
        return MultiDict(parse_qsl(text, keep_blank_values=True, max_num_fields=_MAX_FIELDS, errors="strict"))
    except ValueError:
        raise Problem(kinds.INVALID_FORM, "The form cannot be read, or has too many fields. Send it again.") from None


def form_foreign() -> Problem:
    """Another page than ours has sent it, or a page of an earlier session."""
    return Problem(
        kinds.FORM_FOREIGN,
        "The form did not come from a page of this session, so nothing was done. Open the page again and repeat it.",
    )


def page(handler: Handler) -> Handler:
    """The handler with every refusal as a page, and the way to sign in where nobody is."""

    async def shown(request: web.Request) -> web.StreamResponse:
        try:
            return await handler(request)
        except SignedOut:
            if "HX-Request" in request.headers:
                return web.Response(status=204, headers={"HX-Redirect": "/sign-in"})
            return seen("/sign-in")
        except (Problem, Refused) as error:
            problem = refusal(error) if isinstance(error, Refused) else error
            response = html("problem.html", problem.status, problem=problem)
            response.headers.update({name: value for name, value in problem.headers.items() if name == "Retry-After"})
            return response

    return shown


def seen(path: str) -> web.Response:
    """What was asked for is done: look at *path* now."""
    return web.Response(status=303, headers={"Location": path, "Cache-Control": "no-store"})
