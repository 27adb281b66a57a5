"""
Fan-out and lanes without the engine: a test hands them batches, commits, and lets them die or freeze where it likes.

The log is a real one. `Group` keeps what a consumer group keeps; `Owner` is one worker of one generation, and does for
its processors what the consumer does, a step at a time.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, ConsumerRecord, TopicPartition
from aiokafka.errors import MessageSizeTooLargeError

from schemas.profiles import Ordering
from services.dispatcher.attempt import Attempts
from services.dispatcher.fan_out import FanOut
from services.dispatcher.lane import Pace
from services.dispatcher.lanes import Lanes
from services.dispatcher.pacing import Pacing
from services.dispatcher.retries import Retries
from services.dispatcher.sender import Answer, MaySend, Request, Withheld, always
from services.dispatcher.standing import Standing
from services.dispatcher.together import Together
from services.vault.seal import Keyring
from streams import codec, topics
from streams.engine.processor import Assignment, Batch, Processor, ReadAt, floor_of
from streams.follower import Follower
from streams.ledger import Ledger
from streams.quarantine import Quarantine
from streams.records import Delivery, Record, Result
from streams.states import States
from streams.topics import Topic
from streams.views import Apps, Integrations
from tests.logs import Log


class MortalProducer:
    """
    A producer that stands still after so many records: what is sent then is neither on the broker nor answered.

    A worker that was killed leaves it so; one that was frozen sends the rest when it wakes (`thaw`).
    """

    def __init__(self, real: AIOKafkaProducer) -> None:
        self._real = real
        #: Records that it still appends; None: all.
        self.left: int | None = None
        #: What it holds by itself while what comes behind it goes out: a batch that found no leader.
        self.holds: Callable[[Record], bool] | None = None
        #: What `send` raises from now on; None: nothing.
        self.dies_of: Exception | None = None
        self._appending: list[asyncio.Future[Any]] = []
        self._held: list[tuple[tuple[Any, ...], dict[str, Any], asyncio.Future[Any]]] = []

    async def send(self, *args: Any, **kwargs: Any) -> "asyncio.Future[Any]":
        if self.dies_of is not None:
            raise self.dies_of
        if self.left == 0 or (self.holds is not None and self.holds(codec.decode(args[1]))):
            future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
            self._held.append((args, kwargs, future))
            return future
        if self.left is not None:
            self.left -= 1
        future = await self._real.send(*args, **kwargs)
        self._appending.append(future)
        return future

    def held(self, topic: str) -> int:
        """Records for this topic that were sent after it stood still."""
        return sum(args[0] == topic for args, _, _ in self._held)

    @property
    def stands_still(self) -> bool:
        """Whether somebody waits for a record that does not go out, and all before it are on the broker."""
        return bool(self._held) and all(future.done() for future in self._appending)

    async def send_and_wait(self, *args: Any, **kwargs: Any) -> Any:
        return await (await self.send(*args, **kwargs))

    async def thaw(self) -> None:
        """What was held goes out, in order, and so does what comes of it."""
        self.left = self.holds = None
        while self._held:
            args, kwargs, future = self._held.pop(0)
            appended = await self._real.send_and_wait(*args, **kwargs)
            if not future.done():
                future.set_result(appended)


class Producers:
    """
    Those of one worker, as `services.dispatcher.app` has them: each stands still by itself.

    What is set here is set for each; what is asked is asked of all.
    """

    def __init__(self, real: AIOKafkaProducer) -> None:
        self.of_deliveries, self.of_results, self.of_retries = self.each = tuple(MortalProducer(real) for _ in range(3))

    def stop_after(self, left: int) -> None:
        """Each appends so many records more."""
        for each in self.each:
            each.left = left

    def die_of(self, error: Exception) -> None:
        """Each raises this for whatever is sent from now on."""
        for each in self.each:
            each.dies_of = error

    async def thaw(self, order: Sequence[int] = (0, 1, 2)) -> None:
        """What was held goes out, of one after the other."""
        for number in order:
            await self.each[number].thaw()


@dataclass
class Courier:
    """The lanes' `Deliverer`: notes what it would have sent, and answers when the test lets it."""

    ordering: Ordering = "integration"
    max_in_flight: int = 100
    #: Ids of deliveries in the order of their attempts, and who sent them.
    sent: list[Delivery] = field(default_factory=list)
    #: Deliveries (by their events' ids) that get no answer before the event is set.
    hanging: dict[str, asyncio.Event] = field(default_factory=dict)
    #: Changes of the result, by event; and of the results of its first attempts, in order.
    answers: dict[str, dict[str, Any]] = field(default_factory=dict)
    at_first: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    #: By integration, where it is not that of all.
    paces: dict[str, Pace] = field(default_factory=dict)
    raises: set[str] = field(default_factory=set)
    #: By integration, where it is not `send`.
    standings: dict[str, Standing] = field(default_factory=dict)
    #: Integrations whose secrets wait for a key.
    locked: set[str] = field(default_factory=set)
    #: Requests that hang now.
    waiting: int = 0

    async def reach(self, config_offset: int) -> None:
        """Everything is known."""

    def pace(self, integration: str) -> Pace:
        return self.paces.get(integration) or Pace(self.ordering, self.max_in_flight)

    def is_locked(self, integration: str) -> bool:
        return integration in self.locked

    def standing(self, integration: str) -> Standing:
        return self.standings.get(integration, "send")

    def fallen_out(self, delivery: Delivery, read_at: ReadAt) -> Result:
        return result_of(delivery, read_at, outcome="discarded", reason="retention", attempt=0)

    async def attempt(self, delivery: Delivery, read_at: ReadAt, may_send: MaySend, trace: Any = None) -> Result:
        if not may_send():
            raise Withheld
        self.sent.append(delivery)
        if delivery.event_id in self.raises:
            raise RuntimeError("a bug of ours")
        if (event := self.hanging.get(delivery.event_id)) is not None:
            self.waiting += 1
            try:
                await event.wait()
            finally:
                self.waiting -= 1
        if first := self.at_first.get(delivery.event_id):
            return result_of(delivery, read_at, **first.pop(0))
        return result_of(delivery, read_at, **self.answers.get(delivery.event_id, {}))


