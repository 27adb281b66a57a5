"""The console's pages on the admin service's port."""

import asyncio
import secrets

from aiohttp import web

from services.admin.routes.route import Api
from services.console import (
    audit_page,
    delivery_pages,
    integration_pages,
    live,
    overview,
    replay_pages,
    secret_pages,
    signing_in,
)
from services.console.access import Access, page
from services.console.rendering import guard_headers, static
from services.console.session import Sessions


def add_console(http: web.Application, api: Api, kek: bytes) -> None:
    """
    Add every page, and the headers that guard them, which harm no other answer of the port.

    Args:
        kek: what the keys of sessions are derived from, the same in every process.
    """
    access = Access(api, Sessions(kek), secrets.token_bytes)
    http.on_response_prepare.append(guard_headers)
    stopping = asyncio.Event()

    async def stop(_http: web.Application) -> None:
        stopping.set()

    http.on_shutdown.append(stop)
    http.router.add_get("/static/{file}", static)
    for module in (signing_in, overview, integration_pages, delivery_pages, secret_pages, replay_pages, audit_page):
        for method, path, handler in module.pages(access, api):
            http.router.add_route(method, path, page(handler))
    http.router.add_get("/apps/{app}/live", page(live.stream(access, api, stopping)))
