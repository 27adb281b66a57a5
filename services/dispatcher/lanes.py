"""
The lanes agent: deliveries, in line per integration, become attempts and their results.

One lane an integration; no lane waits for another. A delivery is finished when its result is on the broker,
and, where the ordering keeps a line, only then does the next one start. What is taken and waits is bounded by
the ledger of its partition, which pauses above the bound.
"""

import asyncio
from collections.abc import Callable
from typing import Any, Final, Protocol

import structlog
from aiokafka import AIOKafkaProducer, ConsumerRecord, TopicPartition
from aiokafka.errors import KafkaError

from schemas.profiles import Ordering
from services.dispatcher.lane import Lane
from services.dispatcher.recorded import Recorded
from streams import codec, takeover, topics
from streams.connection import Connection
from streams.engine.processor import Assignment, Batch, ReadAt
from streams.quarantine import Quarantine
from streams.records import Delivery, Marker, Result
from streams.takeover import Ends
from streams.topics import Partitions

log = structlog.get_logger("dispatcher.lanes")

#: How often a worker that was frozen, or has lost its broker, looks whether it may go on.
CONFIRMED_POLL_S: Final = 0.05


class Deliverer(Protocol):
    """Makes the attempts. See `attempt.py`."""

    async def reach(self, config_offset: int) -> None:
        """Wait until the configuration is known up to this offset."""

    def pace(self, integration: str) -> tuple[Ordering, int]:
        """Ordering and how many requests at once."""

    async def attempt(self, delivery: Delivery, read_at: ReadAt) -> Result:
        """One attempt, or the outcome of a delivery that ends without one; where it was read goes into the result."""


class _Waiting:
    """A delivery in line, and its record in a batch of its own: one that waits must not keep a thousand in memory."""

    __slots__ = ("batch", "delivery")

    def __init__(self, delivery: Delivery, batch: Batch) -> None:
        self.delivery = delivery
        self.batch = batch

    @property
    def record(self) -> "ConsumerRecord[Any, Any]":
        return self.batch.records[0]


