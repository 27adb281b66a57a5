"""
A replay's decisions: which past events an integration gets again, as which deliveries, how fast, and how far it is.

Pure: records and times in, records and numbers out. `replays.py` reads and appends.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, NamedTuple

import msgspec

from services.dispatcher.match import selects
from streams.delivery_ids import LIVE_RUN, delivery_id
from streams.records import Delivery, Event, FanOutReceipt, IntegrationConfig, Replay, ReplayState
from streams.trace_context import TraceContext

#: Deliveries of one replay that are appended and have no outcome, at most: a live event waits behind so many of them.
MAX_OPEN: Final = 3

#: Deliveries that are not counted yet, since an earlier one has no outcome: under `none` and `key`, where one hangs and
#: others go on. Bounds memory, and what a takeover reads.
MAX_KEPT: Final = 500

#: Replays under way at once; others wait for their turn.
MAX_AT_ONCE: Final = 8

#: What a timer is late, at most, or the rate would suffer.
LAG_S: Final = 0.05

#: How an outcome is counted that never comes, since the delivery was put aside.
QUARANTINED: Final = "quarantined"


def takes(replay: Replay, config: IntegrationConfig, event: Event) -> bool:
    """
    Whether the event is in the replay's range and of a type that it is about.

    Types that are given stand in for the integration's selection. A booking subscription still gets bookings alone.
    """
    if event.app != replay.app or not replay.from_ms <= event.accepted_at_ms < replay.until_ms:
        return False
    if replay.event_ids and event.event_id not in replay.event_ids:
        return False
    if replay.types:
        config = msgspec.structs.replace(config, events=replay.types)
    return selects(config, event.type)


class Past(NamedTuple):
    """An event that a replay takes."""

    partition: int
    offset: int
    event: Event
    #: What fan-out decided; None where there is no receipt of it.
    receipt: FanOutReceipt | None
    #: What the event's record carries.
    trace: TraceContext | None = None

    @property
    def is_repeat(self) -> bool:
        """Whether fan-out knew it for the repeat of an id: then the first one stands for it."""
        return self.receipt is not None and self.receipt.repeat_of is not None


def delivery_of(replay: Replay, past: Past, *, config_offset: int, generation: int) -> Delivery:
    """
    The event's delivery in this replay. Its id follows from event, integration and replay: the same whoever makes it.

    Args:
        config_offset: position in `integration-config` of who makes it.
        generation: of the group, of the worker that makes it; in the place of fan-out's.
    """
    event, integration = past.event, replay.integration
    was_live = past.receipt is not None and integration in past.receipt.integrations
    return Delivery(
        delivery_id=delivery_id(event.record_id, integration, replay.id),
        integration=integration,
        app=event.app,
        record_id=event.record_id,
        event_id=event.event_id,
        type=event.type,
        payload=event.payload,
        occurred_at_ms=event.occurred_at_ms,
        accepted_at_ms=event.accepted_at_ms,
        ordering_key=event.ordering_key,
        cause="replay",
        run=replay.id,
        of=delivery_id(event.record_id, integration, LIVE_RUN) if was_live else None,
        attempt=1,
        config_offset=config_offset,
        source_partition=past.partition,
        source_offset=past.offset,
        source_generation=generation,
    )


class Pace:
    """So many a second, evenly. After a pause there is no burst of more than LAG_S would have brought."""

    def __init__(self, rate: int) -> None:
        self._gap_s = 1 / rate
        self._next_s = 0.0

    def wait_s(self, now_s: float) -> float:
        """How long until the next may go; 0: now."""
        return max(self._next_s - now_s, 0.0)

    def went(self, now_s: float) -> None:
        """One has gone."""
        self._next_s = max(self._next_s, now_s - LAG_S) + self._gap_s


class Places(NamedTuple):
    """Offsets in an integration's partitions of `deliveries` and `delivery-results`, and in `quarantine`."""

    deliveries: int
    results: int
    quarantine: int


@dataclass(slots=True)
class _Sent:
    offset: int
    accepted_at_ms: int
    #: Nothing of this delivery or of a later one stands below.
    places: Places
    outcome: str | None = None


