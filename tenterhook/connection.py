"""One service over HTTP: asks, and turns what comes back into an answer or an error."""

from collections.abc import AsyncIterator, Mapping
from http import HTTPStatus
from typing import Any, Final, TypeVar
from urllib.parse import urlsplit

import httpx
import msgspec

from tenterhook.problems import NoAnswer, refusal
from tenterhook.records import Page

#: Longer than a service waits for its broker (5 s), so that its own answer is what comes.
TIMEOUT_S: Final = 15.0

#: The most that a list gives at once.
PAGE: Final = 200

_LOOPBACK: Final = {"127.0.0.1", "localhost", "::1"}

T = TypeVar("T")


class Connection:
    """A service and what opens it. Connections are kept between requests, until `close`."""

    def __init__(
        self,
        url: str,
        credential: str | None,
        *,
        headers: Mapping[str, str] | None = None,
        timeout_s: float = TIMEOUT_S,
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        """
        Args:
            url: `http://…` or `https://…`.
            credential: shown as a bearer token.
            headers: of every request.
            transport: instead of the network, for tests.
        """
        self.url: Final = url
        own = {} if credential is None else {"Authorization": f"Bearer {credential}"}
        self._http = httpx.AsyncClient(
            base_url=url,
            headers={**(headers or {}), **own},
            timeout=timeout_s,
            transport=transport,
            # Proxies of the environment are used, but never for this machine.
            trust_env=urlsplit(url).hostname not in _LOOPBACK,
        )
        self._timeout_s = timeout_s

    async def close(self) -> None:
        """End its connections."""
        await self._http.aclose()

    async def ask(self, method: str, path: str, **request: Any) -> Any:
        """The JSON of a 2xx answer; None where it has no body. *request*: as httpx takes it. Raises as `answered`."""
        answer = await self.answered(method, path, **request)
        if not answer.content:
            return None
        try:
            return answer.json()
        except ValueError:
            raise NoAnswer(f"{answer.url.host} answered, and not as tenterhook does") from None

    async def get(self, kind: type[T], method: str, path: str, **request: Any) -> T:
        """The answer as a record. Raises as `answered`."""
        answer = await self.answered(method, path, **request)
        try:
            return msgspec.json.decode(answer.content, type=kind)
        except (msgspec.ValidationError, msgspec.DecodeError) as error:
            # The error names the field, not what stands in it.
            raise NoAnswer(f"{answer.url.host} answered what this client cannot read: {error}") from None

    async def each(self, kind: type[T], path: str, params: Mapping[str, Any]) -> AsyncIterator[T]:
        """Every item of a list, page after page, each asked for when the one before was read. Raises as `answered`."""
        cursor: str | None = None
        while True:
            page = await self.page(kind, path, params, limit=PAGE, cursor=cursor)
            for item in page.items:
                yield item
            if page.next is None:
                return
            cursor = page.next

    async def page(
        self, kind: type[T], path: str, params: Mapping[str, Any], *, limit: int, cursor: str | None
    ) -> Page[T]:
        """One page of a list. Raises as `answered`."""
        wanted = {**params, "limit": limit, "cursor": cursor}
        given = {name: value for name, value in wanted.items() if value is not None}
        return await self.get(Page[kind], "GET", path, params=given)  # type: ignore[valid-type]

    async def answered(self, method: str, path: str, **request: Any) -> httpx.Response:
        """
        The 2xx answer.

        Raises:
            NoAnswer: nobody answered in time, or somebody who is not tenterhook.
            Refused: what the problem says.
        """
        try:
            answer = await self._http.request(method, path, **request)
        except httpx.InvalidURL:
            raise NoAnswer(f"{self.url} is no address: correct it") from None
        except httpx.TimeoutException:
            raise NoAnswer(f"{self.url} did not answer within {self._timeout_s:.0f} s") from None
        except httpx.RequestError as error:
            raise NoAnswer(f"{self.url} cannot be reached ({error})") from None
        if answer.is_success:
            return answer
        refused = refusal(answer.status_code, _json(answer), _retry_after_s(answer))
        if refused is not None:
            raise refused
        raise NoAnswer(
            f"{answer.url.host} answered {answer.status_code} {_phrase(answer.status_code)}, and not as tenterhook does"
        )


def _json(answer: httpx.Response) -> Any:
    try:
        return answer.json()
    except ValueError:
        return None


def _retry_after_s(answer: httpx.Response) -> float | None:
    """Tenterhook says seconds; a proxy that says a date is not understood."""
    try:
        return max(float(int(answer.headers["Retry-After"])), 0.0)
    except (KeyError, ValueError):
        return None


def _phrase(status: int) -> str:
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return ""
