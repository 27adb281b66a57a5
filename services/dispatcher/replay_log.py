"""
What a replay reads of the log: past events with what fan-out decided of each, and what of the replay is there already.

Never as part of a group, and nothing is committed.
"""

import time
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any, Final, NamedTuple, Self

import structlog
from aiokafka import AIOKafkaConsumer, ConsumerRecord, TopicPartition

from services.dispatcher.replaying import Past
from services.runtime.tracing import TRACING
from streams import codec, topics
from streams.connection import Connection
from streams.ends import EndOffset
from streams.features import features_of
from streams.producer import partition_of
from streams.reading import look_at, started
from streams.records import Delivery, Event, FanOutReceipt, Marker, Replay
from streams.takeover import Generations

log = structlog.get_logger("dispatcher.replay_log")

#: An event is on the log so long after it was accepted, at most: what ingest waits for the broker, and clocks that
#: differ. Costs reading an hour more where a range ends in the past.
LATE_MS: Final = 3_600_000
#: Clocks of two machines differ by less than this.
CLOCKS_DIFFER_MS: Final = 60_000

#: How long the receipt of an event that is on the log may take, where nothing behind it has one.
RECEIPT_PATIENCE_S: Final = 30.0

_FETCH_MS: Final = 200
_FETCH_BYTES: Final = 1_048_576
_MAX_AT_ONCE: Final = 100
#: Receipts held, of events that are not wanted, before they are dropped; a fetch brings some thousands.
_MAX_RECEIPTS: Final = 2_000


class Span(NamedTuple):
    """Offsets of a partition of `events`: the first, and the one behind the last."""

    start: int
    until: int


def events_partition(connection: Connection, app: str, partitions: int) -> TopicPartition:
    """Where all events of the app are, in an installation with so many partitions of `events`."""
    return TopicPartition(connection.topic(topics.EVENTS), partition_of(app.encode(), list(range(partitions)), []))


class Times(NamedTuple):
    """A span that is not looked up yet: events accepted in that time."""

    from_ms: int
    until_ms: int


@asynccontextmanager
async def looking(
    connection: Connection, *partitions: TopicPartition, **options: Any
) -> "AsyncIterator[AIOKafkaConsumer[Any, Any]]":
    """
    A client to look offsets of these up with, and to read by once they are resumed.

    One for many look-ups: each client costs two or three connections, with their handshakes, and as many to close.
    """
    consumer = AIOKafkaConsumer(
        **connection.client_options,
        enable_auto_commit=False,
        auto_offset_reset="earliest",
        isolation_level=(await features_of(connection)).isolation,
        **options,
    )
    async with started(consumer):
        look_at(consumer, partitions)
        yield consumer


async def span_of(
    connection: Connection, consumer: "AIOKafkaConsumer[Any, Any]", partition: TopicPartition, times: Times
) -> Span:
    """
    Where events accepted in that time stand, at most. All that is kept, where the broker cannot look up times.

    What a transaction that is still open has written, and whatever stands behind it, does not count.

    Raises:
        KafkaError: the broker does not answer.
    """
    start: int = (await consumer.beginning_offsets([partition]))[partition]
    if not (await features_of(connection)).exact_ends:
        return Span(start, await _corrected_end(connection, partition))
    end: int = (await consumer.end_offsets([partition]))[partition]
    # A record's time is when its producer sent it, which is not before it was accepted.
    return Span(
        await _at(consumer, partition, times.from_ms - CLOCKS_DIFFER_MS, end),
        await _at(consumer, partition, times.until_ms + LATE_MS, end),
    )


async def offset_at(
    connection: Connection, consumer: "AIOKafkaConsumer[Any, Any]", partition: TopicPartition, at_ms: int
) -> int:
    """The first offset written at this time or later; the beginning where the broker cannot look up times."""
    if not (await features_of(connection)).exact_ends:
        return int((await consumer.beginning_offsets([partition]))[partition])
    end: int = (await consumer.end_offsets([partition]))[partition]
    return await _at(consumer, partition, at_ms, end)


async def _at(consumer: "AIOKafkaConsumer[Any, Any]", partition: TopicPartition, at_ms: int, otherwise: int) -> int:
    found = (await consumer.offsets_for_times({partition: max(at_ms, 0)}))[partition]
    return otherwise if found is None else min(int(found.offset), otherwise)


async def _corrected_end(connection: Connection, partition: TopicPartition) -> int:
    ends = EndOffset(connection, partition)
    try:
        return await ends.ask()
    finally:
        await ends.stop()


