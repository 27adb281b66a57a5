"""
A worker whose records finish out of order: the first one hangs, the others end at once.

Arguments: stock|ours, bootstrap, group prefix, topic, journal, hang|finish. Appends the number of every record that
it finished to the journal; run by tests, which kill it.
"""

import asyncio
import os
import sys
from pathlib import Path

import faust

from streams.connection import Connection
from streams.engine.app import SafeApp


def app_of(kind: str, bootstrap: str, prefix: str) -> faust.App:
    if kind == "ours":
        return SafeApp("worker", Connection(bootstrap, prefix), put_aside=never)
    # The settings that KAFKA and Faust's documentation recommend for quick takeovers, and Faust's own consumer.
    return faust.App(
        f"{prefix}worker",
        broker=f"kafka://{bootstrap}",
        broker_session_timeout=6,
        broker_heartbeat_interval=1.5,
        broker_commit_interval=0.25,
        stream_wait_empty=False,
        topic_disable_leader=True,
        topic_allow_declare=False,
        web_enabled=False,
        autodiscover=False,
    )


async def never(*_: object) -> None:
    raise AssertionError("no record of this test is to be put aside")


async def main(kind: str, bootstrap: str, prefix: str, topic: str, journal: Path, mode: str) -> None:
    app = app_of(kind, bootstrap, prefix)
    pending: set[asyncio.Task[None]] = set()

    async def work(event: faust.EventT) -> None:
        number = event.value.decode()
        if number == "0" and mode == "hang":
            await asyncio.sleep(3600)
        with journal.open("a") as file:
            file.write(f"{number}\n")
            file.flush()
            os.fsync(file.fileno())
        event.ack()

    @app.agent(app.topic(topic, value_type=bytes, value_serializer="raw", key_serializer="raw"), name="work")
    async def agent(stream: faust.StreamT) -> None:
        async for event in stream.noack().events():
            task = asyncio.create_task(work(event))
            pending.add(task)
            task.add_done_callback(pending.discard)

    await app.start()
    await asyncio.Event().wait()


if __name__ == "__main__":
    kind, bootstrap, prefix, topic, journal, mode = sys.argv[1:]
    asyncio.run(main(kind, bootstrap, prefix, topic, Path(journal), mode))
