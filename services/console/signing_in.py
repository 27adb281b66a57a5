"""Signing in with a token of the API, out again, and the choice of an app."""

from aiohttp import web

from services.admin.routes.route import Api
from services.admin.tokens import EVERY_APP, hash_of, holder_of
from services.console.access import Access, Handler, SignedOut, form_of, seen
from services.console.rendering import html

_UNKNOWN = "There is no such token. Check it, or have a new one made. Keys of ingest (pk_…, sk_…) are none."


def pages(access: Access, api: Api) -> list[tuple[str, str, Handler]]:
    """Method, path and handler of each."""

    async def start(request: web.Request) -> web.Response:
        _, apps = await access.signed_in(request)
        if len(apps) == 1:
            return seen(f"/apps/{apps[0]}")
        return html("apps.html", apps=apps)

    async def ask(request: web.Request) -> web.Response:
        try:
            await access.signed_in(request)
        except SignedOut:
            return html("sign_in.html", fault=None)
        return seen("/")

    async def sign_in(request: web.Request) -> web.Response:
        form = await form_of(request)
        await api.log.catch_up()
        digest = hash_of(form.get("token", "").strip())
        if not access.apps_of(digest) and holder_of(digest, [api.log.app(EVERY_APP)]) is None:
            return html("sign_in.html", 401, fault=_UNKNOWN)
        response = seen("/")
        access.sign_in(request, response, digest)
        return response

    async def sign_out(request: web.Request) -> web.Response:
        await form_of(request)
        response = seen("/sign-in")
        access.sign_out(request, response)
        return response

    return [
        ("GET", "/", start),
        ("GET", "/sign-in", ask),
        ("POST", "/sign-in", sign_in),
        ("POST", "/sign-out", sign_out),
    ]
