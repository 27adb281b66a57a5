"""A consumer for the time of a block, closed whatever ends it; and what its group has committed."""

import asyncio
from collections import defaultdict
from collections.abc import AsyncIterator, Awaitable, Collection, Iterable
from contextlib import asynccontextmanager
from typing import Any, Final, TypeVar

import structlog
from aiokafka import AIOKafkaConsumer, OffsetAndMetadata, TopicPartition
from aiokafka.errors import KafkaError, NoError, NotCoordinatorForGroupError, UnknownTopicOrPartitionError, for_code
from aiokafka.protocol.commit import OffsetFetchRequest

T = TypeVar("T")

log = structlog.get_logger(__name__)

#: How long a start that is not wanted any more may take, before it is cut off.
_LATE_S: Final = 5.0

#: How long brokers may take to close their side: a fetch that waits for records is answered first.
_CLOSED_S: Final = 0.5

#: Before a coordinator is asked again, as aiokafka waits.
_AGAIN_S: Final = 0.1


@asynccontextmanager
async def started(consumer: "AIOKafkaConsumer[Any, Any]") -> "AsyncIterator[AIOKafkaConsumer[Any, Any]]":
    """
    Start it, and stop it at the end.

    aiokafka leaves a connection open when its start is cancelled; so the start is let go on, and what it opened closed.
    """
    starting = asyncio.ensure_future(consumer.start())
    try:
        await asyncio.shield(starting)
        yield consumer
    finally:
        await asyncio.shield(_stopped(consumer, starting))


def look_at(consumer: "AIOKafkaConsumer[Any, Any]", partitions: Iterable[TopicPartition]) -> None:
    """
    Let it know of the partitions, and fetch nothing of them, before it is asked where they begin and end.

    aiokafka waits for 100 ms where it is asked about a topic that it has not heard of, and again for each. What it
    fetched unasked would come from the wrong place, and a question would wait behind it.
    """
    wanted = list(partitions)
    consumer.assign(wanted)
    consumer.pause(*wanted)


async def committed_offsets(
    consumer: "AIOKafkaConsumer[Any, Any]", partitions: Collection[TopicPartition]
) -> dict[TopicPartition, OffsetAndMetadata]:
    """
    What its group has committed, of those partitions of which it has committed something.

    As aiokafka asks, which passes over the error of a whole answer: it takes a broker that still loads the group, or
    that is not the group's any more, for one that knows of no commit.

    Raises:
        KafkaError: the broker refuses. One that is away, or that does not know yet, is asked again.
    """
    if not partitions:
        return {}
    coordinator = consumer._coordinator  # noqa: SLF001
    while True:
        await coordinator.ensure_coordinator_known()
        try:
            return _told_of(await coordinator._send_req(_question(consumer, partitions)))  # noqa: SLF001
        except KafkaError as error:
            if not error.retriable:
                raise
            if isinstance(error, NotCoordinatorForGroupError):
                coordinator.coordinator_dead()
            await asyncio.sleep(_AGAIN_S)


def _question(consumer: "AIOKafkaConsumer[Any, Any]", partitions: Collection[TopicPartition]) -> OffsetFetchRequest:
    by_topic: dict[str, list[int]] = defaultdict(list)
    for each in partitions:
        by_topic[each.topic].append(each.partition)
    return OffsetFetchRequest(consumer._coordinator.group_id, list(by_topic.items()))  # noqa: SLF001


def _told_of(answer: Any) -> dict[TopicPartition, OffsetAndMetadata]:
    """
    What the answer says.

    Raises:
        KafkaError: it is an error, as a whole or for a partition.
    """
    _raise(getattr(answer, "error_code", 0))  # the oldest form has none
    told: dict[TopicPartition, OffsetAndMetadata] = {}
    for topic, partitions in answer.topics:
        for partition, offset, metadata, code in partitions:
            if code == UnknownTopicOrPartitionError.errno:
                continue
            _raise(code)
            if offset >= 0:  # else nothing is committed
                told[TopicPartition(topic, partition)] = OffsetAndMetadata(offset, metadata)
    return told


def _raise(code: int) -> None:
    error = for_code(code)
    if error is not NoError:
        raise error


async def stop(consumer: "AIOKafkaConsumer[Any, Any]") -> None:
    """
    Stop it, and let go of brokers that do not.

    The end of a TLS connection that reaches a broker together with a request may be overlooked there; the transport
    then waits for its answer for 30 s, and whoever stops the consumer with it. Whoever is cancelled here lets go at
    once.
    """
    connections = consumer._client._conns.values()  # noqa: SLF001  # nothing else knows them
    transports = [each._writer.transport for each in connections if each._writer is not None]  # noqa: SLF001
    stopping = asyncio.ensure_future(stop_whole(consumer))
    try:
        _, late = await asyncio.wait((stopping,), timeout=_CLOSED_S)
        if late:
            _cut_off(transports)
        await asyncio.shield(stopping)
    except asyncio.CancelledError:
        # It goes on without us, and ends soon, as nothing is left to be waited for.
        _cut_off(transports)
        stopping.add_done_callback(_note)
        raise


async def stop_whole(consumer: "AIOKafkaConsumer[Any, Any]") -> None:
    """
    Stop it to its end, however long that takes. What goes wrong is logged.

    aiokafka gives up half way where a fetch has just failed: that waits for a moment, its `stop` cancels it, meets the
    cancellation as if it were its own, and leaves its client open, which connects again and again.
    """
    try:
        await consumer.stop()
    except asyncio.CancelledError:
        if _is_cancelled():
            raise
    except Exception as error:  # noqa: BLE001 - nobody who stops a reader can do anything about it
        log.warning("reader.not_stopped", reason=repr(error))
    else:
        return
    fetches = () if consumer._fetcher is None else tuple(consumer._fetcher._pending_tasks)  # noqa: SLF001
    for each in fetches:
        each.cancel()
    await asyncio.gather(*fetches, return_exceptions=True)
    try:
        await consumer._client.close()  # noqa: SLF001
    except Exception as error:  # noqa: BLE001 - it would stand in the place of what ended whoever is reading
        log.warning("reader.not_stopped", reason=repr(error))


class Interrupted(ConnectionError):
    """What a task waited for was cancelled, and the task was not."""


async def uncancelled(work: Awaitable[T]) -> T:
    """
    Its result. For tasks that are to go on: one that ends with a cancellation ends in silence, nobody looks at it.

    Raises:
        Interrupted: aiokafka has cancelled what this waits for.
    """
    try:
        return await work
    except asyncio.CancelledError:
        if _is_cancelled():
            raise
        raise Interrupted("aiokafka has cancelled a call") from None


def _is_cancelled() -> bool:
    """Whether somebody has cancelled the current task."""
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


def _cut_off(transports: Iterable[asyncio.WriteTransport]) -> None:
    for transport in transports:
        transport.abort()


def _note(stopping: "asyncio.Future[None]") -> None:
    """What came of it, for nobody else asks."""
    if not stopping.cancelled() and (error := stopping.exception()) is not None:
        log.warning("reader.not_stopped", reason=repr(error))


async def _stopped(consumer: "AIOKafkaConsumer[Any, Any]", starting: "asyncio.Future[None]") -> None:
    _, late = await asyncio.wait((starting,), timeout=_LATE_S)
    if late:
        starting.cancel()
        await asyncio.wait((starting,))
    await stop(consumer)
