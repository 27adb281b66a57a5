"""
A worker with a table: counts records per key, and remembers in each row the last offset it applied.

Arguments: bootstrap, prefix, topic, journal. Appends `number` to the journal before a record counts as processed, and,
on SIGTERM, stops gracefully; run by tests, which kill it. A row is "count last_offset", so a replay changes nothing.
"""

import asyncio
import os
import signal
import sys
from pathlib import Path

import faust

from streams.connection import Connection
from streams.engine.app import SafeApp


async def never(*_: object) -> None:
    raise AssertionError("no record of this test is to be put aside")


async def main(bootstrap: str, prefix: str, topic: str, journal: Path) -> None:
    app = SafeApp("counter", Connection(bootstrap, prefix), put_aside=never)
    source = app.topic(topic, value_type=bytes, value_serializer="raw", key_type=bytes, key_serializer="raw")
    counts = app.Table("counts", partitions=4, key_type=bytes, value_type=bytes)
    file = os.open(journal, os.O_WRONLY | os.O_APPEND | os.O_CREAT)

    @app.agent(source, name="count")
    async def agent(stream: faust.StreamT) -> None:
        async for event in stream.events():
            count, last = (int(word) for word in (counts.get(event.key) or b"0 -1").split())
            if event.message.offset > last:
                counts[event.key] = b"%d %d" % (count + 1, event.message.offset)
            os.write(file, event.value + b"\n")

    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    await app.start()
    await stop.wait()
    await app.stop()


if __name__ == "__main__":
    bootstrap, prefix, topic, journal = sys.argv[1:]
    asyncio.run(main(bootstrap, prefix, topic, Path(journal)))
