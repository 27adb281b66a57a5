"""Events as ingest takes them, and the parts that a batch is sent in. Pure."""

from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import Any, Final
from uuid import uuid4

import msgspec

#: What ingest takes in one batch.
MAX_EVENTS: Final = 500
MAX_BATCH_BYTES: Final = 4 * 1024 * 1024


class Event(msgspec.Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=True):
    """
    Something that happened.

    Without an id of its own it gets a new one when it is made, and keeps it through all repeats, so that it is
    delivered once however often it is sent.
    """

    type: str
    #: Whatever JSON can say. `msgspec.Raw` goes on byte for byte; a booking's body reaches receivers so.
    payload: Any = None
    #: 1 to 128 of A-Z a-z 0-9 _ -.
    id: str = msgspec.field(default_factory=lambda: f"evt_{uuid4().hex}")
    #: What it is about, for integrations that keep order by key.
    ordering_key: str | None = None
    #: Now, where absent. With a zone.
    occurred_at: datetime | None = None

    def __post_init__(self) -> None:
        if self.occurred_at is not None and self.occurred_at.tzinfo is None:
            raise ValueError("occurred_at needs a zone: datetime.now(UTC), not datetime.now()")


def encoded(event: Event) -> bytes:
    """As the body of a request."""
    return msgspec.json.encode(event)


def parts(bodies: Sequence[bytes]) -> Iterator[list[int]]:
    """Which of these events go into each request: in order, as many as ingest takes at once."""
    part: list[int] = []
    size = 2
    for at, body in enumerate(bodies):
        if part and (len(part) == MAX_EVENTS or size + len(body) + 1 > MAX_BATCH_BYTES):
            yield part
            part, size = [], 2
        part.append(at)
        size += len(body) + 1
    if part:
        yield part
