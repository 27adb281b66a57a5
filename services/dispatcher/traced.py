"""
What a trace says of fan-outs, attempts and put-backs. Pure.

Names, numbers and codes alone: of a URL the host, masked as in the result, since the rest may hold secrets; no header,
no byte of a body, no detail.
"""

from functools import lru_cache
from typing import Any, Final
from urllib.parse import urlsplit

from aiokafka import ConsumerRecord

from services.runtime.spans import ATTEMPT, FAN_OUT, PUT_BACK, UNSENT
from services.runtime.times import iso
from services.runtime.tracing import Span, Tracing, Value
from streams.records import Delivery, Event, Result
from streams.trace_context import TraceContext

#: Of the group that all agents of a dispatcher are members of.
_GROUP: Final = "dispatcher"
#: What was asked for.
_NO_FAILURE: Final = frozenset({"delivered", "discarded"})
_REMEMBERED_URLS: Final = 4_096


def fan_out_span(
    tracing: Tracing, parent: TraceContext | None, record: "ConsumerRecord[Any, Any]", event: Event
) -> Span | None:
    """Of an event that is about to be fanned out; None where it is not traced."""
    if parent is None:
        return None
    about: dict[str, Value] = {
        "tenterhook.app": event.app,
        "tenterhook.event": event.event_id,
        "tenterhook.event_type": event.type,
    }
    return tracing.begin(FAN_OUT, "process events", parent, _consumed(record) | about)


def put_back_span(
    tracing: Tracing, parent: TraceContext | None, line: str, record: "ConsumerRecord[Any, Any]", delivery: Delivery
) -> Span | None:
    """Of a delivery that leaves this retry topic; None where it is not traced."""
    if parent is None:
        return None
    about: dict[str, Value] = {
        "tenterhook.app": delivery.app,
        "tenterhook.integration": delivery.integration,
        "tenterhook.delivery": delivery.delivery_id,
        "tenterhook.attempt": delivery.attempt,
        "tenterhook.due_at": None if delivery.due_at_ms is None else iso(delivery.due_at_ms),
    }
    return tracing.begin(PUT_BACK, f"process {line}", parent, _consumed(record) | about)


def attempt_span(tracing: Tracing, parent: TraceContext | None, delivery: Delivery) -> Span | None:
    """Of an attempt that is about to be made; None where it is not traced."""
    if parent is None:
        return None
    about: dict[str, Value] = {
        "http.request.method": "POST",
        "http.request.resend_count": delivery.attempt - 1 or None,
        "tenterhook.app": delivery.app,
        "tenterhook.integration": delivery.integration,
        "tenterhook.delivery": delivery.delivery_id,
        "tenterhook.event": delivery.event_id,
        "tenterhook.event_type": delivery.type,
        "tenterhook.cause": delivery.cause,
        "tenterhook.attempt": delivery.attempt,
    }
    return tracing.begin(ATTEMPT, "POST", parent, about)


def attempted(span: Span, result: Result, now_ns: int) -> None:
    """The attempt is over, with this result; or it came to none. *now_ns*: since 1970 UTC."""
    span.set({"tenterhook.outcome": result.outcome})
    if result.attempt:
        host, port = _host_of(result.url)
        span.set(
            {
                "server.address": host,
                "server.port": port,
                "http.response.status_code": result.status,
                "tenterhook.next_due_at": None if result.next_due_at_ms is None else iso(result.next_due_at_ms),
                "tenterhook.dns_us": result.dns_us,
                "tenterhook.connect_us": result.connect_us,
                "tenterhook.tls_us": result.tls_us,
                "tenterhook.wait_us": result.wait_us,
                "tenterhook.read_us": result.read_us,
            }
        )
    else:
        span.become(UNSENT, "deliver")
        span.set({"http.request.method": None, "http.request.resend_count": None})
    if result.outcome not in _NO_FAILURE:
        span.fail(result.reason or str(result.status))
    # Its result may have waited to be made: see `together.py`. That is known in whole milliseconds.
    span.end(max(span.started_ns, min(now_ns, (result.finished_at_ms + 1) * 1_000_000)))


def _consumed(record: "ConsumerRecord[Any, Any]") -> dict[str, Value]:
    return {
        "messaging.system": "kafka",
        "messaging.operation.name": "process",
        "messaging.operation.type": "process",
        "messaging.destination.name": record.topic,
        "messaging.consumer.group.name": _GROUP,
        "messaging.destination.partition.id": str(record.partition),
        "messaging.kafka.offset": record.offset,
    }


@lru_cache(maxsize=_REMEMBERED_URLS)
def _host_of(url: str) -> tuple[str | None, int | None]:
    """Host and port of a URL as results keep it; nothing where none was made, or a mask stands in the port."""
    try:
        parts = urlsplit(url)
        return parts.hostname, parts.port or {"http": 80, "https": 443}.get(parts.scheme)
    except ValueError:
        return None, None
