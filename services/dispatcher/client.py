"""The aiohttp sender: one session, with everything off that a browser would want and a webhook must not have."""

import asyncio
import ssl
from functools import lru_cache
from time import perf_counter_ns
from typing import Final

import aiohttp
from aiohttp.http_exceptions import LineTooLong
from multidict import CIMultiDict
from yarl import URL

from schemas.profiles import MAX_RESPONSE_BYTES
from services.dispatcher.client_hooks import Connector, Phases, Resolver, current_phases
from services.dispatcher.dial import Dialler, failure_of
from services.dispatcher.guard import url_refusal
from services.dispatcher.resolve import Names
from services.dispatcher.sender import MAX_RESPONSE_HEADER_BYTES, Answer, Failure, FailureCode, MaySend, Request, always
from services.dispatcher.wire_answer import BROKEN_OFF, text_of

#: As in `wire.py`, and for the same reason.
KEEP_IDLE_S: Final = 4.0
_OUR_OWN: Final = ("Accept", "Accept-Encoding", "Content-Type", "User-Agent")
_REMEMBERED_URLS: Final = 4_096


class AiohttpSender:
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
        self._dialler = Dialler(allow_private=allow_private, names=names)
        self._session = aiohttp.ClientSession(
            connector=Connector(
                limit=0,  # lanes bound what is in flight; a common limit would let one endpoint hold up the others
                resolver=Resolver(self._dialler),
                use_dns_cache=False,
                socket_factory=self._dialler.open_socket,
                keepalive_timeout=keep_idle_s,
                ssl=ssl_context or ssl.create_default_context(),
            ),
            cookie_jar=aiohttp.DummyCookieJar(),
            trust_env=False,
            auto_decompress=False,
            skip_auto_headers=_OUR_OWN,
            read_bufsize=MAX_RESPONSE_BYTES,
        )

    async def send(self, request: Request, may_send: MaySend = always) -> Answer | Failure:
        """See `Sender`."""
        url = _url(request.url)
        if isinstance(url, str):
            return Failure(code="url_refused", detail=url)
        phases = Phases(may_send)
        current_phases.set(phases)
        response = None
        read: list[bytes] = []
        try:
            response = await self._session.post(
                url,
                data=request.body,
                headers=CIMultiDict(request.headers),
                allow_redirects=False,
                timeout=_timeout(request.timeout_ms),
            )
            phases.head_ns = perf_counter_ns()
            is_truncated = await _read(response.content, read)
        except (OSError, aiohttp.ClientError) as error:
            code, detail = _failure_of(error)
            return _failure(code, detail, phases, response, read)
        finally:
            if response is not None:
                # Goes back to the pool by itself at the body's end; closes it where the body was not read to its end.
                response.close()
        now_ns = perf_counter_ns()
        return Answer(
            status=response.status,
            headers=_kept(response),
            body=b"".join(read)[:MAX_RESPONSE_BYTES],
            truncated=is_truncated,
            dns_us=phases.dns_us,
            connect_us=phases.connect_us,
            tls_us=phases.tls_us,
            wait_us=(phases.head_ns - phases.ready_ns) // 1000,
            read_us=(now_ns - phases.head_ns) // 1000,
        )

    async def close(self) -> None:
        """See `Sender`."""
        await self._session.close()


@lru_cache(maxsize=_REMEMBERED_URLS)
def _url(url: str) -> URL | str:
    """The URL as it is, or why no request goes to it. Remembered: the URLs of an hour are few, requests many."""
    return url_refusal(url, allow_http=True) or URL(url, encoded=True)


@lru_cache(maxsize=1024)
def _timeout(timeout_ms: int) -> aiohttp.ClientTimeout:
    """Over everything; exact, where aiohttp rounds what is above 5 s up to whole seconds."""
    return aiohttp.ClientTimeout(total=timeout_ms / 1000, ceil_threshold=float("inf"))


async def _read(content: aiohttp.StreamReader, read: list[bytes]) -> bool:
    """Read the body into *read* up to what is kept; whether there was more."""
    size = 0
    while block := await content.readany():
        read.append(block)
        size += len(block)
        if size > MAX_RESPONSE_BYTES:
            return True
    return False


def _kept(response: aiohttp.ClientResponse) -> tuple[tuple[str, str], ...]:
    """The first headers, as many as fit into what is kept."""
    kept = []
    room = MAX_RESPONSE_HEADER_BYTES
    for name, value in response.raw_headers:
        room -= len(name) + len(value)
        if room < 0:
            break
        kept.append((name.decode("latin-1"), text_of(value)))
    return tuple(kept)


def _failure(
    code: FailureCode, detail: str, phases: Phases, response: aiohttp.ClientResponse | None, read: list[bytes]
) -> Failure:
    now_ns = perf_counter_ns()
    return Failure(
        code=code,
        detail=detail,
        status=response.status if response is not None else None,
        headers=_kept(response) if response is not None else (),
        body=b"".join(read)[:MAX_RESPONSE_BYTES],
        dns_us=phases.dns_us,
        connect_us=phases.connect_us,
        tls_us=phases.tls_us,
        wait_us=((phases.head_ns or now_ns) - phases.ready_ns) // 1000 if phases.ready_ns else None,
        read_us=(now_ns - phases.head_ns) // 1000 if phases.head_ns else None,
    )


def _failure_of(error: Exception) -> tuple[FailureCode, str]:  # noqa: PLR0911  # a table
    """What an error of aiohttp's means. Raises `NoResources` like `dial.failure_of`."""
    match error:
        case asyncio.TimeoutError():
            return "timeout", "no complete answer within the timeout"
        case aiohttp.ClientConnectorCertificateError():
            return _of_os_error(error.certificate_error)
        case aiohttp.ClientConnectorError():
            return _of_os_error(error.os_error)
        case aiohttp.ClientResponseError() if isinstance(error.__cause__, LineTooLong):
            return "answer_head_too_large", "a line in the head of the endpoint's answer is longer than 8190 bytes"
        case aiohttp.ClientResponseError():
            return "answer_malformed", "the endpoint's answer is no valid HTTP/1.1"
        case aiohttp.ClientPayloadError() if "is not completed" not in str(error):
            return "answer_malformed", "the endpoint's answer is no valid HTTP/1.1"
        case aiohttp.InvalidURL():
            return "url_refused", "the URL's host is no valid name"
        case ssl.SSLError():
            return failure_of(error)
        case _:
            return BROKEN_OFF


def _of_os_error(error: Exception) -> tuple[FailureCode, str]:
    return failure_of(error) if isinstance(error, OSError) else ("connect_failed", "cannot connect")