class Lanes:
    """The processor of topic `deliveries`. See the module's docstring, and `streams.engine.processor.Processor`."""

    def __init__(
        self,
        *,
        connection: Connection,
        partitions: Partitions,
        producer: AIOKafkaProducer,
        deliverer: Deliverer,
        quarantine: Quarantine,
        worker_id: str,
        now_ms: Callable[[], int],
        on_fatal: Callable[[Exception], None],
        may_start: Callable[[], bool],
    ) -> None:
        """
        Args:
            on_fatal: told when nothing can be recorded any more; the process has to end.
            may_start: whether this worker is known to be a member of its group: one that was frozen sends nothing.
        """
        self._on_fatal = on_fatal
        self._may_start = may_start
        self._connection = connection
        self._producer = producer
        self._deliverer = deliverer
        self._quarantine = quarantine
        self._worker_id = worker_id
        self._now_ms = now_ms
        self._deliveries = connection.topic(topics.DELIVERIES)
        self._results = [
            TopicPartition(connection.topic(topics.RESULTS), number) for number in range(partitions.by_integration)
        ]
        self._ends = Ends()
        self._lanes: dict[str, Lane[_Waiting]] = {}
        self._runners: set[asyncio.Task[None]] = set()
        self._is_open = False
        self._recorded = Recorded(connection.topic(topics.EVENTS), partitions.by_app)

    # -- takeover --------------------------------------------------------------------------------------------

    async def take_over(self, assignment: Assignment) -> None:
        """Mark and read back the results: what has one is not sent again."""
        starts = self._recorded.begin(assignment.floors)
        targets = {
            self._results[p]: [
                Marker(
                    source_topic=self._deliveries,
                    source_partition=p,
                    generation=assignment.generation,
                    owner=self._worker_id,
                    at_ms=self._now_ms(),
                )
            ]
            for p in assignment.floors
        }
        try:
            marked = await takeover.mark(self._producer, targets, self._ends)
        except KafkaError as error:
            self._on_fatal(error)
            raise
        spans = {self._results[p]: (start, marked[self._results[p]]) for p, start in starts.items()}
        await takeover.read_back(self._connection, spans, lambda record: self._recorded.see(record, assignment.starts))
        if found := self._recorded.hold(assignment.floors):
            log.info("takeover.found", results=found)
        self._is_open = True

    def floor(self, partition: int) -> str:
        """See `Recorded.floor`."""
        return self._recorded.floor(partition, self._ends.of(self._results[partition]))

    async def settle(self, timeout_s: float) -> None:
        """Start nothing more; requests in flight get their results written, or are cut off after the timeout."""
        self._is_open = False
        self._lanes = {}
        if self._runners:
            _, late = await asyncio.wait(self._runners, timeout=timeout_s)
            for task in late:
                task.cancel()
            if late:
                log.warning("settle.cut_off", requests=len(late), timeout_s=timeout_s)
                await asyncio.gather(*late, return_exceptions=True)

    @property
    def in_flight(self) -> int:
        """Requests under way or about to be."""
        return len(self._runners)

    # -- work ------------------------------------------------------------------------------------------------

    async def process(self, batch: Batch) -> None:
        """Put the batch into its lanes; records are finished as their results come onto the broker."""
        self._recorded.passed(batch.partition, batch.records[-1].offset)
        due = [item for record in batch.unfinished() if (item := await self._due(batch, record)) is not None]
        if not due:
            return
        # Deliveries were made under this configuration; until it is known here, a deleted integration
        # cannot be told from one that is yet to come.
        await self._deliverer.reach(max(item.delivery.config_offset for item in due))
        for item in due:
            self._lane(item.delivery.integration).add(item, item.delivery.ordering_key)
        for integration in dict.fromkeys(item.delivery.integration for item in due):
            self._start(integration)

    async def _due(self, batch: Batch, record: "ConsumerRecord[Any, Any]") -> _Waiting | None:
        """The delivery that this record is, where there is one to make; else the record is finished."""
        try:
            found = codec.decode(record.value)
        except codec.Unreadable as error:
            await self._quarantine.put(record, "record.unreadable", str(error))
        else:
            if isinstance(found, Delivery):
                if self._is_due(found, batch, record.offset):
                    return _Waiting(found, batch.alone(record))
            elif isinstance(found, Marker):
                self._recorded.mark(batch.partition, found)
            else:
                await self._quarantine.put(record, "record.unexpected", f"a {type(found).__name__} among deliveries")
        batch.finish(record.offset)
        return None

    def _is_due(self, delivery: Delivery, batch: Batch, offset: int) -> bool:
        if self._recorded.has_ended(batch.partition, offset, delivery):
            return False
        if self._recorded.is_late(batch.partition, delivery):
            log.warning("delivery.set_aside", delivery=delivery.delivery_id, why="appended by a frozen predecessor")
            return False
        return True

    def _lane(self, integration: str) -> Lane[_Waiting]:
        lane = self._lanes.get(integration)
        if lane is None:
            lane = self._lanes[integration] = Lane()
        return lane

    def _start(self, integration: str) -> None:
        lane = self._lanes.get(integration)
        while lane is not None and self._is_open:
            started = lane.start(*self._deliverer.pace(integration))
            if started is None:
                return
            runner = asyncio.create_task(self._run(integration, lane, *started))
            self._runners.add(runner)
            runner.add_done_callback(self._runners.discard)

    async def _run(self, integration: str, lane: Lane[_Waiting], key: str, item: _Waiting) -> None:
        """Deliver this one, then whatever the lane lets start next."""
        while True:
            if not self._may_start() and not await self._is_confirmed():
                lane.end(key)
                return
            try:
                await self._deliver(item)
            except Exception as error:
                # The producer has ended for good: nothing that this worker does can be recorded any more.
                log.exception("result.unrecordable", delivery=item.delivery.delivery_id)
                self._is_open = False
                self._on_fatal(error)
                return
            finally:
                lane.end(key)
            if not self._is_open:
                return
            started = lane.start(*self._deliverer.pace(integration))
            if started is None:
                break
            key, item = started
        if not lane.running and not lane.waiting and self._lanes.get(integration) is lane:
            del self._lanes[integration]

    async def _is_confirmed(self) -> bool:
        """Whether the partition is still ours, once that is known; until then its requests wait."""
        while self._is_open and not self._may_start():  # noqa: ASYNC110  # rare, and nobody tells
            await asyncio.sleep(CONFIRMED_POLL_S)
        return self._is_open

    async def _deliver(self, item: _Waiting) -> None:
        delivery, batch, record = item.delivery, item.batch, item.record
        try:
            result = await self._deliverer.attempt(delivery, ReadAt(batch.partition, record.offset, batch.generation))
            value = codec.encode(result)
        except Exception as error:
            # Ours, not the endpoint's: it must not count as the integration's failure.
            log.exception("attempt.raised", delivery=delivery.delivery_id)
            await self._quarantine.put(record, "attempt.raised", f"the attempt raised {type(error).__name__}")
            batch.finish(record.offset)
            return
        # RETRY: a result that names a next attempt is followed by its record on a retry topic, here, before
        # the delivery is finished. Until that exists `Attempts` ends each delivery with its first attempt.
        target = self._results[batch.partition]
        future = await self._producer.send(
            target.topic, value, key=delivery.integration.encode(), partition=target.partition
        )
        self._ends.saw(target, (await future).offset)
        batch.finish(record.offset)
