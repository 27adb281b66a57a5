"""
Exits with 0 when the service that this container runs is live: HEALTHCHECK of the image.

The service is the container's first process, or the one that is named: `healthy.py dispatcher`. Its port is that of the
environment, else the default: a port in `tenterhook.toml` is not looked up.
"""

import http.client
import os
import sys
from pathlib import Path

#: As in `services.runtime.settings`; nothing of that is imported, as this runs every few seconds.
PORTS = {"ingest": 8080, "admin": 8081, "dispatcher": 8090, "breaker": 8091}


def service_of(command: list[str]) -> str | None:
    """The first word that is a service's name."""
    return next((word for word in command if word in PORTS), None)


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


if __name__ == "__main__":
    found = service_of(sys.argv[1:] or Path("/proc/1/cmdline").read_text().split("\0"))
    # A command that ends by itself has no health: it is as it is.
    sys.exit(0 if found is None or is_live(found) else 1)