class Configured(Courier):
    """Decides as the dispatcher does, by the configuration on the log; what it sends is answered with 200 at once."""

    def __init__(self, group: "Group") -> None:
        super().__init__()
        self._attempts = Attempts(
            config=group.config,
            integrations=group.integrations,
            apps=Apps(),
            states=States(),
            keyring=Keyring(bytes(32)),
            sender=self,
            brand="X-Brand",
            version="0",
            now_ms=lambda: group.now_ms,
            together=Together(Pacing()),
        )
        self.reach = self._attempts.reach  # type: ignore[method-assign]
        self.pace = self._attempts.pace  # type: ignore[method-assign]
        self.is_locked = self._attempts.is_locked  # type: ignore[method-assign]
        self.standing = self._attempts.standing  # type: ignore[method-assign]
        self.fallen_out = self._attempts.fallen_out  # type: ignore[method-assign]

    async def attempt(self, delivery: Delivery, read_at: ReadAt, may_send: MaySend, trace: Any = None) -> Result:
        result = await self._attempts.attempt(delivery, read_at, may_send, trace)
        if result.attempt:
            self.sent.append(delivery)
        return result

    async def send(self, _request: Request, may_send: MaySend = always) -> Answer:
        if not may_send():
            raise Withheld
        return Answer(status=200)

    async def close(self) -> None:
        """Nothing is open."""


def result_of(delivery: Delivery, read_at: ReadAt, **changes: Any) -> Result:
    fields: dict[str, Any] = {
        "delivery_id": delivery.delivery_id,
        "integration": delivery.integration,
        "app": delivery.app,
        "record_id": delivery.record_id,
        "event_id": delivery.event_id,
        "type": delivery.type,
        "cause": delivery.cause,
        "attempt": delivery.attempt,
        "outcome": "delivered",
        "reason": "status_200",
        "epoch": 1,
        "config_version": 1,
        "url": "",
        "request_headers": {},
        "response_headers": {},
        "response_body": b"",
        "response_truncated": False,
        "started_at_ms": 0,
        "finished_at_ms": 0,
        "accepted_at_ms": delivery.accepted_at_ms,
        "source_partition": read_at.partition,
        "source_offset": read_at.offset,
        "source_generation": read_at.generation,
    }
    return Result(**fields | changes)


