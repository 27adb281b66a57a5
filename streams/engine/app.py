"""
The Faust app of a service: settings that lose nothing, our transport, and agents made of processors.

Each agent is an ordinary Faust agent on a topic whose values are batches; it hands them to a line of its
partition, so that partitions go on beside each other while each keeps its order.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Iterable
from dataclasses import dataclass
from typing import Any, ClassVar, Final, cast

import faust
import structlog
from aiokafka import AIOKafkaProducer, ConsumerRecord, TopicPartition
from faust.tables.manager import TableManager
from faust.transport.drivers import aiokafka as driver

from streams.connection import Connection
from streams.engine import pinned
from streams.engine.alarm import WINDOW, Alarm
from streams.engine.consumer import Behind, LedgerConsumer
from streams.engine.processor import Assignment, Batch, KeepsFloors, Processor, PutAside, Waits
from streams.engine.rows import Rank, RowTable, row_table
from streams.security import Security
from streams.topics import Topic
from streams.trouble import Trouble

log = structlog.get_logger("streams.app")

#: How long one delivery may take (10 s by contract), its result on the broker, and some air.
SETTLE_TIMEOUT_S: Final = 15.0

#: Records that wait for a busy line are merged into one batch, up to so many: a line that takes as long for one as
#: for many (fan-out: four round trips) catches up, and none waits longer than it has to.
MERGED_RECORDS: Final = 1_000

#: A rebalance begins when the members' heartbeats hear of it, so this is most of what one takes.
HEARTBEAT_S: Final = 0.5

#: Wait before a record that could not even be put aside is tried again: the broker is away.
ASIDE_RETRY_S: Final = 1.0

#: How long Faust waits at each start, so that agents have named their topics before the first subscription.
_NAMED_S: Final = 1.0


class _Transport(driver.Transport):
    Consumer: ClassVar[type[Any]] = LedgerConsumer


class _Tables(TableManager):
    """Faust's, but for its wait of a second at each start: it ends when the agents read, after some milliseconds."""

    async def on_start(self) -> None:
        app = cast("SafeApp", self.app)
        until = time.monotonic() + _NAMED_S
        while not app.is_read and time.monotonic() < until and not self.should_stop:
            await self.sleep(0.002)
        if not self.should_stop:
            await self._update_channels()
            await self.recovery.start()


class _Monitor(faust.Monitor):
    """Faust's, but for the rates that it reckons once a second and that nobody reads."""

    @faust.Service.task
    async def _sampler(self) -> None:
        pass


class _BatchSchema(faust.Schema[Any, Any]):
    """Values are batches already; nothing is decoded here."""

    def loads_key(self, app: Any, message: Any, *, loads: Any = None, serializer: Any = None) -> Any:  # noqa: ARG002
        return message.key

    def loads_value(self, app: Any, message: Any, *, loads: Any = None, serializer: Any = None) -> Any:  # noqa: ARG002
        return message.value


def _credentials(security: Security) -> Any:
    """The same for the clients that Faust opens by itself."""
    if security.sasl is not None:
        sasl = security.sasl
        return faust.SASLCredentials(
            username=sasl.user, password=sasl.password, ssl_context=security.tls, mechanism=sasl.mechanism
        )
    return faust.SSLCredentials(security.tls) if security.tls is not None else None


@dataclass(frozen=True, slots=True)
class Bounds:
    """What a worker holds of one partition at most; above it, the partition pauses."""

    unfinished_records: int = 2_000
    unfinished_bytes: int = 16_777_216