class Course:
    """
    How far a replay is: what was appended, what has its outcome, and the row that lets a successor go on.

    The row stands at the oldest event without an outcome: outcomes count when all before them have theirs. So a
    successor that reads `deliveries`, `delivery-results` and `quarantine` from the row's places on finds of every
    later event whether it was appended, and how it ended.
    """

    def __init__(self, row: Replay, marker: tuple[int, int] = (0, 0)) -> None:
        """
        Args:
            row: of progress, as its predecessor or we have written it.
            marker: our own on the integration's partition of `deliveries`: generation and offset.
        """
        self._row = row
        self._marker = marker
        self._sent: dict[str, _Sent] = {}
        self._outcomes = dict(row.outcomes)
        self._reached_ms = row.reached_ms
        self._open = 0
        #: Every event below this offset was appended, or is not taken.
        self.next = row.events_next

    @property
    def open(self) -> int:
        """How many were appended and have no outcome yet."""
        return self._open

    @property
    def has_room(self) -> bool:
        """Whether another one may be appended."""
        return self._open < MAX_OPEN and len(self._sent) < MAX_KEPT

    @property
    def is_over(self) -> bool:
        """Whether the end is reached, and everything has its outcome."""
        return self.next >= self._row.events_until and not self._sent

    def found(self, appended: Mapping[int, tuple[Delivery, int]]) -> None:
        """
        What a takeover has found, before anything else is said.

        Args:
            appended: by offset of the event, its delivery, and where that stands on `deliveries`.
        """
        for offset in sorted(appended):
            delivery, at = appended[offset]
            self.begin(delivery, Places(at, self._row.results_from, self._row.quarantine_from))

    def begin(self, delivery: Delivery, places: Places) -> None:
        """The delivery is about to be appended; *places*: where the three end by now, at least."""
        self._sent[delivery.delivery_id] = _Sent(delivery.source_offset, delivery.accepted_at_ms, places)
        self._open += 1
        self.next = max(self.next, delivery.source_offset + 1)

    def pass_to(self, offset: int) -> None:
        """Events below this offset that were not appended are not taken."""
        self.next = max(self.next, offset)

    def end(self, delivery_id: str, outcome: str) -> bool:
        """The delivery has its outcome; whether that was news. The first one counts."""
        sent = self._sent.get(delivery_id)
        if sent is None or sent.outcome is not None:
            return False
        sent.outcome = outcome
        self._open -= 1
        for first in list(self._sent):
            oldest = self._sent[first]
            if oldest.outcome is None:
                break
            del self._sent[first]
            self._outcomes[oldest.outcome] = self._outcomes.get(oldest.outcome, 0) + 1
            self._reached_ms = max(self._reached_ms or 0, oldest.accepted_at_ms)
        return True

    def row(
        self,
        places: Places,
        *,
        worker: str,
        now_ms: int,
        state: ReplayState = "running",
        reason: str | None = None,
    ) -> Replay:
        """
        Progress to be stored; *places*: where the three end by now, at least.

        One that ends counts every outcome that is known.
        """
        oldest = next(iter(self._sent.values()), None)
        outcomes = self._outcomes
        if state != "running":
            outcomes = dict(outcomes)
            for sent in self._sent.values():
                if sent.outcome is not None:
                    outcomes[sent.outcome] = outcomes.get(sent.outcome, 0) + 1
        if oldest is not None:
            places = oldest.places
        generation, marked_at = self._marker
        return msgspec.structs.replace(
            self._row,
            state=state,
            reason=reason,
            updated_by=worker,
            updated_at_ms=now_ms,
            events_next=self.next if oldest is None else oldest.offset,
            reached_ms=self._reached_ms,
            deliveries_from=places.deliveries,
            marked=generation if places.deliveries > marked_at else self._row.marked,
            results_from=places.results,
            quarantine_from=places.quarantine,
            outcomes=dict(outcomes),
        )


def share_done(replay: Replay) -> float:
    """How much of its range a replay has behind it, 0 to 1, by positions on the log."""
    length = replay.events_until - replay.events_from
    if replay.state == "done":
        return 1.0
    if replay.generation < 0 or length <= 0:
        return 0.0
    return min(max((replay.events_next - replay.events_from) / length, 0.0), 1.0)
