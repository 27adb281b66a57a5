"""
A Kafka node of our own that refuses what a test names: appends to some topics, or everything.

Between clients and the node stands a proxy, which the node advertises as itself. In an append it changes a refused
topic's name to one that is not there; so the node itself refuses, with an error that clients repeat, and all others
are not touched. (`min.insync.replicas` above the replicas would be simpler; Kafka 4 counts it as the replicas.)
"""

import asyncio
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from services.cli.brokers.kafka import KafkaBroker

_APPEND = 0


def _named(topic: str) -> bytes:
    return struct.pack(">h", len(topic)) + topic.encode()


def _other(topic: str) -> bytes:
    """Of the same length, and no topic."""
    return _named(topic[:-1] + "_")


class _Node(KafkaBroker):
    """Advertises another port than it listens on."""

    def __init__(self, data: Path, port: int) -> None:
        super().__init__(data, nodes=1)
        self._own_port = self.plan.nodes[0].port
        self._port = port
        self.bootstrap = f"127.0.0.1:{port}"

    def prepare(self) -> None:
        super().prepare()
        file = self.data / "node-1" / "server.properties"
        own, advertised = (
            f"advertised.listeners=PLAINTEXT://127.0.0.1:{port}" for port in (self._own_port, self._port)
        )
        written = file.read_text()
        assert own in written
        file.write_text(written.replace(own, advertised))

    @property
    def own_port(self) -> int:
        return self._own_port


class RefusingBroker:
    """See the module's docstring."""

    def __init__(self) -> None:
        #: Full names of topics that take no appends now.
        self.refused: set[str] = set()
        #: Cleared: nothing passes, in either direction.
        self.answers = asyncio.Event()
        self.answers.set()
        self.node: _Node
        self._passing: set[asyncio.Task[None]] = set()

    async def _connect(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            own_reader, own_writer = await asyncio.open_connection("127.0.0.1", self.node.own_port)
        except OSError:
            writer.close()
            return
        tasks = [
            asyncio.create_task(self._pass(reader, own_writer, self._asked)),
            asyncio.create_task(self._pass(own_reader, writer, self._answered)),
        ]
        self._passing.update(tasks)
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in tasks:
            task.cancel()
            self._passing.discard(task)
        writer.close()
        own_writer.close()

    async def _pass(self, reader, writer, changed) -> None:
        try:
            while True:
                head = await reader.readexactly(4)
                frame = await reader.readexactly(struct.unpack(">i", head)[0])
                await self.answers.wait()
                writer.write(head + changed(frame))
                await writer.drain()
        except (OSError, asyncio.IncompleteReadError):
            pass

    def _asked(self, frame: bytes) -> bytes:
        if struct.unpack(">h", frame[:2])[0] == _APPEND:
            for topic in self.refused:
                # Its first: behind it stand the records.
                frame = frame.replace(_named(topic), _other(topic), 1)
        return frame

    def _answered(self, frame: bytes) -> bytes:
        for topic in self.refused:
            frame = frame.replace(_other(topic), _named(topic))
        return frame

    async def end(self) -> None:
        for task in list(self._passing):
            task.cancel()
        await asyncio.gather(*self._passing, return_exceptions=True)


@asynccontextmanager
async def refusing_broker(data: Path) -> AsyncIterator[RefusingBroker]:
    """One that is in service, for the time of the block."""
    broker = RefusingBroker()
    server = await asyncio.start_server(broker._connect, "127.0.0.1", 0)
    broker.node = _Node(data, server.sockets[0].getsockname()[1])
    try:
        await broker.node.start()
        yield broker
    finally:
        broker.node.kill()
        server.close()
        broker.answers.set()
        await broker.end()
