"""
Where aiohttp asks us: for addresses, for sockets, for what to do with what comes.

Sockets come from `Dialler.open_socket` for every address that is dialled, literals of the URL included, which skip
the resolver; the resolver only leaves out what the guard would refuse anyway.
"""

import socket
from contextvars import ContextVar
from dataclasses import dataclass
from time import perf_counter_ns
from typing import Any, Final

import aiohttp
from aiohttp.abc import AbstractResolver, ResolveResult
from aiohttp.client_proto import ResponseHandler

from services.dispatcher.dial import Dialler, address_info
from services.dispatcher.sender import MaySend, Withheld

#: All bytes of an answer, at most: head, body as far as aiohttp reads ahead, and what stands beside the body.
_MAX_BYTES: Final = 1_048_576


@dataclass(slots=True)
class Phases:
    """What the hooks know of one request on its way."""

    may_send: MaySend
    dns_us: int | None = None
    tls_us: int | None = None
    #: When a connection was asked for, and when a new one had its TCP; 0 before.
    began_ns: int = 0
    connected_ns: int = 0
    ready_ns: int = 0
    head_ns: int = 0

    @property
    def connect_us(self) -> int | None:
        """TCP of a new connection; None where one was used again, or none came about."""
        if not self.connected_ns:
            return None
        return (self.connected_ns - self.began_ns) // 1000 - (self.dns_us or 0)


current_phases: ContextVar[Phases] = ContextVar("phases")


class Resolver(AbstractResolver):
    """The dialler's addresses, for aiohttp."""

    def __init__(self, dialler: Dialler) -> None:
        self._dialler = dialler

    async def resolve(
        self,
        host: str,
        port: int = 0,
        family: socket.AddressFamily = socket.AF_INET,  # noqa: ARG002  # both are wanted
    ) -> list[ResolveResult]:
        started_ns = perf_counter_ns()
        addresses = await self._dialler.addresses(host)
        current_phases.get().dns_us = (perf_counter_ns() - started_ns) // 1000
        return [
            {
                "hostname": host,
                "host": address,
                "port": port,
                "family": address_info(address, port)[0],
                "proto": 0,
                "flags": 0,
            }
            for address in addresses
        ]

    async def close(self) -> None:
        self._dialler.close()


class BoundedProtocol(ResponseHandler):
    """Closes a connection on which far more comes than anybody will read, be it beside the body."""

    _come = 0

    def set_response_params(self, **params: Any) -> None:
        self._come = 0
        super().set_response_params(**params)

    def data_received(self, data: bytes) -> None:
        self._come += len(data)
        if self._come > _MAX_BYTES:
            self.abort()
        else:
            super().data_received(data)


class Connector(aiohttp.TCPConnector):
    """Notes how long a new connection took, TCP and TLS apart; lends one only to what may be sent."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self._factory = self._protocol  # type: ignore[assignment]  # makes a kind of what it made

    def _protocol(self) -> BoundedProtocol:
        """Asked for by the event loop when TCP stands, before the handshake of TLS."""
        current_phases.get().connected_ns = perf_counter_ns()
        return BoundedProtocol(loop=self._loop)

    async def connect(self, req: aiohttp.ClientRequest, traces: Any, timeout: aiohttp.ClientTimeout) -> Any:  # noqa: ASYNC109  # aiohttp's signature
        phases = current_phases.get()
        phases.began_ns = perf_counter_ns()
        connection = await super().connect(req, traces, timeout)
        while connection.protocol is not None and connection.protocol.should_close:
            # Something came on it while it was idle: it must not become the answer to this request.
            connection.close()
            connection = await super().connect(req, traces, timeout)
        if not phases.may_send():
            connection.close()
            raise Withheld
        phases.ready_ns = perf_counter_ns()
        if phases.connected_ns and req.url.scheme == "https":
            phases.tls_us = (phases.ready_ns - phases.connected_ns) // 1000
        return connection
