"""
Where the time goes: how long each step of a delivery took, by the times that the log has of it.

Pure. Those times are milliseconds of the writer's clock, so a step of less than one may show as nothing.
"""

from collections.abc import Iterable, Mapping
from typing import Final

from services.cli.bench.findings import Arrival, Spread, spread_ms
from services.cli.bench.log import Written
from services.cli.bench.wire import stamp_of
from streams.records import Delivery, Event, FanOutReceipt, Result

_NS_PER_MS: Final = 1_000_000

#: In the order of a delivery's life; each from the end of the one before.
STAGES: Final = (
    "ingest: request to event on its way to the log",
    "fan-out: event to receipt",
    "fan-out: receipt to delivery",
    "lane: delivery to attempt",
    "request: attempt to arrival",
    "result: arrival to result",
)


def stages(
    written: Iterable[Written], arrivals: Iterable[Arrival], integrations: Mapping[str, int]
) -> dict[str, Spread]:
    """
    Duration of each stage over all deliveries whose first attempt arrived.

    Args:
        written: of the topics events, fan-out, deliveries and delivery-results.
        integrations: their ids, and the index of each.
    """
    numbers: dict[str, int] = {}
    events: dict[str, int] = {}
    receipts: dict[str, int] = {}
    deliveries: dict[tuple[str, str], int] = {}
    results: dict[tuple[str, str], tuple[int, int]] = {}
    for each in written:
        record = each.record
        if isinstance(record, Event) and (stamp := stamp_of(record.payload)):
            numbers[record.record_id], events[record.record_id] = stamp[0], each.at_ms
        elif isinstance(record, FanOutReceipt):
            receipts.setdefault(record.record_id, each.at_ms)
        elif isinstance(record, Delivery):
            deliveries.setdefault((record.record_id, record.integration), each.at_ms)
        elif isinstance(record, Result):
            results.setdefault((record.record_id, record.integration), (record.started_at_ms, each.at_ms))
    arrived = {(each.number, each.integration): each for each in arrivals}
    lives = []
    for (record_id, integration), (started_ms, result_ms) in results.items():
        arrival = arrived.get((numbers.get(record_id, -1), integrations.get(integration, -1)))
        delivery_ms = deliveries.get((record_id, integration))
        if arrival is None or delivery_ms is None or record_id not in receipts:
            continue
        times_ms = (events[record_id], receipts[record_id], delivery_ms, started_ms)
        lives.append(
            (
                arrival.sent_ns,
                *(time_ms * _NS_PER_MS for time_ms in times_ms),
                arrival.arrived_ns,
                result_ms * _NS_PER_MS,
            )
        )
    return {name: spread_ms(max(0, life[at + 1] - life[at]) for life in lives) for at, name in enumerate(STAGES)}
