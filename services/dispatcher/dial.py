"""
From a host to a connected socket, with every address checked on the way; and what it means when that fails.

Both senders dial through here. The check stands where the socket is opened, on the address that it is opened for, so
that nothing before it (the URL's form, a name that leads elsewhere the second time) can get around it.
"""

import errno
import ipaddress
import os
import socket
import ssl
from typing import Final

import aiohappyeyeballs

from services.dispatcher.guard import address_refusal
from services.dispatcher.resolve import DnsFailed, Names
from services.dispatcher.sender import FailureCode, NoResources

#: Source: RFC 8305, section 5: the next address is tried when the one before has not answered for so long.
_NEXT_ADDRESS_S: Final = 0.25

_NO_RESOURCES: Final = frozenset(
    {errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM, errno.EADDRNOTAVAIL, errno.EAGAIN}
)
_RESET: Final = frozenset({errno.ECONNRESET, errno.EPIPE, errno.ECONNABORTED})

AddressInfo = tuple[int, int, int, str, tuple[str, int] | tuple[str, int, int, int]]


class AddressRefused(OSError):
    """The guard refuses the address. The message names it and says why."""


class Dialler:
    """Opens connections to where deliveries may go, and to nowhere else."""

    def __init__(self, *, allow_private: bool, names: Names | None = None) -> None:
        self._allow_private = allow_private
        self._names = names or Names()

    async def addresses(self, host: str) -> list[str]:
        """
        The addresses behind the host that may be dialled, best first.

        Raises:
            AddressRefused: there are addresses, and none of them may be dialled.
            DnsFailed: there are none.
        """
        if is_address(host):
            found = [host]
        else:
            found = await self._names.addresses(host)
        refused = {address: address_refusal(address, self._allow_private) for address in found}
        allowed = [address for address, reason in refused.items() if reason is None]
        if not allowed:
            address, reason = next(iter(refused.items()))
            raise _refused(address, reason or "")
        return allowed

    async def connect(self, addresses: list[str], port: int) -> socket.socket:
        """
        A connected socket to the first of the addresses that answers, without blocking.

        Raises:
            AddressRefused: one of them may not be dialled.
            OSError: none answers; `failure_of` says what that means.
        """
        return await aiohappyeyeballs.start_connection(
            [address_info(address, port) for address in addresses],
            happy_eyeballs_delay=_NEXT_ADDRESS_S,
            interleave=1,
            socket_factory=self.open_socket,
        )

    def open_socket(self, info: AddressInfo) -> socket.socket:
        """
        A socket for this address, not connected yet. The one place where sockets for deliveries are made.

        Raises:
            AddressRefused: it may not be dialled.
        """
        family, kind, protocol, _, address = info
        reason = address_refusal(address[0], self._allow_private)
        if reason is not None:
            raise _refused(address[0], reason)
        opened = socket.socket(family, kind, protocol)
        # A request is written at once and whole: nothing is won by waiting for more.
        opened.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return opened

    def close(self) -> None:
        """Give up every look-up."""
        self._names.close()


def is_address(host: str) -> bool:
    """Whether the host is an address in its usual form: `127.0.0.1`, `::1`, and neither `0x7f.1` nor `[::1]`."""
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def address_info(address: str, port: int) -> AddressInfo:
    """The address as sockets take it."""
    if ":" in address:
        return socket.AF_INET6, socket.SOCK_STREAM, socket.IPPROTO_TCP, "", (address, port, 0, 0)
    return socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP, "", (address, port)


def failure_of(error: OSError) -> tuple[FailureCode, str]:
    """
    What an error on the way to a connection, or on one, means: code and words for people.

    Raises:
        NoResources: it is our own lack of sockets, ports or memory.
    """
    if isinstance(error, AddressRefused):
        return "address_refused", str(error)
    if isinstance(error, DnsFailed):
        return "dns_failed", f"the host's name leads to no address: {error}"
    if isinstance(error, ssl.SSLError):
        return "tls_failed", f"no secure connection: {_tls_reason(error)}"
    if error.errno in _NO_RESOURCES:
        raise NoResources(error.errno, f"cannot open a connection: {_words(error)}") from error
    if isinstance(error, ConnectionRefusedError):
        return "connect_refused", "nothing listens at the host's address and port"
    if isinstance(error, ConnectionError) or error.errno in _RESET:
        return "reset", "the endpoint closed the connection before its answer was complete"
    return "connect_failed", f"cannot connect: {_words(error)}"


def _refused(address: str, reason: str) -> AddressRefused:
    return AddressRefused(f"the host leads to {address}, {reason}: use one with a public address")


def _tls_reason(error: ssl.SSLError) -> str:
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"the certificate is not valid for this host: {error.verify_message}"
    return (error.reason or "the handshake failed").replace("_", " ").lower()


def _words(error: OSError) -> str:
    """The system's words for it, without the address that Python adds."""
    return os.strerror(error.errno) if error.errno else "no address of the host answers"
