"""Producers: every record that we answer for goes through one of these."""

import random
from functools import lru_cache
from typing import Any, Final

from aiokafka import AIOKafkaProducer
from aiokafka.partitioner import murmur2

from streams.answers import ANSWERS
from streams.connection import Connection
from streams.features import features_of
from streams.topics import MAX_MESSAGE_BYTES

#: Refused here, before it is sent: a record that the broker refuses for its size breaks the sequence of an idempotent
#: producer, which is dead from then on. Hence well below what every topic of ours takes.
MAX_REQUEST_BYTES: Final = MAX_MESSAGE_BYTES * 3 // 4

#: All that one key causes goes into one partition, and aiokafka has one request a broker under way, so a batch must
#: hold what comes in during a round trip: 16 KiB, aiokafka's default, would hold twelve deliveries of 1 KiB, and let
#: whoever brings the next one wait.
BATCH_BYTES: Final = 524_288


async def open_producer(connection: Connection, *, client_id: str, **overrides: Any) -> AIOKafkaProducer:
    """
    A started producer: acknowledged by all in-sync replicas, idempotent where the broker has that, without linger.

    What callers have to know of aiokafka's:

    - Idempotent, it tries for ever while the broker is away: bound the wait where somebody waits for you, and treat
      what you stopped waiting for as possibly stored. Without idempotence it gives up after `request_timeout_ms`.
    - After `OutOfOrderSequenceNumber` or `ProducerFenced` it is dead, and every `send` raises: end the process.

    Args:
        client_id: names us in the broker's logs and quotas.
        overrides: options of `AIOKafkaProducer`; `max_batch_size` at most MAX_REQUEST_BYTES.

    Raises:
        KafkaError: the broker does not answer; see `wait_for_broker`.
    """
    idempotent = connection.idempotence == "on" or (
        connection.idempotence == "auto" and (await features_of(connection)).idempotence
    )
    options: dict[str, Any] = {
        "partitioner": partition_of,
        "max_batch_size": BATCH_BYTES,
        "acks": "all",
        "enable_idempotence": idempotent,
        "linger_ms": 0,
        "max_request_size": MAX_REQUEST_BYTES,
    }
    producer = AIOKafkaProducer(**connection.client_options | options | overrides, client_id=client_id)
    ANSWERS.watch(producer.client)
    try:
        await producer.start()
    except BaseException:
        await producer.stop()
        raise
    return producer


def partition_of(key: bytes | None, all_partitions: list[int], available: list[int]) -> int:
    """The default partition of a key, as aiokafka and Java choose it, remembered: murmur2 is Python, 7 µs an id."""
    if key is None:
        return random.choice(available or all_partitions)  # noqa: S311  # spreads load, guards nothing
    return all_partitions[_hash(key) % len(all_partitions)]


@lru_cache(maxsize=65_536)
def _hash(key: bytes) -> int:
    number: int = murmur2(key)
    return number & 0x7FFFFFFF
