"""
The fast sender: HTTP/1.1 straight on the event loop's transports, with a pool of connections for each endpoint.

A request goes out once. A pooled connection that the endpoint closes in the moment of reuse is a failed attempt like
any other, because nobody can tell whether the request was read; to make that rare, connections are not kept for as
long as common servers keep them, and are looked at before they are used again.
"""

import asyncio
import socket
import ssl
from collections import deque
from contextlib import suppress
from dataclasses import dataclass, field
from functools import lru_cache
from time import monotonic, perf_counter_ns
from typing import Final
from urllib.parse import urlsplit

from services.dispatcher.dial import Dialler, failure_of, is_address
from services.dispatcher.guard import url_refusal
from services.dispatcher.resolve import Names
from services.dispatcher.sender import Answer, Failure, MaySend, Request, Withheld, always
from services.dispatcher.wire_connection import Connection

#: Idle connections are closed after so long. Node, Apache and uvicorn close theirs after 5 s, others later; a second
#: less leaves time for a request on its way.
KEEP_IDLE_S: Final = 4.0
#: Of one endpoint, and of all together. Beyond it a connection is closed after its answer.
MAX_IDLE_PER_ENDPOINT: Final = 100
MAX_IDLE: Final = 2_000

#: URLs that are kept taken apart.
_REMEMBERED_URLS: Final = 4_096
#: How long closing waits for connections to be gone.
_CLOSE_S: Final = 1.0

_PORTS: Final = {"http": 80, "https": 443}
#: Lines of a head beside the headers given: request line, Host, Content-Length, the empty one.
_OTHER_LINES: Final = 4

#: What connections are shared by: whether TLS, host, port.
_Endpoint = tuple[bool, str, int]


@dataclass(frozen=True, slots=True)
class _Target:
    """A URL, taken apart."""

    endpoint: _Endpoint
    #: Request line and `Host`. Not shown: the path may hold a secret.
    start: str = field(repr=False)

    @property
    def is_tls(self) -> bool:
        return self.endpoint[0]

    @property
    def host(self) -> str:
        return self.endpoint[1]

    @property
    def port(self) -> int:
        return self.endpoint[2]


