"""Puts failed deliveries onto the retry topics, where they wait without costing a worker anything."""

import asyncio
from asyncio import Future
from collections.abc import Awaitable, Callable, Hashable, Iterable, Mapping
from contextlib import suppress
from typing import Any, Final

import msgspec
import structlog
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, ConsumerRecord, TopicPartition
from aiokafka.errors import KafkaError
from aiokafka.structs import RecordMetadata

from services.runtime.tracing import headers_of
from streams import codec, takeover, topics
from streams.connection import Connection
from streams.delay_lines import place_for
from streams.features import features_of
from streams.reading import started
from streams.records import Delivery
from streams.takeover import Ends
from streams.topics import Partitions
from streams.trace_context import TraceContext
from streams.trouble import Trouble

log = structlog.get_logger("dispatcher.retries")

#: How often the broker is asked where `deliveries` ends. A takeover of a busy line reads from what we knew; at 5,000
#: records a second that is some 10,000 that it skips by their headers, a quarter of a second.
ENDS_REFRESH_S: Final = 2.0

#: Asks the broker where partitions end.
AskEnds = Callable[[Iterable[TopicPartition]], Awaitable[Mapping[TopicPartition, int]]]


class Retries:
    """Appends to the retry topics. A reader of each (`retry_reader.py`) puts deliveries back when they are due."""

    def __init__(self, connection: Connection, producer: AIOKafkaProducer) -> None:
        self._connection = connection
        self._producer = producer

    async def put(self, delivery: Delivery, *, slot: int, now_ms: int, trace: TraceContext | None = None) -> None:
        """
        Let the delivery wait until `due_at_ms`; returns when that is on the broker.

        Written twice, after a crash, it comes back twice at the same time, as the same attempt: who sends it passes
        over the second.

        Args:
            delivery: with the number of the next attempt and its due time.
            slot: the one that its due time was reckoned with (`backoff.Next`).
            trace: what the record carries, for the attempt that follows.

        Raises:
            ValueError: it has no due time.
            KafkaError: nothing that this producer does is recorded any more.
        """
        await (await self.send(delivery, slot=slot, now_ms=now_ms, trace=trace))

    async def written_since(self, since_ms: int) -> set[tuple[str, int]]:
        """
        Delivery and attempt of every record that came onto the retry topics since then, gone back or not.

        For takeovers: a failed attempt whose retry record is there needs no other one. Nothing on the embedded broker,
        which cannot look up times: there it is written again, and who sends it passes over the second.

        Raises:
            KafkaError: the broker does not answer.
        """
        found: set[tuple[str, int]] = set()
        if not (await features_of(self._connection)).exact_ends:
            return found
        partitions = [
            TopicPartition(self._connection.topic(line), slot)
            for line in topics.RETRIES
            for slot in range(len(topics.SLOT_TENTHS))
        ]
        consumer: AIOKafkaConsumer[Any, Any] = AIOKafkaConsumer(
            **self._connection.client_options, enable_auto_commit=False
        )
        async with started(consumer):
            starts = await consumer.offsets_for_times(dict.fromkeys(partitions, since_ms))
            ends = await consumer.end_offsets(partitions)
        spans = {each: (start.offset, ends[each]) for each, start in starts.items() if start is not None}

        def see(record: "ConsumerRecord[Any, Any]") -> None:
            with suppress(codec.Unreadable):
                delivery = codec.decode_as(Delivery, record.value)
                found.add((delivery.delivery_id, delivery.attempt))

        await takeover.read_back(self._connection, spans, see)
        return found

    async def send(
        self, delivery: Delivery, *, slot: int | None, now_ms: int, trace: TraceContext | None = None
    ) -> "Future[RecordMetadata]":
        """As `put`, for many at once: what it returns is done when this one is on the broker."""
        if delivery.due_at_ms is None:
            raise ValueError(f"delivery {delivery.delivery_id} has no due time, so no retry topic can take it")
        place = place_for(delivery.due_at_ms - now_ms, slot)
        waiting = msgspec.structs.replace(delivery, retry_line=None, retry_partition=None, retry_generation=None)
        sent: Future[RecordMetadata] = await self._producer.send(
            self._connection.topic(place.line),
            codec.encode(waiting),
            key=b"%d" % place.partition,
            partition=place.partition,
            # The line's wait begins now, by the same clock that the due time is compared with.
            timestamp_ms=now_ms,
            headers=headers_of(trace),
        )
        return sent


class DeliveryEnds:
    """Where `deliveries` ends, asked again every ENDS_REFRESH_S as long as a reader uses it; shared by all of them."""

    def __init__(self, connection: Connection, partitions: Partitions, ask_ends: AskEnds) -> None:
        topic = connection.topic(topics.DELIVERIES)
        #: Its partitions.
        self.targets: Final = [TopicPartition(topic, number) for number in range(partitions.by_integration)]
        #: As far as known.
        self.ends: Final = Ends()
        self.ask: Final = ask_ends
        self._users: set[Hashable] = set()
        self._refreshing: asyncio.Task[None] | None = None
        self._trouble = Trouble(log)

    def known(self) -> tuple[int, ...]:
        """The end of each partition; true ends are never lower."""
        return tuple(self.ends.of(target) for target in self.targets)

    def use(self, user: Hashable) -> None:
        """Keep them fresh from now on, for this user."""
        self._users.add(user)
        if self._refreshing is None:
            self._refreshing = asyncio.create_task(self._refresh(), name="refresh ends of deliveries")

    def leave(self, user: Hashable) -> None:
        """The user needs them no more."""
        self._users.discard(user)
        if not self._users and self._refreshing is not None:
            self._refreshing.cancel()
            self._refreshing = None

    async def _refresh(self) -> None:
        while True:
            try:
                self.ends.reach(await self.ask(self.targets))
            except KafkaError as error:
                self._trouble.met("ends.unknown", error, hint="a takeover will read more; asking again")
            else:
                self._trouble.over()
            await asyncio.sleep(ENDS_REFRESH_S)
