"""
Follows a topic of one partition into memory: from its beginning to its end, and on as it grows.

This is how configuration and state reach every process: a plain consumer without a group, no rebalance, no commit.
A record is applied some milliseconds after it is on the broker. `catch_up` tells when everything that was on the
broker is applied, which is what makes a change that was answered with a 2xx visible to what comes after it.
"""

import asyncio
import time
from collections.abc import Callable
from typing import Final

import structlog
from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import OffsetOutOfRangeError

from streams.answers import ANSWERS
from streams.connection import Connection
from streams.ends import EndOffset
from streams.features import features_of
from streams.reading import stop, uncancelled
from streams.silence import FetchWaits
from streams.topics import SCHEMAS, Topic
from streams.trouble import Trouble

log = structlog.get_logger(__name__)

#: Key, value (None: a tombstone), offset.
Apply = Callable[[bytes | None, bytes | None, int], None]

#: The longest that reading waits before it looks around; records wake it at once.
_IDLE_MS: Final = 5_000
#: Records applied before others have their turn on the loop: 10 ms of work at 20 µs each.
_MAX_AT_ONCE: Final = 500
#: A fetch is answered every 5 s at the latest. Three missed ones: not live; six: read on a new connection.
_LIVE_S: Final = 15.0
_STALLED_S: Final = 30.0
#: Between checks that what we have read is still there.
_CHECK_S: Final = 10.0
_PAUSES_S: Final = (0.1, 5.0)
#: See `_look`.
_LOOKS_S: Final = (0.001, 0.01)


