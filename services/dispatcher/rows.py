"""
Lane rows on the log: written by the owner of a partition alone, taken over by the next.

A frozen owner's late row stands behind its successor's marker with a lower generation, under a key of its own, and
counts for nothing (`streams.lane_rows`). So a successor writes each row again as its own, and deletes the old key.
"""

from collections.abc import Iterable, Mapping
from typing import Any

from aiokafka import AIOKafkaProducer, ConsumerRecord, TopicPartition

from streams import codec, takeover, topics
from streams.connection import Connection
from streams.lane_rows import MARKER_KEY, LaneRows, row_key
from streams.records import LaneRow, Marker
from streams.takeover import Ends


class Rows:
    """The rows of the partitions of one assignment."""

    def __init__(self, connection: Connection, producer: AIOKafkaProducer) -> None:
        self._connection = connection
        self._producer = producer
        self._topic = connection.topic(topics.LANE_ROWS)
        #: Keys of rows that are on the log, by partition.
        self._keys: dict[int, set[bytes]] = {}
        #: Partitions, of those that were taken over, without the marker of any owner before.
        self.unmarked: set[int] = set()

    async def take_over(self, markers: Mapping[int, Marker]) -> dict[int, list[LaneRow]]:
        """
        The rows of each partition, by partition, after our marker is on it.

        Raises:
            KafkaError: the producer has ended for good.
        """
        targets = {TopicPartition(self._topic, number): [marker] for number, marker in markers.items()}
        marked = await takeover.mark(self._producer, targets, Ends(), key=MARKER_KEY)
        self._keys = {number: set() for number in markers}
        self.unmarked = set(markers)
        rows, partition_of = LaneRows(), dict[str, int]()

        def see(record: "ConsumerRecord[Any, Any]") -> None:
            rows.apply(record.partition, record.key, record.value, record.offset)
            if record.key == MARKER_KEY:
                self.unmarked.discard(record.partition)
            if record.key is None or record.key == MARKER_KEY:
                return
            if record.value is None:
                self._keys[record.partition].discard(record.key)
            else:
                self._keys[record.partition].add(record.key)
                partition_of[record.key.rpartition(b"/")[0].decode(errors="replace")] = record.partition

        await takeover.read_back(self._connection, {target: (0, end) for target, end in marked.items()}, see)
        found: dict[int, list[LaneRow]] = {number: [] for number in markers}
        for row in rows.all():
            found[partition_of[row.integration]].append(row)
        return found

    async def adopt(self, rows: Iterable[tuple[int, LaneRow]]) -> None:
        """Write these rows as ours, then delete all others of their partitions."""
        pending, own = [], set()
        for partition, row in rows:
            own.add(row_key(row.integration, row.generation))
            pending.append(await self._send(partition, row))
        for future in pending:
            await future
            takeover.step()
        pending = []
        for partition, keys in list(self._keys.items()):
            pending += [await self._delete(partition, key) for key in keys - own]
            self._keys[partition] = keys & own
        for future in pending:
            await future
            takeover.step()

    async def save(self, partition: int, row: LaneRow) -> None:
        """
        Returns when it is on the broker.

        Raises:
            KafkaError: the producer has ended for good.
        """
        await (await self._send(partition, row))

    async def remove(self, partition: int, integration: str, generation: int) -> None:
        """Returns when the broker knows that there is no row any more."""
        key = row_key(integration, generation)
        self._keys.get(partition, set()).discard(key)
        await (await self._delete(partition, key))

    async def _send(self, partition: int, row: LaneRow) -> Any:
        key = row_key(row.integration, row.generation)
        self._keys.setdefault(partition, set()).add(key)
        return await self._producer.send(self._topic, codec.encode(row), key=key, partition=partition)

    async def _delete(self, partition: int, key: bytes) -> Any:
        return await self._producer.send(self._topic, None, key=key, partition=partition)
