"""
Takeovers in any order: owners that die and freeze again and again, at random, under random work.

The model is that of `test_takeover.py`. A schedule is drawn from a seed: events and changes of the configuration come,
batches of any size are handed over, what is finished is committed or not, requests hang, one or more of its producers
stand still after some records; then the owner dies, or freezes, and wakes when another has taken over. At last one
owner may finish. Checked then, against the log read from its beginning:

1. every event has a receipt that counts, the first one that is not late;
2. behind it, exactly one delivery that is not late for each of its integrations, and no other;
3. every delivery has a result, and was attempted once more at most for each time that its owner died under it;
4. first attempts of an integration follow the order of the events.

*Late* is what carries a lower generation than the newest marker of the same source before it.
"""

import asyncio
import os
import random
from collections import Counter

import pytest

from streams import topics
from streams.connection import Connection
from streams.records import Delivery, FanOutReceipt, Marker
from streams.topics import Topic
from tests.handing import Courier, Group, Owner, group_of
from tests.logs import Log, log_of, make_event
from tests.records import make_integration
from tests.waiting import eventually

pytestmark = pytest.mark.kafka

#: Each takes 2 to 4 s; after a change here, run a hundred.
SCHEDULES = int(os.environ.get("SCHEDULES", "2"))
STEPS = 60
TWO = topics.Partitions(by_app=2, by_integration=2)
APPS = ("demo", "app2", "app3", "app4")


class Schedule:
    """One run, drawn from its seed."""

    def __init__(self, seed: int, log: Log, group: Group) -> None:
        self.random = random.Random(seed)
        self.log = log
        self.group = group
        self.courier = Courier(max_in_flight=3)
        self.owner: Owner
        self.frozen: Owner | None = None
        self.integrations: list[str] = []
        self.events = 0
        #: By delivery: how often an owner died while it was under way.
        self.under_way: Counter[str] = Counter()
        self.said: list[str] = []

    async def run(self) -> None:
        self.owner = await self.group.next_owner(self.courier)
        await self.configure()
        steps = {
            self.accept: 5,
            self.configure: 1,
            self.fan_out: 6,
            self.deliver: 6,
            self.commit: 4,
            self.hang: 1,
            self.answer: 2,
            self.stand_still: 2,
            self.replace: 2,
            self.thaw: 2,
        }
        for step in self.random.choices(list(steps), list(steps.values()), k=STEPS):
            self.said.append(step.__name__)
            await step()
        await self.answer()
        await self.replace()
        await self.thaw()
        await self.owner.work_through()
        await eventually(lambda: not any(map(self.owner.unfinished, (topics.EVENTS, topics.DELIVERIES))))
        await eventually(self.log.is_read_to_the_end)

    async def accept(self) -> None:
        count = self.random.randint(1, 6)
        apps = self.random.choices(APPS, k=count)
        await self.log.events(
            *(make_event(self.events + n, app, event_id=f"evt_{self.events + n}") for n, app in enumerate(apps))
        )
        self.events += count

    async def configure(self) -> None:
        if len(self.integrations) > 5:
            await self.log.delete(self.integrations.pop(0))
        name = f"int_{len(self.said)}"
        self.integrations.append(name)
        await self.log.integration(make_integration(name, self.random.choice(APPS)))

    async def fan_out(self) -> None:
        await self._hand_over(topics.EVENTS)

    async def deliver(self) -> None:
        await self._hand_over(topics.DELIVERIES)
        await self.owner.lanes_are_still()

    async def _hand_over(self, topic: Topic) -> None:
        if not self.owner.stands_still(self.log.connection.topic(topic)):
            partition = self.random.choice(self.owner.partitions(topic))
            await self.owner.hand_over(partition, self.random.randint(1, 8))

    async def commit(self) -> None:
        self.owner.commit()

    async def hang(self) -> None:
        self.courier.hanging[f"evt_{self.events + 2}"] = asyncio.Event()

    async def answer(self) -> None:
        for event in self.courier.hanging.values():
            event.set()
        self.courier.hanging.clear()
        await self.owner.lanes_are_still()

    async def stand_still(self) -> None:
        producers = self.owner.producers  # there are no retries
        for each in self.random.sample((producers.of_deliveries, producers.of_results), self.random.randint(1, 2)):
            each.left = self.random.randint(0, 9)

    async def replace(self) -> None:
        """The owner dies, or its fan-out freezes; another takes over."""
        await self.owner.lanes.settle(0)
        if self.frozen is None and self.random.random() < 0.5:
            self.frozen = self.owner
            self.frozen.producers.stop_after(0)
        else:
            await self.owner.die()
        await eventually(self.log.is_read_to_the_end)
        ended = {result.delivery_id for result in self.log.results}
        sent_now = Counter(each.delivery_id for each in self.courier.sent)
        for delivery in sent_now.keys() - ended:
            self.under_way[delivery] = sent_now[delivery]
        self.owner = await self.group.next_owner(self.courier)

    async def thaw(self) -> None:
        """It has been replaced when it wakes, or this would be no freeze."""
        if self.frozen is not None:
            await self.frozen.producers.thaw(self.random.sample(range(3), 3))
            await self.frozen.die()
            self.frozen = None


def not_late(log: Log, topic: Topic, kind: type) -> list:
    """Records of that kind that count, from the beginning of the log."""
    newest: dict[tuple[int, int], int] = {}
    found = []
    for seen in log.seen[topic]:
        record, place = seen.record, seen.raw.partition
        if isinstance(record, Marker):
            newest[place, record.source_partition] = record.generation
        elif isinstance(record, kind) and record.source_generation >= newest.get((place, record.source_partition), 0):
            found.append(record)
    return found


def check(schedule: Schedule) -> None:
    log, sent = schedule.log, schedule.courier.sent
    receipts: dict[str, FanOutReceipt] = {}
    for receipt in not_late(log, topics.FAN_OUT, FanOutReceipt):
        receipts.setdefault(receipt.event_id, receipt)
    assert {f"evt_{number}" for number in range(schedule.events)} == set(receipts)

    deliveries = not_late(log, topics.DELIVERIES, Delivery)
    wanted = Counter((event, name) for event, receipt in receipts.items() for name in receipt.integrations)
    assert wanted == Counter((each.event_id, each.integration) for each in deliveries)

    ids = {each.delivery_id for each in deliveries}
    assert ids == {result.delivery_id for result in log.results}
    attempts = Counter(each.delivery_id for each in sent)
    for delivery in ids:
        assert 1 <= attempts[delivery] <= 1 + schedule.under_way[delivery]
    assert ids == set(attempts)

    first = {each.delivery_id: each for each in reversed(sent)}
    for name in {each.integration for each in deliveries}:
        order = dict.fromkeys(each.delivery_id for each in sent if each.integration == name)
        offsets = [first[delivery].source_offset for delivery in order]
        assert sorted(offsets) == offsets, name


@pytest.mark.parametrize("seed", range(SCHEDULES))
async def test_a_random_schedule_of_deaths_loses_and_repeats_nothing(kafka_connection: Connection, seed: int):
    async with log_of(kafka_connection, TWO) as log, group_of(log) as group:
        schedule = Schedule(seed, log, group)
        await schedule.run()
        check(schedule)