class Group:
    """What outlives the workers: committed offsets with their floors, and the generation."""

    def __init__(self, log: Log, reader: "AIOKafkaConsumer[Any, Any]", config: Follower, integrations: Integrations):
        self.log = log
        self.generation = 0
        #: What the lanes of every worker take for the time.
        self.now_ms = 0
        self.stored: dict[TopicPartition, tuple[int, str]] = {}
        self.config = config
        self.integrations = integrations
        self._reader = reader

    async def next_owner(self, courier: Courier | None = None, **changes: Any) -> "Owner":
        """A worker that takes everything over, in a generation of its own."""
        self.generation += 1
        owner = Owner(self, courier or Courier(), self.generation, **changes)
        await owner.take_over()
        return owner

    def goes_on_from(self, before: "Group") -> None:
        """What the broker keeps of a group whose processes are gone."""
        self.generation, self.stored = before.generation, before.stored

    async def end(self, partition: TopicPartition) -> int:
        return int((await self._reader.end_offsets([partition]))[partition])

    async def read(self, partition: TopicPartition, start: int, end: int) -> list["ConsumerRecord[Any, Any]"]:
        """The records of this range."""
        self._reader.assign([partition])
        self._reader.seek(partition, start)
        found: list[ConsumerRecord[Any, Any]] = []
        while start + len(found) < end:
            found += (await self._reader.getmany(partition, timeout_ms=500)).get(partition, [])
        return found[: end - start]


@asynccontextmanager
async def group_of(log: Log) -> AsyncIterator[Group]:
    """A group without workers, for the time of the block."""
    integrations = Integrations()
    config = Follower(log.connection, topics.INTEGRATION_CONFIG, integrations.apply)
    reader: AIOKafkaConsumer[Any, Any] = AIOKafkaConsumer(
        bootstrap_servers=log.connection.bootstrap, fetch_max_wait_ms=20
    )
    await config.start()
    await reader.start()
    try:
        yield Group(log, reader, config, integrations)
    finally:
        await reader.stop()
        await config.stop()