class PastEvents:
    """Events of a span, in order, those that are wanted; open for the time of a block."""

    def __init__(
        self,
        connection: Connection,
        partition: TopicPartition,
        span: Span | Times,
        *,
        wants: Callable[[Event], bool],
        since_ms: int,
        patience_s: float = RECEIPT_PATIENCE_S,
    ) -> None:
        """
        Args:
            span: Times are looked up when it is opened.
            since_ms: receipts of what is wanted were written at this time or later.
            patience_s: how long a receipt may take; then the event is given without.
        """
        self._connection = connection
        self._partition = partition
        self._receipts_at = TopicPartition(connection.topic(topics.FAN_OUT), partition.partition)
        self._asked = span
        self._span = span if isinstance(span, Span) else Span(0, 0)
        self._wants = wants
        self._since_ms = since_ms
        self._patience_s = patience_s
        self._stack = AsyncExitStack()
        self._events: AIOKafkaConsumer[Any, Any]
        self._decided: AIOKafkaConsumer[Any, Any]
        self._ahead: list[Past] = []
        self._receipts: dict[int, FanOutReceipt] = {}
        self._newest_receipt = -1
        self._generations = Generations()
        self._waiting_since_s: float | None = None
        self._fetched_to = self._span.start
        #: Records of the span that have been looked at.
        self.seen = 0

    async def __aenter__(self) -> Self:
        """
        Open both.

        Raises:
            KafkaError: the broker does not answer.
        """
        features = await features_of(self._connection)
        options = {
            "max_partition_fetch_bytes": _FETCH_BYTES,
            "fetch_max_wait_ms": min(_FETCH_MS, features.fetch_wait_ms),
        }
        try:
            self._events = await self._opened(self._partition, options)
            self._decided = await self._opened(self._receipts_at, options)
            if isinstance(self._asked, Times):
                self._span = await span_of(self._connection, self._events, self._partition, self._asked)
                self._fetched_to = self._span.start
            await self._begin(self._events, self._partition, self._span.start)
            since_ms = self._since_ms - CLOCKS_DIFFER_MS
            since = await offset_at(self._connection, self._decided, self._receipts_at, since_ms)
            await self._begin(self._decided, self._receipts_at, since)
        except BaseException:
            await self._stack.aclose()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        """Close both."""
        await self._stack.aclose()

    @property
    def position(self) -> int:
        """Every event below was given, or is not wanted."""
        return self._ahead[0].offset if self._ahead else self._fetched_to

    @property
    def is_over(self) -> bool:
        """Whether there is nothing more."""
        return not self._ahead and self._fetched_to >= self._span.until

    async def next(self) -> Past | None:
        """The next one; None where there is none yet: nothing more, or a while has passed. Ask again."""
        if not self._ahead and not self.is_over:
            await self._fetch()
        if not self._ahead:
            return None
        first = self._ahead[0]
        if not await self._is_decided(first.offset):
            return None
        self._waiting_since_s = None
        del self._ahead[0]
        receipt = self._receipts.pop(first.offset, None)
        if len(self._receipts) > _MAX_RECEIPTS:
            self._receipts = {offset: each for offset, each in self._receipts.items() if offset > first.offset}
        return first._replace(receipt=receipt)

    async def _opened(self, partition: TopicPartition, options: dict[str, int]) -> "AIOKafkaConsumer[Any, Any]":
        return await self._stack.enter_async_context(looking(self._connection, partition, **options))

    async def _begin(self, consumer: "AIOKafkaConsumer[Any, Any]", partition: TopicPartition, start: int) -> None:
        beginning = (await consumer.beginning_offsets([partition]))[partition]
        consumer.seek(partition, max(start, beginning))
        consumer.resume(partition)

    async def _fetch(self) -> None:
        fetched = await self._events.getmany(self._partition, timeout_ms=_FETCH_MS, max_records=_MAX_AT_ONCE)
        for record in fetched.get(self._partition, ()):
            if record.offset >= self._span.until:
                break
            self.seen += 1
            try:
                event = codec.decode_as(Event, record.value)
            except codec.Unreadable:
                continue  # fan-out has put it aside
            if self._wants(event):
                trace = TRACING.of_record(record)
                self._ahead.append(Past(self._partition.partition, record.offset, event, None, trace))
        # The consumer's own: it passes over offsets without a record.
        self._fetched_to = min(max(await self._events.position(self._partition), self._fetched_to), self._span.until)

    async def _is_decided(self, offset: int) -> bool:
        """Whether the event's receipt was read, or will not come."""
        if offset in self._receipts or self._newest_receipt > offset:
            return True
        fetched = await self._decided.getmany(self._receipts_at, timeout_ms=_FETCH_MS)
        for record in fetched.get(self._receipts_at, ()):
            self._see_receipt(record, offset)
        if offset in self._receipts or self._newest_receipt > offset:
            return True
        if fetched:
            self._waiting_since_s = None
            return False
        now_s = time.monotonic()
        self._waiting_since_s = now_s if self._waiting_since_s is None else self._waiting_since_s
        return now_s - self._waiting_since_s >= self._patience_s

    def _see_receipt(self, record: "ConsumerRecord[Any, Any]", above: int) -> None:
        try:
            found = codec.decode(record.value)
        except codec.Unreadable:
            return
        if isinstance(found, Marker):
            self._generations.saw(0, found.source_partition, found.generation)
        elif isinstance(found, FanOutReceipt) and not self._generations.is_late(
            0, found.source_partition, found.source_generation
        ):
            self._newest_receipt = max(self._newest_receipt, found.source_offset)
            if found.source_offset >= above:
                self._receipts.setdefault(found.source_offset, found)


class ReadBack:
    """What of a replay stands on its integration's partition of `deliveries`, from the row's place on."""

    def __init__(self, row: Replay, topic: str) -> None:
        """
        Args:
            row: its progress.
            topic: full name of `replays`, whose owners' markers count.
        """
        self._row = row
        self._topic = topic
        self._generations = Generations()
        #: By offset of the event.
        self.appended: dict[int, tuple[Delivery, int]] = {}

    def see(self, record: "ConsumerRecord[Any, Any]") -> None:
        """One record, in order. What a frozen owner appended behind its successor's marker no lane has taken."""
        if record.key is not None and record.key != self._row.integration.encode():
            return
        try:
            found = codec.decode(record.value)
        except codec.Unreadable:
            return
        if isinstance(found, Marker):
            if found.source_topic == self._topic:
                self._generations.saw(record.partition, found.source_partition, found.generation)
        elif (
            isinstance(found, Delivery)
            and found.run == self._row.id
            and found.cause == "replay"
            and found.source_offset >= self._row.events_next
            and not self._generations.is_late(record.partition, 0, found.source_generation, before=self._row.marked)
        ):
            self.appended.setdefault(found.source_offset, (found, record.offset))
