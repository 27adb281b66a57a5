"""What was put aside, and whether it was put back: a fold of topic `quarantine`. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

from services.runtime.times import iso
from streams import codec
from streams.records import Delivery, Event, PutBack, Quarantined, Record
from streams.topics import DELIVERIES, EVENTS, RETRIES

#: What may be put back, and what it has to be there. On other topics nothing waits for it: configuration is read with
#: its topic, results and commands by who was there then.
PUT_BACK_TO: Final[Mapping[str, type[Event | Delivery]]] = {
    EVENTS.name: Event,
    DELIVERIES.name: Delivery,
    **{topic.name: Delivery for topic in RETRIES},
}


@dataclass(frozen=True, slots=True)
class Aside:
    """One record that was put aside."""

    #: Its offset on `quarantine`, which is what people call it.
    id: int
    #: Without prefix; None where it is no topic of this installation.
    topic: str | None
    record: Quarantined
    #: The last time that it was put back.
    back: PutBack | None = None

    @property
    def was(self) -> Record | codec.Unreadable:
        """What it is, as far as this release can read it."""
        try:
            return codec.decode(self.record.value)
        except codec.Unreadable as error:
            return error

    def refusal(self, *, again: bool) -> str | None:
        """
        Why it is not put back, for people; None where it may be.

        Args:
            again: also where that was done before.
        """
        if self.back is not None and not again:
            return f"it was put back at {iso(self.back.at_ms)} by {self.back.by}: --again does it once more"
        wanted = None if self.topic is None else PUT_BACK_TO.get(self.topic)
        if wanted is None:
            return f"it comes from {self.topic or self.record.topic}: only events and deliveries are put back"
        if self.record.value is None:
            return "it has no value, here or where it came from"
        was = self.was
        if isinstance(was, codec.Unreadable):
            return f"this release cannot read it either ({was}): nobody could work on it"
        if not isinstance(was, wanted):
            return f"it is a {type(was).__name__}, which has no place there"
        return None

    def document(self) -> dict[str, Any]:
        """As programs read it; nothing of its payload."""
        record, was = self.record, self.was
        named = was if isinstance(was, Event | Delivery) else None
        return {
            "id": self.id,
            "at": iso(record.at_ms),
            "code": record.code,
            "reason": record.reason,
            "agent": record.agent,
            "topic": self.topic or record.topic,
            "partition": record.partition,
            "offset": record.offset,
            "key": None if record.key is None else record.key.decode(errors="backslashreplace"),
            "bytes": None if record.value is None else len(record.value),
            "kind": None if isinstance(was, codec.Unreadable) else type(was).__name__,
            "app": None if named is None else named.app,
            "event": None if named is None else named.type,
            "eventId": None if named is None else named.event_id,
            "delivery": was.delivery_id if isinstance(was, Delivery) else None,
            "putBack": None
            if self.back is None
            else {
                "at": iso(self.back.at_ms),
                "by": self.back.by,
                "partition": self.back.partition,
                "offset": self.back.offset,
            },
        }


class Asides:
    """All that stands on `quarantine`, in order."""

    def __init__(self, names: Mapping[str, str]) -> None:
        """
        Args:
            names: of topics without prefix, by their full ones.
        """
        self._names = names
        self._by_id: dict[int, Aside] = {}

    def see(self, offset: int, found: Record) -> None:
        """One record of the topic, in order."""
        if isinstance(found, Quarantined):
            self._by_id[offset] = Aside(offset, self._names.get(found.topic), found)
        elif isinstance(found, PutBack) and found.quarantine_offset in self._by_id:
            self._by_id[found.quarantine_offset] = replace(self._by_id[found.quarantine_offset], back=found)

    def get(self, id_: int) -> Aside | None:
        """The one of this id."""
        return self._by_id.get(id_)

    def those(self, *, code: str | None = None, topic: str | None = None, only_left: bool = False) -> list[Aside]:
        """
        The oldest first.

        Args:
            code: only those that were put aside as this.
            topic: only those that come from there; without prefix.
            only_left: only those that were not put back.
        """
        return [
            each
            for each in self._by_id.values()
            if code in (None, each.record.code)
            and topic in (None, each.topic)
            and not (only_left and each.back is not None)
        ]