class WireSender:
    """
    A `Sender` on the running event loop.

    Args:
        allow_private: whether loopback and private networks may be reached.
        names: looks names up; the system's resolver by default.
        ssl_context: of client connections; one that verifies against the system's authorities by default.
        keep_idle_s: how long an idle connection is kept.
    """

    def __init__(
        self,
        *,
        allow_private: bool,
        names: Names | None = None,
        ssl_context: ssl.SSLContext | None = None,
        keep_idle_s: float = KEEP_IDLE_S,
    ) -> None:
        self._keep_idle_s = keep_idle_s
        self._dialler = Dialler(allow_private=allow_private, names=names)
        self._ssl = ssl_context or ssl.create_default_context()
        self._loop = asyncio.get_running_loop()
        self._idle: dict[_Endpoint, deque[Connection]] = {}
        self._idle_count = 0
        self._all: set[Connection] = set()
        self._sweeping: asyncio.TimerHandle | None = None
        self._is_closed = False
        self._all_gone = asyncio.Event()

    async def send(self, request: Request, may_send: MaySend = always) -> Answer | Failure:
        """See `Sender`."""
        target = _target(request.url)
        if isinstance(target, str):
            return Failure(code="url_refused", detail=target)
        message = _message(target, request)
        timeout_s = request.timeout_ms / 1000
        connection = self._take(target.endpoint)
        if connection is None:
            started_s = monotonic()
            opened = await self._open(target, timeout_s)
            if isinstance(opened, Failure):
                return opened
            connection = opened
            timeout_s -= monotonic() - started_s
        if not may_send():
            connection.abort()
            raise Withheld
        return await connection.exchange(message, timeout_s)

    async def close(self) -> None:
        """See `Sender`."""
        self._is_closed = True
        self._dialler.close()
        if not self._all:
            self._all_gone.set()
        for connection in list(self._all):
            connection.abort()
        with suppress(TimeoutError):
            async with asyncio.timeout(_CLOSE_S):
                await self._all_gone.wait()
        if self._sweeping is not None:
            self._sweeping.cancel()

    async def _open(self, target: _Target, timeout_s: float) -> Connection | Failure:
        """A new connection, or why there is none."""
        started_ns = perf_counter_ns()
        dns_us = connect_us = None
        doing = "looking up the host's name"
        try:
            async with asyncio.timeout(timeout_s):
                addresses = await self._dialler.addresses(target.host)
                if not is_address(target.host):
                    dns_us = (perf_counter_ns() - started_ns) // 1000
                doing = "connecting"
                opened = await self._dialler.connect(addresses, target.port)
                connected_ns = perf_counter_ns()
                connect_us = (connected_ns - started_ns) // 1000 - (dns_us or 0)
                doing = "agreeing on TLS"
                connection = await self._connection(target, opened)
        except TimeoutError:
            detail = f"no answer within the timeout: it ran out while {doing}"
            return Failure(code="timeout", detail=detail, dns_us=dns_us, connect_us=connect_us)
        except OSError as error:
            code, detail = failure_of(error)
            return Failure(code=code, detail=detail, dns_us=dns_us, connect_us=connect_us)
        connection.dns_us, connection.connect_us = dns_us, connect_us
        connection.tls_us = (perf_counter_ns() - connected_ns) // 1000 if target.is_tls else None
        if self._is_closed:
            connection.abort()
        return connection

    async def _connection(self, target: _Target, opened: socket.socket) -> Connection:
        """The connection over this socket, with TLS where the URL says so."""
        try:
            _, connection = await self._loop.create_connection(
                lambda: Connection(target.endpoint, self._freed, self._gone),
                sock=opened,
                ssl=self._ssl if target.is_tls else None,
                # Certificates name hosts without the dot that a full name may end with.
                server_hostname=target.host.rstrip(".") if target.is_tls else None,
            )
        except BaseException:
            opened.close()
            raise
        self._all.add(connection)
        return connection

    def _take(self, endpoint: _Endpoint) -> Connection | None:
        """The connection used last, so that the others can grow old; None where there is none."""
        idle = self._idle.get(endpoint)
        while idle:
            connection = idle.pop()
            self._idle_count -= 1
            if connection.is_usable():
                return connection
            connection.abort()
        return None

    def _freed(self, connection: Connection) -> None:
        idle = self._idle.get(connection.endpoint)
        if idle is None:
            idle = self._idle[connection.endpoint] = deque()
        if self._is_closed or len(idle) >= MAX_IDLE_PER_ENDPOINT or self._idle_count >= MAX_IDLE:
            connection.abort()
            return
        idle.append(connection)
        self._idle_count += 1
        if self._sweeping is None:
            self._sweeping = self._loop.call_later(self._keep_idle_s, self._sweep)

    def _gone(self, connection: Connection) -> None:
        self._all.discard(connection)
        if self._is_closed and not self._all:
            self._all_gone.set()

    def _sweep(self) -> None:
        """Close what has been idle for long. Runs only while something is idle."""
        before_s = monotonic() - self._keep_idle_s
        for endpoint, idle in list(self._idle.items()):
            while idle and idle[0].idle_since_s <= before_s:
                idle.popleft().abort()
                self._idle_count -= 1
            if not idle:
                del self._idle[endpoint]
        oldest_s = min((idle[0].idle_since_s for idle in self._idle.values()), default=None)
        self._sweeping = None
        if oldest_s is not None:
            self._sweeping = self._loop.call_later(oldest_s - before_s, self._sweep)


@lru_cache(maxsize=_REMEMBERED_URLS)
def _target(url: str) -> _Target | str:
    """The URL taken apart, or why no request goes to it. Remembered: the URLs of an hour are few, requests many."""
    refusal = url_refusal(url, allow_http=True)
    if refusal is not None:
        return refusal
    parts = urlsplit(url)
    path = f"{parts.path or '/'}?{parts.query}" if parts.query else parts.path or "/"
    return _Target(
        endpoint=(parts.scheme == "https", parts.hostname or "", parts.port or _PORTS[parts.scheme]),
        start=f"POST {path} HTTP/1.1\r\nHost: {parts.netloc.lower()}\r\n",
    )


def _message(target: _Target, request: Request) -> bytes:
    """
    The request as it goes out.

    Raises:
        ValueError: a header holds a line break or what Latin-1 does not have. Whoever planned it must not let it in.
    """
    head = "".join(
        [
            target.start,
            *[f"{name}: {value}\r\n" for name, value in request.headers],
            f"Content-Length: {len(request.body)}\r\n\r\n",
        ]
    )
    if head.count("\n") != len(request.headers) + _OTHER_LINES or head.count("\r") != head.count("\n"):
        raise ValueError("a header holds a line break")
    return head.encode("latin-1") + request.body
