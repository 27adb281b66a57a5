"""
The way onto the topic `events`: a producer that is opened when there is a broker, and anew when it breaks.

An event counts as accepted when every in-sync replica has it, and not before. Where that takes longer than
`DEADLINE_S` the sender hears 503; the event may still be stored later, so a sender that cannot bear a second copy
repeats it with the same `id`.
"""

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from typing import Final

import structlog
from aiokafka import AIOKafkaProducer
from aiokafka.errors import KafkaError, KafkaTimeoutError, ProducerClosed

from services.ingest.traced import append_span
from services.runtime import kinds
from services.runtime.problems import Problem
from services.runtime.starting import DENIED, denied
from services.runtime.tracing import TRACING, Span, after, headers_of
from streams import codec, topics
from streams.connection import Connection, wait_for_broker
from streams.producer import open_producer
from streams.records import Event
from streams.trace_context import RecordHeaders, TraceContext
from streams.trouble import Trouble

#: How long a sender waits for the broker's word. Longer than the election of a new leader (some 3 s on three
#: brokers), because a beacon is never sent again; shorter than the 10 s after which clients give up by themselves.
DEADLINE_S: Final = 5.0

#: Bytes of events that the broker has not acknowledged. 64 MiB are a second of the fastest load measured; above
#: that the broker is too slow, and waiting would only fill the memory.
MAX_UNACKNOWLEDGED_BYTES: Final = 64 * 1024 * 1024


#: A producer that got nothing acknowledged for so long is replaced, and the topics are looked at again: aiokafka finds
#: a moved or restarted broker by itself within seconds, but not that the topic has gone.
STUCK_AFTER_S: Final = 20.0

#: How long a failure keeps this process from being ready. Where it then gets no traffic, nothing would tell that the
#: log takes events again; that the broker is away for longer, the follower of the configuration tells.
FORGOTTEN_AFTER_S: Final = 10.0

#: On so many brokers an event is accepted when two have it.
REPLICATED: Final = 3

#: Between two attempts to open a producer that breaks at once.
REOPEN_AFTER_S: Final = 1.0

log = structlog.get_logger(__name__)


