"""
Brokers that tenterhook starts itself, as child processes on loopback: `embedded` and `kafka`. `choose` picks one.

Both are used in two ways. `up` takes `bootstrap`, `prepare`, `commands` and `probe`, and looks after the processes
itself; tests and benchmarks call `start`, `stop` and `kill`.
"""

from collections.abc import Awaitable, Callable
from typing import Literal, Protocol

#: None when it is ready, else why not yet, for people.
Probe = Callable[[], Awaitable[str | None]]


class BrokerFailed(Exception):
    """A broker does not start. The message says which, why, and what to look at."""

    code = "broker.failed"


class Broker(Protocol):
    """One broker or cluster of our own. Its addresses are known before it starts, and stay when it starts again."""

    kind: Literal["embedded", "kafka"]
    #: `host:port`, several with commas.
    bootstrap: str

    def prepare(self) -> None:
        """Make what the processes need on disk; nothing where it is there already. Takes up to a second."""

    @property
    def commands(self) -> tuple[tuple[str, ...], ...]:
        """What to run, one command a node."""

    async def probe(self) -> str | None:
        """None when every node is in service, else why not yet."""

    async def start(self) -> None:
        """Prepare, start every node that does not run, and wait until all are in service."""

    async def stop(self) -> None:
        """Ask every node to end, and wait until all have."""

    def kill(self) -> None:
        """`kill -9` to every node; returns when they are gone."""
