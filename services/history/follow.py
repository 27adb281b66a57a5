"""
Reads all partitions of `delivery-results` into the store, in batches, and goes on for as long as it is not stopped.

A plain consumer without a group: where it goes on is in the store, with what it has read. While the broker or the disk
is away it waits; what it cannot read it counts and passes over. A log that is another one than that in the store is
read into an empty store.
"""

import asyncio
import sqlite3
import time
from collections.abc import Awaitable, Callable
from typing import Any, Final, TypeVar

import structlog
from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import OffsetOutOfRangeError

from services.history.store import Raw, Store
from services.runtime.metrics import HISTORY_FOLDED, HISTORY_UNREADABLE
from streams.connection import Connection
from streams.features import Features, features_of
from streams.reading import started
from streams.silence import FetchWaits
from streams.topic_ids import topic_ids
from streams.topics import RESULTS

T = TypeVar("T")

log = structlog.get_logger(__name__)

#: How long a fetch waits for records.
_WAIT_MS: Final = 500
#: How long a call for records waits for what fetches bring: it returns as soon as they do.
_CALL_MS: Final = 2_000
#: Records folded at once, where so many have come: a second of work on the writer's thread. The more there are, the
#: more rows share a page that is written. What a fetch brings bounds their bytes, to 50 MB.
BATCH: Final = 10_000
#: A batch smaller than this waits so long for more: each one writes the pages at the end of every index anew.
_SMALL: Final = 200
_LINGER_S: Final = 0.1
#: Between looks at where the log ends and which one it is.
_CHECK_S: Final = 5.0
#: The same by the topic's id, which costs a connection: what a shorter log does not tell already.
_ID_CHECK_S: Final = 20.0
_PAUSES_S: Final = (0.1, 5.0)
#: A new leader may say less than it has for a moment.
_ASK_AGAIN_S: Final = 1.0


class _AnotherLog(Exception):
    """What is in the store is not what the log says. The message says why."""


