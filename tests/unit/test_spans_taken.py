"""What is traced, on whose word, and what spans say."""

import random
import time
from collections import Counter
from statistics import median
from types import SimpleNamespace

import msgspec
import pytest
from multidict import CIMultiDict, CIMultiDictProxy
from pydantic import ValidationError

from bench import spans_off
from schemas.profiles import PAUSED_AFTER
from services.breaker.fold import fold, rules_of, state_of
from services.breaker.traced import pause_span
from services.dispatcher.plan import Opened, Planned, Unplannable, prepare
from services.dispatcher.traced import attempt_span, attempted, fan_out_span, put_back_span
from services.ingest.traced import answered, append_span, parent_of, request_span
from services.runtime.settings import Settings
from services.runtime.spans import ATTRIBUTES, DECLARED, UNSENT
from services.runtime.tracing import Tracing, after, headers_of
from streams.trace_context import TraceContext
from tests.breaking import make_result
from tests.logs import make_event
from tests.records import make_delivery, make_integration

CAME = TraceContext("4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7", True, "vendor=1")
UNSAMPLED = CAME._replace(is_sampled=False)
RECORD = SimpleNamespace(topic="t.events", partition=3, offset=7, headers=CAME.record_headers())


@pytest.fixture
def ended():
    return []


@pytest.fixture
def tracing(ended):
    made = Tracing()
    made.start(1.0, lambda span, _at_ns: ended.append(span))
    return made


def headers(*pairs):
    return CIMultiDictProxy(CIMultiDict(pairs))


def test_settings_that_make_no_sense_are_refused_without_their_value():
    for wrong in (
        {"endpoint": "collector:4318"},
        {"endpoint": "http://user:hunter2@collector"},
        {"sampled_share": 1.1},
        {"headers": "hunter2"},
        {"headers": "a=1,=hunter2"},
        {"headers": "a=hunter2\r\nb=2"},
    ):
        with pytest.raises(ValidationError) as caught:
            Settings(tracing=wrong)
        [error] = caught.value.errors(include_input=False, include_url=False, include_context=False)
        assert "hunter2" not in str(error)
    assert "hunter2" not in repr(Settings(tracing={"headers": "a=hunter2, b=="}))


def test_off_nothing_is_made_and_nothing_is_carried_on():
    off = Tracing()

    assert request_span(off, None, "shop", "secret", "/v1") is None
    assert request_span(off, CAME, "shop", "secret", "/v1") is None
    assert fan_out_span(off, CAME, RECORD, make_event(0)) is None
    assert off.of_record(RECORD) is None
    assert headers_of(after(None, None)) is None


def test_a_share_is_traced_of_what_nobody_has_decided(ended):
    random.seed(7)
    tracing = Tracing()
    tracing.start(0.25, lambda *_: None)
    made = Counter(request_span(tracing, None, "shop", "public", "/v1") is None for _ in range(4_000))

    assert made[False] == pytest.approx(1_000, rel=0.15)
    assert request_span(tracing, CAME, "shop", "secret", "/v1") is not None
    assert request_span(tracing, UNSAMPLED, "shop", "secret", "/v1") is None


def test_a_server_decides_for_its_request_and_a_page_does_not():
    told = (("traceparent", CAME.traceparent), ("TraceState", "vendor=1"), ("tracestate", "b=2"))

    assert parent_of(headers(*told), "secret") == CAME._replace(state="vendor=1,b=2")
    assert parent_of(headers(("traceparent", UNSAMPLED.traceparent)), "secret") == UNSAMPLED._replace(state="")
    assert parent_of(headers(*told), "public") is None
    assert parent_of(headers(*told, ("traceparent", CAME.traceparent)), "secret") is None
    assert parent_of(headers(), "secret") is None


def test_a_context_that_is_not_sampled_goes_on_as_it_came(tracing):
    delivery = make_delivery()

    assert after(attempt_span(tracing, UNSAMPLED, delivery), UNSAMPLED) == UNSAMPLED
    assert headers_of(UNSAMPLED) == [("traceparent", UNSAMPLED.traceparent.encode()), ("tracestate", b"vendor=1")]


