"""
The agent of a retry topic: what is due goes back onto `deliveries`, what is not waits on the broker.

A worker holds a few hundred records of each partition, sorted by when they leave the line, and one timer; when its
partition is full it fetches no more, whatever waits behind. A record that leaves the line before it is due, because its
due time is no line's, goes into the next line, or waits its last moments here.

Nothing is put back twice: see `put_back.py` and `docs/why/takeover.md`. The floor that is stored with a commit is idle
where nothing has to be looked for; before the first put-back after that, another one is stored.
"""

import asyncio
import heapq
from asyncio import Future
from collections.abc import Awaitable, Callable
from typing import Any, Final, NamedTuple

import msgspec
import structlog
from aiokafka import AIOKafkaProducer, ConsumerRecord, TopicPartition
from aiokafka.errors import KafkaError, MessageSizeTooLargeError
from aiokafka.structs import RecordMetadata

from services.dispatcher.put_back import IDLE, Floor, Origin, PutBacks, ReadBack
from services.dispatcher.retries import DeliveryEnds, Retries
from services.dispatcher.traced import put_back_span
from services.runtime.tracing import TRACING, after, headers_of
from streams import codec, takeover
from streams.connection import Connection
from streams.delay_lines import PLACES, SHORTEST_MS, leave_at_ms
from streams.engine.processor import Assignment, Batch
from streams.features import features_of
from streams.quarantine import Quarantine
from streams.records import Delivery, Marker
from streams.topics import Topic

log = structlog.get_logger("dispatcher.retry_reader")

#: Records that are put back together, at most: a few batches for the producer, some 20 ms of work in between which
#: others get their turn.
TOGETHER: Final = 500

#: A timer runs by a clock that nobody sets, due times are of the wall clock: look at that at least so often.
LONGEST_TIMER_S: Final = 60.0

#: How often a worker that was frozen, or has lost its broker, looks whether it may go on.
CONFIRMED_POLL_S: Final = 0.05

#: Wait before a floor that the broker did not take is tried again.
COMMIT_RETRY_S: Final = 0.2

#: Sets a timer: seconds, what to call.
CallLater = Callable[[float, Callable[[], None]], asyncio.TimerHandle]


class _Waiting(NamedTuple):
    """A record in its partition's heap. As bytes: decoded it is three times as large."""

    leave_at_ms: int
    offset: int
    due_at_ms: int
    record: "ConsumerRecord[Any, Any]"
    #: Finishes it. Holds no records, or one that waits would keep all that came with it.
    batch: Batch


class _Partition:
    """What is known of one partition of the line."""

    def __init__(self, number: int, generation: int, found: set[int], put_backs: PutBacks) -> None:
        self.number = number
        self.generation = generation
        #: Offsets that predecessors have put back, and that come again.
        self.found = found
        self.put_backs = put_backs
        self.waiting: list[_Waiting] = []
        #: What has left the line and is not finished, in order.
        self.leaving: list[_Waiting] = []
        self.timer: asyncio.TimerHandle | None = None
        self.releasing: asyncio.Task[None] | None = None

    def pop(self, now_ms: int) -> list[_Waiting]:
        """Those that leave the line by now, some of them."""
        popped: list[_Waiting] = []
        while self.waiting and self.waiting[0].leave_at_ms <= now_ms and len(popped) < TOGETHER:
            popped.append(heapq.heappop(self.waiting))
        return popped


