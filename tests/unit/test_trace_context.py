"""W3C Trace Context, as it stands on requests and records."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streams.trace_context import MAX_STATE_CHARS, TraceContext, of_record, parse

TRACE, SPAN = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"

contexts = st.builds(
    TraceContext,
    st.integers(1, 2**128 - 1).map(lambda number: f"{number:032x}"),
    st.integers(1, 2**64 - 1).map(lambda number: f"{number:016x}"),
    st.booleans(),
    st.text(st.characters(min_codepoint=0x21, max_codepoint=0x7E), max_size=MAX_STATE_CHARS),
)


@given(contexts)
def test_a_record_carries_what_was_put_on_it(context):
    others = [("tenterhook-retry", b"retry.1s/0/1/2"), ("odd", None)]

    assert of_record([*others, *context.record_headers()]) == context
    assert parse(context.traceparent, context.state) == context


@given(st.text(), st.text())
def test_nothing_raises(traceparent, tracestate):
    parse(traceparent, tracestate)


@pytest.mark.parametrize(
    ("told", "is_sampled"),
    [
        (f"00-{TRACE}-{SPAN}-01", True),
        (f"00-{TRACE}-{SPAN}-00", False),
        (f"00-{TRACE}-{SPAN}-03", True),  # random trace id, level 2
        (f"cc-{TRACE}-{SPAN}-01-what-comes-later", True),
        (f" 00-{TRACE}-{SPAN}-01\t", True),
    ],
)
def test_a_traceparent_is_read_as_the_standard_says(told, is_sampled):
    assert parse(told) == TraceContext(TRACE, SPAN, is_sampled)


@pytest.mark.parametrize(
    "told",
    [
        "",
        f"ff-{TRACE}-{SPAN}-01",
        f"00-{TRACE}-{SPAN}-01-more",
        f"00-{TRACE.upper()}-{SPAN}-01",
        f"00-{'0' * 32}-{SPAN}-01",
        f"00-{TRACE}-{'0' * 16}-01",
        f"00-{TRACE}-{SPAN}",
        f"00-{TRACE}-{SPAN}-1",
        f"00-{TRACE}-{SPAN}-01\nX-Other: 1",
    ],
)
def test_what_is_no_traceparent_is_passed_over(told):
    assert parse(told) is None
    assert of_record([("traceparent", told.encode())]) is None


@pytest.mark.parametrize("state", ["x" * (MAX_STATE_CHARS + 1), "a=b\r\nX-Other: 1", "ä=1"])
def test_a_state_that_is_none_is_left_out(state):
    assert parse(f"00-{TRACE}-{SPAN}-01", state) == TraceContext(TRACE, SPAN, True)


def test_a_record_without_one_has_none():
    assert of_record([]) is None
    assert of_record([("tracestate", b"a=b")]) is None
