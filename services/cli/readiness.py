"""
Asks a child process of `tenterhook up` whether it is ready, and what it has left to do.

By hand, since `up` imports no HTTP client: that takes longer than many a child needs to become ready.
"""

import asyncio
import json
import re
from collections.abc import Awaitable, Callable
from typing import Final

#: None when it is ready, else why not yet, for people.
Probe = Callable[[], Awaitable[str | None]]

#: A service that is up answers in milliseconds; one that is not is asked again.
_TIMEOUT_S: Final = 2.0

_LISTENS_NOT: Final = "it does not listen yet"


def health(host: str, port: int) -> Probe:
    """A probe that asks the service's `/health/ready`."""

    async def probe() -> str | None:
        try:
            async with asyncio.timeout(_TIMEOUT_S):
                answer = await _get(host, port, "/health/ready")
        except OSError:  # TimeoutError is one
            return _LISTENS_NOT
        return _reason(answer)

    return probe


async def gauge(host: str, port: int, name: str) -> int | None:
    """The value of that metric, which has no labels; None where the service does not answer, or has no such metric."""
    try:
        async with asyncio.timeout(_TIMEOUT_S):
            answer = await _get(host, port, "/metrics")
    except OSError:
        return None
    found = re.search(rf"^{name} (\S+)", answer.decode(errors="replace"), re.MULTILINE)
    return int(float(found[1])) if found else None


async def _get(host: str, port: int, path: str) -> bytes:
    reader, writer = await asyncio.open_connection(host, port)
    try:
        writer.write(f"GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n".encode())
        return await reader.read()
    finally:
        writer.close()


def _reason(answer: bytes) -> str | None:
    head, _, body = answer.partition(b"\r\n\r\n")
    if head[9:12] == b"200":
        return None
    try:
        return str(json.loads(body)["reason"])
    except (ValueError, KeyError, TypeError):
        return "it answers, and not as it should"
