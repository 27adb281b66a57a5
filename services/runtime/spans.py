"""
Every span there is, as data: name, kind, whose it is, what it hangs on, what it means, and its attributes.

Nothing else begins one. `docs/tracing.md` lists them; tests hold it, and what is exported, to this file. Names follow
OpenTelemetry's semantic conventions for HTTP and messaging where these have one.
"""

from dataclasses import dataclass
from typing import Final, Literal

from services.runtime.metric import Service

Kind = Literal["internal", "server", "client", "producer", "consumer"]

#: Name to meaning. No attribute holds a URL, a header's value or a byte of a payload or answer: secrets are among them.
ATTRIBUTES: Final[dict[str, str]] = {
    "error.type": "Why it failed: a problem's or result's code, or the status; absent where it did not.",
    "http.request.method": "`POST`.",
    "http.request.resend_count": "How many attempts of the delivery were made before; absent at the first.",
    "http.response.status_code": "The answer's status; absent where there was none.",
    "http.route": "The address, with `{app}` in place of the app.",
    "messaging.batch.message_count": "Events of a batch.",
    "messaging.consumer.group.name": "The consumer group, without the prefix.",
    "messaging.destination.name": "The topic, with its prefix.",
    "messaging.destination.partition.id": "Its partition.",
    "messaging.kafka.offset": "Offset of the record.",
    "messaging.operation.name": "`send` or `process`.",
    "messaging.operation.type": "The same.",
    "messaging.system": "`kafka`.",
    "server.address": "Host of the URL, secrets in it masked.",
    "server.port": "Port of the URL.",
    "tenterhook.app": "Id of the app.",
    "tenterhook.attempt": "Number of the attempt, from 1; of a put-back, of the one that follows.",
    "tenterhook.cause": "Why there is the delivery: `live`, `retry`, `replay` or `test`.",
    "tenterhook.delivery": "Id of the delivery.",
    "tenterhook.dns_us": "Name look-up, in microseconds; absent where a connection was reused.",
    "tenterhook.connect_us": "TCP, in microseconds; the same.",
    "tenterhook.tls_us": "The handshake of TLS, in microseconds; the same.",
    "tenterhook.wait_us": "From the request written to the answer's head, in microseconds.",
    "tenterhook.read_us": "From the head to the body's end or cut, in microseconds.",
    "tenterhook.due_at": "When the next attempt was due, ISO 8601.",
    "tenterhook.event": "Id of the event.",
    "tenterhook.event_type": "Its type.",
    "tenterhook.failures": "Failed attempts in a row.",
    "tenterhook.integration": "Id of the integration.",
    "tenterhook.integrations": "How many integrations selected the event.",
    "tenterhook.key": "Kind of the key that was shown: `public` or `secret`.",
    "tenterhook.next_due_at": "When the next attempt is due, ISO 8601; absent where none follows.",
    "tenterhook.outcome": "How the delivery ended; absent where another attempt follows.",
}

_MESSAGING: Final = (
    "messaging.system",
    "messaging.operation.name",
    "messaging.operation.type",
    "messaging.destination.name",
)
_CONSUMED: Final = (
    *_MESSAGING,
    "messaging.consumer.group.name",
    "messaging.destination.partition.id",
    "messaging.kafka.offset",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class SpanType:
    """One kind of span."""

    #: `{topic}` stands for a topic without its prefix, `{path}` for an address as in `http.route`.
    name: str
    kind: Kind
    service: Service
    #: What it is a child of.
    parent: str
    meaning: str
    attributes: tuple[str, ...]


REQUEST: Final = SpanType(
    name="POST {path}",
    kind="server",
    service="ingest",
    parent="the sender's span, where a server sent `traceparent`; else it begins the trace",
    meaning="a request with an event or a batch, from its key on to its answer",
    attributes=(
        "http.request.method",
        "http.route",
        "http.response.status_code",
        "error.type",
        "tenterhook.app",
        "tenterhook.key",
    ),
)
APPEND: Final = SpanType(
    name="send {topic}",
    kind="producer",
    service="ingest",
    parent="the request",
    meaning="its events, given to the broker, until all in-sync replicas have them",
    attributes=(
        *_MESSAGING,
        "error.type",
        "messaging.batch.message_count",
        "tenterhook.app",
        "tenterhook.event",
        "tenterhook.event_type",
    ),
)
FAN_OUT: Final = SpanType(
    name="process {topic}",
    kind="consumer",
    service="dispatcher",
    parent="the append",
    meaning="an event becomes deliveries, until they are on the broker",
    attributes=(*_CONSUMED, "tenterhook.app", "tenterhook.event", "tenterhook.event_type", "tenterhook.integrations"),
)
ATTEMPT: Final = SpanType(
    name="POST",
    kind="client",
    service="dispatcher",
    parent="the fan-out; of a later attempt the put-back, or again the fan-out where `ordering` keeps it in its line",
    meaning="an attempt, from the opened secrets to the end of the answer; what is before it the delivery has waited",
    attributes=(
        "http.request.method",
        "http.request.resend_count",
        "http.response.status_code",
        "server.address",
        "server.port",
        "error.type",
        "tenterhook.app",
        "tenterhook.integration",
        "tenterhook.delivery",
        "tenterhook.event",
        "tenterhook.event_type",
        "tenterhook.cause",
        "tenterhook.attempt",
        "tenterhook.outcome",
        "tenterhook.next_due_at",
        "tenterhook.dns_us",
        "tenterhook.connect_us",
        "tenterhook.tls_us",
        "tenterhook.wait_us",
        "tenterhook.read_us",
    ),
)
UNSENT: Final = SpanType(
    name="deliver",
    kind="internal",
    service="dispatcher",
    parent="as of an attempt",
    meaning="a delivery that ended without a request: blocked or discarded",
    attributes=(
        "error.type",
        "tenterhook.app",
        "tenterhook.integration",
        "tenterhook.delivery",
        "tenterhook.event",
        "tenterhook.event_type",
        "tenterhook.cause",
        "tenterhook.attempt",
        "tenterhook.outcome",
    ),
)
PUT_BACK: Final = SpanType(
    name="process {topic}",
    kind="consumer",
    service="dispatcher",
    parent="the attempt that failed",
    meaning="a delivery that is due goes from its retry topic back onto `deliveries`",
    attributes=(
        *_CONSUMED,
        "tenterhook.app",
        "tenterhook.integration",
        "tenterhook.delivery",
        "tenterhook.attempt",
        "tenterhook.due_at",
    ),
)

PAUSE: Final = SpanType(
    name="pause",
    kind="internal",
    service="breaker",
    parent="the attempt whose failure was one too many",
    meaning="the breaker pauses the integration, until that is on the log",
    attributes=("tenterhook.app", "tenterhook.integration", "tenterhook.failures"),
)

DECLARED: Final = (REQUEST, APPEND, FAN_OUT, ATTEMPT, UNSENT, PUT_BACK, PAUSE)
