"""
Changes of the configuration, as an API process makes them: decided here, asked of the one owner, then met.

A change is decided on what this process has read: the end of the app's audit chain, and a configuration that is at
least as new. The change's own audit record is chained to that end. The owner takes it
only while the chain still ends there (`services.admin.owner`); else somebody else was faster, and the change is decided
anew. So rules that look at the whole app (three active, one reveal) hold with any number of processes, and no plain
secret has to travel to whoever keeps them.
"""

import asyncio
import time
from collections import defaultdict
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, Final, Generic, TypeVar

import structlog
from aiokafka import AIOKafkaProducer
from aiokafka.errors import KafkaError

from services.admin.audit import chained
from services.admin.config_log import ConfigLog, unavailable
from services.admin.tokens import Caller
from services.runtime.problems import Problem
from streams import codec
from streams.connection import Connection
from streams.follower import Follower
from streams.producer import open_producer
from streams.records import Command, CommandReply, IntegrationConfig, Write
from streams.topics import COMMAND_REPLIES, COMMANDS, CONFIG_HISTORY, INTEGRATION_CONFIG

T = TypeVar("T")

#: How long a change waits for its turn and its owner. A healthy one needs some 20 ms; after a `kill -9` of
#: the owner's process another one takes over in about 7 s.
PATIENCE_S: Final = 10.0

#: After this long the producer gives a record up, or twice that where it was just being sent.
GIVE_UP_MS: Final = 4_000

#: How often a change is decided anew because another process was faster. Each time at least one change of the app was
#: made, so with as many processes as anybody runs this many are never needed.
TRIES: Final = 50

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Change(Generic[T]):
    """What is to be done: the record of it, and what is written with it. Nothing in it is secret."""

    action: str
    target: str
    #: What `Changes.make` returns when it is done.
    result: T
    details: dict[str, str] = field(default_factory=dict)
    writes: Sequence[Write] = ()
    #: False: it was asked for and is refused; only that is written.
    allowed: bool = True


@dataclass(frozen=True, slots=True)
class Unchanged(Generic[T]):
    """Nothing has to be done, nor recorded."""

    result: T


def integration_writes(config: IntegrationConfig) -> list[Write]:
    """What stores a version of an integration: as the one that counts, and in its history."""
    value = codec.encode(config)
    return [Write(topic=topic.name, key=config.id, value=value) for topic in (INTEGRATION_CONFIG, CONFIG_HISTORY)]


def integration_removal(integration: str) -> list[Write]:
    """What takes an integration away; its history says so."""
    return [Write(topic=topic.name, key=integration, value=None) for topic in (INTEGRATION_CONFIG, CONFIG_HISTORY)]


