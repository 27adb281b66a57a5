"""
The law of event ids: exactly one record wins, the first by offset, through any schedule of repeats, deaths and freezes.

The model is a log of receipts and one of saved ids, and owners that decide, append, save and commit, and stop at any
place: with a receipt decided and not appended, with some records of a save on the log, before a commit. A frozen one
appends what it had in hand after its successor has taken over.
"""

import random
from dataclasses import dataclass, field

from hypothesis import given, settings
from hypothesis import strategies as st

from services.dispatcher import event_ids
from services.dispatcher.event_ids import FROM_THE_BEGINNING, VALID_MS, EventIds, IdsFloor
from streams.records import Event, FanOutReceipt, Marker, WonIds
from tests.logs import make_event

HOUR_MS = 3_600_000


@dataclass
class Log:
    events: list[Event] = field(default_factory=list)
    receipts: list[FanOutReceipt | Marker] = field(default_factory=list)
    saved: list[WonIds | Marker] = field(default_factory=list)
    #: Committed: first event not finished, and the floor under which it was taken.
    committed: tuple[int, IdsFloor] = (0, FROM_THE_BEGINNING)


def marker(generation: int) -> Marker:
    return Marker(source_topic="events", source_partition=0, generation=generation, owner="", at_ms=0)


class Owner:
    """One worker of one generation. Receipts in hand are decided and not on the log."""

    def __init__(self, log: Log, generation: int) -> None:
        self.log, self.generation = log, generation
        self.position, floor = log.committed
        self.ids = EventIds(floor)
        log.saved.append(marker(generation))
        end = len(log.saved) - 1
        log.receipts.append(marker(generation))
        for offset in range(floor.chunk, end):
            found = log.saved[offset]
            if isinstance(found, Marker):
                self.ids.see_marker(found.generation)
            else:
                self.ids.see_saved(offset, found)
        owner = 0
        self.found: dict[int, FanOutReceipt] = {}
        for offset, each in enumerate(log.receipts):
            if isinstance(each, Marker):
                owner = each.generation
                if offset >= self.ids.receipts_from:
                    self.ids.see_owner(offset, owner)
                continue
            if each.source_generation >= owner:
                self.found.setdefault(each.source_offset, each)
            if offset >= self.ids.receipts_from:
                self.ids.see_receipt(offset, each)
        self.ids.taken_over(end)
        self.floor = self.ids.floor
        self.in_hand: list[FanOutReceipt] = []

    def decide(self, count: int) -> None:
        for offset in range(self.position, min(self.position + count, len(self.log.events))):
            self.position = offset + 1
            if offset in self.found:
                continue
            event = self.log.events[offset]
            self.in_hand.append(
                FanOutReceipt(
                    record_id=event.record_id,
                    app=event.app,
                    event_id=event.event_id,
                    type=event.type,
                    config_offset=0,
                    integrations=[],
                    accepted_at_ms=event.accepted_at_ms,
                    source_partition=0,
                    source_offset=offset,
                    source_generation=self.generation,
                    id_space=event.id_space,
                    repeat_of=self.ids.decide(event),
                )
            )

    def append(self, count: int = 1_000) -> None:
        part, self.in_hand = self.in_hand[:count], self.in_hand[count:]
        self.log.receipts += part
        self.ids.count(len(part))

    def finish(self, *, saves: int, commits: bool) -> bool:
        """All that is in hand, a save of so many of its records; whether those were all. Then it may commit."""
        self.append()
        records = list(self.ids.to_save(0, self.generation, len(self.log.receipts)))
        for record in records[:saves]:
            self.log.saved.append(record)
            self.ids.saved(len(self.log.saved) - 1, record)
        if saves < len(records):
            return False
        if commits:
            self.log.committed = self.position, self.floor
            self.floor = self.ids.floor
        return True


#: What happens, how often, and with which numbers.
STEPS = {"accept": 8, "decide": 8, "append": 3, "finish": 4, "die": 2, "freeze": 1, "thaw": 1}


def drawn(seed: int) -> list[tuple[str, int, int]]:
    """A schedule: long ones meet what short ones cannot."""
    draw = random.Random(seed)
    steps = draw.choices(list(STEPS), list(STEPS.values()), k=120)
    return [(step, draw.randint(0, 3), draw.choice((0, 1, 6, 24))) for step in steps]


def run(schedule) -> Log:
    log, generation, now_ms = Log(), 1, 0
    owner, frozen = Owner(log, 1), None
    for step, first, second in schedule:
        match step:
            case "accept":
                now_ms += second * HOUR_MS
                record = f"rec_{len(log.events)}"
                log.events.append(
                    make_event(record_id=record, event_id=f"id_{first}", id_supplied=True, accepted_at_ms=now_ms)
                )
            case "decide":
                owner.decide(first + 1)
            case "append":
                owner.append(first)
            case "finish":
                if not owner.finish(saves=first, commits=second > 0):  # it died of it
                    generation += 1
                    owner = Owner(log, generation)
            case "thaw":
                if frozen is not None:
                    frozen.finish(saves=9, commits=False)
            case _:
                frozen = owner if step == "freeze" else frozen
                generation += 1
                owner = Owner(log, generation)
    generation += 1
    owner = Owner(log, generation)
    owner.decide(1_000)
    owner.finish(saves=9, commits=True)
    return log


def counted(log: Log) -> dict[int, FanOutReceipt]:
    """By event, the receipt that counts: the first one that is not late."""
    found: dict[int, FanOutReceipt] = {}
    owner = 0
    for each in log.receipts:
        if isinstance(each, Marker):
            owner = each.generation
        elif each.source_generation >= owner:
            found.setdefault(each.source_offset, each)
    return found


@settings(max_examples=300)
@given(st.integers(0, 2**32))
def test_exactly_the_first_record_of_an_id_wins_for_a_day(seed):
    event_ids._IDS_PER_RECORD, before = 1, event_ids._IDS_PER_RECORD
    try:
        log = run(drawn(seed))
    finally:
        event_ids._IDS_PER_RECORD = before
    receipts = counted(log)

    wanted: dict[str, tuple[str, int]] = {}
    for offset, event in enumerate(log.events):
        winner = wanted.get(event.event_id)
        if winner is None or event.accepted_at_ms - winner[1] >= VALID_MS:
            wanted[event.event_id] = event.record_id, event.accepted_at_ms
            assert receipts[offset].repeat_of is None, offset
        else:
            assert receipts[offset].repeat_of == winner[0], offset
