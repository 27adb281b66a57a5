"""A collector of traces for tests: takes OTLP over HTTP as a real one does, and keeps what came."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)
from opentelemetry.proto.trace.v1.trace_pb2 import Span as Message


@dataclass(frozen=True)
class Collected:
    """A span as it came."""

    service: str
    name: str
    trace_id: str
    span_id: str
    #: Empty where the trace begins with it.
    parent_id: str
    #: `CLIENT`, `SERVER`, ...
    kind: str
    state: str
    started_ns: int
    ended_ns: int
    is_failed: bool
    attributes: dict[str, Any]

    @property
    def traceparent(self) -> str:
        """What it tells those whom it calls."""
        return f"00-{self.trace_id}-{self.span_id}-01"


@dataclass
class Collector:
    url: str = ""
    #: What it answers with; what is not taken is not kept.
    status: int = 200
    #: Spans of a request that it says it has not taken, though it answers 200.
    rejects: int = 0
    #: Cleared, it takes requests and answers none.
    answers: asyncio.Event = field(default_factory=asyncio.Event)
    spans: list[Collected] = field(default_factory=list)
    bodies: list[bytes] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)
    requests: int = 0

    async def take(self, request: web.Request) -> web.Response:
        body = await request.read()
        self.requests += 1
        await self.answers.wait()
        if self.status != 200:
            return web.Response(status=self.status)
        self.bodies.append(body)
        self.headers.append(dict(request.headers))
        self.spans += collected(ExportTraceServiceRequest.FromString(body))
        answer = ExportTraceServiceResponse()
        answer.partial_success.rejected_spans = self.rejects
        return web.Response(body=answer.SerializeToString(), content_type="application/x-protobuf")

    def children(self, of: Collected) -> list[Collected]:
        """In the order in which they began."""
        found = [each for each in self.spans if (each.trace_id, each.parent_id) == (of.trace_id, of.span_id)]
        return sorted(found, key=lambda each: each.started_ns)


def collected(request: ExportTraceServiceRequest) -> list[Collected]:
    found = []
    for of_resource in request.resource_spans:
        resource = _values(of_resource.resource.attributes)
        assert resource["service.version"]
        assert resource["service.instance.id"]
        for of_scope in of_resource.scope_spans:
            found += [_collected(resource["service.name"], span) for span in of_scope.spans]
    return found


def _collected(service: str, span: Message) -> Collected:
    return Collected(
        service=service,
        name=span.name,
        trace_id=span.trace_id.hex(),
        span_id=span.span_id.hex(),
        parent_id=span.parent_span_id.hex(),
        kind=Message.SpanKind.Name(span.kind).removeprefix("SPAN_KIND_"),
        state=span.trace_state,
        started_ns=span.start_time_unix_nano,
        ended_ns=span.end_time_unix_nano,
        is_failed=span.status.code == 2,
        attributes=_values(span.attributes),
    )


def _values(attributes: Any) -> dict[str, Any]:
    return {each.key: getattr(each.value, each.value.WhichOneof("value")) for each in attributes}


@asynccontextmanager
async def collecting(port: int = 0) -> AsyncIterator[Collector]:
    """A collector that listens."""
    collector = Collector()
    collector.answers.set()
    app = web.Application(client_max_size=16_777_216)
    app.router.add_post("/v1/traces", collector.take)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", port).start()
    collector.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    try:
        yield collector
    finally:
        collector.answers.set()
        await runner.cleanup()
