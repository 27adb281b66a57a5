"""
Tells open pages that what they show has changed, by server-sent events; they ask for it again themselves.

Nothing but "changed" is sent. Who is signed out, or whose token is taken away, hears nothing any more.
"""

import asyncio
from contextlib import suppress
from typing import Any, Final

from aiohttp import web

from services.admin.routes.route import Api
from services.console.access import Access, Handler
from streams.records import LaneRow

#: Between two looks: what is shown is some seconds old at most, and a look costs microseconds.
LOOK_S: Final = 1.0
#: A comment so often, to find out who has gone and to keep proxies from closing.
COMMENT_EVERY: Final = 15
#: An age on a page is that old at most.
AGE_MS: Final = 15_000
#: Pages that one process tells at once. Beyond it they are told to come again.
MAX_STREAMS: Final = 500
_AGAIN: Final = b"retry: 30000\n\n"


def stream(access: Access, api: Api, stopping: asyncio.Event) -> Handler:
    """
    The handler of the stream.

    Args:
        stopping: ends every stream, so that none holds up the end of the process.
    """
    open_now = 0
    #: By app, the newest fingerprint and when it was taken: pages of one app share it.
    taken: dict[str, tuple[float, Any]] = {}

    def look(app: str) -> Any:
        now_s = asyncio.get_running_loop().time()
        at_s, found = taken.get(app, (0.0, None))
        if now_s - at_s < LOOK_S / 2:
            return found
        taken[app] = now_s, fingerprint(api, app)
        return taken[app][1]

    async def live(request: web.Request) -> web.StreamResponse:
        nonlocal open_now
        visit = await access.visit(request)
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream", "Cache-Control": "no-store"})
        await response.prepare(request)
        if open_now >= MAX_STREAMS:
            await response.write(_AGAIN)
            return response
        open_now += 1
        try:
            with suppress(ConnectionError):
                await response.write(b": open\n\n")
                shown, looks, has_changed = look(visit.app.app), 0, False
                while not await _is_set_within(stopping, LOOK_S) and access.is_still(request, visit):
                    looks += 1
                    now = look(visit.app.app)
                    # Once more after a change: the history may have been a moment behind when the page asked.
                    is_due, has_changed = has_changed or now != shown, now != shown
                    if is_due:
                        shown = now
                        await response.write(b"event: changed\ndata:\n\n")
                    elif looks % COMMENT_EVERY == 0:
                        await response.write(b":\n\n")
        finally:
            open_now -= 1
        return response

    return live


def fingerprint(api: Api, app: str) -> Any:
    """What pages of the app show, as far as it changes by itself; compared, and not looked into."""
    found = []
    for config in api.log.integrations.of_app(app):
        state, row = api.log.states.get(config.id), api.log.rows.get(config.id)
        told = None
        if state is not None:
            told = (state.epoch, state.state, state.consecutive_failures, state.ended, state.last_delivery_id)
        found.append((config.id, config.version, told, None if row is None else (row.held, _age(row, api.now_ms()))))
    return found


def _age(row: LaneRow, now_ms: int) -> int | None:
    """How long the oldest has waited, as coarsely as pages that wait for nothing else show it again."""
    return None if row.oldest_at_ms is None else (now_ms - row.oldest_at_ms) // AGE_MS


async def _is_set_within(event: asyncio.Event, timeout_s: float) -> bool:
    with suppress(TimeoutError):
        await asyncio.wait_for(event.wait(), timeout_s)
    return event.is_set()
