"""
Refusals over HTTP, the same in every service: RFC 9457 `application/problem+json`.

Raise `Problem` wherever a request cannot be done, with one of `kinds.py`. Its `code` is stable, for programs; its
`detail` says what is wrong and what to do, for people, and never quotes a secret or a body.
"""

from collections.abc import Awaitable, Callable, Mapping
from http import HTTPStatus
from typing import Final

import msgspec
import structlog
from aiohttp import web

from services.runtime import kinds
from services.runtime.kinds import Kind

CONTENT_TYPE: Final = "application/problem+json"

#: `type` of a problem is this and its code: a name, not an address that somebody must keep alive.
TYPE_PREFIX: Final = "urn:tenterhook:problem:"

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

log = structlog.get_logger(__name__)


class Problem(Exception):
    """
    A request that is refused, and all that its sender may know about it.

    Args:
        kind: what all problems of its code have in common.
        detail: what exactly is wrong here, and what to do.
        status: of HTTP, where it is not the kind's.
        headers: of the response, `Retry-After` for example.
        extensions: further members of the JSON, `field` for example.
    """

    def __init__(
        self,
        kind: Kind,
        detail: str,
        *,
        status: int | None = None,
        headers: Mapping[str, str] | None = None,
        **extensions: object,
    ) -> None:
        super().__init__(f"{kind.code}: {detail}")
        self.status = kind.status if status is None else status
        self.code = kind.code
        self.title = kind.title
        self.detail = detail
        self.headers = dict(headers or {})
        self.extensions = extensions

    def as_json(self) -> dict[str, object]:
        """The members of RFC 9457, `code`, and the extensions."""
        return {
            "type": f"{TYPE_PREFIX}{self.code}",
            "title": self.title,
            "status": self.status,
            "detail": self.detail,
            "code": self.code,
            **self.extensions,
        }


def problem_response(problem: Problem) -> web.Response:
    """The response that tells it."""
    return web.Response(
        status=problem.status,
        body=msgspec.json.encode(problem.as_json()),
        content_type=CONTENT_TYPE,
        headers=problem.headers,
    )


@web.middleware
async def problems(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Every refusal as problem+json: ours, aiohttp's own, and what nobody expected."""
    try:
        return await handler(request)
    except Problem as problem:
        return problem_response(problem)
    except web.HTTPException as refused:
        if refused.status < HTTPStatus.BAD_REQUEST:
            raise
        return problem_response(_of_aiohttp(request, refused))
    except web.RequestPayloadError:
        # Not logged: its message may quote the bytes.
        return problem_response(body_incomplete())
    except Exception as error:
        if isinstance(error, ConnectionError) and request.transport is None:
            raise  # the client has gone, and nobody listens; aiohttp ends it quietly
        # The path template, not the path: an address can carry a public key.
        resource = request.match_info.route.resource
        log.exception("request.crashed", method=request.method, route=resource.canonical if resource else None)
        return problem_response(_internal())


def _internal() -> Problem:
    return Problem(
        kinds.INTERNAL,
        "Something broke on our side while this request was handled. Repeat it; if it stays, tell the operator, whose "
        "log has the cause.",
    )


def _of_aiohttp(request: web.Request, refused: web.HTTPException) -> Problem:
    if isinstance(refused, web.HTTPNotFound):
        return Problem(kinds.NOT_FOUND, "Nothing answers at this path. Look it up in the docs.")
    if isinstance(refused, web.HTTPMethodNotAllowed):
        allowed = ", ".join(sorted(refused.allowed_methods))
        return Problem(
            kinds.METHOD_NOT_ALLOWED,
            f"{request.method} does nothing here. Use {allowed}.",
            headers={"Allow": allowed},
        )
    if isinstance(refused, web.HTTPRequestEntityTooLarge):
        return too_large(request.client_max_size)
    return Problem(
        kinds.HTTP_ERROR, f"The request was refused: {refused.reason}. Correct it and repeat it.", status=refused.status
    )


def too_large(max_bytes: int) -> Problem:
    """A request body above the limit of its address."""
    return Problem(
        kinds.REQUEST_TOO_LARGE,
        f"The request's body is larger than {max_bytes:,} bytes. Send less.",
        maxBytes=max_bytes,
    )


def body_incomplete() -> Problem:
    """The connection, or the chunked coding, broke before the body was there."""
    return Problem(kinds.BODY_INCOMPLETE, "The body ended before it was complete. Repeat the request.")


def body_too_slow(deadline_s: float) -> Problem:
    """The body was not there in time."""
    return Problem(kinds.BODY_TOO_SLOW, f"The body was not complete within {deadline_s:.0f} s. Repeat it.")
