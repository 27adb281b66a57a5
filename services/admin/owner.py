"""
The owner of the configuration: the one Faust agent that writes it, from the commands of all API processes.

A command says what to write and which end of the app's audit chain it was decided for. It is made if the chain still
ends there, whole or not at all: its audit record and its records in one transaction, under a transactional id that the
next owner takes over, so that an owner that froze is shut out by the broker whatever it still sends. (The embedded
broker has no transactions: there, one owner writes the audit record first.)

After the commit come the events that tell of it and the deliveries that it asks for, and the reply; then the command is
finished. A crash before the commit leaves nothing, one after it has the command read again: its audit record is found,
and only what comes after it is sent again. Events carry ids that make a repeat one (`docs/why/event-ids.md`); a
delivery may be sent twice then, as any whose request was in flight. A command that stands twice on the topic, because
who asked sent it again, is told once.
"""

import asyncio
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Final

import structlog
from aiokafka import AIOKafkaProducer, ConsumerRecord
from aiokafka.errors import KafkaError

from services.admin.audit import Chains, hash_of_record
from streams import codec
from streams.connection import Connection
from streams.engine.processor import Assignment, Batch
from streams.features import features_of
from streams.follower import Follower
from streams.producer import open_producer
from streams.records import AuditRecord, Command, CommandOutcome, CommandReply, Write
from streams.topics import (
    APP_CONFIG,
    AUDIT,
    COMMAND_REPLIES,
    CONFIG_HISTORY,
    DELIVERIES,
    EVENTS,
    INTEGRATION_CONFIG,
    REPLAYS,
    Topic,
)
from streams.trouble import Trouble

log = structlog.get_logger("admin.owner")

#: Name of the consumer group, and of the Faust agent.
GROUP: Final = "admin"
AGENT: Final = "owner"

#: What is not on the broker after this long is given up, and made again if it is still ours to make.
GIVE_UP_MS: Final = 4_000

#: What a command may write together with its audit record, and what may follow when that is on the log.
TOGETHER: Final[Mapping[str, Topic]] = {
    each.name: each for each in (INTEGRATION_CONFIG, APP_CONFIG, CONFIG_HISTORY, REPLAYS)
}
AFTERWARDS: Final[Mapping[str, Topic]] = {each.name: each for each in (EVENTS, DELIVERIES)}

#: An owner that died leaves a transaction open for so long at most, and nobody reads past it meanwhile; its successor
#: ends it earlier, when it takes over.
TRANSACTION_MS: Final = 10_000

#: Commands in one transaction, at most.
AT_ONCE: Final = 100

#: Commands that are known to be told, at most: one that stands twice does so within seconds.
REMEMBERED: Final = 10_000

#: Before a write that failed is tried again.
AGAIN_AFTER_S: Final = 0.2

#: How long a producer may take to close.
CLOSE_S: Final = 3.0


@dataclass(frozen=True, slots=True)
class Judged:
    """A command, and what becomes of it."""

    command: Command
    outcome: CommandOutcome
    reason: str | None = None
    #: Set where it is to be written now.
    audit: AuditRecord | None = None


def judge(command: Command, *, head: bytes, is_made: bool, now_ms: int) -> Judged:
    """
    What becomes of a command.

    Args:
        head: where the app's chain ends, with what was judged before it in the same transaction.
        is_made: whether its audit record is on the log already: its owner died before it could say so.
        now_ms: by the owner's clock.
    """
    if is_made:
        return Judged(command, "done")
    if now_ms > command.until_ms:
        return Judged(command, "late", "nobody waits for it any longer")
    try:
        audit = codec.decode_as(AuditRecord, command.audit)
    except codec.Unreadable as error:
        return Judged(command, "refused", f"its audit record cannot be read: {error}")
    if fault := _fault(command, audit):
        return Judged(command, "refused", fault)
    if audit.previous_hash != head:
        return Judged(command, "stale", "the app has changed since it was decided")
    return Judged(command, "done", audit=audit)


def _fault(command: Command, audit: AuditRecord) -> str | None:
    """Why no process of ours can have made this command, or None."""
    if audit.id != command.id or audit.app != command.app or hash_of_record(audit) != audit.hash:
        return "its audit record is of another change, or its hash is wrong"
    if unknown := sorted({each.topic for each in command.writes} - TOGETHER.keys() - AFTERWARDS.keys()):
        return f"it wants to write to {unknown[0]}, and no change does"
    return None


@dataclass(frozen=True, slots=True)
class _Writers:
    #: Writes the configuration, in transactions where the broker has them.
    config: AIOKafkaProducer
    #: Writes what tells of it.
    tell: AIOKafkaProducer
    has_transactions: bool


