"""Integrations and booking subscriptions of an app: create, change, pause, their secrets, a sample event."""

from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, Final, Literal, TypedDict, Unpack
from urllib.parse import quote
from uuid import uuid4

from tenterhook.connection import Connection
from tenterhook.records import (
    Hour,
    Integration,
    Ordering,
    Page,
    RevealedSecret,
    Rotated,
    SampleDelivery,
    Secret,
    Version,
    WhilePaused,
)

Collection = Literal["integrations", "subscriptions"]


class Retrying(TypedDict, total=False):
    """When failed deliveries are tried again; what is absent is the profile's."""

    policy: Literal["transient", "any_failure"]
    max_attempts: int
    delays_ms: Sequence[int]
    on_429: bool


class Settings(TypedDict, total=False):
    """What an integration can be set to. In a change, None is the default; a name with None is taken away."""

    #: `["*"]` is all; none are selected by default.
    events: Sequence[str]
    #: Values may hold `{secret.NAME}`; they are sealed.
    headers: Mapping[str, str | None]
    secrets: Mapping[str, str | None]
    template: str | None
    timeout_ms: int | None
    retry: Retrying | None
    ordering: Ordering | None
    max_in_flight: int | None
    while_paused: WhilePaused | None
    auto_pause: bool | None
    signing: bool | None
    send_traceparent: bool | None


class Patch(Settings, total=False):
    """What can be changed."""

    name: str
    url: str


