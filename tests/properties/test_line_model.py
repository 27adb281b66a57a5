"""
Lines through pauses, detachments, kills, freezes and rebalances, at every point between two records.

The model: one partition of `deliveries` with three integrations of any ordering, worked on by the real lanes over a
log in memory (`tests/simulated.py`). Hypothesis draws what happens, and what the broker appends and acknowledges when.
Claims:

1. nothing is lost: in the end every delivery has its outcome, or another attempt of it waits in a retry topic;
2. nothing that has a result is attempted again, and an attempt is made again only where its process died under it;
3. order: `integration`, `strict` and `key` as the contract has them, also across workers;
4. an attempt that keeps its place is never made before it is due;
5. while an integration is held, or its secrets wait for a key, nothing of it is sent;
6. bounds: what an attached line has in line, what a detached one has read ahead, what a row lists;
7. what is held is not read at a takeover;
8. a row counts what came by of its integration from its frontier on, and copies that a frozen worker appended, which
   nobody sends, as long as they have not been read.
9. what a line wants is read for it, whoever woke the reader for what.
"""

import asyncio
from collections import Counter, defaultdict
from contextlib import ExitStack
from typing import Any
from unittest import mock

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from schemas.profiles import MAX_TIMEOUT_MS
from services.dispatcher import catch_up
from services.dispatcher.lane import Pace, key_of
from services.dispatcher.lanes import TICK_S
from services.dispatcher.sender import NoResources
from streams import codec, topics
from streams.engine.app import Bounds
from streams.lane_rows import LaneRows
from streams.records import Delivery, HandOver, LaneRow, Marker, Result
from tests.simulated import (
    CONNECTION,
    DELIVERIES,
    RESULTS,
    RETRIES,
    ROWS,
    Broker,
    Endpoint,
    Flying,
    SimulatedLoop,
    Worker,
    delivery_of,
    now_ms,
    simulation,
    spin,
)

NAMES = ("int_a", "int_b", "int_c")
PACES = st.sampled_from([Pace("integration", 3), Pace("strict", 3), Pace("key", 2), Pace("key", 5), Pace("none", 3)])
KEEP = ("strict", "key")
#: So few that lines are detached for the room that they take, too.
BOUNDS = Bounds(unfinished_records=60)
#: So little of what is read again is handed out at once that much happens between.
SLOW_TURNS = {"HANDED_OUT": 2, "TURN_S": 0.01, "TURN_AMIDST_S": 0.02}