class Follower:
    """
    One topic, folded record by record.

    `apply` should not raise: an unreadable record is its business to count. Where it does, the record is logged and
    passed over, since one bad record must not keep every later change away.
    """

    def __init__(
        self, connection: Connection, topic: Topic, apply: Apply, *, clear: Callable[[], None] | None = None
    ) -> None:
        """
        Args:
            clear: forgets everything applied; called before the topic is read from its beginning again, which happens
                when the log behind us was replaced (a broker that had kept it in memory came back empty).
        """
        if topic.partitioned_by != "one":
            raise ValueError(f"{topic.name} has several partitions; a follower reads one")
        self.topic = topic
        #: Every record below this offset is applied.
        self.position = 0
        #: Whether what was there at the start is applied.
        self.has_started = False
        self._connection = connection
        #: What it reads.
        self.partition = TopicPartition(connection.topic(topic), 0)
        self._apply = apply
        self._clear = clear
        self._ends = EndOffset(connection, self.partition)
        self._consumer: AIOKafkaConsumer | None = None
        self._reading = asyncio.Event()
        self._has_read = False
        self._opened_s = 0.0
        self._trouble = Trouble(log, topic=self.partition.topic)
        self._following: asyncio.Task[None] | None = None
        self._looking: asyncio.Task[None] | None = None
        self._waiting: dict[asyncio.Future[None], int] = {}

    async def start(self) -> None:
        """Begin to follow; returns when the end as of now is applied. Waits while the broker is away."""
        self._following = asyncio.create_task(self._follow(), name=f"follow {self.topic.name}")
        try:
            await self._reading.wait()
            await self.catch_up()
            self.has_started = True
        except BaseException:
            await self.stop()
            raise

    async def stop(self) -> None:
        """Stop following. Who waits in `reach`, `end` or `catch_up` is cancelled."""
        tasks = [task for task in (self._following, self._looking) if task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self._ends.stop()
        for waiter in self._waiting:
            waiter.cancel()

    @property
    def is_live(self) -> bool:
        """Whether the broker has answered a fetch lately. False before the start and while the broker is away."""
        return self._consumer is not None and self._silent_s() < _LIVE_S

    async def reach(self, offset: int) -> None:
        """Returns when every record below *offset* is applied; wakes at once. Waits while the broker is away."""
        if self.position >= offset:
            return
        waiter = asyncio.get_running_loop().create_future()
        self._waiting[waiter] = offset
        if self._looking is None or self._looking.done():
            self._looking = asyncio.create_task(self._look(), name=f"look {self.topic.name}")
        try:
            await waiter
        finally:
            self._waiting.pop(waiter, None)

    async def end(self) -> int:
        """
        The broker's end offset, by a question sent after this call; concurrent callers share one round trip.

        Waits while the broker is away.
        """
        return await self._ends.ask()

    async def catch_up(self) -> int:
        """Returns when everything that is on the broker now is applied: the position then."""
        await self.reach(await self.end())
        return self.position

    # -- following -------------------------------------------------------------------------------------------

    async def _follow(self) -> None:
        """Read, and again on a new connection when that ends; nothing but `stop` ends following."""
        pause_s, longest_s = _PAUSES_S
        while True:
            opened_s = time.monotonic()
            try:
                await uncancelled(self._read_on_a_connection())
            except Exception as error:  # noqa: BLE001 - a broker away, a bug in the client: read on all the same
                self._trouble.met("follower.interrupted", _cause(error))
            pause_s = _PAUSES_S[0] if time.monotonic() - opened_s > longest_s else min(2 * pause_s, longest_s)
            await asyncio.sleep(pause_s)

    async def _read_on_a_connection(self) -> None:
        features = await features_of(self._connection)
        consumer = AIOKafkaConsumer(
            **self._connection.client_options,
            group_id=None,
            enable_auto_commit=False,
            auto_offset_reset="none",
            isolation_level=features.isolation,
            fetch_max_wait_ms=features.fetch_wait_ms,
        )
        ANSWERS.watch(consumer._client)  # noqa: SLF001
        try:
            await consumer.start()
            consumer.assign([self.partition])
            await self._seek(consumer)
            self._consumer, self._opened_s = consumer, time.time()
            self._reading.set()
            async with asyncio.TaskGroup() as both:
                waits = FetchWaits(consumer, features, rarely=self.topic is SCHEMAS)
                both.create_task(uncancelled(self._read(consumer, waits)))
                both.create_task(uncancelled(self._check(consumer)))
        finally:
            self._consumer = None
            self._reading.clear()
            await stop(consumer)

    async def _seek(self, consumer: AIOKafkaConsumer) -> None:
        """To where we are; the first time, and where that is no more, to the beginning."""
        start: int = (await consumer.beginning_offsets([self.partition]))[self.partition]
        if not self._has_read or self.position < start:
            self._has_read = True
            self._move(start)
        consumer.seek(self.partition, self.position)

    async def _read(self, consumer: AIOKafkaConsumer, waits: FetchWaits) -> None:
        while True:
            try:
                batch = await consumer.getmany(timeout_ms=_IDLE_MS, max_records=_MAX_AT_ONCE)
            except OffsetOutOfRangeError:
                self._start_again()
                await self._seek(consumer)
                continue
            waits.saw(has_records=bool(batch))
            if consumer.last_poll_timestamp(self.partition):  # looking returns without an answer, too
                self._trouble.over()
            for record in batch.get(self.partition, ()):
                self._apply_one(record.key, record.value, record.offset)
            self._move(await consumer.position(self.partition))
            await asyncio.sleep(0)

    async def _check(self, consumer: AIOKafkaConsumer) -> None:
        """
        Finds what reading does not notice.

        A connection on which no fetch is answered any more. And a log that ends before where we are: Apache Kafka
        refuses the next fetch then, the embedded broker answers it with nothing for ever.
        """
        while True:
            await asyncio.sleep(_CHECK_S)
            if self._silent_s() > _STALLED_S:
                raise TimeoutError(f"no fetch was answered for {_STALLED_S:.0f} s")
            for _ in range(2):  # a new leader may say less than it has for a moment
                position = self.position
                if await self._ends.ask() >= position:
                    break
                await asyncio.sleep(1)
            else:
                self._start_again()
                await self._seek(consumer)

    def _silent_s(self) -> float:
        """Seconds since the broker answered a fetch."""
        answered_ms = self._consumer.last_poll_timestamp(self.partition) if self._consumer is not None else None
        return time.time() - max(self._opened_s, (answered_ms or 0) / 1000)

    def _start_again(self) -> None:
        log.error("follower.log_replaced", topic=self.partition.topic, position=self.position, hint="reading all again")
        if self._clear is not None:
            self._clear()
        self._has_read = False

    def _apply_one(self, key: bytes | None, value: bytes | None, offset: int) -> None:
        try:
            self._apply(key, value, offset)
        except Exception:
            log.exception("follower.apply_raised", topic=self.partition.topic, offset=offset)

    # -- waiting ---------------------------------------------------------------------------------------------

    def _move(self, position: int) -> None:
        self.position = position
        for waiter, offset in self._waiting.items():
            if offset <= position and not waiter.done():
                waiter.set_result(None)

    async def _look(self) -> None:
        """
        While somebody waits: moves the position past offsets that hold no record.

        A transaction's marker and what compaction took have offsets, and the consumer passes over them without
        returning from `getmany`. It applies nothing: records are counted in `position` only when they were returned.
        """
        pause_s, longest_s = _LOOKS_S
        while self._waiting:
            await asyncio.sleep(pause_s)
            pause_s = min(2 * pause_s, longest_s)
            if self._consumer is not None and self._has_read:
                self._move(max(self.position, await self._consumer.position(self.partition)))


def _cause(error: BaseException) -> BaseException:
    """Out of the task group that it ended."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error
