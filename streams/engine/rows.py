"""
A Faust table whose rows say how far they are: safe behind batches, crashes, and owners that froze.

Faust's own `table[key] = value` belongs to the event in hand, changes memory before the changelog has it, and lets the
last record of the changelog win. Here a write names its partition, memory follows the changelog, and at recovery the
row that is furthest wins, whoever wrote it last. Rows are bytes; recovery, assignment and changelog are Faust's.
"""

import asyncio
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import faust
from aiokafka import AIOKafkaProducer
from faust.tables.table import Table
from faust.types import EventT

#: How far a row is: a higher one wins. Lowest of all for what cannot be read.
Rank = Callable[[bytes], int]


class RowTable(Table[bytes, bytes]):
    """A table of rows with a rank; see the module's docstring. Made by `row_table`."""

    #: These are set by `row_table`.
    rank: Rank
    producer: AIOKafkaProducer

    async def write(self, partition: int, rows: Mapping[bytes, bytes | None]) -> None:
        """
        Write rows by key, or delete them (None). Returns when all are on the changelog; memory has them then.

        Raises:
            KafkaError: any of them may be on the changelog or not. Write them again.
        """
        topic = self.changelog_topic_name
        sent = [await self.producer.send(topic, row, key=key, partition=partition) for key, row in rows.items()]
        await asyncio.gather(*sent)
        for key, row in rows.items():
            if row is None:
                self.data.pop(key, None)
            else:
                self.data[key] = row

    def rows(self) -> dict[bytes, bytes]:
        """Every row in memory, also of partitions that were this worker's before."""
        return {key: value for key, value in self.data.items() if value is not None}

    def apply_changelog_batch(self, batch: Iterable[EventT[Any]]) -> None:
        """Faust calls it at recovery with records of the changelog, each partition in order."""
        furthest: dict[bytes | None, bytes | None] = {}
        kept = []
        for event in batch:
            key, value = event.message.key, event.message.value
            held = furthest[key] if key in furthest else self.data.get(key)
            if value is None or held is None or self.rank(value) >= self.rank(held):
                furthest[key] = value
                kept.append(event)
        super().apply_changelog_batch(kept)


def row_table(app: faust.App, name: str, partitions: int, rank: Rank, producer: AIOKafkaProducer) -> RowTable:
    """
    A table of that name in the app, which has not started; its changelog is `<group>-<name>-changelog`.

    Args:
        producer: writes the changelog; Faust's own sends a row at a time, and ends the app at the first error.
    """
    table = RowTable(app, name=name, partitions=partitions, key_type=bytes, value_type=bytes)
    table.rank = rank
    table.producer = producer
    app.tables.add(table)
    return table