class Integrations:
    """
    The integrations of an app, or its booking subscriptions.

    Every call raises `Refused` or `NoAnswer`; an id of the other kind is understood.
    """

    def __init__(self, admin: Callable[[], Connection], app: str, collection: Collection) -> None:
        self._admin = admin
        self._app = app
        self._path: Final = f"/v1/apps/{quote(app, safe='')}/{collection}"

    async def create(
        self, *, name: str, url: str, idempotency_key: str | None = None, **settings: Unpack[Settings]
    ) -> Integration:
        """
        A new one; `signing_secret` is in the answer this once, where signing is on.

        Args:
            idempotency_key: the same for a repeat, so that it creates nothing twice; a new one where absent.
        """
        body = {"name": name, "url": url, **_body(settings)}
        headers = {"Idempotency-Key": idempotency_key or str(uuid4())}
        return await self._admin().get(Integration, "POST", self._path, json=body, headers=headers)

    def list(self) -> AsyncIterator[Integration]:
        """All, page after page."""
        return self._admin().each(Integration, self._path, {})

    async def page(self, *, limit: int = 50, cursor: str | None = None) -> Page[Integration]:
        """A part of the list."""
        return await self._admin().page(Integration, self._path, {}, limit=limit, cursor=cursor)

    async def get(self, id: str) -> Integration:  # noqa: A002  # the field's name
        """One."""
        return await self._admin().get(Integration, "GET", self._one(id))

    async def change(self, id: str, *, if_version: int | None = None, **settings: Unpack[Patch]) -> Integration:  # noqa: A002
        """
        Change it; what is not given stays.

        Args:
            if_version: only if this is its version; else `Conflict`.
        """
        headers = {} if if_version is None else {"If-Match": f'"{if_version}"'}
        return await self._admin().get(Integration, "PATCH", self._one(id), json=_body(settings), headers=headers)

    async def delete(self, id: str) -> None:  # noqa: A002
        """Events accepted from now on do not reach it."""
        await self._admin().ask("DELETE", self._one(id))

    async def pause(self, id: str) -> Integration:  # noqa: A002
        """Its deliveries are held, or discarded, as `while_paused` says."""
        return await self._admin().get(Integration, "POST", f"{self._one(id)}/pause")

    async def activate(self, id: str, *, held: Literal["drain", "skip"] | datetime | None = None) -> Integration:  # noqa: A002
        """
        Activate it again.

        Args:
            held: what becomes of deliveries that were held: all are sent, none are, or those of events that were
                accepted at that time or later. Required where there are any; else `Conflict`.
        """
        choice: Any = {"from": held.isoformat()} if isinstance(held, datetime) else held
        body = None if choice is None else {"held": choice}
        return await self._admin().get(Integration, "POST", f"{self._one(id)}/activate", json=body)

    async def test(self, id: str, *, type: str | None = None) -> SampleDelivery:  # noqa: A002
        """Send it a sample event; of a type that it selects, where none is given."""
        body = {} if type is None else {"type": type}
        return await self._admin().get(SampleDelivery, "POST", f"{self._one(id)}/test", json=body)

    async def rates(self, id: str) -> Sequence[Hour]:  # noqa: A002
        """How its deliveries ended in each of the last 24 hours, oldest first."""
        return (await self._admin().get(Page[Hour], "GET", f"{self._one(id)}/rates")).items

    async def history(self, id: str) -> Sequence[Version]:  # noqa: A002
        """Its versions, newest first."""
        return (await self._admin().get(Page[Version], "GET", f"{self._one(id)}/history")).items

    async def roll_back(self, id: str, version: int) -> Integration:  # noqa: A002
        """Set it to what it was in an earlier version; its secrets stay the present ones."""
        return await self._admin().get(Integration, "POST", f"{self._one(id)}/rollback", json={"version": version})

    # -- secrets ---------------------------------------------------------------------------------------------

    async def secrets(self, id: str) -> Sequence[Secret]:  # noqa: A002
        """Their names; never a value."""
        return (await self._admin().get(Page[Secret], "GET", f"{self._one(id)}/secrets")).items

    async def put_secret(self, id: str, name: str, value: str) -> Secret:  # noqa: A002
        """Store a secret, or the next version of it."""
        return await self._admin().get(Secret, "PUT", self._secret(id, name), json={"value": value})

    async def delete_secret(self, id: str, name: str) -> None:  # noqa: A002
        """Delete a secret; `Conflict` while the URL or a header refers to it."""
        await self._admin().ask("DELETE", self._secret(id, name))

    async def reveal_secret(self, id: str, name: str) -> RevealedSecret:  # noqa: A002
        """Its value, once a version; every try is on the audit log."""
        return await self._admin().get(RevealedSecret, "POST", f"{self._secret(id, name)}/reveal")

    async def rotate(self, id: str, *, overlap: timedelta | None = None, now: bool = False) -> Rotated:  # noqa: A002
        """
        A new signing secret.

        Args:
            overlap: how long receivers may check with the one before; 24 hours where absent.
            now: end the one before at once.
        """
        body: dict[str, Any] = {"now": True} if now else {}
        if overlap is not None:
            body["overlapMs"] = round(overlap.total_seconds() * 1000)
        return await self._admin().get(Rotated, "POST", f"{self._one(id)}/rotate", json=body)

    def _one(self, integration: str) -> str:
        return path_of(self._app, integration)

    def _secret(self, integration: str, name: str) -> str:
        return f"{self._one(integration)}/secrets/{quote(name, safe='')}"


def path_of(app: str, integration: str) -> str:
    """The path of an integration or a subscription; its id tells which it is."""
    collection: Collection = "subscriptions" if integration.startswith("sub_") else "integrations"
    return f"/v1/apps/{quote(app, safe='')}/{collection}/{quote(integration, safe='')}"


def _body(settings: Mapping[str, Any]) -> dict[str, Any]:
    """As the API names them. Names of headers and secrets are not ours to change."""
    body = {_camel(name): value for name, value in settings.items()}
    if isinstance(body.get("retry"), Mapping):
        body["retry"] = {_camel(name): value for name, value in body["retry"].items()}
    for name, value in body.items():
        if not isinstance(value, str | Mapping) and isinstance(value, Sequence):
            body[name] = [*value]
    return body


def _camel(name: str) -> str:
    first, *others = name.split("_")
    return first + "".join(other.capitalize() for other in others)