class Changes:
    """The way of every change. Clock and ids come in, so that tests own them."""

    def __init__(
        self,
        connection: Connection,
        log_read: ConfigLog,
        *,
        process: str,
        now_ms: Callable[[], int],
        new_id: Callable[[], str],
    ) -> None:
        """
        Args:
            process: names this process, no other by the same name: replies are found by it.
        """
        self._connection = connection
        self._log = log_read
        self._process = process
        self._now_ms = now_ms
        self._new_id = new_id
        #: Reads what the owner answers.
        self.replies = Follower(connection, COMMAND_REPLIES, self._apply)
        self._waiting: dict[str, asyncio.Future[CommandReply]] = {}
        self._producer: AIOKafkaProducer | None = None
        self._opening = asyncio.Lock()
        self._locks: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)

    async def open(self) -> None:
        """Begin to read replies. The topics are there."""
        await self.replies.start()

    async def close(self) -> None:
        """Stop. Who waits for a reply is cancelled."""
        for waiter in self._waiting.values():
            waiter.cancel()
        await self.replies.stop()
        producer, self._producer = self._producer, None
        if producer is not None:
            await producer.stop()

    async def make(self, app: str, caller: Caller, decide: Callable[[], Change[T] | Unchanged[T]]) -> T:
        """
        Make a change of the app; its result. When this returns, every view of this process shows the change.

        Args:
            app: whose chain it is recorded in.
            decide: says what to do, by what the views show at that moment; it must not wait for anything. Called again
                when the app has changed meanwhile. What it raises goes through; nothing is written then.

        Raises:
            Problem: 503 `broker_unavailable`; what may have been stored, its detail says.
        """
        until_s = time.monotonic() + PATIENCE_S
        async with self._turn(app):
            for _ in range(TRIES):
                head = await self._log.seen(app, until_s - time.monotonic())
                decided = decide()
                if isinstance(decided, Unchanged):
                    return decided.result
                reply = await self._ask(self._command(app, caller, decided, head, until_s))
                if reply.outcome == "done":
                    await self._met()
                    return decided.result
                if reply.outcome != "stale":
                    log.error("change.refused", action=decided.action, outcome=reply.outcome, reason=reply.reason)
                    raise unavailable(f"Nothing was changed: {reply.reason}. Repeat the request.")
        raise unavailable("Others change this app all the time, so nothing was changed. Repeat the request.")

    @asynccontextmanager
    async def _turn(self, app: str) -> AsyncIterator[None]:
        """
        One change of an app at a time in this process: they would only outdate each other.

        Raises:
            Problem: 503 `broker_unavailable`: those before it have waited for their owner for too long.
        """
        # One small lock an app, kept: apps are few, and a lock given away too early would be none.
        lock = self._locks[app]
        try:
            async with asyncio.timeout(PATIENCE_S):
                await lock.acquire()
        except TimeoutError:
            raise unavailable("Other changes of this app wait, so nothing was changed. Repeat the request.") from None
        try:
            yield
        finally:
            lock.release()

    def _command(self, app: str, caller: Caller, change: Change[Any], head: bytes, until_s: float) -> Command:
        now_ms = self._now_ms()
        audit = chained(
            id=f"aud_{self._new_id()}",
            app=app,
            at_ms=now_ms,
            who=caller.name,
            ip=caller.ip,
            action=change.action,
            target=change.target,
            allowed=change.allowed,
            details=change.details,
            previous_hash=head,
        )
        return Command(
            id=audit.id,
            app=app,
            reply_to=self._process,
            until_ms=now_ms + int((until_s - time.monotonic()) * 1_000),
            audit=codec.encode(audit),
            writes=list(change.writes),
        )

    async def _ask(self, command: Command) -> CommandReply:
        """The owner's reply; waited for as long as the command says."""
        waiter: asyncio.Future[CommandReply] = asyncio.get_running_loop().create_future()
        self._waiting[command.id] = waiter
        try:
            async with asyncio.timeout((command.until_ms - self._now_ms()) / 1_000):
                producer = await self._ready_producer()
                await producer.send_and_wait(
                    self._connection.topic(COMMANDS), codec.encode(command), key=command.app.encode()
                )
                return await waiter
        except (TimeoutError, KafkaError, OSError) as error:
            log.warning("change.unknown", command=command.id, app=command.app, error=repr(error))
            if not isinstance(error, TimeoutError):
                await self._drop_producer()
            raise unavailable(
                "The owner of the configuration did not confirm the change: it may have been stored, or not. Repeat a "
                "create with its Idempotency-Key. Before you repeat a retry, a test or a replay, which would send once "
                "more, look in the audit log whether it is there. Repeat anything else as it is."
            ) from None
        finally:
            self._waiting.pop(command.id, None)

    def _apply(self, key: bytes | None, value: bytes | None, offset: int) -> None:
        """Fold one record of topic `command-replies` in: those to others mean nothing here."""
        if key != self._process.encode():
            return
        try:
            reply = codec.decode_as(CommandReply, value)
        except codec.Unreadable as error:
            _log_unreadable(offset, error)
            return
        waiter = self._waiting.get(reply.command)
        if waiter is not None and not waiter.done():
            waiter.set_result(reply)

    async def _met(self) -> None:
        try:
            await self._log.meet_all()
        except Problem:
            raise unavailable("The change is stored, and cannot be shown yet: the broker does not answer.") from None

    async def _ready_producer(self) -> AIOKafkaProducer:
        async with self._opening:
            if self._producer is None:
                self._producer = await open_producer(
                    self._connection,
                    client_id="tenterhook-admin",
                    # Idempotent, it would try for ever. Like this it gives up; a command there twice is made once.
                    enable_idempotence=False,
                    request_timeout_ms=GIVE_UP_MS,
                )
            return self._producer

    async def _drop_producer(self) -> None:
        """Whatever is wrong with it, the next change opens another."""
        producer, self._producer = self._producer, None
        if producer is not None:
            try:
                await producer.stop()
            except (KafkaError, OSError) as error:
                log.warning("producer.not_closed", error=repr(error))


def _log_unreadable(offset: int, error: codec.Unreadable) -> None:
    log.error("reply.unreadable", offset=offset, reason=str(error), hint="its request hears 503")