class RetryReader:
    """The processor of one retry topic. See the module's docstring, and `streams.engine.processor.Processor`."""

    def __init__(
        self,
        line: Topic,
        *,
        connection: Connection,
        producer: AIOKafkaProducer,
        retries: Retries,
        ends: DeliveryEnds,
        quarantine: Quarantine,
        worker_id: str,
        now_ms: Callable[[], int],
        on_fatal: Callable[[Exception], None],
        may_start: Callable[[], bool],
        call_later: CallLater | None = None,
    ) -> None:
        """
        Args:
            retries: takes what goes on into another line.
            ends: shared by the readers of all lines.
            on_fatal: told when nothing can be recorded any more; the process has to end.
            may_start: whether this worker is known to be a member of its group: one that was frozen appends nothing.
            call_later: the event loop's, or a test's that goes with its clock.
        """
        self._line = line
        self._topic = connection.topic(line)
        self._waits_ms = {place.partition: place.wait_ms for place in PLACES if place.line == line}
        self._connection = connection
        self._producer = producer
        self._retries = retries
        self._ends = ends
        self._deliveries = ends.targets[0].topic
        self._quarantine = quarantine
        self._worker_id = worker_id
        self._now_ms = now_ms
        self._on_fatal = on_fatal
        self._may_start = may_start
        self._call_later = call_later
        self._partitions: dict[int, _Partition] = {}
        self._commit: Callable[[int], Awaitable[bool]] | None = None
        self._is_open = False

    # -- takeover --------------------------------------------------------------------------------------------

    async def take_over(self, assignment: Assignment) -> None:
        """Mark `deliveries`, and read back what was put back of records that will be read again, if anything can be."""
        self._partitions.clear()
        if not assignment.floors:
            return
        marker = Marker(
            source_topic=self._topic,
            source_partition=min(assignment.floors),
            source_partitions=sorted(assignment.floors),
            generation=assignment.generation,
            owner=self._worker_id,
            at_ms=self._now_ms(),
        )
        try:
            marked = await takeover.mark(self._producer, {t: [marker] for t in self._ends.targets}, self._ends.ends)
        except KafkaError as error:
            self._on_fatal(error)
            raise
        floors = await self._to_look_for(assignment)
        back = ReadBack(line=self._line.name, topic=self._topic, floors=floors, starts=assignment.starts)
        spans = {
            target: (min(floor.deliveries[target.partition] for floor in floors.values()), marked[target])
            for target in self._ends.targets
            if floors
        }
        await takeover.read_back(self._connection, spans, back.see)
        if back.found:
            log.info("takeover.found", line=self._line.name, put_back=len(back.found))
        for number, floor in assignment.floors.items():
            found = {offset for partition, offset in back.found if partition == number}
            put_backs = PutBacks(floor, max(found, default=-1))
            self._partitions[number] = _Partition(number, assignment.generation, found, put_backs)
        self._commit = assignment.commit
        self._ends.use(self)
        self._is_open = True

    async def _to_look_for(self, assignment: Assignment) -> dict[int, Floor]:
        """
        Floors of the partitions for which something can be found: those that were busy, and are read again at all.

        Asked after marking: what is appended from here on, nobody puts back in front of our marker.
        """
        parsed = {n: Floor.parse(text, len(self._ends.targets)) for n, text in assignment.floors.items()}
        busy = {n: floor for n, floor in parsed.items() if floor is not None}
        if not busy:
            return busy
        ends = await self._ends.ask([TopicPartition(self._topic, number) for number in busy])
        is_exact = (await features_of(self._connection)).exact_ends
        return {
            number: floor
            for number, floor in busy.items()
            # The embedded broker tells too low an end, but 0 for none.
            if (end := ends[TopicPartition(self._topic, number)]) and (assignment.starts[number] < end or not is_exact)
        }

    def floor(self, partition: int) -> str:  # noqa: ARG002  # the protocol's
        """Means nothing here: see `floor_at`."""
        return ""

    def floor_at(self, partition: int, committable: int) -> str:
        """See `PutBacks.floor`."""
        found = self._partitions.get(partition)
        return IDLE if found is None else found.put_backs.floor(committable)

    async def settle(self, timeout_s: float) -> None:
        """Put nothing more back; what is on its way to the broker gets its acknowledgement, or is cut off."""
        self._is_open = False
        self._ends.leave(self)
        releasing = set()
        for partition in self._partitions.values():
            if partition.timer is not None:
                partition.timer.cancel()
            if partition.releasing is not None:
                releasing.add(partition.releasing)
            partition.waiting.clear()
        if releasing:
            _, late = await asyncio.wait(releasing, timeout=timeout_s)
            for task in late:
                task.cancel()
            await asyncio.gather(*late, return_exceptions=True)

    @property
    def line(self) -> str:
        """Name of the topic, without prefix."""
        return self._line.name

    def waiting(self, partition: int) -> int:
        """See `streams.engine.processor.Waits`: not what is due, nor what is being put back."""
        found, now_ms = self._partitions.get(partition), self._now_ms()
        return sum(each.leave_at_ms > now_ms for each in found.waiting) if found is not None else 0

    @property
    def overdue_ms(self) -> int:
        """How long the record that should have left the line first is late; 0 where none is."""
        lines = [line for each in self._partitions.values() for line in (each.leaving, each.waiting)]
        heads = [line[0].leave_at_ms for line in lines if line]
        return max(0, self._now_ms() - min(heads)) if heads else 0

    # -- work ------------------------------------------------------------------------------------------------

    async def process(self, batch: Batch) -> None:
        """Take the batch; each record is finished when what becomes of it is on the broker."""
        partition, handle = self._partitions[batch.partition], batch.of([])
        records = batch.unfinished()
        taken = [await self._waiting(record, handle) for record in records if record.offset not in partition.found]
        # All or none from here on: what raised above comes again, each alone.
        for waiting in taken:
            if waiting is not None:
                heapq.heappush(partition.waiting, waiting)
        for record in records:
            if record.offset in partition.found:
                partition.found.discard(record.offset)
                batch.finish(record.offset)
        self._set_timer(partition)

    async def _waiting(self, record: "ConsumerRecord[Any, Any]", batch: Batch) -> _Waiting | None:
        """The delivery that this record is; None where it is none, and put aside."""
        try:
            found = codec.decode(record.value)
        except codec.Unreadable as error:
            await self._quarantine.put(record, "record.unreadable", str(error))
            batch.finish(record.offset)
            return None
        if not isinstance(found, Delivery) or found.due_at_ms is None:
            reason = f"a {type(found).__name__} without a due time, on a retry topic"
            await self._quarantine.put(record, "record.unexpected", reason)
            batch.finish(record.offset)
            return None
        leave = leave_at_ms(self._waits_ms[record.partition], record.timestamp, found.due_at_ms)
        return _Waiting(leave, record.offset, found.due_at_ms, record, batch)

    def _set_timer(self, partition: _Partition) -> None:
        if partition.timer is not None:
            partition.timer.cancel()
            partition.timer = None
        if not self._is_open or partition.releasing is not None or not partition.waiting:
            return
        delay_s = (partition.waiting[0].leave_at_ms - self._now_ms()) / 1_000
        call_later = self._call_later or asyncio.get_running_loop().call_later
        partition.timer = call_later(min(max(delay_s, 0.0), LONGEST_TIMER_S), lambda: self._release(partition))

    def _release(self, partition: _Partition) -> None:
        partition.timer = None
        name = f"release {self._line.name} {partition.number}"
        partition.releasing = asyncio.create_task(self._release_all(partition), name=name)

    async def _release_all(self, partition: _Partition) -> None:
        """Everything that leaves the line by now."""
        try:
            while self._is_open and (leaving := partition.pop(self._now_ms())):
                partition.leaving = leaving
                await self._let_out(partition, leaving)
        except Exception as error:
            # The producer has ended for good: what goes through it cannot be recorded any more.
            log.exception("retry.unrecordable", line=self._line.name, partition=partition.number)
            self._is_open = False
            self._on_fatal(error)
        finally:
            partition.leaving = []
            partition.releasing = None
            self._set_timer(partition)

    async def _let_out(self, partition: _Partition, leaving: list[_Waiting]) -> None:
        now_ms = self._now_ms()
        going = []
        for each in leaving:
            if 0 < each.due_at_ms - now_ms < SHORTEST_MS:
                heapq.heappush(partition.waiting, each._replace(leave_at_ms=each.due_at_ms))
            else:
                going.append(each)
        if not going or not await self._may_append(partition, going):
            return
        pending = [(each, await self._send(partition, each)) for each in going]
        for each, future in pending:
            if future is not None:
                appended = await future
                if appended.topic == self._deliveries:
                    self._ends.ends.saw(appended.topic_partition, appended.offset)
            each.batch.finish(each.offset)

    async def _may_append(self, partition: _Partition, going: list[_Waiting]) -> bool:
        """
        Whether these may go now: a successor would find them, and there is none yet. Waits while that is not known.

        False where the partition is being given up.
        """
        put_backs = partition.put_backs
        put_backs.begin(max(each.offset for each in going), str(Floor(partition.generation, self._ends.known())))
        while self._is_open and not put_backs.is_covered:
            put_backs.is_covered = self._commit is not None and await self._commit(partition.number)
            if not put_backs.is_covered:
                await asyncio.sleep(COMMIT_RETRY_S)
        while self._is_open and not self._may_start():  # noqa: ASYNC110  # rare, and nobody tells
            await asyncio.sleep(CONFIRMED_POLL_S)
        return self._is_open

    async def _send(self, partition: _Partition, each: _Waiting) -> "Future[RecordMetadata] | None":
        """Back onto `deliveries`, or on into the next line. None where it was put aside: our fault, not its own."""
        try:
            delivery, now_ms = codec.decode_as(Delivery, each.record.value), self._now_ms()
            trace = TRACING.of_record(each.record)
            if each.due_at_ms > now_ms:
                return await self._retries.send(delivery, slot=None, now_ms=now_ms, trace=trace)
            due = msgspec.structs.replace(
                delivery,
                retry_line=self._line.name,
                retry_partition=partition.number,
                retry_generation=partition.generation,
            )
            origin = Origin(self._line.name, partition.number, each.offset, partition.generation)
            value, key = codec.encode(due), due.integration.encode()
            span = put_back_span(TRACING, trace, self._line.name, each.record, delivery)
            headers = [origin.header(), *(headers_of(after(span, trace)) or ())]
            sent: Future[RecordMetadata] = await self._producer.send(self._deliveries, value, key=key, headers=headers)
        except Exception as error:
            if isinstance(error, KafkaError) and not isinstance(error, MessageSizeTooLargeError):
                raise
            log.exception("retry.raised", line=self._line.name, partition=partition.number, offset=each.offset)
            await self._quarantine.put(each.record, "agent.raised", f"the retry reader raised {type(error).__name__}")
            return None
        if span is not None:
            sent.add_done_callback(lambda _: span.end())
        return sent
