"""
A worker with a table: counts records per key, and remembers in each row the last offset it applied.

Arguments: bootstrap, prefix, topic, journal. Appends `number` to the journal before a record counts as processed, and,
on SIGTERM, stops gracefully; run by tests, which kill it. A row is "count last_offset", so a replay changes nothing.
The table is ours: with Faust's own a record counts as processed before its row is on the changelog, and a kill in
between leaves it out (`docs/why/failure-table.md`).
"""

import asyncio
import os
import signal
import sys
from pathlib import Path

import faust

from streams.connection import Connection
from streams.engine.app import SafeApp
from streams.engine.rows import row_table
from streams.producer import open_producer


async def never(*_: object) -> None:
    raise AssertionError("no record of this test is to be put aside")


async def main(bootstrap: str, prefix: str, topic: str, journal: Path) -> None:
    connection = Connection(bootstrap, prefix)
    producer = await open_producer(connection, client_id="counter")
    app = SafeApp("counter", connection, put_aside=never)
    source = app.topic(topic, value_type=bytes, value_serializer="raw", key_type=bytes, key_serializer="raw")
    counts = row_table(app, "counts", 4, lambda row: int(row.split()[1]), producer)
    file = os.open(journal, os.O_WRONLY | os.O_APPEND | os.O_CREAT)

    @app.agent(source, name="count")
    async def agent(stream: faust.StreamT) -> None:
        async for event in stream.events():
            count, last = (int(word) for word in (counts.data.get(event.key) or b"0 -1").split())
            if event.message.offset > last:
                row = b"%d %d" % (count + 1, event.message.offset)
                await counts.write(event.message.partition, {event.key: row})
            os.write(file, event.value + b"\n")

    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    await app.start()
    await stop.wait()
    await app.stop()
    await producer.stop()


if __name__ == "__main__":
    bootstrap, prefix, topic, journal = sys.argv[1:]
    asyncio.run(main(bootstrap, prefix, topic, Path(journal)))
