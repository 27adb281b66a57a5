"""
Requests that a predecessor goes on with while their partition is ours: their results are waited for on the log.

A rebalance does not wait for a slow request. Whoever gives the partition up says so on `delivery-results`
(`HandOver`), finishes the request and writes its result; here the line of that integration alone waits for it.
"""

import asyncio
from collections.abc import Mapping
from typing import Any, Final

import structlog
from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import KafkaError

from streams import codec
from streams.connection import Connection
from streams.features import features_of
from streams.reading import started
from streams.records import Result
from streams.trouble import Trouble

log = structlog.get_logger("dispatcher.handed")

#: Beyond a request's own time limit: to write its result, and clocks that differ.
ALLOWANCE_MS: Final = 4_000

_RETRY_S: Final = 0.5

#: Partition and offset of a delivery.
Place = tuple[int, int]


class HandedOver:
    """Waits for the results of requests that are under way elsewhere."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._waits: dict[Place, asyncio.Future[Result]] = {}
        self._makers: Mapping[Place, int] = {}
        self._reading: asyncio.Task[None] | None = None
        self._trouble = Trouble(log)

    def start(self, places: Mapping[Place, int], positions: Mapping[TopicPartition, int]) -> None:
        """
        Look for the results of these deliveries.

        Args:
            places: each with the generation of who makes the request.
            positions: of the partitions of `delivery-results` to read, from where on.
        """
        loop = asyncio.get_running_loop()
        self._waits = {place: loop.create_future() for place in places}
        self._makers = dict(places)
        if places:
            self._reading = asyncio.create_task(self._read(dict(positions)), name="results under way elsewhere")

    async def stop(self) -> None:
        """Wait for nothing more."""
        if self._reading is not None:
            self._reading.cancel()
            await asyncio.gather(self._reading, return_exceptions=True)
            self._reading = None
        for wait in self._waits.values():
            wait.cancel()
        self._waits = {}

    async def result(self, place: Place, timeout_s: float) -> Result | None:
        """Its result; None where none came in time: the request died with its process, or its answer did."""
        wait = self._waits.get(place)
        if wait is None:
            return None
        await asyncio.wait((wait,), timeout=max(timeout_s, 0))
        self._waits.pop(place, None)
        return wait.result() if wait.done() and not wait.cancelled() else None

    async def _read(self, positions: dict[TopicPartition, int]) -> None:
        while any(not wait.done() for wait in self._waits.values()):
            try:
                await self._read_on_a_connection(positions)
            except KafkaError as error:
                self._trouble.met("results.unreadable", error, retry_s=_RETRY_S)
                await asyncio.sleep(_RETRY_S)
            except Exception as error:  # noqa: BLE001  # a bug must not have a request made again that is under way
                self._trouble.raised("results.raised", error, retry_s=_RETRY_S)
                await asyncio.sleep(_RETRY_S)

    async def _read_on_a_connection(self, positions: dict[TopicPartition, int]) -> None:
        reader: AIOKafkaConsumer[Any, Any] = AIOKafkaConsumer(
            **self._connection.client_options,
            enable_auto_commit=False,
            auto_offset_reset="earliest",
            fetch_max_wait_ms=min((await features_of(self._connection)).fetch_wait_ms, 500),
        )
        async with started(reader):
            reader.assign(list(positions))
            for partition, position in positions.items():
                reader.seek(partition, position)
            while any(not wait.done() for wait in self._waits.values()):
                for partition, records in (await reader.getmany(timeout_ms=500)).items():
                    for record in records:
                        self._see(record.value)
                    positions[partition] = records[-1].offset + 1
                self._trouble.over()

    def _see(self, value: bytes | None) -> None:
        try:
            seen = codec.decode(value)
        except codec.Unreadable:
            return
        if isinstance(seen, Result):
            place = seen.source_partition, seen.source_offset
            wait = self._waits.get(place)
            if wait is not None and not wait.done() and self._makers[place] == seen.source_generation:
                wait.set_result(seen)
