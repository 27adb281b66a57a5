"""
The schemas of all releases that have run here, on a topic: so that an older process reads what a newer one writes.

Every process adds those of its own release before it writes its first record, and follows the topic, so that as a rule
it knows a schema before the first record under it comes. A record that is faster than that was still written after its
schema: the topic, read to its end at that moment, decides whether there is one (docs/why/schemas-on-the-log.md).
"""

import asyncio
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final

import structlog
from aiokafka import AIOKafkaProducer, ConsumerRecord, TopicPartition
from aiokafka.errors import KafkaError

from streams import codec, takeover
from streams.connection import Connection
from streams.ends import EndOffset
from streams.records import SharedSchema
from streams.trouble import Trouble

log = structlog.get_logger(__name__)

#: How long whoever decodes may stand still for a schema, at most: longer than the election of a new leader. A healthy
#: broker takes some 50 ms; one that takes longer than a session costs a rebalance, as any process does that freezes.
_ANSWER_S: Final = 10.0
#: For so long nothing is asked again: after the topic could not be read, and about an id that it does not have.
_ASK_AGAIN_S: Final = 5.0

#: Of each thread: whether it reads the topic.
_aside: Final = threading.local()

#: By id, in the order in which they stand there; the topic is compacted by id, so the last may be all that is left. All
#: are one and the same schema, or `compared` says that they are not, at the start.
Texts = Mapping[int, list[str]]


async def share(connection: Connection, topic: str) -> list[str]:
    """
    Add the schemas of this release that are not there, and read those of others from now on; [], or what differs.

    Args:
        topic: full name of the topic of schemas, which is there.

    Returns:
        A sentence for each id that the topic has with another schema; nothing was added then.

    Raises:
        KafkaError: the broker did not answer.
    """
    there = await _read(connection, topic)
    own = {number: text for number, (_, text) in sorted(codec.released().items())}
    missing = [SharedSchema(id=number, text=text) for number, text in own.items() if number not in there]
    if missing and not compared(topic, own, there):
        await _add(connection, topic, missing)
        there = await _read(connection, topic)  # somebody else may have added others under the same ids
    use(connection, topic)
    for number, texts in there.items():
        codec.learn(number, texts[0])
    return compared(topic, own, there)


def compared(topic: str, own: Mapping[int, str], there: Texts) -> list[str]:
    """A sentence for each id that has another schema there than here, with what to do."""
    return [
        f"topic {topic} has another schema under the id {number} than this release: one of the two was never released,"
        " and bytes would be misread. Run the release that the topic was written by; or, where no record has that id,"
        f" delete topic {topic}: services add their schemas when they start"
        for number, text in own.items()
        if not all(codec.is_same_schema(text, other) for other in there.get(number, ()))
    ]


def use(connection: Connection, topic: str) -> None:
    """Look there for schemas that this release does not know, where a record has one; see `Asker`."""

    def read_aside() -> Texts:
        _aside.is_reading = True
        return asyncio.run(asyncio.wait_for(_read(connection, topic), _ANSWER_S))

    def read() -> Texts:
        if getattr(_aside, "is_reading", False):
            return {}  # of a record there the schema is itself unknown: what would be read is what is being read
        # Whoever decodes cannot wait for a loop: another one does the reading. It costs 50 ms, once a release.
        with ThreadPoolExecutor(max_workers=1, thread_name_prefix="schemas") as aside:
            return aside.submit(read_aside).result()

    codec.use_topic(Asker(topic, read).text)


def learn(_key: bytes | None, value: bytes | None, offset: int) -> None:
    """What a `Follower` of the topic applies."""
    try:
        shared = codec.decode_as(SharedSchema, value)
    except codec.Unreadable as error:
        log.error("schema.unreadable", offset=offset, reason=str(error))  # noqa: TRY400  # the reason says it all
        return
    codec.learn(shared.id, shared.text)
    known = codec.text_of(shared.id)
    if known is not None and not codec.is_same_schema(known, shared.text):
        log.error("schema.changed", schema_id=shared.id, offset=offset, hint="somebody writes to the topic of schemas")


class Asker:
    """Asks for a schema that nobody has told of yet. Blocks while the topic is read."""

    def __init__(self, topic: str, read: Callable[[], Texts], *, clock_s: Callable[[], float] = time.monotonic) -> None:
        """
        Args:
            read: all of the topic, up to its end as of the call. It may raise KafkaError, OSError and TimeoutError.
        """
        self._topic = topic
        self._read = read
        self._clock_s = clock_s
        self._trouble = Trouble(log, now_s=clock_s, topic=topic)
        #: Until when an id is not asked for again.
        self._unknown: dict[int, float] = {}
        #: Until when nothing is asked.
        self._away_until_s = 0.0

    def text(self, number: int) -> str | None:
        """
        The schema of that id as JSON; None where there is none.

        Raises:
            LookupError: the topic cannot be read now, or could not a moment ago.
        """
        now_s = self._clock_s()
        if now_s < self._away_until_s:
            raise LookupError(f"the topic {self._topic} cannot be read")
        if now_s < self._unknown.get(number, now_s):
            return None
        try:
            there = self._read()
        except (KafkaError, OSError, TimeoutError) as error:
            self._trouble.met("schemas.not_read", error, schema_id=number)
            self._away_until_s = self._clock_s() + _ASK_AGAIN_S
            raise LookupError(f"the topic {self._topic} cannot be read ({type(error).__name__})") from error
        self._trouble.over()
        for other, texts in there.items():  # a release brings several
            codec.learn(other, texts[0])
        if number not in there:
            self._unknown[number] = self._clock_s() + _ASK_AGAIN_S
            return None
        log.info("schema.found", schema_id=number, schema=codec.full_name(there[number][0]))
        return there[number][0]


async def _read(connection: Connection, topic: str) -> Texts:
    """All that is there now."""
    found: dict[int, list[str]] = defaultdict(list)

    def see(record: "ConsumerRecord[Any, Any]") -> None:
        try:
            shared = codec.decode_as(SharedSchema, record.value)
        except codec.Unreadable:
            return
        found[shared.id].append(shared.text)

    partition = TopicPartition(topic, 0)
    ends = EndOffset(connection, partition)
    try:
        end = await ends.ask()
    finally:
        await ends.stop()
    await takeover.read_back(connection, {partition: (0, end)}, see)
    return dict(found)


async def _add(connection: Connection, topic: str, schemas: list[SharedSchema]) -> None:
    producer = AIOKafkaProducer(**connection.client_options, acks="all")
    await producer.start()
    try:
        sent = [
            await producer.send(topic, codec.encode(each), key=str(each.id).encode(), partition=0) for each in schemas
        ]
        await asyncio.gather(*sent)
    finally:
        await producer.stop()
    log.info("schemas.added", ids=[each.id for each in schemas])
