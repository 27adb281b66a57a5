"""Free ports of this machine for brokers of our own."""

import random
import socket
from typing import Final

#: Below the range that the system gives to outgoing connections (Linux: 32,768 on). A client that keeps trying to reach
#: a broker that is down, at a port of that range, is sooner or later given this very port as its own and then talks to
#: itself, and the broker cannot have its port back.
_LOWEST, _HIGHEST = 20_000, 32_000
_TRIES: Final = 200

#: Not the seeded one: processes that were seeded alike, as tests are, would all try the same ports at the same time.
_CHANCE: Final = random.SystemRandom()


def free_ports(count: int, *, host: str = "127.0.0.1") -> tuple[int, ...]:
    """
    That many different ports that nobody listens on now, in no order.

    Raises:
        OSError: none was found.
    """
    found: set[int] = set()
    for _ in range(_TRIES):
        if len(found) == count:
            return tuple(found)
        port = _CHANCE.randrange(_LOWEST, _HIGHEST)
        if is_free(port, host=host):
            found.add(port)
    raise OSError(f"no {count} free ports between {_LOWEST} and {_HIGHEST} on {host}")


def is_free(port: int, *, host: str = "127.0.0.1") -> bool:
    """Whether one could listen there now."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError:
            return False
    return True
