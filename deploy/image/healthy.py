"""
Exits with 0 when the service that this container runs is live: HEALTHCHECK of the image.

The service is the container's first process, or the one that is named: `healthy.py dispatcher`. Its port is that of the
environment, else the default: a port in `tenterhook.toml` is not looked up.
"""

import http.client
import os
import sys
from pathlib import Path, PurePath

#: As in `services.runtime.settings`; nothing of that is imported, as this runs every few seconds.
PORTS = {"ingest": 8080, "admin": 8081, "dispatcher": 8090, "breaker": 8091}


def asked_of(command: list[str]) -> list[str] | None:
    """What this command line asks tenterhook for, whoever starts it; None where it does not start it."""
    for number, word in enumerate(command):
        if PurePath(word).name in {"tenterhook", "services.cli"}:
            return command[number + 1 :]
    return None


def is_live(service: str) -> bool:
    """Whether its health port says so."""
    port = int(os.environ.get(f"TENTERHOOK_{service.upper()}__PORT", PORTS[service]))
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=3)
    try:
        connection.request("GET", "/health/live")
        return connection.getresponse().status == http.HTTPStatus.OK
    except OSError:
        return False
    finally:
        connection.close()


def verdict(named: list[str], command: list[str]) -> int | str:
    """
    What to exit with: 0, 1, or why nobody knows, which is 1 too.

    Args:
        named: a service, or nothing.
        command: of the container's first process.
    """
    asked = named or asked_of(command)
    if asked is None or (named and named[0] not in PORTS):
        return f"what is checked? process 1 is no tenterhook: name a service, of {', '.join(PORTS)}"
    if len(asked) == 1 and asked[0] in PORTS:
        return 0 if is_live(asked[0]) else 1
    return 0  # a command that ends by itself has no health: it is as it is


if __name__ == "__main__":
    sys.exit(verdict(sys.argv[1:], Path("/proc/1/cmdline").read_text().rstrip("\0").split("\0")))
