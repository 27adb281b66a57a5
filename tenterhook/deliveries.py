"""What became of an app's events: deliveries, and sending some of them again; replays of the past."""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from datetime import datetime
from typing import Any, Final, Literal
from urllib.parse import quote

from tenterhook.connection import Connection
from tenterhook.integrations import path_of
from tenterhook.records import (
    Cause,
    Delivery,
    DryRun,
    ListedDelivery,
    MadeDelivery,
    Outcome,
    Page,
    Replay,
    Retried,
)


class Deliveries:
    """The deliveries of an app. Every call raises `Refused` or `NoAnswer`."""

    def __init__(self, admin: Callable[[], Connection], app: str) -> None:
        self._admin = admin
        self._path: Final = f"/v1/apps/{quote(app, safe='')}/deliveries"

    def list(
        self,
        *,
        integration: str | None = None,
        outcome: Outcome | Literal["open"] | None = None,
        type: str | None = None,  # noqa: A002  # the field's name
        event: str | None = None,
        cause: Cause | None = None,
        since: datetime | None = None,
        until: datetime | None = None,
    ) -> AsyncIterator[ListedDelivery]:
        """
        Those that fit, newest first, page after page.

        Args:
            event: id of the event.
            since: that ended at this time or later; without an outcome, or where it is open, that began then.
            until: that ended, or began, before this time.
        """
        wanted = _filter(integration, outcome, type, event, cause, since, until)
        return self._admin().each(ListedDelivery, self._path, wanted)

    async def page(
        self,
        *,
        integration: str | None = None,
        outcome: Outcome | Literal["open"] | None = None,
        type: str | None = None,  # noqa: A002  # the field's name
        event: str | None = None,
        cause: Cause | None = None,
        since: datetime | None = None,
        until: datetime | None = None,
        limit: int = 50,
        cursor: str | None = None,
    ) -> Page[ListedDelivery]:
        """A part of that list."""
        wanted = _filter(integration, outcome, type, event, cause, since, until)
        return await self._admin().page(ListedDelivery, self._path, wanted, limit=limit, cursor=cursor)

    async def get(self, id: str) -> Delivery:  # noqa: A002  # the field's name
        """One, with every attempt."""
        return await self._admin().get(Delivery, "GET", self._one(id))

    async def retry(self, id: str) -> MadeDelivery:  # noqa: A002
        """Send one that has ended again: a new delivery with one attempt."""
        return await self._admin().get(MadeDelivery, "POST", f"{self._one(id)}/retry")

    async def retry_many(
        self,
        *,
        outcome: Outcome,
        integration: str | None = None,
        type: str | None = None,  # noqa: A002
        since: datetime | None = None,
        until: datetime | None = None,
        limit: int = 100,
        cursor: str | None = None,
    ) -> Retried:
        """
        Send those that fit again, `limit` at most; not those of which a repeat was delivered or is under way.

        Newest first. One call looks at some 2,000 at most, so it may have sent fewer, or none, and have a `next`.

        Args:
            since: that ended at this time or later.
            until: that ended before this time.
            cursor: `next` of the call before, with the same filter.
        """
        wanted = _filter(integration, outcome, type, None, None, since, until) | {"limit": limit}
        if cursor is not None:
            wanted["cursor"] = cursor
        return await self._admin().get(Retried, "POST", f"{self._path}/retry", json=wanted)

    def _one(self, delivery: str) -> str:
        return f"{self._path}/{quote(delivery, safe='')}"


class Replays:
    """Replays to the integrations of an app. Every call raises `Refused` or `NoAnswer`."""

    def __init__(self, admin: Callable[[], Connection], app: str) -> None:
        self._admin = admin
        self._app = app

    async def dry_run(
        self,
        integration: str,
        *,
        since: datetime,
        until: datetime | None = None,
        types: Sequence[str] = (),
        event_ids: Sequence[str] = (),
        rate: int | None = None,
        sample: int = 3,
    ) -> DryRun:
        """What `start` would send; sends nothing."""
        body = _range(since, until, types, event_ids, rate) | {"dryRun": True, "sample": sample}
        return await self._admin().get(DryRun, "POST", f"{path_of(self._app, integration)}/replay", json=body)

    async def start(
        self,
        integration: str,
        *,
        since: datetime,
        until: datetime | None = None,
        types: Sequence[str] = (),
        event_ids: Sequence[str] = (),
        rate: int | None = None,
    ) -> Replay:
        """
        Send past events again, each as a new delivery with one attempt.

        Args:
            since: accepted at this time or later.
            until: and before this; now where absent.
            types: those that the integration selects, where none are given.
            rate: events a second at most; 20 where absent.
        """
        body = _range(since, until, types, event_ids, rate)
        return await self._admin().get(Replay, "POST", f"{path_of(self._app, integration)}/replay", json=body)

    def list(self, integration: str | None = None) -> AsyncIterator[Replay]:
        """Those to one integration, or to all of the app, newest first."""
        of = f"/v1/apps/{quote(self._app, safe='')}" if integration is None else path_of(self._app, integration)
        return self._admin().each(Replay, f"{of}/replays", {})

    async def get(self, integration: str, replay: str) -> Replay:
        """How far one is."""
        return await self._admin().get(Replay, "GET", self._one(integration, replay))

    async def cancel(self, integration: str, replay: str) -> Replay:
        """Nothing more of it is sent, but for what is under way."""
        return await self._admin().get(Replay, "POST", f"{self._one(integration, replay)}/cancel")

    async def follow(self, integration: str, replay: str, *, every_s: float = 1.0) -> AsyncIterator[Replay]:
        """How far it is, again and again, until it has ended; the last one says how."""
        while True:
            found = await self.get(integration, replay)
            yield found
            if found.status != "running":
                return
            await asyncio.sleep(every_s)

    def _one(self, integration: str, replay: str) -> str:
        return f"{path_of(self._app, integration)}/replays/{quote(replay, safe='')}"


def _filter(
    integration: str | None,
    outcome: str | None,
    type: str | None,  # noqa: A002
    event: str | None,
    cause: str | None,
    since: datetime | None,
    until: datetime | None,
) -> dict[str, Any]:
    """What was given."""
    given = {
        "integration": integration,
        "outcome": outcome,
        "type": type,
        "event": event,
        "cause": cause,
        "since": time_text(since),
        "until": time_text(until),
    }
    return {name: value for name, value in given.items() if value is not None}


def _range(
    since: datetime, until: datetime | None, types: Sequence[str], event_ids: Sequence[str], rate: int | None
) -> dict[str, Any]:
    given: dict[str, Any] = {
        "from": time_text(since),
        "until": time_text(until),
        "types": [*types] or None,
        "eventIds": [*event_ids] or None,
        "rate": rate,
    }
    return {name: value for name, value in given.items() if value is not None}


def time_text(at: datetime | None) -> str | None:
    """
    As the API takes it.

    Raises:
        ValueError: it has no zone, so nobody knows which time is meant.
    """
    if at is not None and at.tzinfo is None:
        raise ValueError("a time needs a zone: datetime.now(UTC), not datetime.now()")
    return None if at is None else at.isoformat()
