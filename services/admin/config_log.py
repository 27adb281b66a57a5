"""
The config topics as the admin service uses them: written through one producer, read back through followers.

A write is done when this process's own follower has applied it, so that whatever is asked next meets it.
Reads first catch up with the topics' ends, so that they meet the writes of other admin processes too.
"""

import asyncio
from collections.abc import Callable
from contextlib import suppress
from typing import Final

import structlog
from aiokafka import AIOKafkaProducer
from aiokafka.errors import KafkaError

from services.admin.audit import Chains
from services.runtime.problems import Problem
from streams import codec
from streams.connection import Connection, wait_for_broker
from streams.follower import Follower
from streams.lane_rows import LaneRows
from streams.partitions_follower import PartitionsFollower
from streams.producer import open_producer
from streams.records import AuditRecord, Event, IntegrationConfig
from streams.states import States
from streams.topics import (
    APP_CONFIG,
    AUDIT,
    EVENTS,
    INTEGRATION_CONFIG,
    INTEGRATION_STATE,
    LANE_ROWS,
    Partitions,
    Topic,
    ensure,
)
from streams.views import Apps, Integrations

#: How long a request waits for the broker before it is answered with 503. A healthy one needs milliseconds; the
#: election of a new leader some 3 s on three brokers.
PATIENCE_S: Final = 5.0

#: After this long the producer gives a record up, or twice that where it was just being sent.
GIVE_UP_MS: Final = 4_000

#: Between two attempts to make the topics, when the broker went away in between.
AGAIN_AFTER_S: Final = 1.0

log = structlog.get_logger(__name__)