class SafeApp(faust.App):
    """A Faust app behind `LedgerConsumer`. Processors are added before it starts."""

    def __init__(
        self,
        name: str,
        connection: Connection,
        *,
        put_aside: PutAside,
        bounds: Bounds | None = None,
        session_timeout_ms: int = 6_000,
        commit_interval_ms: int = 250,
        settle_timeout_s: float = SETTLE_TIMEOUT_S,
        linger_s: float = 0.0,
        instance_id: str | None = None,
        **faust_settings: Any,
    ) -> None:
        """
        Args:
            name: of the service; the consumer group is it with the topic prefix.
            put_aside: called with (record, code, reason) for a record that no attempt could finish; returns when
                it is on the log. `Quarantine.put` as a rule.
            settle_timeout_s: how long giving up partitions may wait for what is in flight.
            linger_s: wait after a fetch that brought little, so that the next brings more: for who can be late by that
                and pays by the batch.
            instance_id: a name in the group that outlives this process; see `streams.engine.membership`.

        Raises:
            FaustChanged: Faust is not the one this was written against.
        """
        pinned.check()
        bounds = bounds or Bounds()
        self.connection = connection
        self.processors: dict[str, Processor] = {}
        #: By topic, where a processor asked for its own.
        self.bounds: dict[str, Bounds] = {}
        self.max_unfinished_records = bounds.unfinished_records
        self.max_unfinished_bytes = bounds.unfinished_bytes
        self.settle_timeout_s = settle_timeout_s
        self.linger_s = linger_s
        self.put_aside = put_aside
        super().__init__(
            f"{connection.prefix}{name}",
            **{
                "broker": [f"kafka://{host}" for host in connection.bootstrap.split(",")],
                "broker_credentials": _credentials(connection.security),
                "consumer_group_instance_id": instance_id,
                "broker_session_timeout": session_timeout_ms / 1000,
                "broker_heartbeat_interval": HEARTBEAT_S,
                # Longer than settling may take, or the group goes on without what was in flight.
                "broker_rebalance_timeout": settle_timeout_s + 15,
                "broker_request_timeout": 90,
                "broker_commit_interval": commit_interval_ms / 1000,
                # Ours settles: Faust's own wait can hang for ever on a record that was dropped.
                "stream_wait_empty": False,
                "stream_recovery_delay": 0,
                "topic_disable_leader": True,
                "topic_allow_declare": False,
                "table_standby_replicas": 0,
                "producer_acks": -1,
                "web_enabled": False,
                "TableManager": _Tables,
                "Monitor": _Monitor,
                "autodiscover": False,
                **faust_settings,
            },
        )

    def _new_transport(self) -> Any:
        return _Transport(self.conf.broker_consumer, self)

    def _create_directories(self) -> None:
        """Faust makes a folder for its stores where it is started; tables here are in memory or name their own."""

    def add_processor(self, topic: str, processor: Processor, *, name: str, bounds: Bounds | None = None) -> None:
        """Make *processor* the Faust agent *name* on *topic* (full name), with bounds of its own where given."""
        kind = _LinesKeepingFloors if isinstance(processor, KeepsFloors) else _Lines
        lines = kind(processor, name, self.put_aside)
        if bounds is not None:
            self.bounds[topic] = bounds
        self.processors[topic] = lines
        channel = self.topic(topic, schema=_BatchSchema(), internal=False)

        async def agent(stream: Any) -> None:
            events: AsyncIterator[Any] = stream.noack().events()
            async for event in events:
                await lines.process(event.value)

        agent.__qualname__ = agent.__name__ = name
        self.agent(channel, name=name)(agent)

    def add_rows(self, name: str, partitions: int, rank: Rank, producer: AIOKafkaProducer) -> RowTable:
        """A table of rows, before the app starts; see `row_table`."""
        return row_table(self, name, partitions, rank, producer)

    async def wait_until_stopped(self) -> None:
        """Until it is told to stop, or crashes. Faust's leaves two tasks behind where nobody waits any more."""
        waits = [asyncio.ensure_future(each.wait()) for each in (self._stopped, self._crashed)]
        try:
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for wait in waits:
                wait.cancel()

    @property
    def turn(self) -> int:
        """Another number as soon as this worker begins to give up its partitions, or to stop."""
        return int(self.rebalancing_count) + int(self.should_stop)

    @property
    def stopped(self) -> str | None:
        """Why nothing is done on some partitions any more, and on which; None where there are none."""
        found = [
            f"{topic} {', '.join(map(str, lines.stopped))}"
            for topic, lines in self.processors.items()
            if isinstance(lines, _Lines) and lines.stopped
        ]
        return f"too many records raise, so nothing is done on partitions {'; '.join(found)}" if found else None

    @property
    def shortened(self) -> str | None:
        """Which partitions have lost their records, and are not read; None where there are none."""
        found = self._consumer.shortened if isinstance(self._consumer, LedgerConsumer) else {}
        return "; ".join(found[topic] for topic in sorted(found)) or None

    @property
    def stuck(self) -> str | None:
        """Which partitions have work and make no progress, and for how long; None where there are none."""
        found = self._consumer.stuck if isinstance(self._consumer, LedgerConsumer) else {}
        told = "; ".join(f"{tp.topic} {tp.partition} for {seconds:.0f} s" for tp, seconds in sorted(found.items()))
        return f"no progress on partition {told}" if told else self._absence

    @property
    def _absence(self) -> str | None:
        absent_s = self._consumer.absent_s if isinstance(self._consumer, LedgerConsumer) else None
        return f"not in its group for {absent_s:.0f} s, though the broker answers" if absent_s is not None else None

    async def ends(self, partitions: Iterable[TopicPartition]) -> dict[TopicPartition, int]:
        """Where these partitions end on the broker now."""
        return cast(
            "dict[TopicPartition, int]", await cast("LedgerConsumer", self.consumer).kafka.end_offsets(list(partitions))
        )

    @property
    def is_read(self) -> bool:
        """Whether each agent has begun to read its topic: what is read by then, the group is joined for."""
        return {name for channel in self.topics for name in channel.topics} >= self.processors.keys()

    @property
    def is_ready(self) -> bool:
        """Whether every partition assigned to this worker is being read."""
        consumer = self._consumer
        return isinstance(consumer, LedgerConsumer) and not self.rebalancing and consumer.is_ready

    @property
    def is_confirmed(self) -> bool:
        """Whether work may be started: see `LedgerConsumer.is_confirmed`."""
        return isinstance(self._consumer, LedgerConsumer) and self._consumer.is_confirmed

    @property
    def unfinished(self) -> tuple[int, int]:
        """Records and bytes that this worker has taken and not finished."""
        return self._consumer.unfinished if isinstance(self._consumer, LedgerConsumer) else (0, 0)

    @property
    def behind(self) -> dict[str, Behind]:
        """How far this worker is behind the end, by topic without prefix."""
        found = self._consumer.behind if isinstance(self._consumer, LedgerConsumer) else {}
        return {topic.removeprefix(self.connection.prefix): behind for topic, behind in found.items()}

    def assigned(self, topic: Topic) -> set[int] | None:
        """The topic's partitions that the group has given this worker; None while it assigns them."""
        if not isinstance(self._consumer, LedgerConsumer) or not self._consumer.has_joined:
            return None
        return {tp.partition for tp in self._consumer.assignment() if tp.topic == self.connection.topic(topic)}

    @property
    def stuck_partitions(self) -> int:
        """How many `stuck` tells of."""
        return len(self._consumer.stuck) if isinstance(self._consumer, LedgerConsumer) else 0

    @property
    def stopped_partitions(self) -> int:
        """How many `stopped` tells of."""
        return sum(len(lines.stopped) for lines in self.processors.values() if isinstance(lines, _Lines))

    @property
    def rebalances(self) -> int:
        """How often its group has begun to assign partitions anew, in this process."""
        return int(self.rebalancing_count)