class Lines(RuleBasedStateMachine):
    """See the module's docstring."""

    loop: SimulatedLoop
    broker: Broker
    endpoint: Endpoint
    worker: Worker

    @initialize(paces=st.tuples(PACES, PACES, PACES))
    def begin(self, paces: tuple[Pace, ...]) -> None:
        self.stack = ExitStack()
        self.loop, self.broker = self.stack.enter_context(simulation())
        for name, value in SLOW_TURNS.items():
            self.stack.enter_context(mock.patch.object(catch_up, name, value))
        self.endpoint = Endpoint(dict(zip(NAMES, paces, strict=True)), on_start=self.has_started)
        #: By name: offsets of its deliveries on the log.
        self.offsets: dict[str, list[int]] = defaultdict(list)
        self.at: dict[int, Delivery] = {}
        self.starts: Counter[tuple[str, int]] = Counter()
        self.died_under: Counter[tuple[str, int]] = Counter()
        self.frozen: Worker | None = None
        self.left: list[Worker] = []
        self.numbers = 0
        self.broken: list[AssertionError] = []
        events = CONNECTION.topic(topics.EVENTS)
        marker = Marker(source_topic=events, source_partition=0, generation=1, owner="", at_ms=0)
        self.broker.append(DELIVERIES, None, codec.encode(marker))
        self.take_over()

    def teardown(self) -> None:
        if hasattr(self, "stack"):
            try:
                self.finish()
            finally:
                self.stack.close()

    # -- what happens to the log -----------------------------------------------------------------------------

    @rule(events=st.lists(st.tuples(st.sampled_from(NAMES), st.integers(0, 2)), min_size=1, max_size=12))
    def append(self, events: list[tuple[str, int]]) -> None:
        for name, key in events:
            self.numbers += 1
            delivery = delivery_of(name, self.numbers, ordering_key=f"k{key}")
            offset = self.broker.append(DELIVERIES, name.encode(), codec.encode(delivery))
            self.offsets[name].append(offset)
            self.at[offset] = delivery

    @rule(name=st.sampled_from(NAMES), count=st.integers(20, 60))
    def append_many(self, name: str, count: int) -> None:
        self.append([(name, number % 3) for number in range(count)])

    @rule(names=st.lists(st.sampled_from(NAMES), min_size=1, max_size=4))
    def append_late(self, names: list[str]) -> None:
        """A worker that fanned out wakes, and appends what its successor has appended."""
        for name in names:
            copy = delivery_of(name, self.numbers, ordering_key="k0", source_generation=0)
            self.broker.append(DELIVERIES, name.encode(), codec.encode(copy))

    @rule(choices=st.lists(st.integers(0, 3), max_size=6), acknowledged=st.integers(0, 4))
    def broker_goes_on(self, choices: list[int], acknowledged: int) -> None:
        for choice in choices:
            self.worker.producer.append_one(choice)
        for number in range(acknowledged):
            self.worker.producer.acknowledge_one(number)
        self.worker.spin()

    @rule()
    def broker_flows(self) -> None:
        self.worker.producer.flows = True
        self.flow()

    @rule()
    def broker_stands_still(self) -> None:
        self.worker.producer.flows = False

    # -- what the worker does --------------------------------------------------------------------------------

    @rule(most=st.integers(1, 40))
    def process(self, most: int) -> None:
        self.worker.process(most)
        self.worker.spin()

    @rule()
    def commit(self) -> None:
        self.worker.commit()

    @rule(name=st.sampled_from(NAMES), reason=st.sampled_from(["behind", "blocked"]))
    def fall_behind(self, name: str, reason: Any) -> None:
        """It would take thousands of deliveries to come to that by itself."""
        line = self.worker.lanes._lines.get(name)
        if line is not None and not line.is_detached and self.endpoint.standing(name) == "send":
            self.in_worker(lambda: self.worker.lanes._detaching.detach(line, reason))

    @rule(name=st.sampled_from(NAMES), standing=st.sampled_from(["send", "hold", "hold", "discard"]))
    def set_standing(self, name: str, standing: Any) -> None:
        self.endpoint.standings[name] = standing
        self.in_worker(lambda: self.worker.lanes.wake(name))

    @rule(name=st.sampled_from(NAMES), is_locked=st.booleans())
    def set_locked(self, name: str, is_locked: bool) -> None:
        """Nobody tells the lanes."""
        (self.endpoint.locked.add if is_locked else self.endpoint.locked.discard)(name)

    @rule(
        choices=st.lists(st.tuples(st.integers(0, 20), st.booleans(), st.integers(100, 9_000)), min_size=1, max_size=8)
    )
    def answer(self, choices: list[tuple[int, bool, int]]) -> None:
        for number, succeeds, after_ms in choices:
            flying = [each for each in self.endpoint.flying if not each.answer.done()]
            if flying:
                self.answer_one(flying[number % len(flying)], succeeds=succeeds, after_ms=after_ms)
                self.spin()

    @rule(for_s=st.sampled_from([0.3, 0.3, 1.2, 3.0, 11.0]))
    def time_goes_by(self, for_s: float) -> None:
        for flying in list(self.endpoint.flying):
            limit_s = flying.since_s + MAX_TIMEOUT_MS / 1_000
            if limit_s < self.loop.time() + for_s:
                self.answer_one(flying, succeeds=False, after_ms=100)
        self.spin()
        self.sleep(for_s)
        if for_s > 2 * TICK_S:
            lanes = self.worker.lanes
            assert not [name for name, line in lanes._lines.items() if line.is_detached and lanes.wants(line)]

    @rule()
    def sockets_run_out(self) -> None:
        self.endpoint.failures.append(NoResources(24, "no file left"))

    # -- what happens to workers -----------------------------------------------------------------------------

    @rule()
    def kill(self) -> None:
        self.dies(self.worker)
        self.worker.kill()
        self.take_over()

    @rule()
    def kill_one_that_left(self) -> None:
        if self.left:
            gone = self.left.pop()
            self.dies(gone)
            gone.kill()

    @rule(connects=st.booleans())
    def rebalance(self, connects: bool) -> None:
        if connects:
            self.connect()
        if self.worker.producer.flows:
            self.flow()
            self.worker.leave()
            self.left.append(self.worker)
        else:
            self.dies(self.worker)
            self.worker.kill()
        self.take_over()

    @precondition(lambda self: self.frozen is None)
    @rule(connects=st.booleans())
    def freeze(self, connects: bool) -> None:
        if connects:
            self.connect()
        self.dies(self.worker)
        self.frozen = self.worker
        self.frozen.producer.flows = self.frozen.is_confirmed = False
        self.take_over()

    @precondition(lambda self: self.frozen is not None)
    @rule()
    def thaw(self) -> None:
        """It wakes: what it had sent is appended, then it hears that it has been replaced."""
        assert self.frozen is not None
        for _ in range(2):
            before = {name: len(results) for name, results in self.broker.results.items()}
            self.frozen.producer.flow()
            # Behind its successor's marker: that one makes the attempt again.
            for name, results in self.broker.results.items():
                del results[before.get(name, 0) :]
            self.spin()
        self.frozen.kill()
        self.frozen = None

    def connect(self) -> None:
        """Attempts are being made, and no byte of them is out before a successor has taken over."""
        self.endpoint.is_reached.clear()
        self.append([(name, 0) for name in NAMES])
        self.worker.process(40)
        self.worker.spin()

    # -- how -------------------------------------------------------------------------------------------------

    def spin(self) -> None:
        self.loop.run_until_complete(spin())

    def sleep(self, for_s: float) -> None:
        self.loop.run_until_complete(asyncio.sleep(for_s))
        self.spin()

    def in_worker(self, call: Any) -> None:
        async def work() -> None:
            call()
            await spin()

        self.worker.run(work)

    def flow(self) -> None:
        self.worker.producer.flow()
        self.spin()
        self.check_bounds()

    def take_over(self) -> None:
        held = {row.integration: row for row in self.rows() if self.endpoint.standing(row.integration) == "hold"}
        before = self.broker.fetched[DELIVERIES]
        self.worker = Worker(self.broker, self.endpoint, bounds=BOUNDS)
        self.worker.take_over()
        assert self.worker.lanes.in_flight <= sum(len(row.open) for row in self.rows())
        if len(held) == len(self.rows()) and not any(row.floor is not None for row in held.values()):
            assert self.broker.fetched[DELIVERIES] == before, "read at a takeover although it is held"
        self.endpoint.is_reached.set()
        self.spin()

    def rows(self) -> tuple[LaneRow, ...]:
        rows = LaneRows()
        for record in self.broker.partitions[ROWS]:
            rows.apply(0, record.key, record.value, record.offset)
        return rows.all()

    def answer_one(self, flying: Flying, *, succeeds: bool, after_ms: int) -> None:
        if flying.answer.done():
            return
        answer: dict[str, Any] = {}
        attempt = flying.delivery.attempt
        if not succeeds and attempt < 3:
            keeps = self.endpoint.pace_of[flying.delivery.integration].ordering in KEEP
            answer = {
                "outcome": None,
                "next_attempt": attempt + 1,
                "next_due_at_ms": now_ms() + after_ms,
                "next_slot": None if keeps else 1,
            }
        elif not succeeds:
            answer = {"outcome": "exhausted"}
        flying.answer.set_result(answer)

    def dies(self, worker: Worker) -> None:
        """What is in flight in it, from the first byte until its result is on the broker, may be repeated."""
        recorded = {(each.delivery_id, each.attempt) for each in self.results()}
        mine = {pair for pair, worker_of in self.last_worker.items() if worker_of is worker}
        for pair in mine - recorded:
            self.died_under[pair] += 1

    def results(self) -> list[Result]:
        return [each for results in self.broker.results.values() for each in results]

    @property
    def last_worker(self) -> dict[tuple[str, int], Worker]:
        if not hasattr(self, "_last_worker"):
            self._last_worker: dict[tuple[str, int], Worker] = {}
        return self._last_worker

    # -- claims ----------------------------------------------------------------------------------------------

    def has_started(self, flying: Flying) -> None:
        """Kept, since the lanes take what is raised here for a fault of ours that ends the delivery."""
        try:
            self.check_start(flying)
        except AssertionError as error:
            self.broken.append(error)

    def check_start(self, flying: Flying) -> None:
        delivery, offset = flying.delivery, flying.read_at.offset
        name, pair = delivery.integration, (delivery.delivery_id, delivery.attempt)
        assert self.endpoint.standing(name) == "send"
        assert name not in self.endpoint.locked
        assert flying.worker is self.worker, "a worker that was replaced started a request"
        self.starts[pair] += 1
        self.last_worker[pair] = flying.worker
        of = self.broker.results.get(delivery.delivery_id, [])
        assert all(each.outcome is None for each in of), f"{pair} has its outcome"
        assert all(each.attempt < delivery.attempt for each in of), f"{pair} has its result"
        assert self.starts[pair] <= 1 + self.died_under[pair], f"{pair} was in flight in a process that did not die"
        if delivery.attempt > 1:
            due = max(each.next_due_at_ms or 0 for each in of)
            assert now_ms() >= due
        self.check_order(name, offset, delivery)

    def check_order(self, name: str, offset: int, delivery: Delivery) -> None:
        ordering = self.endpoint.pace_of[name].ordering
        if ordering == "none":
            return
        before = [self.at[each] for each in self.offsets[name] if each < offset]
        if ordering == "key":
            before = [each for each in before if key_of(each) == key_of(delivery)]
        for each in before:
            results = self.broker.results.get(each.delivery_id, [])
            is_done = any(ordering == "integration" or result.outcome is not None for result in results)
            assert is_done, f"{delivery.delivery_id} overtook {each.delivery_id}"

    @invariant()
    def nothing_is_broken(self) -> None:
        for error in getattr(self, "broken", []):
            raise error

    @invariant()
    def what_is_tracked_is_counted(self) -> None:
        for line in self.worker.lanes._lines.values() if hasattr(self, "worker") else ():
            tracked = [entry for entry in line.lane.entries() if entry.batch is not None]
            assert line.lane.tracked == len(tracked)
            assert line.lane.tracked_bytes == sum(len(entry.batch.records[0].value) for entry in tracked)

    def check_bounds(self) -> None:
        for line in self.worker.lanes._lines.values():
            pace = self.endpoint.pace(line.integration)
            assert len(line.lane.running) <= (1 if pace.ordering in ("integration", "strict") else pace.max_in_flight)
        for row in self.rows():
            offsets = [each.offset for each in row.open]
            assert offsets == sorted(set(offsets))
            assert all(offset < row.frontier for offset in offsets)
            came = self.broker.partitions[DELIVERIES][row.frontier : row.held_to]
            assert row.held == sum(each.key == row.integration.encode() for each in came), row

    def finish(self) -> None:
        """Nothing fails any more: everything comes to its end."""
        self.endpoint.locked.clear()
        self.endpoint.failures.clear()
        for name in NAMES:
            self.endpoint.standings[name] = "send"
        if self.frozen is not None:
            self.thaw()
        self.worker.producer.flows = True
        self.flow()
        for name in NAMES:
            self.in_worker(lambda name=name: self.worker.lanes.wake(name))
        self.endpoint.at_once = {}
        for _ in range(40):
            for flying in list(self.endpoint.flying):
                self.answer_one(flying, succeeds=True, after_ms=0)
            self.worker.process(1_000)
            self.sleep(1.5)
            self.flow()
            if self.is_done():
                break
        self.nothing_is_broken()
        assert self.worker.fatal == []
        assert self.worker.aside == []
        assert self.is_done(), self.state()
        assert [self.worker.lanes._recorded.left_floor(name) for name in NAMES] == [None] * len(NAMES)
        ended = Counter(each.delivery_id for each in self.results() if each.outcome is not None)
        waiting = {(each.delivery_id, each.attempt) for each in self.broker.read(RETRIES) if isinstance(each, Delivery)}
        for delivery in self.at.values():
            is_waiting = (delivery.delivery_id, 2) in waiting
            assert ended[delivery.delivery_id] or is_waiting, f"{delivery.delivery_id} is lost"
            assert not (ended[delivery.delivery_id] and is_waiting), f"{delivery.delivery_id} would be sent again"

    def is_done(self) -> bool:
        worker = self.worker
        return (
            worker.ledger.position == len(self.broker.partitions[DELIVERIES])
            and not worker.ledger.unfinished_records
            and not worker.lanes._lines
            and not self.rows()
        )

    def state(self) -> str:
        lines = {
            name: (line.is_detached, line.until, line.read_from, line.lane.queued, line.lane.opened, line.is_dirty)
            for name, line in self.worker.lanes._lines.items()
        }
        hand_overs = [each for each in self.broker.read(RESULTS) if isinstance(each, HandOver)]
        return f"{lines} {self.rows()} {self.worker.ledger.unfinished_records} {len(hand_overs)} {self.endpoint.flying}"


TestLines = Lines.TestCase
TestLines.settings = settings(
    max_examples=30,
    stateful_step_count=30,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