class ConfigLog:
    """
    Apps, integrations and what the breaker says of them, as they stand at the end of their topics.

    Also the rows of detached integrations: those are written about a second late, and read half a second after that.
    """

    def __init__(self, connection: Connection) -> None:
        self.apps = Apps()
        self.integrations = Integrations()
        self.states = States()
        self.chains = Chains()
        self.rows = LaneRows()
        self._connection = connection
        self._integrations = Follower(
            connection, INTEGRATION_CONFIG, self.integrations.apply, clear=self.integrations.clear
        )
        self._audit = Follower(connection, AUDIT, self.chains.apply, clear=self.chains.clear)
        self._followers = (
            Follower(connection, APP_CONFIG, self.apps.apply, clear=self.apps.clear),
            self._integrations,
            Follower(connection, INTEGRATION_STATE, self.states.apply, clear=self.states.clear),
            self._audit,
        )
        self._rows: PartitionsFollower | None = None
        #: One write of a configuration at a time: see `write_with_offset`.
        self._writing = asyncio.Lock()
        self._is_read = False
        self._producer: AIOKafkaProducer | None = None
        self._opening = asyncio.Lock()

    @property
    def trouble(self) -> str | None:
        """Why no request can be answered now; None when all is well."""
        if not self._is_read:
            return "the configuration has not been read yet: there is no broker, or it is still being read"
        if not all(follower.is_live for follower in self._followers):
            return "the configuration cannot be followed: the broker does not answer"
        return None

    async def open(self, partitions: Partitions, *, replication: int) -> None:
        """
        Wait for a broker as long as it takes, make the topics that are missing, and read both to the end.

        Raises:
            TopicMismatch: the topics are there, and not as they must be.
        """
        while True:
            await wait_for_broker(self._connection, say=lambda line: log.warning("broker.awaited", state=line))
            try:
                await ensure(self._connection, partitions, replication=replication)
            except (KafkaError, OSError) as error:
                log.warning("topics.not_ensured", error=repr(error))
                await asyncio.sleep(AGAIN_AFTER_S)
            else:
                break
        self._rows = PartitionsFollower(
            self._connection, LANE_ROWS, partitions.by_integration, self.rows.apply, clear=self.rows.clear
        )
        await asyncio.gather(*(follower.start() for follower in (*self._followers, self._rows)))
        self._is_read = True

    async def close(self) -> None:
        """Stop following and writing."""
        await self._drop_producer()
        await self._stop_followers()

    async def catch_up(self) -> None:
        """
        Meet everything that was written before this call, by whichever process.

        Raises:
            Problem: 503 `broker_unavailable`; nothing was changed.
        """
        if not self._is_read:
            raise unavailable("The configuration has not been read yet, so nothing was done. Repeat the request.")
        try:
            async with asyncio.timeout(PATIENCE_S):
                await asyncio.gather(*(follower.catch_up() for follower in self._followers))
        except (TimeoutError, KafkaError, OSError) as error:
            log.warning("config.not_met", error=type(error).__name__)
            raise unavailable("The broker does not answer, so nothing was done. Repeat the request.") from None

    async def write(self, integration: str, config: IntegrationConfig | None) -> None:
        """
        Put an integration's configuration on the log, or take it off (None), and meet it.

        Raises:
            Problem: 503 `broker_unavailable`; the write may have been stored nevertheless.
        """
        async with self._writing:
            await self._write(integration, config)

    async def write_with_offset(self, integration: str, made: Callable[[int], IntegrationConfig]) -> IntegrationConfig:
        """
        As `write`, for a configuration that names the offset of its own record.

        *made* gets the end of the topic, asked while no other write of this process is under way: the record's offset.
        Only the write of another process at the same moment can come before it; the record is further up then.

        Raises:
            Problem: 503 `broker_unavailable`; the write may have been stored nevertheless.
        """
        async with self._writing:
            try:
                async with asyncio.timeout(PATIENCE_S):
                    offset = await self._integrations.end()
            except (TimeoutError, KafkaError, OSError):
                raise unavailable("The broker does not answer, so nothing was done. Repeat the request.") from None
            config = made(offset)
            await self._write(integration, config)
        return config

    async def audit(self, record: AuditRecord) -> None:
        """
        Put a record on the audit log. Before what it tells of: a change without its record must not be.

        Raises:
            Problem: 503 `broker_unavailable`; nothing was changed.
        """
        written = await self._append(AUDIT, codec.encode(record), record.app, "nothing was changed. Repeat the request")
        await self._met(self._audit, written)

    async def announce(self, event: Event) -> None:
        """
        Append an event of the app itself.

        Raises:
            Problem: 503 `broker_unavailable`; it may have been stored nevertheless.
        """
        await self._append(EVENTS, codec.encode(event), event.app, "the event may have been stored, or not")

    async def _write(self, integration: str, config: IntegrationConfig | None) -> None:
        unknown = (
            "it may have been stored, or not. Look it up, or repeat a create with its Idempotency-Key, and anything "
            "else as it is"
        )
        value = None if config is None else codec.encode(config)
        await self._met(self._integrations, await self._append(INTEGRATION_CONFIG, value, integration, unknown))

    async def _append(self, topic: Topic, value: bytes | None, key: str, unknown: str) -> int:
        """Offset of the record. *unknown*: what the caller may count on when the broker does not confirm."""
        try:
            producer = await self._ready_producer()
            written = await producer.send_and_wait(self._connection.topic(topic), value, key=key.encode())
        except (TimeoutError, KafkaError, OSError) as error:
            log.warning("config.write_unknown", topic=topic.name, key=key, error=repr(error))
            await self._drop_producer()
            raise unavailable(f"The broker did not confirm the change: {unknown}.") from None
        return int(written.offset)

    async def _met(self, follower: Follower, offset: int) -> None:
        """Returns when the record there is applied: a follower's position is that of the record after it."""
        try:
            async with asyncio.timeout(PATIENCE_S):
                await follower.reach(offset + 1)
        except TimeoutError:
            log.warning("config.not_met", topic=follower.topic.name)
            raise unavailable("The change is stored, and cannot be shown yet: the broker does not answer.") from None

    async def _ready_producer(self) -> AIOKafkaProducer:
        async with self._opening:
            if self._producer is None:
                async with asyncio.timeout(PATIENCE_S):
                    self._producer = await open_producer(
                        self._connection,
                        client_id="tenterhook-admin",
                        # Idempotent, it would try for ever, and the change could appear long after its 503. Like this
                        # it gives up; a retry that stores the same configuration twice changes nothing.
                        enable_idempotence=False,
                        request_timeout_ms=GIVE_UP_MS,
                    )
            return self._producer

    async def _drop_producer(self) -> None:
        """Whatever is wrong with it, the next write opens another."""
        producer, self._producer = self._producer, None
        if producer is not None:
            with suppress(KafkaError, OSError):
                await producer.stop()

    async def _stop_followers(self) -> None:
        rows = () if self._rows is None else (self._rows,)
        await asyncio.gather(*(follower.stop() for follower in (*self._followers, *rows)))


def unavailable(detail: str) -> Problem:
    """The broker is away, or not confirming."""
    return Problem(503, "broker_unavailable", "No answer from the log", detail, headers={"Retry-After": "5"})
