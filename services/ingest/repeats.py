"""
What this process has accepted: so that a sender that repeats an event hears so, and another event under its id is
refused.

Pure: records and times in, decisions out. This is a courtesy, not the authority: another process may have taken the
first one, a restart forgets all, and memory is bounded. What is not known here is appended, and fan-out decides, where
an app's events stand in one line (docs/why/event-ids.md).
"""

from hashlib import blake2b
from typing import Final, NamedTuple

from services.runtime import kinds
from services.runtime.problems import Problem
from streams.records import Event

#: An id seen before is a repeat for so long, by the times at which the two were accepted; as fan-out has it.
VALID_MS: Final = 86_400_000

#: Ids that are kept, the newest. 200,000 are 33 minutes at 100 a second, which is what a sender that got no answer
#: repeats within; they take 30 MB.
MAX_IDS: Final = 200_000

#: Fifteen bytes are the most that a `bytes` of 48 bytes of memory holds. 120 bits: two ids that met would cost somebody
#: an event.
_NAME_BYTES: Final = 15
#: The rest of such 15 bytes holds the time. 72 bits: where two contents met, a sender would not hear of its mistake.
_CONTENT_BYTES: Final = 9
_TIME_BYTES: Final = 6


class Seen(NamedTuple):
    """An event that was accepted under the id before."""

    accepted_at_ms: int
    #: Whether it is the same event.
    same: bool


def name_of(event: Event) -> bytes:
    """What the event's id is kept under: app and kind of key have ids of their own."""
    return blake2b(f"{event.id_space}\0{event.event_id}\0{event.app}".encode(), digest_size=_NAME_BYTES).digest()


def content_of(event: Event, *, occurred_at_given: bool) -> bytes:
    """
    What must be the same in a repeat: type, payload byte for byte, ordering key; when it occurred, if that was given.

    Neither type nor ordering key has a NUL in it, so no two events run together.
    """
    occurred_at = event.occurred_at_ms if occurred_at_given else ""
    head = f"{event.type}\0{occurred_at}\0{event.ordering_key or ''}\0".encode()
    return blake2b(head + event.payload, digest_size=_CONTENT_BYTES).digest()


class AcceptedIds:
    """
    The newest ids that the broker has confirmed.

    Two generations: when the newer one is half of what is kept, it becomes the older one, which is forgotten. A dict
    that loses its oldest entry each time would be searched from its beginning each time.
    """

    def __init__(self, max_ids: int = MAX_IDS) -> None:
        self._half = max(1, max_ids // 2)
        self._newer: dict[bytes, bytes] = {}
        self._older: dict[bytes, bytes] = {}

    def __len__(self) -> int:
        """How many entries are kept; an id that came again after a day may have two."""
        return len(self._newer) + len(self._older)

    def find(self, name: bytes, content: bytes, *, now_ms: int) -> Seen | None:
        """Whether an event of this name was accepted within `VALID_MS`, and whether it was the same."""
        kept = self._newer.get(name) or self._older.get(name)
        if kept is None:
            return None
        accepted_at_ms = int.from_bytes(kept[_CONTENT_BYTES:], "big")
        if now_ms - accepted_at_ms >= VALID_MS:
            return None
        return Seen(accepted_at_ms, kept[:_CONTENT_BYTES] == content)

    def add(self, name: bytes, content: bytes, *, accepted_at_ms: int) -> None:
        """The broker has it. The first of a name stays, as long as it is valid."""
        if self.find(name, content, now_ms=accepted_at_ms) is not None:
            return
        self._newer[name] = content + accepted_at_ms.to_bytes(_TIME_BYTES, "big")
        if len(self._newer) >= self._half:
            self._older, self._newer = self._newer, {}

    def clear(self) -> None:
        """Forget everything: the log that had it was replaced."""
        self._newer.clear()
        self._older.clear()


def id_reused() -> Problem:
    """Another event was accepted under this id."""
    return Problem(
        kinds.ID_REUSED,
        "An event with this `id` was accepted within the last 24 hours, and its type, payload, occurredAt or "
        "orderingKey was another. A repeat has the same body, byte for byte; a new event needs an id of its own.",
        field="id",
    )