class _Lines:
    """A line of batches per partition in front of a processor; what raises is tried alone, then put aside."""

    def __init__(self, processor: Processor, name: str, put_aside: PutAside) -> None:
        self._processor = processor
        self._name = name
        self._put_aside = put_aside
        self._aside = Trouble(log, agent=name)
        #: Whether its records wait by nature: see `Waits`.
        self.waits = isinstance(processor, Waits) and processor.waits
        # Not bounded here: the ledger bounds what a partition has unfinished, waiting batches included.
        self._queues: dict[int, asyncio.Queue[Batch]] = {}
        self._workers: set[asyncio.Task[None]] = set()
        self._busy: set[asyncio.Task[None]] = set()
        self._generation = -1
        #: By partition. For the life of the process: only a better release helps.
        self._alarms: dict[int, Alarm] = {}

    @property
    def stopped(self) -> list[int]:
        """Partitions on which nothing is done any more, since too much of it raised."""
        return sorted(partition for partition, alarm in self._alarms.items() if alarm.rings)

    async def take_over(self, assignment: Assignment) -> None:
        await self._processor.take_over(assignment)
        self._generation = assignment.generation

    async def process(self, batch: Batch) -> None:
        if batch.generation != self._generation or self._alarm(batch.partition).rings:
            return  # read again by whoever owns the partition now, or by a better release
        queue = self._queues.get(batch.partition)
        if queue is None:
            queue = self._queues[batch.partition] = asyncio.Queue()
            self._workers.add(asyncio.create_task(self._work(queue), name=f"{self._name} {batch.partition}"))
        queue.put_nowait(batch)

    def floor(self, partition: int) -> str:
        return self._processor.floor(partition)

    async def settle(self, timeout_s: float) -> None:
        """Batches in hand are finished (their effects may be half on the log), waiting ones are dropped."""
        self._generation = -1
        self._queues.clear()
        if self._busy:
            await asyncio.wait(self._busy, timeout=timeout_s)
        for worker in self._workers:
            worker.cancel()
        await asyncio.gather(*self._workers, return_exceptions=True)
        self._workers.clear()
        self._busy.clear()
        await self._processor.settle(timeout_s)

    async def _work(self, queue: "asyncio.Queue[Batch]") -> None:
        me = cast("asyncio.Task[None]", asyncio.current_task())
        while True:
            batch = _merged(await queue.get(), queue)
            if batch.generation != self._generation:
                return
            self._busy.add(me)
            try:
                await self._processor.process(batch)
            except Exception as error:
                log.exception("agent.raised", agent=self._name, partition=batch.partition)
                await self._find_culprits(batch, error)
            else:
                self._passed(batch)
            finally:
                self._busy.discard(me)
            if self._generation != batch.generation or self._alarm(batch.partition).rings:
                return

    def _alarm(self, partition: int) -> Alarm:
        alarm = self._alarms.get(partition)
        if alarm is None:
            alarm = self._alarms[partition] = Alarm()
        return alarm

    def _passed(self, batch: Batch) -> None:
        for _ in batch.records[:WINDOW]:
            self._alarm(batch.partition).passed()

    async def _find_culprits(self, batch: Batch, error: Exception) -> None:
        """Put aside what raises alone too; nothing of the batch where that is too much to be the records' fault."""
        culprits: list[tuple[ConsumerRecord[Any, Any], Exception]] = []
        alarm = self._alarm(batch.partition)
        for record in batch.unfinished():
            if len(batch.records) > 1:
                try:
                    await self._processor.process(batch.alone(record))
                except Exception as own:  # noqa: BLE001  # whatever it raises is the reason
                    error = own
                else:
                    alarm.passed()
                    continue
            culprits.append((record, error))
            if alarm.raised():
                log.critical(
                    "partition.stopped",
                    agent=self._name,
                    partition=batch.partition,
                    offset=culprits[0][0].offset,
                    raised=type(error).__name__,
                    hint="too many records raise to be at fault themselves: nothing more is done or put aside here"
                    " until this process is started again, with a release that can",
                )
                return
        for record, reason in culprits:
            await self._set_aside(batch, record, reason)

    async def _set_aside(self, batch: Batch, record: "ConsumerRecord[Any, Any]", error: Exception) -> None:
        reason = f"agent {self._name} raised {type(error).__name__}"
        while True:
            try:
                await self._put_aside(record, "agent.raised", reason)
            except Exception as failed:  # noqa: BLE001  # whatever it is, it is tried again
                self._aside.raised("quarantine.failed", failed, retry_s=ASIDE_RETRY_S)
                await asyncio.sleep(ASIDE_RETRY_S)
            else:
                self._aside.over()
                return batch.finish(record.offset)


class _LinesKeepingFloors(_Lines):
    """Lines before a processor that decides at each commit what its floor is."""

    def floor_at(self, partition: int, committable: int) -> str:
        return cast("KeepsFloors", self._processor).floor_at(partition, committable)


def _merged(batch: Batch, queue: "asyncio.Queue[Batch]") -> Batch:
    """The batch, with those that wait behind it: all of one partition, and of one generation as the queue is new."""
    records = list(batch.records)
    while not queue.empty() and len(records) < MERGED_RECORDS:
        records += queue.get_nowait().records
    return batch.of(records)
