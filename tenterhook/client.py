"""The client: an app of a tenterhook, what is sent to it and what it is asked."""

import asyncio
import random
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from datetime import datetime
from functools import partial
from types import TracebackType
from typing import Any, Final, Self, TypeVar
from urllib.parse import quote

import httpx
import msgspec

from tenterhook.connection import TIMEOUT_S, Connection
from tenterhook.deliveries import Deliveries, Replays, time_text
from tenterhook.integrations import Integrations
from tenterhook.problems import NoAnswer, Refused, TenterhookError, refusal
from tenterhook.records import Accepted, AuditRecord
from tenterhook.retries import Retries
from tenterhook.sending import Event, encoded, parts

DEFAULT_INGEST: Final = "http://127.0.0.1:8080"
DEFAULT_ADMIN: Final = "http://127.0.0.1:8081"

T = TypeVar("T")


class Client:
    """
    One app of a tenterhook.

    Use it as a context manager, or `close` it. It may be shared by all tasks of an event loop; one for the life of
    the process is right.
    """

    def __init__(
        self,
        app: str,
        *,
        key: str | None = None,
        ingest: str = DEFAULT_INGEST,
        token: str | None = None,
        admin: str = DEFAULT_ADMIN,
        origin: str | None = None,
        retries: Retries | None = None,
        on_retry: Callable[[TenterhookError, float], object] | None = None,
        timeout_s: float = TIMEOUT_S,
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        """
        Args:
            app: its id.
            key: to send events with, `sk_…`.
            ingest: address of the ingest service.
            token: for everything else, of the admin API.
            admin: address of the admin service.
            origin: of a page, for public keys, `pk_…`.
            retries: of events that were not accepted; see there for what it does by itself.
            on_retry: called with the error and the seconds until the next attempt.
            timeout_s: of one request.
            transport: of httpx, in place of the network: for tests.
        """
        self.app: Final = app
        headers = {"Content-Type": "application/json"} | ({} if origin is None else {"Origin": origin})
        self._ingest = Connection(ingest, key, headers=headers, timeout_s=timeout_s, transport=transport)
        self._admin = Connection(admin, token, timeout_s=timeout_s, transport=transport)
        self._has_key, self._has_token = key is not None, token is not None
        self._retries = retries or Retries()
        self._on_retry = on_retry or _ignored
        self._path = f"/v1/apps/{quote(app, safe='')}"
        self.integrations: Final = Integrations(self._asked, app, "integrations")
        #: Booking subscriptions.
        self.subscriptions: Final = Integrations(self._asked, app, "subscriptions")
        self.deliveries: Final = Deliveries(self._asked, app)
        self.replays: Final = Replays(self._asked, app)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """End its connections."""
        await self._ingest.close()
        await self._admin.close()

    # -- events ----------------------------------------------------------------------------------------------

    async def send(
        self,
        type: str,  # noqa: A002  # the field's name
        payload: Any = None,
        *,
        id: str | None = None,  # noqa: A002  # the field's name
        ordering_key: str | None = None,
        occurred_at: datetime | None = None,
    ) -> Accepted:
        """
        Send an event. Returning means that it is on the log, and will be delivered.

        Where ingest has no time for it, or nobody answers, it is sent again with the same id, as `retries` says.

        Args:
            payload: whatever JSON can say; `msgspec.Raw` goes on byte for byte.
            id: so that a repeat of yours, within 24 hours, is delivered once; a new one where absent.
            ordering_key: what it is about, for integrations that keep order by key.
            occurred_at: now where absent; with a zone.

        Raises:
            Refused: it is not acceptable, or was not within the last attempt.
            NoAnswer: nobody answered the last attempt. It may have been accepted: send it again with the same id.
        """
        own = {} if id is None else {"id": id}
        return await self.send_event(
            Event(type=type, payload=payload, ordering_key=ordering_key, occurred_at=occurred_at, **own)
        )

    async def send_event(self, event: Event) -> Accepted:
        """`send`, of an event that was made before. Raises as `send`."""
        self._check(self._has_key, "key", "sk_…")
        body = encoded(event)
        return await self._again(
            partial(self._ingest.get, Accepted, "POST", f"{self._path}/events", content=body),
        )

    async def send_batch(self, events: Iterable[Event]) -> list[Accepted | Refused]:
        """
        Send events, as few requests as it takes. For each, in order: that it was accepted, or why not.

        Those for which there is no time are sent again with the same ids, as `retries` says. Order is kept among
        events of one call, except for those that were sent again.

        Raises:
            NoAnswer: nobody answered the last attempt of a part. Parts before it were accepted: send all again, with
                the same ids.
            Refused: a part was refused as a whole.
        """
        self._check(self._has_key, "key", "sk_…")
        bodies = [encoded(event) for event in events]
        told: dict[int, Accepted | Refused] = {}
        for part in parts(bodies):
            left = part
            attempt = 1
            while left:
                content = b"[%b]" % b",".join(bodies[at] for at in left)
                told |= dict(zip(left, await self._again(partial(self._batch, content)), strict=True))
                left, wait_s = self._for_later(left, told, attempt)
                attempt += 1
                await asyncio.sleep(wait_s)
        return [told[at] for at in range(len(bodies))]

    async def _batch(self, content: bytes) -> list[Accepted | Refused]:
        answer = await self._ingest.ask("POST", f"{self._path}/events/batch", content=content)
        try:
            return [_told(item) for item in answer["items"]]
        except (KeyError, TypeError, msgspec.ValidationError):
            raise NoAnswer(f"{self._ingest.url} answered, and not as tenterhook does") from None

    def _for_later(self, part: list[int], told: dict[int, Accepted | Refused], attempt: int) -> tuple[list[int], float]:
        """Which of the part to send again, and after how many seconds."""
        waits = {}
        for at in part:
            outcome = told[at]
            wait_s = self._wait_s(attempt, outcome) if isinstance(outcome, Refused) else None
            if wait_s is not None and isinstance(outcome, Refused):
                waits[at] = wait_s
        if not waits:
            return [], 0.0
        latest = max(waits, key=lambda at: waits[at])
        refused = told[latest]
        if isinstance(refused, Refused):
            self._on_retry(refused, waits[latest])
        return [*waits], waits[latest]

    async def _again(self, attempt_it: Callable[[], Awaitable[T]]) -> T:
        """What the first attempt that was not put off has to say."""
        attempt = 1
        while True:
            try:
                return await attempt_it()
            except TenterhookError as error:
                wait_s = self._wait_s(attempt, error)
                if wait_s is None:
                    raise
                self._on_retry(error, wait_s)
                await asyncio.sleep(wait_s)
                attempt += 1

    def _wait_s(self, attempt: int, error: TenterhookError) -> float | None:
        return self._retries.wait_s(attempt, error, random.random())  # noqa: S311  # no secret hangs on it

    # -- the admin API ---------------------------------------------------------------------------------------

    def audit(
        self,
        *,
        action: str | None = None,
        target: str | None = None,
        who: str | None = None,
        since: datetime | None = None,
        until: datetime | None = None,
    ) -> AsyncIterator[AuditRecord]:
        """Who did what, newest first, page after page. Raises `Refused` or `NoAnswer`."""
        given = {
            "action": action,
            "target": target,
            "who": who,
            "since": time_text(since),
            "until": time_text(until),
        }
        wanted = {name: value for name, value in given.items() if value is not None}
        return self._asked().each(AuditRecord, f"{self._path}/audit", wanted)

    async def ask(self, method: str, path: str, **request: Any) -> Any:
        """
        Whatever else the admin API can do, docs/admin.md: the JSON of its answer, None where it has none.

        Args:
            path: from `/v1` on.
            request: `json`, `params`, `headers`, as httpx takes them.

        Raises:
            Refused: with the code.
            NoAnswer: nobody answered.
        """
        return await self._asked().ask(method, path, **request)

    def _asked(self) -> Connection:
        self._check(self._has_token, "token", "tok_…")
        return self._admin

    def _check(self, is_there: bool, what: str, form: str) -> None:
        if not is_there:
            raise ValueError(f"this needs a {what}: Client({self.app!r}, {what}={form!r})")


def _told(item: dict[str, Any]) -> Accepted | Refused:
    """What a batch's answer says of one event."""
    refused = refusal(item["status"], item, item.get("retryAfter"))
    return msgspec.convert(item, Accepted) if refused is None else refused


def _ignored(_error: TenterhookError, _wait_s: float) -> None:
    """Nobody wants to know."""
