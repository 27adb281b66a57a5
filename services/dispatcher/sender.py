"""
What sends a request: one small protocol, and what goes in and comes out.

Any sender behind it keeps the promises of `tests/contract/test_sender.py`: it follows no redirect, asks no proxy,
keeps no cookie, decompresses nothing, verifies every certificate, dials no address that the guard refuses, reads
at most `MAX_RESPONSE_BYTES` of a body and spends at most `timeout_ms` from the name look-up to the last byte.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final, Literal, Protocol

#: Names and values of an answer's headers that are kept, at most. Source: schemas/result.avsc.
MAX_RESPONSE_HEADER_BYTES: Final = 8_192
#: An answer whose head is longer is no answer. The limit of curl is 300 KiB, of Node 16 KiB, of nginx 8 KiB a line.
MAX_HEAD_BYTES: Final = 65_536

#: How an attempt can fail without an answer, or in the middle of one.
FailureCode = Literal[
    "timeout",
    "dns_failed",
    "address_refused",
    "connect_refused",
    "connect_failed",
    "tls_failed",
    "reset",
    "answer_malformed",
    "answer_head_too_large",
    "url_refused",
]


class Unsent(Exception):
    """
    No byte of the request was sent, for a reason on our side: nothing stands against making the attempt anew.

    Raised, not answered, so that it never reaches a customer's numbers.
    """


class NoResources(Unsent, OSError):
    """No socket, port or memory is left on our side. Try again later."""


class Withheld(Unsent):
    """It might not be sent any more when its connection stood."""


#: Whether the request may go out, asked right before its first byte: who is told yes sends it, without a pause between.
MaySend = Callable[[], bool]


def always() -> bool:
    """Nothing else sends what we send."""
    return True


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """One POST, ready to go. `repr` shows nothing that may hold a secret."""

    url: str = field(repr=False)
    #: In the order and case in which they go out. `Host` and `Content-Length` are the sender's to add.
    headers: tuple[tuple[str, str], ...] = field(repr=False)
    body: bytes = field(repr=False)
    #: For everything together: name look-up, connect, TLS, request, answer.
    timeout_ms: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """A final answer: head complete, body complete or cut off at what is kept."""

    status: int
    #: In the order and case in which they came, the first `MAX_RESPONSE_HEADER_BYTES` of them in whole headers.
    headers: tuple[tuple[str, str], ...] = field(default=(), repr=False)
    #: As read: chunks joined, content encoding untouched.
    body: bytes = field(default=b"", repr=False)
    #: True where there was more than *body*; it was not read, and the connection was closed.
    truncated: bool = False
    #: Name look-up, in microseconds; None where a connection was reused or the URL holds an address.
    dns_us: int | None = None
    #: TCP, in microseconds; None where a connection was reused.
    connect_us: int | None = None
    #: The handshake of TLS, in microseconds; None where a connection was reused or the URL is http.
    tls_us: int | None = None
    #: From the request written to the answer's head, in microseconds.
    wait_us: int | None = None
    #: From the head to the body's end or cut, in microseconds.
    read_us: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """No complete answer. Whatever had come of one until then is kept with it."""

    code: FailureCode
    #: For people. Names addresses and limits; may name the host, so mask it before it is kept.
    detail: str
    status: int | None = None
    headers: tuple[tuple[str, str], ...] = field(default=(), repr=False)
    body: bytes = field(default=b"", repr=False)
    dns_us: int | None = None
    connect_us: int | None = None
    tls_us: int | None = None
    wait_us: int | None = None
    read_us: int | None = None


class Sender(Protocol):
    """Sends requests, many at once, on one event loop."""

    async def send(self, request: Request, may_send: MaySend = always) -> Answer | Failure:
        """
        What came of the request. It went out at most once.

        Args:
            may_send: not asked where no connection comes about.

        Raises:
            NoResources: this machine could not open a connection; nothing was sent.
            Withheld: *may_send* said no; nothing was sent.
        """

    async def close(self) -> None:
        """Close all connections. Requests in flight fail."""
