"""
What tracing costs where it is off, which is the default: all that is asked of it on the way of one delivery.

The steps are those of `services`, with records that carry nothing: the request and the append of ingest, the fan-out of
the event, the lane's entry, the attempt, its result. In a loop on one core, less what an empty loop takes. What the
additional calls and arguments around them cost cannot be told from the rest, and is not in it.
"""

import time
from collections.abc import Callable
from typing import Final

from aiokafka import ConsumerRecord

from services.dispatcher.fan_out import _UNTRACED
from services.dispatcher.traced import attempt_span
from services.runtime.tracing import TRACING, end_all, headers_of
from streams.records import Delivery

CALLS: Final = 200_000

_RECORD: Final = ConsumerRecord[bytes, bytes]("deliveries", 0, 0, 0, 0, None, None, None, 0, 0, ())
_DELIVERY: Final = Delivery(
    delivery_id="dlv_1",
    integration="int_1",
    app="demo",
    record_id="rec_1",
    event_id="evt_1",
    type="call_ended",
    payload=b"{}",
    occurred_at_ms=0,
    accepted_at_ms=0,
    config_offset=0,
    source_partition=0,
    source_offset=0,
    source_generation=0,
)


def measure(rounds: int, calls: int = CALLS) -> list[float]:
    """Of each round, microseconds of CPU a delivery."""
    if TRACING.is_on:
        raise RuntimeError("this measures tracing where it is off")
    return [_cpu_us(_asked, calls) - _cpu_us(_nothing, calls) for _ in range(rounds)]


def _asked() -> int:
    made = 0
    if TRACING.is_on:  # Handlers._traced
        made += 1
    trace = None  # EventLog.append
    if trace is not None:
        made += 1
    traces = made if TRACING.is_on else _UNTRACED  # FanOut.process
    if traces is _UNTRACED:
        made += _UNTRACED.headers(0) is not None
    trace = TRACING.of_record(_RECORD)  # Lanes
    span = attempt_span(TRACING, trace, _DELIVERY)  # Runs._traced_attempt
    if span is not None:
        made += 1
    made += headers_of(trace) is not None  # the result's
    end_all([])  # Breaker._tell, once a batch
    return made


def _nothing() -> int:
    return 0


def _cpu_us(call: Callable[[], int], calls: int) -> float:
    began = time.process_time_ns()
    for _ in range(calls):
        if call():
            raise AssertionError("a span was made")
    return (time.process_time_ns() - began) / calls / 1_000
