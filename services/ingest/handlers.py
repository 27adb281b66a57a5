"""
The HTTP side of ingest.

The order of a request is the order of `Events._accepted`: who sends (key, origin), how large, what it is; then the
log. A limit on the rate belongs right behind the key, a batch around `accept`; neither is here yet.
"""

import asyncio
import time
from collections.abc import Callable
from typing import Final, TypeVar

import uuid_utils
from aiohttp import web
from aiokafka.errors import KafkaError

from services.ingest.accept import MAX_REQUEST_BYTES, accept, answer, request_too_large
from services.ingest.append import EventLog, not_ready
from services.ingest.content_type import check_headers
from services.ingest.cors import cors_headers, preflight_headers
from services.ingest.keys import (
    allows_origin,
    check_origin,
    key_unknown,
    kind_of_key,
    origin_not_allowed,
    presented_key,
)
from services.ingest.metrics import ACCEPTED, APPEND_SECONDS, REFUSED
from services.runtime.clock import now_ms
from services.runtime.problems import Problem, body_incomplete, problem_response
from streams.follower import Follower
from streams.records import AppConfig, Event, KeyKind
from streams.views import Apps

T = TypeVar("T")

PATH: Final = "/v1/apps/{app}/events"

#: How long a sender may take over its body: 64 KiB at 52 kbit/s.
BODY_DEADLINE_S: Final = 10.0
#: How long a refusal may wait for the newest configuration.
CONFIG_DEADLINE_S: Final = 2.0

#: Refusals that the newest configuration may take back: what the admin API has confirmed holds here at once.
_MAY_BE_STALE: Final = frozenset({"key_unknown", "origin_not_allowed", "unknown_type"})


class Events:
    """Takes events over HTTP. What it knows of apps is what the follower has read."""

    def __init__(self, apps: Apps, follower: Follower, log: EventLog) -> None:
        self._apps = apps
        self._follower = follower
        self._log = log
        #: Whether all apps and keys have been read once; before that nobody can be refused.
        self.knows_apps = False

    def add_to(self, http: web.Application) -> None:
        """Add the routes."""
        http.router.add_post(PATH, self.post)
        http.router.add_route("OPTIONS", PATH, self.preflight)

    async def post(self, request: web.Request) -> web.Response:
        """`POST /v1/apps/{app}/events`: 202 once the event is on the log."""
        try:
            event = await self._accepted(request)
            started_s = time.perf_counter()
            await self._log.append(event)
        except Problem as problem:
            REFUSED.labels(problem.code).inc()
            response = problem_response(problem)
        else:
            APPEND_SECONDS.observe(time.perf_counter() - started_s)
            ACCEPTED.inc()
            response = web.Response(status=202, body=answer(event), headers={"Content-Type": "application/json"})
        if (origin := request.headers.get("Origin")) is not None:
            response.headers.update(cors_headers(origin, self._apps.get(request.match_info["app"])))
        return response

    async def preflight(self, request: web.Request) -> web.Response:
        """What a browser asks before it sends anything but a simple request."""
        self._check_knows_apps()
        origin = request.headers.get("Origin", "")
        return await self._newest(lambda: web.Response(status=204, headers=self._preflight_headers(request, origin)))

    def _preflight_headers(self, request: web.Request, origin: str) -> dict[str, str]:
        app = self._apps.get(request.match_info["app"])
        if app is None or not allows_origin(app, origin):
            raise origin_not_allowed()
        return preflight_headers(origin, app)

    async def _accepted(self, request: web.Request) -> Event:
        self._check_knows_apps()
        app, key_kind = await self._newest(lambda: self._sender(request))
        check_headers(request.headers)
        body = await read_body(request)
        record_id, minted_event_id = f"rec_{uuid_utils.uuid7().hex}", f"evt_{uuid_utils.uuid7().hex}"
        return await self._newest(
            lambda: accept(
                body,
                app=self._apps.get(app.app) or app,
                key_kind=key_kind,
                now_ms=now_ms(),
                record_id=record_id,
                minted_event_id=minted_event_id,
            )
        )

    def _sender(self, request: web.Request) -> tuple[AppConfig, KeyKind]:
        app = self._apps.get(request.match_info["app"])
        key = presented_key(request.headers, request.query if request.query_string else {})
        if app is None:
            raise key_unknown()
        kind = kind_of_key(key, app)
        check_origin(kind, request.headers.get("Origin"), app)
        return app, kind

    def _check_knows_apps(self) -> None:
        if not self.knows_apps:
            raise not_ready()

    async def _newest(self, decide: Callable[[], T]) -> T:
        """The decision; a refusal that rests on configuration is taken anew under the newest."""
        try:
            return decide()
        except Problem as refusal:
            if refusal.code not in _MAY_BE_STALE:
                raise
        try:
            async with asyncio.timeout(CONFIG_DEADLINE_S):
                await self._follower.catch_up()
        except (TimeoutError, KafkaError, OSError):
            # Not a refusal: the sender would take its event for a wrong one and throw it away.
            raise not_ready() from None
        return decide()


async def read_body(request: web.Request) -> bytes:
    """
    The whole body.

    Raises:
        Problem: 408 `body_too_slow`, 413 `request_too_large`, 400 `body_incomplete`.
    """
    if (request.content_length or 0) > MAX_REQUEST_BYTES:
        raise request_too_large()
    content = request.content
    if content.is_eof():
        # It came together with the headers, as nearly every event does: no waiting, no timer.
        return content.read_nowait()
    body = bytearray()
    try:
        async with asyncio.timeout(BODY_DEADLINE_S):
            while chunk := await content.readany():
                body += chunk
                if len(body) > MAX_REQUEST_BYTES:
                    raise request_too_large()
    except TimeoutError:
        raise Problem(
            408,
            "body_too_slow",
            "Body too slow",
            f"The body was not complete within {BODY_DEADLINE_S:.0f} s. Repeat it.",
        ) from None
    except (web.RequestPayloadError, ConnectionError):
        raise body_incomplete() from None
    return bytes(body)
