"""
A replay as a model: a log in memory, a worker that may die between any two steps, outcomes in any order.

Laws: every event that is taken is appended once, in order; every outcome is counted once; never more are open than may.
"""

import random

import msgspec
from aiokafka import ConsumerRecord
from hypothesis import given, settings
from hypothesis import strategies as st

from services.dispatcher.replay_log import ReadBack
from services.dispatcher.replaying import MAX_OPEN, Course, Past, Places, delivery_of
from streams import codec
from streams.records import Marker
from tests.logs import make_event
from tests.records import make_replay

TOPIC = "tenterhook.replays"


class Model:
    def __init__(self, events: int, taken: set[int], rng: random.Random) -> None:
        self.events, self.taken, self.rng = events, taken, rng
        self.event = {offset: make_event(offset) for offset in taken}
        #: Deliveries and markers; outcomes.
        self.deliveries: list = []
        self.results: list[tuple[str, str]] = []
        self.unanswered: list[str] = []
        self.row = make_replay(generation=0, events_until=events)
        self.generation = 0
        self.orphans: list = []

    def read_back(self, row, until: int):
        back = ReadBack(row, TOPIC)
        for offset in range(row.deliveries_from, until):
            value = self.deliveries[offset]
            key = None if isinstance(value, Marker) else value.integration.encode()
            back.see(ConsumerRecord("d", 0, offset, 0, 0, key, codec.encode(value), None, 0, 0, ()))
        return back.appended

    def take_over(self):
        self.generation += 1
        self.row = msgspec.structs.replace(self.row, generation=self.generation)
        marker = Marker(source_topic=TOPIC, source_partition=0, generation=self.generation, owner="w", at_ms=0)
        self.deliveries.append(marker)
        at = len(self.deliveries) - 1
        if self.row.deliveries_from > at:
            self.row = msgspec.structs.replace(self.row, marked=self.generation)
        course = Course(self.row, (self.generation, at))
        course.found(self.read_back(self.row, at + 1))
        return course, self.row.results_from

    def counts(self, delivery) -> bool:
        """Whether the lanes take it: nothing of an owner that has been replaced."""
        newest = max((each.generation for each in self.deliveries if isinstance(each, Marker)), default=0)
        return delivery.source_generation >= newest

    def append(self, delivery) -> None:
        if self.counts(delivery):
            self.unanswered.append(delivery.delivery_id)
        self.deliveries.append(delivery)

    def live(self, steps: int) -> bool:
        """One worker's life; whether the replay is over."""
        course, results_at = self.take_over()
        known_end = len(self.deliveries)
        for _ in range(steps):
            step = self.rng.choice(["append", "append", "answer", "see", "save", "freeze"])
            places = Places(known_end, results_at, 0)
            if step == "append":
                known_end = self.go_on(course, places)
                assert len(self.unanswered) <= MAX_OPEN
            elif step == "answer":
                self.answer()
            elif step == "see":
                while results_at < len(self.results):
                    course.end(*self.results[results_at])
                    results_at += 1
            elif step == "save":
                self.row = course.row(places, worker="w", now_ms=0)
            elif step == "freeze" and self.orphans:
                self.append(self.orphans.pop())  # a predecessor wakes, and appends what it had in hand
            if course.is_over:
                self.row = course.row(Places(known_end, results_at, 0), worker="w", now_ms=0, state="done")
                return True
        if course.next in self.taken and self.rng.random() < 0.5:
            self.orphans.append(self.delivery(course.next))
        return False

    def delivery(self, offset: int):
        past = Past(0, offset, self.event[offset], None)
        return delivery_of(self.row, past, config_offset=0, generation=self.generation)

    def go_on(self, course: Course, places: Places) -> int:
        """With the next event; where deliveries are known to end then."""
        if not course.has_room or course.next >= self.events:
            return places.deliveries
        if course.next not in self.taken:
            course.pass_to(course.next + 1)
            return places.deliveries
        delivery = self.delivery(course.next)
        course.begin(delivery, places)
        self.append(delivery)
        return len(self.deliveries)

    def answer(self) -> None:
        if self.unanswered:
            one = self.unanswered.pop(self.rng.randrange(len(self.unanswered)))
            self.results.append((one, self.rng.choice(["delivered", "rejected", "quarantined"])))


@given(
    events=st.integers(0, 30),
    lives=st.lists(st.integers(0, 40), max_size=8),
    seed=st.integers(0, 2**32),
)
@settings(max_examples=300, deadline=None)
def test_whenever_workers_die_each_event_is_appended_once_in_order_and_counted_once(events, lives, seed):
    rng = random.Random(seed)
    taken = {offset for offset in range(events) if rng.random() < 0.7}
    model = Model(events, taken, rng)

    is_over = any(model.live(steps) for steps in lives)
    while not is_over:
        is_over = model.live(200)

    newest, sent = 0, []
    for each in model.deliveries:
        if isinstance(each, Marker):
            newest = each.generation
        elif each.source_generation >= newest:
            sent.append(each.source_offset)
    assert sent == sorted(taken)
    assert sum(model.row.outcomes.values()) == len(taken)
    assert model.row.events_next == events
