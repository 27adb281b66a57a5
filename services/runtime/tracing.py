"""
Traces: from the ingest request through the topics to every attempt.

Whether an event is traced is decided once, where it comes in: a server's `traceparent` decides it for its request,
else a share of all is taken. What is traced carries its context on its records; what is not carries nothing, so it
costs those behind ingest a look at the record's headers. Off, which is the default, everything here is one `if`.

Which spans there are stands in `spans.py`, how they leave the process in `trace_export.py`.
"""

import random
import time
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from contextlib import asynccontextmanager
from importlib import import_module
from typing import TYPE_CHECKING, Final

from services.runtime.settings import Settings
from services.runtime.spans import SpanType
from streams.trace_context import RecordHeaders, TraceContext, of_record

if TYPE_CHECKING:
    from aiokafka import ConsumerRecord

#: What an attribute's value may be; None leaves the attribute out.
Value = str | int | None


class Span:
    """Something that is under way and is told of when it ends. Of what is not sampled there is none."""

    __slots__ = ("_attributes", "_end", "context", "is_failed", "name", "parent", "started_ns", "type")

    def __init__(
        self,
        span_type: SpanType,
        name: str,
        parent: TraceContext | None,
        attributes: Mapping[str, Value],
        end: "Callable[[Span, int], None]",
    ) -> None:
        self.type = span_type
        self.name = name
        #: None where the trace begins with it.
        self.parent = parent
        trace_id = _random_id(16) if parent is None else parent.trace_id
        #: For what it causes: on records, and in `traceparent`.
        self.context = TraceContext(trace_id, _random_id(8), True, "" if parent is None else parent.state)
        self.is_failed = False
        self.started_ns = time.time_ns()
        self._attributes = dict(attributes)
        self._end = end

    @property
    def attributes(self) -> Mapping[str, str | int]:
        """Those that have a value."""
        return {name: value for name, value in self._attributes.items() if value is not None}

    def set(self, attributes: Mapping[str, Value]) -> None:
        """Say more of it. Names are those of its type."""
        self._attributes.update(attributes)

    def become(self, span_type: SpanType, name: str) -> None:
        """It turned out to be of another type."""
        self.type, self.name = span_type, name

    def fail(self, error: str) -> None:
        """It has failed; *error*: a stable code."""
        self.is_failed = True
        self._attributes["error.type"] = error

    def end(self, at_ns: int | None = None) -> None:
        """It is over now, or was at that time, in nanoseconds since 1970 UTC. Once."""
        self._end(self, at_ns or time.time_ns())


class Tracing:
    """The traces of this process: none, until `exporting` says so."""

    def __init__(self) -> None:
        #: Whether any span is made and any context carried on.
        self.is_on = False
        self._share = 0.0
        self._end: Callable[[Span, int], None] = lambda _span, _at_ns: None

    def start(self, share: float, end: Callable[[Span, int], None]) -> None:
        """
        Trace from now on.

        Args:
            share: of what comes without a context that says, from 0 to 1.
            end: told of each span that has ended, and when, in nanoseconds since 1970 UTC.
        """
        self.is_on, self._share, self._end = True, share, end

    def stop(self) -> None:
        """Trace nothing more; what is under way ends unheard."""
        self.is_on = False

    def begin(
        self, span_type: SpanType, name: str, parent: TraceContext | None, attributes: Mapping[str, Value]
    ) -> Span | None:
        """A span that hangs on another one; None where there is none to hang on, or that is not sampled."""
        if parent is None or not parent.is_sampled or not self.is_on:
            return None
        return Span(span_type, name, parent, attributes, self._end)

    def begin_root(
        self, span_type: SpanType, name: str, parent: TraceContext | None, attributes: Mapping[str, Value]
    ) -> Span | None:
        """A span that hangs on one of somebody else's, who has decided, or begins a trace, where its turn has come."""
        if parent is not None:
            return self.begin(span_type, name, parent, attributes)
        if not self.is_on or random.random() >= self._share:  # noqa: S311  # guards nothing
            return None
        return Span(span_type, name, None, attributes, self._end)

    def of_record(self, record: "ConsumerRecord[bytes | None, bytes | None]") -> TraceContext | None:
        """What the record carries; None where it carries none, or nobody is to know."""
        return of_record(record.headers) if self.is_on and record.headers else None


#: Of this process.
TRACING: Final = Tracing()


def after(span: Span | None, parent: TraceContext | None) -> TraceContext | None:
    """What goes on behind a span: its context; where it is not sampled, the one that came, which says so."""
    return parent if span is None else span.context


def headers_of(context: TraceContext | None) -> RecordHeaders | None:
    """As aiokafka's producer takes them."""
    return None if context is None else context.record_headers()


def end_all(spans: Iterable[Span | None]) -> None:
    """All of them are over now."""
    at_ns = time.time_ns()
    for span in spans:
        if span is not None:
            span.end(at_ns)


def _random_id(size: int) -> str:
    return random.randbytes(size).hex()  # noqa: S311  # names, no secrets


@asynccontextmanager
async def exporting(settings: Settings, service: str) -> AsyncIterator[None]:
    """For the time of the block this process traces, where its settings say so; then what is left goes out, soon."""
    own = settings.tracing
    if own.endpoint is None:
        yield
        return
    # Not at the top: most installations have no use for it, and it takes a while.
    module = import_module("services.runtime.trace_export")
    async with module.exporter(own, service) as exporter:
        TRACING.start(own.sampled_share, exporter.put)
        try:
            yield
        finally:
            TRACING.stop()