class Owner:
    """The processor of topic `commands`. See the module's docstring, and `Processor`."""

    def __init__(
        self,
        connection: Connection,
        chains: Chains,
        audit: Follower,
        *,
        now_ms: Callable[[], int],
        may_write: Callable[[], bool],
    ) -> None:
        """
        Args:
            audit: follows topic `audit` into *chains*.
            may_write: whether the group has confirmed this worker lately.
        """
        self._connection = connection
        self._chains = chains
        self._audit = audit
        self._now_ms = now_ms
        self._may_write = may_write
        self._is_ours = False
        #: How often the configuration was given up.
        self._settled = 0
        self._trouble = Trouble(log)
        self._lock = asyncio.Lock()
        self._writers: _Writers | None = None
        #: Writers that were given up and have not ended yet: their broker is away.
        self._closing: set[asyncio.Task[None]] = set()
        #: Ends of chains that this owner has written, and its commands, ahead of what *chains* has read.
        self._ends: dict[str, bytes] = {}
        self._made: set[str] = set()
        #: How often *chains* had forgotten all when the writers were opened.
        self._forgotten = 0
        #: Audit records that were sent, by command: whether they are on the log shows afterwards.
        self._sent: dict[str, AuditRecord] = {}
        #: Commands whose events and deliveries this owner has on the broker, the newest last.
        self._told: dict[str, None] = {}

    @property
    def is_ours(self) -> bool:
        """Whether this process owns the configuration now."""
        return self._is_ours

    async def take_over(self, assignment: Assignment) -> None:
        """Shut the predecessor out, then read all that it has written."""
        if not assignment.starts:
            return
        settled = self._settled
        async with self._lock:
            # Who is away for longer is asked anew: the group may have gone on meanwhile.
            async with asyncio.timeout(TRANSACTION_MS / 1_000):
                await self._open()
            if settled != self._settled:
                await self._close()
                return
            self._is_ours = True
        log.info("owner.took_over", generation=assignment.generation)

    async def process(self, batch: Batch) -> None:
        """Make the batch's commands; returns when each is on the log with its reply, or when they are given up."""
        async with self._lock:
            for first in range(0, len(batch.records), AT_ONCE):
                records = batch.records[first : first + AT_ONCE]
                if not await self._made_until_done([_command(record) for record in records]):
                    return
                for record in records:
                    batch.finish(record.offset)

    async def settle(self, timeout_s: float) -> None:
        """Write nothing more."""
        self._is_ours = False
        self._settled += 1
        # What is under way may wait for a broker that is away: whoever comes next ends its transaction.
        with suppress(TimeoutError):
            async with asyncio.timeout(max(timeout_s, CLOSE_S)):
                await self._lock.acquire()
            try:
                await self._close()
            finally:
                self._lock.release()

    def floor(self, partition: int) -> str:  # noqa: ARG002  # nothing has to be read back: the audit log is followed
        """Nothing: commands that were made are known by their audit records."""
        return ""

    async def stop(self) -> None:
        """Close what is open."""
        await self.settle(0)
        for task in self._closing:
            task.cancel()

    # -- making ----------------------------------------------------------------------------------------------

    async def _made_until_done(self, commands: list[Command]) -> bool:
        """Make them, again and again until they are made; False when they are not ours any more."""
        while self._is_ours:
            if not self._may_write():
                await asyncio.sleep(AGAIN_AFTER_S)
                continue
            if self._forgotten != self._chains.forgotten:
                # The chains begin anew. By the ends of those that are gone, every change would be stale.
                await self._close()
            try:
                async with asyncio.timeout(TRANSACTION_MS / 1_000):
                    await self._make(self._writers or await self._open(), commands)
            except (KafkaError, OSError, TimeoutError) as error:
                self._trouble.met("owner.not_written", error, hint="tried again until it is")
                # Whether it was committed is not known. Another writer ends the transaction, and the audit log tells.
                await self._close()
                await asyncio.sleep(AGAIN_AFTER_S)
            else:
                self._trouble.over()
                return True
        return False

    async def _make(self, writers: _Writers, commands: list[Command]) -> None:
        judged: list[Judged] = []
        ends, now_made = dict(self._ends), {each for each in self._made if not self._chains.has(each)}
        for command in commands:
            one = judge(
                command,
                head=ends.get(command.app, self._chains.last(command.app)),
                # In this batch, too: a producer that got no answer sends again.
                is_made=command.id in now_made or self._chains.has(command.id),
                now_ms=self._now_ms(),
            )
            if one.audit is not None:
                ends[command.app] = one.audit.hash
                now_made.add(command.id)
            judged.append(one)
        made = [each.command for each in judged if each.audit is not None]
        if made:
            self._sent |= {each.command.id: each.audit for each in judged if each.audit is not None}
            await self._write(writers, made)
            self._ends, self._made = ends, now_made
        self._say_made(judged)
        await self._tell(writers, judged)

    def _say_made(self, judged: list[Judged]) -> None:
        """One line a change, also where its commit was not heard and it was found on the log later. No values."""
        for each in judged:
            audit = self._sent.pop(each.command.id, None)
            if audit is None or each.outcome != "done" or not audit.allowed:
                continue
            log.info(
                "change.applied", kind=audit.action, app=audit.app, target=audit.target,
                integration=_integration(each.command), version=audit.details.get("version"), who=audit.who,
                change=audit.id,
            )  # fmt: skip

    async def _write(self, writers: _Writers, commands: list[Command]) -> None:
        records = [record for each in commands for record in self._together(each)]
        if not writers.has_transactions:
            for topic, key, value in records:
                await writers.config.send_and_wait(topic, value, key=key)
            return
        # Without aiokafka's context manager: it would abort over a broker that does not answer, for as long as that
        # takes. What fails is left open, and ended by the next writer.
        await writers.config.begin_transaction()
        await asyncio.gather(*[await writers.config.send(topic, value, key=key) for topic, key, value in records])
        await writers.config.commit_transaction()

    def _together(self, command: Command) -> list[tuple[str, bytes, bytes | None]]:
        """The audit record first: a change without its record must not be."""
        written = [each for each in command.writes if each.topic in TOGETHER]
        audit = (self._connection.topic(AUDIT), command.app.encode(), command.audit)
        return [audit, *(self._record(TOGETHER[each.topic], each) for each in written)]

    async def _tell(self, writers: _Writers, judged: list[Judged]) -> None:
        """Events that tell of what was made, once a command as far as this owner knows, then the replies."""
        teller = writers.tell
        done = {each.command.id: each.command for each in judged if each.outcome == "done"}
        told = [
            (*self._record(AFTERWARDS[write.topic], write), list(write.headers.items()))
            for command in done.values()
            if command.id not in self._told
            for write in command.writes
            if write.topic in AFTERWARDS
        ]
        await asyncio.gather(
            *[await teller.send(topic, value, key=key, headers=headers) for topic, key, value, headers in told]
        )
        self._told |= dict.fromkeys(done)
        while len(self._told) > REMEMBERED:
            del self._told[next(iter(self._told))]
        replies = [
            (each.command.reply_to, CommandReply(command=each.command.id, outcome=each.outcome, reason=each.reason))
            for each in judged
        ]
        topic = self._connection.topic(COMMAND_REPLIES)
        await asyncio.gather(
            *[await teller.send(topic, codec.encode(reply), key=process.encode()) for process, reply in replies]
        )

    def _record(self, topic: Topic, write: Write) -> tuple[str, bytes, bytes | None]:
        return self._connection.topic(topic), write.key.encode(), write.value

    # -- the writer ------------------------------------------------------------------------------------------

    async def _open(self) -> _Writers:
        """A writer that shuts every earlier one out; then everything that those have written is read."""
        await self._close()
        name = f"{self._connection.prefix}admin"
        has_transactions = (await features_of(self._connection)).transactions
        given_up: dict[str, Any] = {"enable_idempotence": False, "request_timeout_ms": GIVE_UP_MS}
        options: dict[str, Any] = (
            {"transactional_id": name, "transaction_timeout_ms": TRANSACTION_MS} if has_transactions else given_up
        )
        config = await open_producer(self._connection, client_id=f"{name}-owner", **options)
        try:
            tell = await open_producer(self._connection, client_id=f"{name}-teller", **given_up)
        except BaseException:
            await _stopped(config)
            raise
        writers = self._writers = _Writers(config, tell, has_transactions)
        self._forgotten = self._chains.forgotten
        await self._audit.catch_up()
        self._ends.clear()
        self._made.clear()
        return writers

    async def _close(self) -> None:
        """What does not end by itself soon does when its broker is back: it may have something under way."""
        writers, self._writers = self._writers, None
        if writers is not None:
            closing = {asyncio.ensure_future(_stopped(each)) for each in (writers.config, writers.tell)}
            _, late = await asyncio.wait(closing, timeout=CLOSE_S)
            self._closing |= late
            for task in late:
                task.add_done_callback(self._closing.discard)


def _integration(command: Command) -> str | None:
    """The one that it is about; None where that is the app, or several."""
    about = {each.key for each in command.writes if each.topic in {INTEGRATION_CONFIG.name, DELIVERIES.name}}
    return about.pop() if len(about) == 1 else None


async def _stopped(producer: AIOKafkaProducer) -> None:
    try:
        await producer.stop()
    except (KafkaError, OSError) as error:
        log.warning("producer.not_closed", error=repr(error))


def _command(record: "ConsumerRecord[bytes | None, bytes | None]") -> Command:
    """Raises Unreadable: the engine puts such a record into quarantine."""
    return codec.decode_as(Command, record.value)