class ResultsFollower:
    """One reader of the topic for one store."""

    def __init__(
        self,
        connection: Connection,
        partitions: int,
        store: Store,
        on_thread: Callable[..., Awaitable[Any]],
        *,
        since_ms: Callable[[], int],
    ) -> None:
        """
        Args:
            partitions: how many the topic has.
            on_thread: calls a function of the store where it may block; one call at a time.
            since_ms: results older than this, in milliseconds since 1970 UTC, need not be read into an empty store.
        """
        self._connection = connection
        self._topic = connection.topic(RESULTS)
        self._partitions = [TopicPartition(self._topic, number) for number in range(partitions)]
        self._store = store
        self._on_thread = on_thread
        self._since_ms = since_ms
        #: Whether anything was read yet: what the store had before, of a broker without topic ids, is of any log.
        self._has_begun = False
        self._must_start_over = False
        self._positions: dict[TopicPartition, int] = {}
        self._ends: dict[TopicPartition, int] = {}
        self._id_checked_s = 0.0
        #: Set once everything is in the store that was on the log when reading began.
        self.has_caught_up = asyncio.Event()
        #: Why nothing goes into the store now, for people; None while something does.
        self.trouble: str | None = "it has not begun"
        #: Whether everything was once, since this process began.
        self.was_read = False
        #: Whether the last write failed: that the broker answers does not mend it.
        self.is_unwritable = False

    @property
    def lag(self) -> int | None:
        """Records that are not in the store yet, as of the last look at the log's end; None before the first one."""
        if not self._ends:
            return None
        return sum(max(0, end - self._positions.get(partition, 0)) for partition, end in self._ends.items())

    def start_over(self) -> None:
        """Throw the file away within some seconds, and read everything anew: somebody has found that it is broken."""
        self._must_start_over = True

    async def run(self) -> None:
        """Follow until cancelled."""
        pause_s, longest_s = _PAUSES_S
        while True:
            opened_s = time.monotonic()
            try:
                await self._read_on_a_connection()
            except _AnotherLog as reason:
                log.warning("history.log_replaced", topic=self._topic, reason=str(reason), hint="reading all anew")
                self._must_start_over = True
            except sqlite3.Error as error:
                await self._survive(error)
            except Exception as error:  # noqa: BLE001 - a broker away, a bug in the client: read on all the same
                self._say("follower.interrupted", f"reading is interrupted: {error!r}")
            pause_s = _PAUSES_S[0] if time.monotonic() - opened_s > longest_s else min(2 * pause_s, longest_s)
            await asyncio.sleep(pause_s)

    async def _survive(self, error: sqlite3.Error) -> None:
        """A full disk is waited for, a broken file is thrown away."""
        if self.is_unwritable:
            self._say("history.not_written", f"the history's file cannot be written: {error}")
        else:
            self._say("history.not_read", f"the history's file cannot be read: {error}")
        if isinstance(error, sqlite3.DatabaseError) and not isinstance(error, sqlite3.OperationalError):
            try:
                await self._write(self._store.start_over, None)
            except (sqlite3.Error, OSError) as again:
                self._say("history.not_written", f"the history's file cannot be made anew: {again}")

    def _say(self, event: str, trouble: str) -> None:
        if self.trouble != trouble:
            log.warning(event, topic=self._topic, reason=trouble)
        self.trouble = trouble

    async def _read_on_a_connection(self) -> None:
        features = await features_of(self._connection)
        consumer: AIOKafkaConsumer[Any, Any] = AIOKafkaConsumer(
            **self._connection.client_options,
            group_id=None,
            enable_auto_commit=False,
            auto_offset_reset="none",
            isolation_level=features.isolation,
            fetch_max_wait_ms=min(features.fetch_wait_ms, _WAIT_MS),
            fetch_max_bytes=features.fetch_bytes,
        )
        async with started(consumer):
            consumer.assign(self._partitions)
            await self._begin(consumer, features)
            goals, waits = dict(self._ends), FetchWaits(consumer, features)
            self._look_whether_caught_up(goals)
            checked_s = time.monotonic()
            if not self.is_unwritable:
                self.trouble = None
            while True:
                fetched = await self._fetched(consumer, features)
                waits.saw(has_records=bool(fetched))
                await self._take(consumer, fetched)
                self._look_whether_caught_up(goals)
                if time.monotonic() - checked_s > _CHECK_S:
                    await self._check(consumer, features)
                    checked_s = time.monotonic()

    # -- reading ---------------------------------------------------------------------------------------------

    async def _fetched(
        self, consumer: "AIOKafkaConsumer[Any, Any]", features: Features
    ) -> "dict[TopicPartition, list[Any]]":
        try:
            found: dict[TopicPartition, list[Any]] = await consumer.getmany(timeout_ms=_CALL_MS, max_records=BATCH)
        except OffsetOutOfRangeError:
            # Either the log went on without us, for longer than it is kept, or it ends before where we are.
            await self._check(consumer, features)
            await self._seek(consumer)
            return {}
        return found

    async def _take(self, consumer: "AIOKafkaConsumer[Any, Any]", fetched: "dict[TopicPartition, list[Any]]") -> None:
        batch: list[Raw] = [
            (record.partition, record.offset, record.value) for records in fetched.values() for record in records
        ]
        # Of the consumer, which passes over offsets that hold no record.
        positions = {each: await consumer.position(each) for each in self._partitions}
        if batch:
            moved = {each.partition: position for each, position in positions.items()}
            unreadable = self._store.unreadable
            await self._write(self._store.fold, batch, moved)
            HISTORY_UNREADABLE.inc(by=self._store.unreadable - unreadable)
            HISTORY_FOLDED.inc(by=len(batch))
        self._positions = positions
        if 0 < len(batch) < _SMALL and self.has_caught_up.is_set():
            await asyncio.sleep(_LINGER_S)

    async def _write(self, write: Callable[..., Any], *arguments: Any) -> None:
        try:
            await self._on_thread(write, *arguments)
        except sqlite3.Error:
            self.is_unwritable = True
            raise
        if self.is_unwritable:
            self.is_unwritable, self.trouble = False, None
            log.info("history.written", topic=self._topic)

    def _look_whether_caught_up(self, goals: dict[TopicPartition, int]) -> None:
        if all(self._positions.get(partition, 0) >= goal for partition, goal in goals.items()):
            self.has_caught_up.set()
            self.was_read = True

    # -- which log, and where ---------------------------------------------------------------------------------

    async def _begin(self, consumer: "AIOKafkaConsumer[Any, Any]", features: Features) -> None:
        """Seek to where the store is; to the beginning, with an empty store, where it holds another log."""
        self._ends = await consumer.end_offsets(self._partitions)
        topic_id = await self._topic_id(features)
        held = await self._on_thread(_topic_id_of, self._store)
        if self._must_start_over or held != topic_id or (topic_id is None and not self._has_begun):
            self.has_caught_up.clear()
            await self._write(self._store.start_over, topic_id)
            self._positions = {}
        self._has_begun, self._must_start_over = True, False
        await self._seek(consumer)
        await self._must_be_there(consumer, features)

    async def _topic_id(self, features: Features) -> str | None:
        self._id_checked_s = time.monotonic()
        return (await topic_ids(self._connection, [self._topic])).get(self._topic) if features.topic_ids else None

    async def _seek(self, consumer: "AIOKafkaConsumer[Any, Any]") -> None:
        beginnings: dict[TopicPartition, int] = await consumer.beginning_offsets(self._partitions)
        stored: dict[int, int] = await self._on_thread(self._store.positions)
        fresh = [each for each in self._partitions if each.partition not in stored]
        recent = await self._recent(consumer, fresh)
        for partition in self._partitions:
            position = stored.get(partition.partition)
            beginning = beginnings[partition]
            if position is not None and position < beginning:
                log.warning(
                    "history.gap", partition=partition.partition, missed=beginning - position, hint="not kept any more"
                )
            if position is None:
                position = recent.get(partition, beginning)
            self._positions[partition] = max(position, beginning)
            consumer.seek(partition, self._positions[partition])

    async def _recent(
        self, consumer: "AIOKafkaConsumer[Any, Any]", fresh: list[TopicPartition]
    ) -> dict[TopicPartition, int]:
        """Where results begin that are not older than what is kept; nothing where the broker cannot tell."""
        if not fresh or not (await features_of(self._connection)).exact_ends:
            return {}
        found = await consumer.offsets_for_times(dict.fromkeys(fresh, max(0, self._since_ms())))
        return {
            each: self._ends[each] if found.get(each) is None else found[each].offset  # none: all are older
            for each in fresh
        }

    async def _check(self, consumer: "AIOKafkaConsumer[Any, Any]", features: Features) -> None:
        """
        Find out that the log was replaced.

        Raises:
            _AnotherLog: it was.
        """
        if self._must_start_over:
            raise _AnotherLog("the history's file is broken")
        await self._must_be_there(consumer, features)
        if time.monotonic() - self._id_checked_s < _ID_CHECK_S:
            return
        topic_id = await self._topic_id(features)
        if topic_id is not None and topic_id != await self._on_thread(_topic_id_of, self._store):
            raise _AnotherLog("the topic was deleted and made again")

    async def _must_be_there(self, consumer: "AIOKafkaConsumer[Any, Any]", features: Features) -> None:
        """The broker without exact ends tells too little by part of a batch: only an empty log is another one there."""
        for is_last in (False, True):
            self._ends = await consumer.end_offsets(self._partitions)
            if not any(
                end < self._positions.get(partition, 0) and (features.exact_ends or end == 0)
                for partition, end in self._ends.items()
            ):
                return
            if is_last:
                raise _AnotherLog("it ends before what was read of it")
            await asyncio.sleep(_ASK_AGAIN_S)


def _topic_id_of(store: Store) -> str | None:
    return store.topic_id