def test_spans_hang_on_each_other_and_say_what_is_declared_and_nothing_else(tracing, ended):
    secret = "whsec_never-to-be-seen"
    event = msgspec.structs.replace(make_event(0), payload=f'"{secret}"'.encode())
    delivery = make_delivery(attempt=2, due_at_ms=1_000, payload=event.payload)
    failed = make_result(
        attempt=2, outcome=None, reason="status_500", status=500, url="https://crm.example:8443/***?a=***",
        detail=secret, request_headers={"Authorization": secret}, response_body=secret.encode(), next_attempt=3,
        next_due_at_ms=5_000, dns_us=1, connect_us=2, tls_us=3, wait_us=4, read_us=5,
    )  # fmt: skip
    blocked = make_result(attempt=0, outcome="blocked", reason="template_failed", url="", detail=secret)

    request = request_span(tracing, CAME, "shop", "secret", "/v1/apps/{app}/events")
    append = append_span(tracing, request.context, "t.events", [event])
    append.end()
    answered(request, 503, "broker_unavailable")
    fan_out = fan_out_span(tracing, append.context, RECORD, event)
    fan_out.end()
    attempt = attempt_span(tracing, fan_out.context, delivery)
    attempted(attempt, failed, time.time_ns())
    put_back = put_back_span(tracing, attempt.context, "retry.5s", RECORD, delivery)
    put_back.end()
    unsent = attempt_span(tracing, put_back.context, delivery)
    attempted(unsent, blocked, time.time_ns())

    assert [span.parent and span.parent.span_id for span in (request, append, fan_out, attempt, put_back, unsent)] == [
        CAME.span_id, *(span.context.span_id for span in (request, append, fan_out, attempt, put_back))
    ]  # fmt: skip
    assert {(span.context.trace_id, span.context.state) for span in ended} == {(CAME.trace_id, "vendor=1")}
    assert len({span.context.span_id for span in ended}) == 6
    assert [span.is_failed for span in (request, append, fan_out, attempt, put_back, unsent)] == [
        True, False, False, True, False, True
    ]  # fmt: skip
    assert unsent.type is UNSENT
    assert attempt.attributes | {
        "error.type": "status_500",
        "server.address": "crm.example",
        "server.port": 8443,
        "http.request.resend_count": 1,
        "tenterhook.next_due_at": "1970-01-01T00:00:05.000Z",
    } == dict(attempt.attributes)
    for span in ended:
        assert set(span.attributes) <= set(span.type.attributes), span.name
        assert secret not in repr(span.attributes)
    assert set(ATTRIBUTES) == {name for each in DECLARED for name in each.attributes}


def test_a_pause_hangs_on_the_attempt_that_was_one_too_many(tracing):
    row = None
    for offset in range(PAUSED_AFTER):
        row = fold(row, make_result(offset), offset, rules_of(make_integration()))
    paused = state_of(row, make_integration())
    record = SimpleNamespace(offset=PAUSED_AFTER - 1, headers=CAME.record_headers())
    other = SimpleNamespace(offset=6, headers=UNSAMPLED.record_headers())
    span = pause_span(tracing, SimpleNamespace(records=[other, record]), paused)

    assert (span.parent, span.attributes["tenterhook.failures"]) == (CAME, PAUSED_AFTER)
    assert set(span.attributes) == set(span.type.attributes)
    assert pause_span(tracing, SimpleNamespace(records=[other]), paused) is None
    assert pause_span(Tracing(), SimpleNamespace(records=[record]), paused) is None


def test_a_refused_request_is_no_failure_of_ours(tracing):
    span = request_span(tracing, None, "shop", "public", "/v1")
    answered(span, 422, "unknown_type")

    assert (span.parent, span.is_failed, span.attributes["error.type"]) == (None, False, "unknown_type")


def sent(trace=CAME, own_headers=None, **config):
    """The headers of an attempt in that trace; why it cannot be made where it cannot."""
    prepared = prepare(make_integration(**config), Opened(own_headers or {}, {}, []), "X-ApifyCloud", "1")
    made = prepared if isinstance(prepared, Unplannable) else prepared.plan(make_delivery(), 0, trace)
    return dict(made.headers) if isinstance(made, Planned) else made.code


def test_a_receiver_hears_of_the_trace_where_the_integration_wants_it():
    assert sent(send_traceparent=True)["traceparent"] == CAME.traceparent
    assert "tracestate" not in sent(send_traceparent=True)
    assert sent(UNSAMPLED, send_traceparent=True)["traceparent"] == UNSAMPLED.traceparent
    assert "traceparent" not in sent(None, send_traceparent=True)
    assert "traceparent" not in sent()


def test_its_own_traceparent_and_ours_exclude_each_other():
    assert sent(own_headers={"Traceparent": "mine"})["Traceparent"] == "mine"
    assert sent(own_headers={"Traceparent": "mine"}, send_traceparent=True) == "header_unrenderable"


def test_tracing_that_is_off_costs_next_to_nothing():
    """docs/tracing.md says 0.5 µs; a span, 18. Five times as much is for slow machines and busy neighbours."""
    assert 0 < median(spans_off.measure(11, calls=2_000)) < 2.5
