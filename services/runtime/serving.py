"""
HTTP servers of a service: what every one of them has (problems, health, metrics), its start, and its drained end.

`/health/live` says whether the process makes progress (restart it if not), `/health/ready` whether it is caught up
(send it no traffic if not), `/metrics` is what Prometheus reads.
"""

import asyncio
import errno
import os
import resource
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any, Final

import msgspec
import prometheus_client
import structlog
from aiohttp import web
from aiohttp.typedefs import Middleware
from aiohttp.web_protocol import _ErrInfo

from services.runtime import kinds, metrics
from services.runtime.metric import Sample, Service
from services.runtime.problems import (
    Handler,
    Problem,
    body_incomplete,
    body_too_slow,
    problem_response,
    problems,
)

#: None while all is well, else why it is not, for people.
Probe = Callable[[], str | None]

#: An idle connection is kept this long: longer than the minute that load balancers keep theirs, so that they
#: close first, and short enough that one which never sends a request does not stay.
IDLE_TIMEOUT_S: Final = 75.0

#: From the first bytes of a request to the end of its head. Heads fit into one packet as a rule.
HEAD_DEADLINE_S: Final = 10.0
#: A body of the largest size here (1 MiB) at 280 kbit/s. Ingest has its own, for each of its two sizes.
BODY_DEADLINE_S: Final = 30.0
#: How long a client may read nothing of an answer that it has asked for.
STALLED_S: Final = 60.0

#: Connections at once, where the process may open so many files; a connection costs about 20 KiB.
MAX_CONNECTIONS: Final = 10_000
#: Files kept back from clients: brokers, the log's followers, the delivery history. A process that has given its last
#: file to a client cannot find its broker again.
_OTHER_FILES: Final = 256

log = structlog.get_logger(__name__)


class StartupError(Exception):
    """The service cannot start. The message says what is wrong and what to do."""


#: Where requests are not counted: those who ask there are machines, all the time.
_OWN: Final = ("/health/live", "/health/ready", "/metrics")


def application(
    live: Probe, ready: Probe, *, service: Service | None = None, max_body_bytes: int = 65_536
) -> web.Application:
    """
    An aiohttp application with problem+json errors, health and metrics; add routes to it.

    Args:
        service: whose metrics are shown; none of ours where None.
    """
    counted = [] if service is None else [_counted(service)]
    app = web.Application(middlewares=[*counted, problems], client_max_size=max_body_bytes)
    live_path, ready_path, metrics_path = _OWN
    app.router.add_get(live_path, _health("live", live))
    app.router.add_get(ready_path, _health("ready", ready))
    app.router.add_get(metrics_path, _metrics)
    if service is not None:
        app.cleanup_ctx.append(_told(service, live, ready))
    return app


def _counted(service: Service) -> Middleware:
    """Counts the service's requests."""

    @web.middleware
    async def counted(request: web.Request, handler: Handler) -> web.StreamResponse:
        if request.path in _OWN:
            return await handler(request)
        started_s = time.perf_counter()
        try:
            response = await handler(request)
        except web.HTTPException as answer:  # a redirect
            metrics.HTTP_REQUESTS.inc(service, f"{answer.status // 100}xx")
            raise
        metrics.HTTP_REQUESTS.inc(service, f"{response.status // 100}xx")
        metrics.HTTP_SECONDS.observe(time.perf_counter() - started_s, service)
        return response

    return counted


def _told(service: Service, live: Probe, ready: Probe) -> Callable[[web.Application], AsyncIterator[None]]:
    """Tells Prometheus what the probes tell others, as long as the application runs."""
    metrics.begin(service)

    def probed() -> list[Sample]:
        return [metrics.LIVE.of(live() is None, service), metrics.READY.of(ready() is None, service)]

    async def telling(_app: web.Application) -> AsyncIterator[None]:
        with metrics.answering(probed):
            yield

    return telling


def serve_description(app: web.Application, description: Mapping[str, Any]) -> None:
    """Answer `GET /openapi.json`, for everybody, with this description of the service's API."""
    body = msgspec.json.encode(description)

    async def described(_request: web.Request) -> web.Response:
        return web.Response(body=body, content_type="application/json", headers={"Cache-Control": "no-cache"})

    app.router.add_get("/openapi.json", described)


def _health(name: str, probe: Probe) -> Callable[[web.Request], Awaitable[web.Response]]:
    async def health(_request: web.Request) -> web.Response:
        reason = probe()
        return web.Response(
            status=HTTPStatus.OK if reason is None else HTTPStatus.SERVICE_UNAVAILABLE,
            body=msgspec.json.encode({name: reason is None, "reason": reason}),
            content_type="application/json",
            headers={"Cache-Control": "no-store"},
        )

    return health


async def _metrics(_request: web.Request) -> web.Response:
    # The content type has parameters, which aiohttp takes as a header only.
    return web.Response(
        body=prometheus_client.generate_latest(), headers={"Content-Type": prometheus_client.CONTENT_TYPE_LATEST}
    )


async def body_of(request: web.Request) -> bytes:
    """
    The body, within the limit of its address.

    Raises:
        Problem: 408 `body_too_slow`, 400 `body_incomplete`.
        web.HTTPRequestEntityTooLarge: becomes 413 `request_too_large`.
    """
    try:
        async with asyncio.timeout(BODY_DEADLINE_S):
            return await request.read()
    except TimeoutError:
        raise body_too_slow(BODY_DEADLINE_S) from None
    except (web.RequestPayloadError, ConnectionError):
        raise body_incomplete() from None


