"""
What a trace says of a request, and whose word counts on whether there is one. Pure.

A server that shows its secret key may send `traceparent`: its trace goes on here, sampled or not as it says. With a
public key it is passed over. That key stands in a web page, for everybody to take: whoever has it could have every
event traced, at our and the collector's cost, and write into traces that are not theirs.
"""

from collections.abc import Sequence
from typing import Final

from multidict import CIMultiDictProxy

from services.runtime.spans import APPEND, REQUEST
from services.runtime.tracing import Span, Tracing, Value
from streams.records import Event, KeyKind
from streams.trace_context import TRACEPARENT, TRACESTATE, TraceContext, parse

_SERVER_ERROR: Final = 500


def parent_of(headers: CIMultiDictProxy[str], key_kind: KeyKind) -> TraceContext | None:
    """The sender's place in its trace; None where it tells none, tells two, or may not tell."""
    if key_kind != "secret":
        return None
    told = headers.getall(TRACEPARENT, ())
    return parse(told[0], ",".join(headers.getall(TRACESTATE, ()))) if len(told) == 1 else None


def request_span(tracing: Tracing, parent: TraceContext | None, app: str, key_kind: KeyKind, route: str) -> Span | None:
    """Of a request whose sender is known; None where it is not traced."""
    about: dict[str, Value] = {
        "http.request.method": "POST",
        "http.route": route,
        "tenterhook.app": app,
        "tenterhook.key": key_kind,
    }
    return tracing.begin_root(REQUEST, f"POST {route}", parent, about)


def answered(span: Span, status: int, code: str | None = None) -> None:
    """The request has this answer; *code*: of the problem that it is. Only what is our fault counts as failed."""
    span.set({"http.response.status_code": status})
    if status >= _SERVER_ERROR:
        span.fail(code or str(status))
    else:
        span.set({"error.type": code})
    span.end()


def append_span(tracing: Tracing, parent: TraceContext | None, topic: str, events: Sequence[Event]) -> Span | None:
    """Of events of one app that are given to the broker; None where they are not traced."""
    if parent is None:
        return None
    only = events[0] if len(events) == 1 else None
    about: dict[str, Value] = {
        "messaging.system": "kafka",
        "messaging.operation.name": "send",
        "messaging.operation.type": "send",
        "messaging.destination.name": topic,
        "messaging.batch.message_count": None if only else len(events),
        "tenterhook.app": events[0].app if events else None,
        "tenterhook.event": only.event_id if only else None,
        "tenterhook.event_type": only.type if only else None,
    }
    return tracing.begin(APPEND, "send events", parent, about)
