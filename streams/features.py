"""What a broker can do, asked once a process. The embedded broker lacks some of what Apache Kafka has."""

import asyncio
from dataclasses import dataclass
from typing import Final

from aiokafka.client import AIOKafkaClient
from aiokafka.errors import ClusterAuthorizationFailedError, IncompatibleBrokerVersion, NoError, for_code
from aiokafka.protocol.transaction import InitProducerIdRequest

from streams.connection import Connection

#: Apache Kafka holds a fetch until a record comes and answers at once then (measured: 2.5 ms from send to applied
#: with waits of 5 s), so a long wait costs nothing and saves requests.
LONG_FETCH_MS: Final = 5_000
#: The embedded broker looks for new records only each half of the wait (measured: waits of 100, 500, 5,000 ms gave
#: medians of 31, 128 and 1,251 ms), so the wait is the latency there.
SHORT_FETCH_MS: Final = 20
#: The same on a topic that has been silent for a while (`streams.silence`): the first record after that comes up to
#: half of this late, and looking for it costs a fiftieth.
SILENT_FETCH_MS: Final = 1_000

#: What Kafka's consumers ask for by themselves; the bound of a partition holds there.
LARGE_FETCH_BYTES: Final = 52_428_800
#: As much as one partition may bring where such a bound is heeded.
SMALL_FETCH_BYTES: Final = 262_144

#: Any value: it means something to transactions alone, and the request wants one.
_TRANSACTION_TIMEOUT_MS: Final = 60_000
#: A broker that has just started may not have its ids yet.
_PAUSE_S: Final = 0.1


@dataclass(frozen=True, slots=True)
class Features:
    """What the broker can do."""

    #: Whether producers can be idempotent: a batch sent again after a lost answer is stored once.
    idempotence: bool
    #: How long a fetch may wait for records, milliseconds: `fetch_max_wait_ms` of every consumer.
    fetch_wait_ms: int
    #: The same where nothing has come for a while; None: as ever.
    silent_fetch_wait_ms: int | None
    #: How much a fetch may bring of all partitions together, bytes: `fetch_max_bytes` of a consumer whose memory is
    #: bounded. The embedded broker heeds this bound alone, none of a partition (5 MB came where 256 KiB were asked).
    fetch_bytes: int
    #: Whether the end offset that it tells is right. The embedded broker tells the first offset of the last batch, and
    #: one: too little by the records that came with the first in that batch. `streams.ends` corrects it.
    exact_ends: bool
    #: Whether topics have ids, which tell one that was deleted and made again from the one before.
    topic_ids: bool
    #: Whether several records can be written together or not at all, by one writer whose forerunner is shut out.
    transactions: bool

    @property
    def isolation(self) -> str:
        """`isolation_level` of consumers that must not see what a transaction has not committed."""
        return "read_committed" if self.transactions else "read_uncommitted"


APACHE_KAFKA: Final = Features(
    idempotence=True,
    fetch_wait_ms=LONG_FETCH_MS,
    silent_fetch_wait_ms=None,
    fetch_bytes=LARGE_FETCH_BYTES,
    exact_ends=True,
    topic_ids=True,
    transactions=True,
)
EMBEDDED: Final = Features(
    idempotence=False,
    fetch_wait_ms=SHORT_FETCH_MS,
    silent_fetch_wait_ms=SILENT_FETCH_MS,
    fetch_bytes=SMALL_FETCH_BYTES,
    exact_ends=False,
    topic_ids=False,
    transactions=False,
)

_known: dict[str, Features] = {}


async def features_of(connection: Connection) -> Features:
    """
    What the broker there can do. Asked once: a broker does not change its kind while a process lives.

    There is no request for the others; of the brokers met so far they go with idempotence.

    Raises:
        KafkaError: it did not answer.
    """
    known = _known.get(connection.bootstrap)
    if known is None:
        known = _known[connection.bootstrap] = APACHE_KAFKA if await _gives_producer_ids(connection) else EMBEDDED
    return known


async def _gives_producer_ids(connection: Connection) -> bool:
    """Asks for a producer id, as every idempotent producer does first. The embedded broker answers with an error."""
    client = AIOKafkaClient(**connection.client_options)
    request = InitProducerIdRequest(transactional_id=None, transaction_timeout_ms=_TRANSACTION_TIMEOUT_MS)
    try:
        await client.bootstrap()
        while True:
            answer = await client.send(client.get_random_node(), request)
            error = for_code(answer.error_code)
            if error is NoError or not error.retriable:
                # Whoever may write nothing gets none, and only a broker that has them says so.
                return error in (NoError, ClusterAuthorizationFailedError)
            await asyncio.sleep(_PAUSE_S)
    except IncompatibleBrokerVersion:
        return False
    finally:
        await client.close()
