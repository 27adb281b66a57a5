"""What we write as OTLP, read with OpenTelemetry's own classes."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)

from services.runtime.otlp import head_of, rejected, request_of, span_of
from streams.trace_context import TraceContext

texts = st.text(max_size=300)
ids = st.tuples(st.binary(min_size=16, max_size=16), st.binary(min_size=8, max_size=8))
contexts = st.builds(lambda pair, state: TraceContext(pair[0].hex(), pair[1].hex(), True, state), ids, texts)
attributes = st.dictionaries(texts, texts | st.integers(-(2**63), 2**63 - 1), max_size=8)
times = st.integers(0, 2**64 - 1)
#: Numbers of the enum.
KINDS = {"internal": 1, "server": 2, "client": 3, "producer": 4, "consumer": 5}
spans = st.tuples(
    contexts, st.none() | contexts, texts, st.sampled_from(list(KINDS)), times, times, attributes, st.booleans()
)


def values(pairs):
    return {each.key: getattr(each.value, each.value.WhichOneof("value")) for each in pairs}


@given(st.lists(spans, max_size=5), st.dictionaries(texts, texts, max_size=4), texts)
def test_a_request_is_read_as_it_was_meant(made, resource, version):
    written = [
        span_of(context, parent, name, kind, (start, end), said, is_failed=failed)
        for context, parent, name, kind, start, end, said, failed in made
    ]

    request = ExportTraceServiceRequest.FromString(request_of(head_of(resource, "tenterhook", version), written))

    [of_resource] = request.resource_spans
    [of_scope] = of_resource.scope_spans
    assert values(of_resource.resource.attributes) == resource
    assert (of_scope.scope.name, of_scope.scope.version) == ("tenterhook", version)
    assert len(of_scope.spans) == len(made)
    for found, (context, parent, name, kind, start, end, said, failed) in zip(of_scope.spans, made, strict=True):
        assert (found.trace_id.hex(), found.span_id.hex(), found.trace_state) == (*context[:2], context.state)
        assert found.parent_span_id.hex() == ("" if parent is None else parent.span_id)
        assert (found.name, found.kind) == (name, KINDS[kind])
        assert (found.start_time_unix_nano, found.end_time_unix_nano) == (start, end)
        assert values(found.attributes) == said
        assert (found.status.code, found.flags) == (2 if failed else 0, 1)


def test_what_is_no_unicode_becomes_a_question_mark():
    context = TraceContext("1" * 32, "2" * 16, True)
    written = span_of(context, None, "\ud800", "client", (1, 2), {"a": "\udfff"}, is_failed=False)

    [of_resource] = ExportTraceServiceRequest.FromString(request_of(head_of({}, "", ""), [written])).resource_spans
    [found] = of_resource.scope_spans[0].spans
    assert (found.name, values(found.attributes)) == ("?", {"a": "?"})


@pytest.mark.parametrize("count", [0, 1, 127, 128, 1_024, 2**40])
@pytest.mark.parametrize("message", ["", "too many", "x" * 300])
def test_what_a_collector_has_not_taken_is_read(count, message):
    answer = ExportTraceServiceResponse()
    answer.partial_success.rejected_spans = count
    answer.partial_success.error_message = message

    assert rejected(answer.SerializeToString()) == count


@given(st.binary(max_size=20))
def test_no_answer_raises(answer):
    assert rejected(answer) >= 0


def test_an_answer_without_anything_has_taken_all():
    assert rejected(b"") == 0
    assert rejected(ExportTraceServiceResponse().SerializeToString()) == 0
