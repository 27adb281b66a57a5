"""
Spans to a collector: OTLP over HTTP, some hundreds together.

A span becomes its bytes when it ends, and a request is a join of them, so no batch holds up the event loop. What waits
is bounded: where the collector is away or slow the oldest are kept and tried again, what does not fit is dropped and
counted, and nothing else in the process hears of it.
"""

import asyncio
import os
import socket
from collections import deque
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from importlib.metadata import version
from itertools import islice
from typing import Final

import aiohttp
import structlog

from services.runtime import metrics
from services.runtime.otlp import head_of, rejected, request_of, span_of
from services.runtime.settings import TracingSettings
from services.runtime.tracing import Span
from streams.trouble import Trouble

#: Where OTLP/HTTP takes traces. Source: OTLP specification 1.x, "OTLP/HTTP Request".
PATH: Final = "/v1/traces"

#: Spans that wait, at most: five seconds of the fastest load measured, one event in ten; some 5 MB.
MAX_WAITING: Final = 8_192
#: Spans of one request, at most, and how long the first of them waits.
BATCH: Final = 1_024
EVERY_S: Final = 2.0

#: How long the collector may take for a request.
TIMEOUT_S: Final = 10.0
#: Wait before a request is tried again, at first and at most.
RETRY_S: Final = 1.0
MAX_RETRY_S: Final = 30.0
#: How long the end of the process may wait for what is left.
FLUSH_S: Final = 2.0

#: The collector is busy or away: the same request may be taken later. Source: OTLP specification, "Retryable Response
#: Codes".
RETRYABLE: Final = frozenset({429, 502, 503, 504})

log = structlog.get_logger(__name__)


class _Away(Exception):
    """The collector has not taken the request, and may take it later."""


class Exporter:
    """What waits for the collector, and the way there. `run` must run beside it."""

    def __init__(self, session: aiohttp.ClientSession, url: str, service: str) -> None:
        self._session = session
        self._url = url
        self._head = head_of(_resource(service), "tenterhook", version("tenterhook"))
        self._waiting: deque[bytes] = deque()
        self._is_full = asyncio.Event()
        self._has_any = asyncio.Event()
        self._trouble = Trouble(log, over="traces.taken_again")

    def put(self, span: Span, ended_ns: int) -> None:
        """A span has ended; dropped where too many wait."""
        if len(self._waiting) >= MAX_WAITING:
            metrics.SPANS_DROPPED.inc("queue_full")
            return
        times_ns = span.started_ns, max(ended_ns, span.started_ns)
        own, parent = span.context, span.parent
        self._waiting.append(
            span_of(own, parent, span.name, span.type.kind, times_ns, span.attributes, is_failed=span.is_failed)
        )
        self._has_any.set()
        if len(self._waiting) >= BATCH:
            self._is_full.set()

    async def run(self) -> None:
        """Bring spans to the collector until cancelled."""
        wait_s = RETRY_S
        while True:
            await self._has_any.wait()
            with suppress(TimeoutError):
                async with asyncio.timeout(EVERY_S):
                    await self._is_full.wait()
            try:
                await self._send_first()
                wait_s = RETRY_S
            except _Away as away:
                self._trouble.met("traces.not_taken", str(away), hint=f"tried again; {MAX_WAITING} spans wait at most")
                await asyncio.sleep(wait_s)
                wait_s = min(wait_s * 2, MAX_RETRY_S)
            except Exception as error:  # noqa: BLE001
                # A bug must not end the traces, nor be met at once again.
                self._trouble.raised("traces.raised", error)
                await asyncio.sleep(MAX_RETRY_S)

    async def flush(self) -> None:
        """Everything that waits, once, for FLUSH_S at most; the rest is dropped."""
        with suppress(TimeoutError, _Away):
            async with asyncio.timeout(FLUSH_S):
                while self._waiting:
                    await self._send_first()
        if self._waiting:
            metrics.SPANS_DROPPED.inc("at_end", by=len(self._waiting))
            log.warning("traces.lost", spans=len(self._waiting), why="the collector did not take them before the end")
            self._waiting.clear()

    async def _send_first(self) -> None:
        """The first that wait, in one request; they wait until it is answered, unless it was refused for good."""
        batch = list(islice(self._waiting, BATCH))
        if batch:
            await self._post(batch)
        for _ in batch:
            self._waiting.popleft()
        if len(self._waiting) < BATCH:
            self._is_full.clear()
        if not self._waiting:
            self._has_any.clear()

    async def _post(self, batch: Sequence[bytes]) -> None:
        body = request_of(self._head, batch)
        try:
            async with self._session.post(self._url, data=body, allow_redirects=False) as answer:
                status, told = answer.status, await answer.content.read(65_536)
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            # Not its text: that names the address.
            raise _Away(type(error).__name__) from None
        if status in RETRYABLE:
            raise _Away(f"status {status}")
        if status // 100 != 2:  # noqa: PLR2004
            metrics.SPANS_DROPPED.inc("refused", by=len(batch))
            self._trouble.met(
                "traces.refused",
                f"status {status}",
                spans=len(batch),
                status=status,
                hint="look at tracing.endpoint and headers",
            )
            return
        refused = rejected(told)
        metrics.SPANS_DROPPED.inc("refused", by=refused)
        metrics.SPANS_EXPORTED.inc(by=len(batch) - refused)
        self._trouble.over()


def _resource(service: str) -> dict[str, str]:
    """What this process is, to a collector."""
    return {
        "service.name": f"tenterhook-{service}",
        "service.version": version("tenterhook"),
        "service.instance.id": f"{socket.gethostname()}-{os.getpid()}",
    }


@asynccontextmanager
async def exporter(settings: TracingSettings, service: str) -> AsyncIterator[Exporter]:
    """An exporter at work; at the end what is left goes out, for FLUSH_S at most."""
    given = settings.headers.get_secret_value().split(",") if settings.headers else []
    headers = {name.strip(): value.strip() for name, _, value in (each.partition("=") for each in given)}
    headers["Content-Type"] = "application/x-protobuf"
    url = f"{(settings.endpoint or '').rstrip('/')}{PATH}"
    timeout = aiohttp.ClientTimeout(total=TIMEOUT_S)
    async with aiohttp.ClientSession(headers=headers, timeout=timeout) as session:
        made = Exporter(session, url, service)
        running = asyncio.create_task(made.run(), name="export traces")
        log.info("traces.exporting", sampled_share=settings.sampled_share)
        try:
            yield made
        finally:
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)
            await made.flush()
