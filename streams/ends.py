"""Where partitions end now. Many may ask at once, and share one answer that is fresh enough for each."""

import asyncio
from collections.abc import Sequence
from typing import Final

import structlog
from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import KafkaError

from streams.connection import Connection
from streams.features import features_of
from streams.reading import stop, uncancelled
from streams.trouble import Trouble

log = structlog.get_logger(__name__)

#: One round trip takes a millisecond; a broker that needs longer than this is away, and is asked on a new connection.
_ANSWER_MS: Final = 10_000
_PAUSES_S: Final = (0.1, 2.0)


class _Asker:
    """
    Asks on a connection of its own: a broker answers the requests of one connection one after another, so that the
    question would wait behind the fetch that waits for records.
    """

    def __init__(self, connection: Connection, partitions: Sequence[TopicPartition], *, with_open: bool) -> None:
        self._connection = connection
        self._partitions = list(partitions)
        self._with_open = with_open
        self._consumer: AIOKafkaConsumer | None = None
        #: Where the last batch began when it was read, and where it ended: what is there stays as it is, and is not
        #: read again for each question of a quiet log.
        self._batches: dict[TopicPartition, tuple[int, int]] = {}
        self._trouble = Trouble(log, topic=self._partitions[0].topic)
        #: The question that is on its way: too old for whoever comes now.
        self._asked: asyncio.Task[dict[TopicPartition, int]] | None = None
        #: The one that will be sent when that is answered: whoever comes now shares it.
        self._next: asyncio.Task[dict[TopicPartition, int]] | None = None

    async def _ask(self) -> dict[TopicPartition, int]:
        if self._next is None:
            name = f"end of {self._partitions[0].topic}"
            self._next = asyncio.create_task(self._answer(self._asked), name=name)
        return await asyncio.shield(self._next)

    async def stop(self) -> None:
        """Close the connection; who waits is cancelled. Asking again opens another one."""
        tasks = [task for task in (self._next, self._asked) if task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._asked = self._next = None
        await self._close()

    async def _answer(self, before: "asyncio.Task[dict[TopicPartition, int]] | None") -> dict[TopicPartition, int]:
        if before is not None and not before.done():
            await asyncio.wait((before,))
        self._asked, self._next = self._next, None  # from here on who comes needs another question
        pause_s, longest_s = _PAUSES_S
        while True:
            try:
                ends = await uncancelled(self._told())
            except (KafkaError, OSError) as error:
                self._trouble.met("end_offset.failed", error, hint="asking again")
                await self._close()
                await asyncio.sleep(pause_s)
                pause_s = min(2 * pause_s, longest_s)
            else:
                self._trouble.over()
                return ends

    async def _told(self) -> dict[TopicPartition, int]:
        """What the broker says now."""
        consumer = await self._opened()
        ends: dict[TopicPartition, int] = await consumer.end_offsets(self._partitions)
        if not (await features_of(self._connection)).exact_ends:
            for partition, end in ends.items():
                if end > 0:
                    ends[partition] = await self._after_the_batch_at(consumer, partition, end - 1)
        return ends

    async def _after_the_batch_at(self, consumer: AIOKafkaConsumer, partition: TopicPartition, offset: int) -> int:
        """Offset after the last batch, which starts at *offset*, by reading it. See `Features.exact_ends`."""
        began, ended = self._batches.get(partition, (-1, -1))
        if began == offset:
            return ended
        consumer.assign([partition])
        consumer.seek(partition, offset)
        async with asyncio.timeout(_ANSWER_MS / 1000):
            await consumer.getone()
        await consumer.getmany()
        end: int = await consumer.position(partition)
        consumer.unsubscribe()  # or it would go on fetching, and the next question wait behind that
        self._batches[partition] = offset, end
        return end

    async def _opened(self) -> AIOKafkaConsumer:
        if self._consumer is None:
            features = await features_of(self._connection)
            isolation = "read_uncommitted" if self._with_open else features.isolation
            consumer = AIOKafkaConsumer(
                **self._connection.client_options,
                group_id=None,
                enable_auto_commit=False,
                isolation_level=isolation,
                request_timeout_ms=_ANSWER_MS,
            )
            try:
                await consumer.start()
                # Asked about a topic that it has not heard of, aiokafka waits for 100 ms, and so for each of them. The
                # embedded broker makes a topic that it is asked about by name, where it has come back empty.
                if features.exact_ends:
                    await consumer._client.set_topics({each.topic for each in self._partitions})  # noqa: SLF001
            except BaseException:
                await stop(consumer)
                raise
            self._consumer = consumer
        return self._consumer

    async def _close(self) -> None:
        consumer, self._consumer = self._consumer, None
        self._batches.clear()  # who answers next may have another log
        if consumer is not None:
            await stop(consumer)


class EndOffset(_Asker):
    """Asks for the end of one partition."""

    def __init__(self, connection: Connection, partition: TopicPartition) -> None:
        super().__init__(connection, [partition], with_open=False)

    async def ask(self) -> int:
        """
        Offset of the next record, by a question sent after this call. Waits while the broker is away.

        What a transaction that is still open has written, and whatever stands behind it, does not count.

        Cancelled when this is stopped.
        """
        return (await self._ask())[self._partitions[0]]


class EndOffsets(_Asker):
    """Asks for the ends of several partitions, in one request."""

    def __init__(
        self, connection: Connection, partitions: Sequence[TopicPartition], *, with_open: bool = False
    ) -> None:
        """
        Args:
            with_open: what a transaction that is still open has written counts. Who reads what is committed, and has
                come to such an end, has met every transaction that had written anything: a commit becomes visible in
                one partition after the other, and until the last of them a transaction is open there.
        """
        super().__init__(connection, partitions, with_open=with_open)

    async def ask(self) -> dict[TopicPartition, int]:
        """As `EndOffset.ask`, of each partition."""
        return await self._ask()
