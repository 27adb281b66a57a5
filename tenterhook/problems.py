"""
What can go wrong with a request.

    TenterhookError
    ├── NoAnswer         nobody answered in time, or somebody who is not tenterhook
    └── Refused          a problem (RFC 9457) with a stable `code`: docs/errors.md lists them
        ├── Invalid      400, 413, 415, 422: correct the request; `field` and `errors` name what is wrong
        ├── NotAllowed   401, 403: the key or the token is not one for this
        ├── NotFound     404, 410
        ├── Conflict     409, 412: not while things stand so
        ├── TooMany      429: later, see `retry_after_s`
        └── Unavailable  5xx: not the request's fault; later
"""

from collections.abc import Mapping
from http import HTTPStatus
from typing import Any, Final


class TenterhookError(Exception):
    """Whatever a call of the client raises. The message never has a key, a token or a payload in it."""


class NoAnswer(TenterhookError):
    """Nobody answered in time, or somebody who is not tenterhook. What was asked for may have been done."""


class Refused(TenterhookError):
    """
    The service has refused, and says why.

    Args:
        status: of HTTP.
        members: of the problem+json.
        retry_after_s: when to come again, where the service says so.
    """

    def __init__(self, status: int, members: Mapping[str, Any], retry_after_s: float | None = None) -> None:
        super().__init__(f"{members['code']}: {members['detail']}")
        self.status: Final = status
        #: Stable, for programs.
        self.code: Final[str] = members["code"]
        self.title: Final[str] = members.get("title", "")
        #: What is wrong and what to do, for people.
        self.detail: Final[str] = members["detail"]
        #: Everything that the problem says.
        self.members: Final = dict(members)
        self.retry_after_s: Final = retry_after_s

    @property
    def field(self) -> str | None:
        """The field of the request that is wrong, where it is one."""
        found = self.members.get("field")
        return found if isinstance(found, str) else None

    @property
    def errors(self) -> list[dict[str, str]]:
        """All fields that are wrong, each with `field` and `detail`."""
        found = self.members.get("errors")
        return found if isinstance(found, list) else []


class Invalid(Refused):
    """Correct the request."""


class NotAllowed(Refused):
    """The key or the token is not one for this."""


class NotFound(Refused):
    """There is no such thing, or not any more."""


class Conflict(Refused):
    """Not while things stand so."""


class TooMany(Refused):
    """Later: `retry_after_s`."""


class Unavailable(Refused):
    """Not the request's fault: later."""


_BY_STATUS: Final[dict[int, type[Refused]]] = {
    HTTPStatus.BAD_REQUEST: Invalid,
    HTTPStatus.REQUEST_ENTITY_TOO_LARGE: Invalid,
    HTTPStatus.UNSUPPORTED_MEDIA_TYPE: Invalid,
    HTTPStatus.UNPROCESSABLE_ENTITY: Invalid,
    HTTPStatus.UNAUTHORIZED: NotAllowed,
    HTTPStatus.FORBIDDEN: NotAllowed,
    HTTPStatus.NOT_FOUND: NotFound,
    HTTPStatus.GONE: NotFound,
    HTTPStatus.CONFLICT: Conflict,
    HTTPStatus.PRECONDITION_FAILED: Conflict,
    HTTPStatus.TOO_MANY_REQUESTS: TooMany,
}


def refusal(status: int, members: Any, retry_after_s: float | None = None) -> Refused | None:
    """The error that this problem is; None where it is no problem of tenterhook's."""
    if not isinstance(members, dict) or not all(isinstance(members.get(name), str) for name in ("code", "detail")):
        return None
    is_theirs = status >= HTTPStatus.INTERNAL_SERVER_ERROR
    kind = Unavailable if is_theirs else _BY_STATUS.get(status, Refused)
    return kind(status, members, retry_after_s)
