"""What each record of the log says of one event's life. Pure: records in, lines of a timeline out."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, Final

from services.runtime.times import iso
from streams.records import Delivery, Event, FanOutReceipt, HandOver, Quarantined, Record, Result

#: At one time, in the order of an event's life: the clocks of several machines are one millisecond each.
_ORDER: Final = ("accepted", "receipt", "delivery", "attempt", "handed over", "waiting", "put back", "outcome")


@dataclass(frozen=True, slots=True)
class Moment:
    """One line of the timeline."""

    #: When the record was written, milliseconds since 1970 UTC.
    at_ms: int
    what: str
    #: Topic without prefix, partition and offset.
    topic: str
    partition: int
    offset: int
    integration: str | None = None
    delivery: str | None = None
    details: dict[str, Any] = field(default_factory=dict)


def is_about(record: Record, record_ids: Iterable[str], deliveries: Iterable[str]) -> bool:
    """Whether the record tells of one of these events, or of one of their deliveries."""
    if isinstance(record, Event | FanOutReceipt | Delivery | Result):
        return record.record_id in record_ids
    return isinstance(record, HandOver) and record.delivery_id in deliveries


def moment(record: Record, *, at_ms: int, topic: str, partition: int, offset: int) -> Moment | None:
    """What it says; None where it is nothing of an event's life."""
    integration = record.integration if isinstance(record, Delivery | Result | HandOver) else None
    delivery = record.delivery_id if isinstance(record, Delivery | Result | HandOver) else None
    told = _told(record, topic)
    if told is None:
        return None
    what, details = told
    kept = {name: value for name, value in details.items() if value is not None}
    return Moment(at_ms, what, topic, partition, offset, integration, delivery, kept)


def put_aside(record: Quarantined, was: Record | None, *, at_ms: int, partition: int, offset: int) -> Moment:
    """The moment at which the record *was* went to quarantine."""
    delivery = was if isinstance(was, Delivery | Result) else None
    return Moment(
        at_ms,
        "quarantined",
        "quarantine",
        partition,
        offset,
        delivery.integration if delivery else None,
        delivery.delivery_id if delivery else None,
        {"code": record.code, "reason": record.reason, "from": f"{record.topic} {record.partition}@{record.offset}"},
    )


def timeline(moments: Iterable[Moment]) -> list[Moment]:
    """In the order in which they happened."""

    def key(one: Moment) -> tuple[int, int, str, int, int]:
        rank = _ORDER.index(one.what) if one.what in _ORDER else len(_ORDER)
        return one.at_ms, rank, one.topic, one.partition, one.offset

    return sorted(moments, key=key)


def _told(record: Record, topic: str) -> tuple[str, dict[str, Any]] | None:
    if isinstance(record, Event):
        return "accepted", {"type": record.type, "record": record.record_id, "bytes": len(record.payload)}
    if isinstance(record, FanOutReceipt):
        return "receipt", {
            "integrations": ", ".join(record.integrations) or "none",
            "configOffset": record.config_offset,
            "repeatOf": record.repeat_of,
        }
    if isinstance(record, Delivery):
        return _delivery(record, topic)
    if isinstance(record, Result):
        return "outcome" if record.outcome else "attempt", {
            "outcome": record.outcome,
            "attempt": record.attempt,
            "reason": record.reason,
            "detail": record.detail,
            "ms": record.finished_at_ms - record.started_at_ms,
            "dnsMs": _ms(record.dns_us),
            "connectMs": _ms(record.connect_us),
            "waitMs": _ms(record.wait_us),
            "readMs": _ms(record.read_us),
            "next": record.next_attempt,
            "due": _time(record.next_due_at_ms),
        }
    if isinstance(record, HandOver):
        return "handed over", {"attempt": record.attempt, "until": iso(record.until_ms)}
    return None


def _delivery(record: Delivery, topic: str) -> tuple[str, dict[str, Any]]:
    due = {"attempt": record.attempt, "due": _time(record.due_at_ms)}
    if topic.startswith("retry."):
        return "waiting", due
    if record.retry_line is not None:
        return "put back", due | {"from": record.retry_line}
    return "delivery", {
        "attempt": record.attempt,
        "cause": None if record.cause == "live" else record.cause,
        "of": record.of,
    }


def _time(at_ms: int | None) -> str | None:
    return None if at_ms is None else iso(at_ms)


def _ms(us: int | None) -> float | None:
    return None if us is None else us / 1000
