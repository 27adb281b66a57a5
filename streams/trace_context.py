"""
The context of a trace, as it stands on requests and records: which trace, which span, sampled or not. Pure.

Source: W3C Trace Context, level 1. On records the two headers have the same names and texts as over HTTP.
"""

import re
from collections.abc import Iterable
from typing import Final, NamedTuple

TRACEPARENT: Final = "traceparent"
TRACESTATE: Final = "tracestate"

#: What a vendor may say beside it, at most; longer ones are dropped, as the standard allows.
MAX_STATE_CHARS: Final = 512

_TRACEPARENT: Final = re.compile(r"(?P<version>[0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(?P<more>-.*)?")
_STATE: Final = re.compile(rf"[\x20-\x7e]{{1,{MAX_STATE_CHARS}}}")
_SAMPLED: Final = 1

#: Headers of a Kafka record.
RecordHeaders = list[tuple[str, bytes]]


class TraceContext(NamedTuple):
    """A place in a trace: what comes next is a child of its span."""

    #: 32 and 16 lower-case hexadecimal digits, not all zero.
    trace_id: str
    span_id: str
    #: Whether its spans are kept; False only where whoever began the trace has decided so.
    is_sampled: bool
    #: `tracestate` as it came; empty for none.
    state: str = ""

    @property
    def traceparent(self) -> str:
        """As it goes on."""
        return f"00-{self.trace_id}-{self.span_id}-{'01' if self.is_sampled else '00'}"

    def record_headers(self) -> RecordHeaders:
        """As it stands on a record."""
        headers = [(TRACEPARENT, self.traceparent.encode())]
        if self.state:
            headers.append((TRACESTATE, self.state.encode()))
        return headers


def parse(traceparent: str, tracestate: str = "") -> TraceContext | None:
    """
    The context that the two headers tell; None where the first is none.

    A later version than ours is read as far as ours goes; a state that is none is left out.
    """
    found = _TRACEPARENT.fullmatch(traceparent.strip())
    if found is None or found["version"] == "ff" or (found["version"] == "00" and found["more"]):
        return None
    trace_id, span_id, flags = found.group(2, 3, 4)
    if not trace_id.strip("0") or not span_id.strip("0"):
        return None
    state = tracestate.strip()
    return TraceContext(trace_id, span_id, bool(int(flags, 16) & _SAMPLED), state if _STATE.fullmatch(state) else "")


def of_record(headers: Iterable[tuple[str, bytes]]) -> TraceContext | None:
    """The context that a record carries; None for none, or what is none."""
    parent = state = b""
    for name, value in headers:
        if name == TRACEPARENT:
            parent = value or b""
        elif name == TRACESTATE:
            state = value or b""
    return parse(parent.decode("latin-1"), state.decode("latin-1")) if parent else None