class Owner:
    """One worker: a fan-out and lanes, their producers, and the ledgers of all partitions."""

    def __init__(self, group: Group, courier: Courier, generation: int, **changes: Any) -> None:
        """*changes*: of what the lanes are given."""
        self.group = group
        self.log = log = group.log
        self.courier = courier
        self.generation = generation
        self.producers = Producers(log.producer)
        self.fatal: list[Exception] = []
        #: Whether the group is known to count it among its members.
        self.is_confirmed = True
        #: As they were handed over.
        self.batches: list[Batch] = []
        self._ledgers: dict[TopicPartition, Ledger] = {}
        self._working: set[asyncio.Task[None]] = set()
        self.pacing = Pacing()
        shared: dict[str, Any] = {
            "connection": log.connection,
            "partitions": log.partitions,
            "worker_id": f"worker-{generation}",
            "now_ms": lambda: group.now_ms,
            "on_fatal": self.fatal.append,
            "pacing": self.pacing,
        }
        self.fan_out = FanOut(
            config=group.config,
            integrations=group.integrations,
            ask_ends=_no_ends,
            **shared | self._written_by(self.producers.of_deliveries),
        )
        self.lanes = Lanes(
            deliverer=courier,
            retries=Retries(log.connection, self.producers.of_retries),  # type: ignore[arg-type]
            may_start=lambda: self.is_confirmed,
            session_timeout_ms=6_000,
            **shared | self._written_by(self.producers.of_results) | changes,
        )

    def _written_by(self, producer: MortalProducer) -> dict[str, Any]:
        quarantine = Quarantine(producer, self.log.connection, "test", lambda: 0)  # type: ignore[arg-type]
        return {"producer": producer, "quarantine": quarantine}

    def partitions(self, topic: Topic) -> list[TopicPartition]:
        count = topics.partition_count(topic, self.log.partitions)
        return [TopicPartition(self.log.connection.topic(topic), number) for number in range(count)]

    def processor(self, partition: TopicPartition) -> Processor:
        return self.lanes if partition.topic == self.log.connection.topic(topics.DELIVERIES) else self.fan_out

    def stands_still(self, topic: str) -> bool:
        """Whether a producer does through which goes what comes of this topic's records, by its full name."""
        producers = self.producers
        is_delivered = topic == self.log.connection.topic(topics.DELIVERIES)
        writers = (producers.of_results, producers.of_retries) if is_delivered else (producers.of_deliveries,)
        return any(each.stands_still for each in writers)

    async def take_over(self) -> None:
        for topic in (topics.EVENTS, topics.DELIVERIES):
            partitions = self.partitions(topic)
            stored = {each.partition: self.group.stored.get(each, (0, "")) for each in partitions}
            floors = {number: floor for number, (_, floor) in stored.items()}
            starts = {number: start for number, (start, _) in stored.items()}
            await self.processor(partitions[0]).take_over(Assignment(self.generation, floors, starts))
            for each in partitions:
                self._ledgers[each] = Ledger(starts[each.partition])

    async def hand_over(self, partition: TopicPartition, at_most: int = 1_000) -> None:
        """The partition's next records; returns when the processor has taken them, or stands still."""
        ledger, processor = self._ledgers[partition], self.processor(partition)
        end = min(await self.group.end(partition), ledger.position + at_most)
        records = await self.group.read(partition, ledger.position, end)
        if not records:
            return
        sizes = ((record.offset, len(record.value or b"")) for record in records)
        ledger.take(sizes, processor.floor(partition.partition))
        batch = Batch(partition.partition, self.generation, records, ledger)
        self.batches.append(batch)
        work = asyncio.create_task(processor.process(batch))
        self._working.add(work)
        await until(lambda: work.done() or self.stands_still(partition.topic))
        if work.done():
            work.result()

    async def hand_over_all(self, topic: Topic) -> None:
        for partition in self.partitions(topic):
            await self.hand_over(partition)

    async def work_through(self) -> None:
        """Everything there is, to its end."""
        await self.hand_over_all(topics.EVENTS)
        await self.hand_over_all(topics.DELIVERIES)
        await self.lanes_are_still()

    async def lanes_are_still(self) -> None:
        """Until every request waits for its receiver or for the producer."""
        results = self.log.connection.topic(topics.RESULTS)
        await until(lambda: self.lanes.in_flight == self.courier.waiting + self.producers.of_results.held(results))

    def commit(self) -> None:
        """What the consumer would commit now."""
        for partition, ledger in self._ledgers.items():
            floor = floor_of(self.processor(partition), partition.partition, ledger)
            self.group.stored[partition] = ledger.committable, floor

    def unfinished(self, topic: Topic) -> int:
        return sum(self._ledgers[each].unfinished_records for each in self.partitions(topic))

    async def leave(self) -> None:
        """As at a rebalance: what is under way goes on, and its results are written."""
        await self.lanes.settle(5)
        await self.fan_out.settle(5)
        self.commit()

    async def die(self) -> None:
        """As by `kill -9`: nothing more is sent, nothing committed."""
        self.producers.stop_after(0)
        for work in self._working:
            work.cancel()
        for result in await asyncio.gather(*self._working, return_exceptions=True):
            if isinstance(result, Exception) and not isinstance(result, MessageSizeTooLargeError):
                raise result
        await self.lanes.settle(0)
        await self.lanes.finish_leaving(0)
        await self.fan_out.settle(0)


async def until(holds: Callable[[], bool], within_s: float = 30.0) -> None:
    """Returns when it holds."""
    async with asyncio.timeout(within_s):
        while not holds():  # noqa: ASYNC110  # what is waited for tells nobody
            await asyncio.sleep(0.002)


async def _no_ends(_partitions: Any) -> dict[TopicPartition, int]:
    return {}