def room_for_connections() -> int:
    """Connections that a server takes at once: what the system lets this process open, less its own files."""
    files, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return MAX_CONNECTIONS if files == resource.RLIM_INFINITY else max(1, min(MAX_CONNECTIONS, files - _OTHER_FILES))


class _Connection(web.RequestHandler):
    """
    Answers what is no HTTP with a problem. aiohttp would quote its bytes, keys included, in answer and log.

    Bounds what a client may take its time over: the head of a request, and reading the answer. aiohttp bounds what is
    idle alone, and handlers bound bodies.
    """

    _head_due: asyncio.TimerHandle | None = None
    _read_due: asyncio.TimerHandle | None = None
    #: aiohttp forgets its own when it closes, while what it has written still waits for the client.
    _opened: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self._opened, server = self.transport, self._manager
        if isinstance(server, _Server) and not server.has_room():
            self.force_close()

    def connection_lost(self, exc: BaseException | None) -> None:
        for timer in (self._head_due, self._read_due):
            if timer is not None:
                timer.cancel()
        self._opened = None
        super().connection_lost(exc)

    def pause_writing(self) -> None:
        super().pause_writing()
        if self._opened is not None:
            # Not close: that would wait for what it does not read.
            self._read_due = self._loop.call_later(STALLED_S, self._opened.abort)

    def resume_writing(self) -> None:
        if self._read_due is not None:
            self._read_due.cancel()
        super().resume_writing()

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if self._waiter is None or self._waiter.done():
            if self._head_due is not None:
                self._head_due.cancel()
                self._head_due = None
        elif self._head_due is None and not self._force_close:
            # It waits for a request, and these bytes have not made it whole.
            self._head_due = self._loop.call_later(HEAD_DEADLINE_S, self.force_close)
        # When a chunked body breaks, aiohttp's C parser forgets to tell the handler, which would wait for ever.
        if self._messages and isinstance(self._messages[-1][0], _ErrInfo):
            request = self._current_request
            if request is not None and not request.content.is_eof():
                request.content.set_exception(web.RequestPayloadError("the chunked coding is broken"))
                request.content.feed_eof()
                self._messages.pop()
                self.close()  # after the answer

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,  # noqa: ARG002 (aiohttp's own words quote the bytes)
    ) -> web.StreamResponse:
        if request.writer.output_size > 0:
            raise ConnectionError("the response has begun already, so the connection is closed")
        log.debug("request.unreadable", status=status, error=type(exc).__name__)
        response = problem_response(
            Problem(
                kinds.NOT_HTTP,
                "The request is not HTTP that we can read: a line or header is malformed or longer than 8,190 bytes.",
                status=status,
            )
        )
        response.force_close()
        return response


class _Server(web.Server):
    _is_full = False

    def has_room(self) -> bool:
        """Whether the newest connection may stay; told once when that ends, and once when it is so again."""
        was_full, room = self._is_full, room_for_connections()
        self._is_full = len(self._connections) > room
        if self._is_full != was_full:
            log.warning("connections.full" if self._is_full else "connections.free", most=room)
        return not self._is_full

    def __call__(self) -> web.RequestHandler:
        return _Connection(self, loop=self._loop, **self._kwargs)


class _Runner(web.AppRunner):
    async def _make_server(self) -> web.Server:
        server = await super()._make_server()
        server.__class__ = _Server  # aiohttp has no argument for it
        return server


@dataclass(frozen=True, slots=True)
class Served:
    """A listening server. `port` is the real one where 0 was asked for."""

    host: str
    port: int
    _runner: web.AppRunner

    @property
    def url(self) -> str:
        """Its address, without a slash at the end."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"http://{host}:{self.port}"

    async def stop(self) -> None:
        """Take no more connections, let requests in flight finish (up to `drain_s`), close."""
        await self._runner.cleanup()


async def serve(app: web.Application, host: str, port: int, *, drain_s: float = 10.0) -> Served:
    """
    Listen, and return once connections are taken.

    Args:
        drain_s: how long `stop` waits for requests in flight.

    Raises:
        StartupError: the address cannot be listened on.
    """
    runner = _Runner(
        app,
        access_log=None,
        shutdown_timeout=drain_s,
        keepalive_timeout=IDLE_TIMEOUT_S,
        # A limit on a body must hold for what it unfolds to, so nothing is unfolded.
        auto_decompress=False,
    )
    await runner.setup()
    site = web.TCPSite(runner, host, port, backlog=1024)
    try:
        await site.start()
    except OSError as error:
        await runner.cleanup()
        raise StartupError(_why_not(host, port, error)) from error
    return Served(host, runner.addresses[0][1], runner)


def _why_not(host: str, port: int, error: OSError) -> str:
    if error.errno == errno.EADDRINUSE:
        return (
            f"cannot listen on {host}:{port}: something else does. Stop that, or choose another port in the settings."
        )
    # uvloop's message repeats the address; the system's own word for the number is enough.
    reason = os.strerror(error.errno) if error.errno and error.errno > 0 else str(error)
    return f"cannot listen on {host}:{port}: {reason}. Set another host or port."