class EventLog:
    """Appends to `events`. `keep_open` must run beside it."""

    def __init__(self, connection: Connection, partitions: topics.Partitions, *, replication: int = 0) -> None:
        self._connection = connection
        self._partitions = partitions
        self._replication = replication
        self._topic = connection.topic(topics.EVENTS)
        self._loop = asyncio.get_running_loop()
        self._producer: AIOKafkaProducer | None = None
        self._broken = asyncio.Event()
        #: Set once the first producer is open, so once the topics are there.
        self.opened = asyncio.Event()
        self._unacknowledged_bytes = 0
        #: The numbers of appends that have not ended, in the order in which they began.
        self._under_way: dict[int, None] = {}
        self._begun = 0
        #: How the topics are not as they must be any more.
        self._changed: str | None = None
        self._opening = Trouble(log)
        #: How often it was begun to open a producer.
        self.tries = 0
        #: On the loop's clock: when the first event came in that was not acknowledged, with none acknowledged since.
        self._failing_since_s: float | None = None
        self._failed_last_s = 0.0

    @property
    def unacknowledged_bytes(self) -> int:
        """Bytes of events that the broker was given and has not acknowledged."""
        return self._unacknowledged_bytes

    @property
    def oldest(self) -> int | None:
        """The number of the append that is under way for longest; None where none is."""
        return next(iter(self._under_way), None)

    @property
    def is_open(self) -> bool:
        """Whether there is a producer."""
        return self._producer is not None and self.opened.is_set()

    @property
    def missing(self) -> str | None:
        """As `is_open`, for `Liveness`."""
        return None if self.is_open else "the log is not opened"

    @property
    def trouble(self) -> str | None:
        """Why an event would not be stored now; None while all is well."""
        if not self.is_open:
            return self._changed or "there is no connection to the broker"
        if self._failing_since_s is None or self._loop.time() - self._failed_last_s > FORGOTTEN_AFTER_S:
            return None
        return "the broker did not acknowledge the last events in time"

    async def keep_open(self) -> None:
        """
        Have a producer whenever there is a broker; runs until it is cancelled.

        Raises:
            TopicMismatch: the topics are there, and not as they must be, when they are first looked at.
            StartupError: the broker forbids it then.
        """
        try:
            while True:
                self.tries += 1
                await wait_for_broker(self._connection, say=lambda line: log.warning("broker.awaited", state=line))
                try:
                    await self._open()
                    self._opening.over()
                    await self._broken.wait()
                except topics.TopicMismatch as mismatch:
                    if not self.opened.is_set():
                        raise
                    # They were right, so it is the brokers that are not: wait until they are.
                    if self._changed != str(mismatch):
                        self._changed = str(mismatch)
                        log.error("topics.changed", reason=self._changed)  # noqa: TRY400  # the reason says it all
                except (KafkaError, OSError) as error:
                    if isinstance(error, DENIED) and not self.opened.is_set():
                        raise denied("ingest", self._connection, error) from error
                    self._opening.met("producer.not_opened", error)
                await self.close(within_s=REOPEN_AFTER_S)
                await asyncio.sleep(REOPEN_AFTER_S)
        finally:
            await self.close(within_s=DEADLINE_S)

    async def _open(self) -> None:
        await topics.ensure(self._connection, self._partitions, replication=self._replication)
        self._broken.clear()
        self._producer = await open_producer(
            self._connection,
            client_id="tenterhook-ingest",
            # Of one request to the broker: after that aiokafka asks for the leader anew.
            request_timeout_ms=int(DEADLINE_S * 1000),
        )
        # aiokafka learns of a topic's partitions when it first sends there; the first event shall not wait for that.
        await self._producer.partitions_for(self._topic)
        self._failing_since_s = self._changed = None
        self.opened.set()
        # As `topics.ensure` has made or checked them.
        replicas = self._replication or len(self._producer.client.cluster.brokers())
        is_replicated = replicas >= REPLICATED
        log.info(
            "producer.opened",
            topic=self._topic,
            accepted_means="two brokers have it" if is_replicated else "one broker has it: it is as lasting as that",
        )

    async def close(self, *, within_s: float) -> None:
        """Let what is under way reach the broker, for *within_s* at most, and close the producer."""
        producer, self._producer = self._producer, None
        if producer is None:
            return
        try:
            async with asyncio.timeout(within_s):
                await producer.stop()
        except (TimeoutError, KafkaError):
            # An idempotent producer would try for ever. Its sender ends first: what that gives back, to send it again,
            # must not have been given up before.
            with suppress(TimeoutError, KafkaError):
                async with asyncio.timeout(REOPEN_AFTER_S):
                    await producer._sender.close()  # noqa: SLF001
            # Whoever still waits hears 503.
            waiting = producer._message_accumulator  # noqa: SLF001
            undrained = [batch for batches in waiting._batches.values() for batch in batches]  # noqa: SLF001
            # Those that were given back still take themselves away from there, and fail where they are not.
            waiting._pending_batches.update(undrained)  # noqa: SLF001
            waiting.fail_all(ProducerClosed())
            for batch in undrained:
                # That a batch was not sent is told to those who wait for room, too: perhaps nobody does any more.
                batch._drain_waiter.exception()  # noqa: SLF001
            await producer.client.close()

    async def append(self, event: Event, trace: TraceContext | None = None) -> None:
        """
        Store the event. Returning means that every in-sync replica has it. *trace*: what it is appended in.

        Raises:
            Problem: 503 `broker_unavailable` or `overloaded`; the event may still be stored.
        """
        if trace is None:
            return await self._append(event, None)
        span = append_span(TRACING, trace, self._topic, [event])
        try:
            await self._append(event, headers_of(after(span, trace)))
        except Problem as problem:
            _ended(span, problem)
            raise
        return _ended(span, None)

    async def _append(self, event: Event, headers: RecordHeaders | None) -> None:
        producer, value = self._producer_for(event)
        self._unacknowledged_bytes += len(value)
        number = self._begin()
        deadline_s = self._loop.time() + DEADLINE_S
        expiry: asyncio.TimerHandle | None = None
        try:
            # Waits only while a batch is full, and for the producer's request timeout at most.
            acknowledged = await producer.send(self._topic, value, key=event.app.encode(), headers=headers)
            # asyncio.timeout would do the same for four times the CPU.
            expiry = self._loop.call_at(deadline_s, _expire, acknowledged)
            await acknowledged
        except (TimeoutError, KafkaError) as error:
            self._failed(error, since_s=deadline_s - DEADLINE_S)
            raise unavailable() from None
        finally:
            if expiry is not None:
                expiry.cancel()
            self._unacknowledged_bytes -= len(value)
            del self._under_way[number]
        self._failing_since_s = None

    async def append_all(self, events: Sequence[Event], trace: TraceContext | None = None) -> list[Problem | None]:
        """
        Store events in this order, without waiting for one before the next is sent.

        From the first on that the log does not take, none is tried: what is missing is the end, so that a sender that
        repeats it keeps its order. What was taken and not acknowledged in time may have been stored or not, each for
        itself.

        Returns:
            Of each event, why it may not be stored: 503 `broker_unavailable` or `overloaded`; None when it is.
        """
        span = append_span(TRACING, trace, self._topic, events)
        told = await self._append_all(events, headers_of(after(span, trace)))
        _ended(span, next(filter(None, told), None))
        return told

    async def _append_all(self, events: Sequence[Event], headers: RecordHeaders | None) -> list[Problem | None]:
        acknowledged: list[asyncio.Future[object]] = []
        started_s, held_bytes = self._loop.time(), 0
        number = self._begin()
        try:
            not_taken: Problem | None = None
            try:
                async with asyncio.timeout_at(started_s + DEADLINE_S):
                    for event in events:
                        producer, value = self._producer_for(event)
                        self._unacknowledged_bytes += len(value)
                        held_bytes += len(value)
                        key = event.app.encode()
                        acknowledged.append(await producer.send(self._topic, value, key=key, headers=headers))
            except Problem as problem:
                not_taken = problem
            except (TimeoutError, KafkaError) as error:
                self._failed(error, since_s=started_s)
                not_taken = unavailable()
            if acknowledged:
                await asyncio.wait(acknowledged, timeout=max(0.0, started_s + DEADLINE_S - self._loop.time()))
            told = [self._outcome(each, since_s=started_s) for each in acknowledged]
        finally:
            self._unacknowledged_bytes -= held_bytes
            del self._under_way[number]
            for each in acknowledged:
                # Where nobody waits any more, nobody is to be told of an exception that nobody has looked at.
                if not each.cancel() and not each.cancelled():
                    each.exception()
        if None in told:
            self._failing_since_s = None
        return told + [not_taken] * (len(events) - len(told))

    def _begin(self) -> int:
        """Note that an append is under way; whoever calls takes the number away again."""
        self._begun += 1
        self._under_way[self._begun] = None
        return self._begun

    def _producer_for(self, event: Event) -> tuple[AIOKafkaProducer, bytes]:
        """The producer, and the bytes that it shall send."""
        if self._producer is None:
            raise not_ready()
        value = codec.encode(event)
        if self._unacknowledged_bytes + len(value) > MAX_UNACKNOWLEDGED_BYTES:
            raise overloaded()
        return self._producer, value

    def _outcome(self, acknowledged: asyncio.Future[object], *, since_s: float) -> Problem | None:
        """Of an event that was sent and that nobody waits for any more."""
        error = acknowledged.exception() if acknowledged.done() else TimeoutError()
        if error is None:
            return None
        if not isinstance(error, KafkaError | TimeoutError):
            raise error
        self._failed(error, since_s=since_s)
        return unavailable()

    def _failed(self, error: TimeoutError | KafkaError, *, since_s: float) -> None:
        """Have the producer replaced where it will not recover by itself."""
        now_s = self._loop.time()
        if self._failing_since_s is None or now_s - self._failed_last_s > STUCK_AFTER_S:
            self._failing_since_s = since_s
            log.warning("event.not_appended", error=type(error).__name__)
        self._failed_last_s = now_s
        # aiokafka's own says that a batch stayed full: that the broker is slow or away, as ours does.
        passing = isinstance(error, TimeoutError | KafkaTimeoutError) or error.retriable
        if not passing or now_s - self._failing_since_s > STUCK_AFTER_S:
            # Fenced, out of sequence, closed: aiokafka's sender does not come back from it.
            self._broken.set()


def _ended(span: Span | None, problem: Problem | None) -> None:
    if span is not None:
        if problem is not None:
            span.fail(problem.code)
        span.end()


def _expire(acknowledged: asyncio.Future[object]) -> None:
    if not acknowledged.done():
        acknowledged.set_exception(TimeoutError())


def not_ready() -> Problem:
    """The broker is away, and the event was not given to it."""
    return Problem(
        kinds.BROKER_UNAVAILABLE,
        "The log cannot be reached at the moment. The event was not stored; repeat it.",
        headers={"Retry-After": "5"},
    )


def unavailable() -> Problem:
    """The broker did not acknowledge in time."""
    return Problem(
        kinds.BROKER_UNAVAILABLE,
        "The event was not confirmed by the log: it may have been stored, or not. Repeat it with the same `id`.",
        headers={"Retry-After": "5"},
    )


def overloaded() -> Problem:
    """More is waiting, for the broker or for its own end, than memory is set aside for."""
    return Problem(
        kinds.OVERLOADED,
        "More is waiting to be stored than can be held. This was not stored; repeat it.",
        headers={"Retry-After": "1"},
    )
