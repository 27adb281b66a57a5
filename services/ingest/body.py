"""Reading the body of a request, with a bound on its bytes and on the time that it may take."""

import asyncio
from typing import Final

from aiohttp import web

from services.ingest.accept import MAX_REQUEST_BYTES, request_too_large
from services.ingest.append import overloaded
from services.ingest.batch import MAX_BATCH_BYTES, batch_too_large
from services.runtime.problems import body_incomplete, body_too_slow

#: How long a sender may take over an event: 64 KiB at 52 kbit/s.
DEADLINE_S: Final = 10.0
#: How long over a batch: 4 MiB at 560 kbit/s.
BATCH_DEADLINE_S: Final = 60.0

#: Bytes of batches that have not come whole. Sixteen of the largest; an event has no such bound, since its body comes
#: with the headers as a rule.
MAX_UNFINISHED_BYTES: Final = 64 * 1024 * 1024


async def read_event(request: web.Request) -> bytes:
    """
    The body of a single event.

    Raises:
        Problem: 408 `body_too_slow`, 413 `request_too_large`, 400 `body_incomplete`.
    """
    if (request.content_length or 0) > MAX_REQUEST_BYTES:
        raise request_too_large()
    content = request.content
    if content.is_eof():
        # It came together with the headers, as nearly every event does: no waiting, no timer.
        return content.read_nowait()
    body = bytearray()
    try:
        async with asyncio.timeout(DEADLINE_S):
            while chunk := await content.readany():
                body += chunk
                if len(body) > MAX_REQUEST_BYTES:
                    raise request_too_large()
    except TimeoutError:
        raise body_too_slow(DEADLINE_S) from None
    except (web.RequestPayloadError, ConnectionError):
        raise body_incomplete() from None
    return bytes(body)


class Batches:
    """Reads batches, with a bound on what all that have not come whole may hold."""

    def __init__(self) -> None:
        self._unfinished_bytes = 0

    async def read(self, request: web.Request) -> bytes:
        """
        The body of a batch.

        Raises:
            Problem: 408 `body_too_slow`, 413 `request_too_large`, 400 `body_incomplete`, 503 `overloaded`.
        """
        if (request.content_length or 0) > MAX_BATCH_BYTES:
            raise batch_too_large()
        body = bytearray()
        try:
            async with asyncio.timeout(BATCH_DEADLINE_S):
                while chunk := await request.content.readany():
                    if len(body) + len(chunk) > MAX_BATCH_BYTES:
                        raise batch_too_large()
                    if self._unfinished_bytes + len(chunk) > MAX_UNFINISHED_BYTES:
                        raise overloaded()
                    self._unfinished_bytes += len(chunk)
                    body += chunk
        except TimeoutError:
            raise body_too_slow(BATCH_DEADLINE_S) from None
        except (web.RequestPayloadError, ConnectionError):
            raise body_incomplete() from None
        finally:
            self._unfinished_bytes -= len(body)
        return bytes(body)
