"""Arrivals at a receiver that is not ours, as the topic `delivery-results` tells of them."""

import asyncio
from concurrent.futures import Future
from threading import Thread

from services.cli.bench.findings import Arrival
from services.cli.bench.log import FETCH_MS, PATIENCE_S, consumer_of, decoded, ends_of
from services.cli.bench.wire import stamp_of
from services.cli.errors import Failed
from streams.connection import Connection
from streams.records import Event, Result
from streams.topics import EVENTS, RESULTS


class ResultLog:
    """
    Follows the topics `events` and `delivery-results` in a thread: arrivals at a receiver that is not ours.

    A delivery counts as arrived when its result says that the receiver has answered, to the millisecond: a little
    later than it was there.
    """

    def __init__(self, connection: Connection, integrations: dict[str, int]) -> None:
        """
        Args:
            integrations: their ids, and the index of each.
        """
        self._connection = connection
        self._integrations = integrations
        self._stamps: dict[str, tuple[int, int]] = {}
        self._results: list[tuple[str, int, int]] = []
        self._closing = False
        self._begun: Future[None] = Future()
        self._thread = Thread(target=lambda: asyncio.run(self._follow()), daemon=True)

    def start(self) -> None:
        """
        Return once everything from now on will be seen.

        Raises:
            Failed: the broker does not answer.
        """
        self._thread.start()
        self._begun.result()

    def close(self) -> None:
        """Stop following."""
        self._closing = True
        self._thread.join(timeout=PATIENCE_S)

    @property
    def filled(self) -> int:
        """Results so far."""
        return len(self._results)

    def arrivals(self) -> list[Arrival]:
        """In the order of the results."""
        return [
            Arrival(arrived_ns, integration, *self._stamps[event])
            for event, integration, arrived_ns in list(self._results)
            if event in self._stamps
        ]

    async def _follow(self) -> None:
        try:
            async with consumer_of(self._connection, EVENTS, RESULTS) as consumer:
                for at, end in (await ends_of(consumer)).items():
                    consumer.seek(at, end)
                self._begun.set_result(None)
                while not self._closing:
                    for records in (await consumer.getmany(timeout_ms=FETCH_MS)).values():
                        for record in records:
                            self._note(decoded(record))
        except Failed as failed:
            self._begun.set_exception(failed)

    def _note(self, record: object) -> None:
        if isinstance(record, Event) and (stamp := stamp_of(record.payload)):
            self._stamps[record.event_id] = stamp
        elif isinstance(record, Result) and record.integration in self._integrations and record.status is not None:
            self._results.append(
                (record.event_id, self._integrations[record.integration], record.finished_at_ms * 1_000_000)
            )
