"""Spans on their way to a collector that takes them, refuses them, is busy, or is not there."""

import asyncio

import pytest
from structlog.testing import capture_logs

from services.cli.brokers.ports import free_ports
from services.runtime import metrics, trace_export, tracing
from services.runtime.settings import Settings
from services.runtime.spans import UNSENT
from services.runtime.tracing import TRACING, exporting
from streams.trace_context import TraceContext
from tests.collecting import collecting
from tests.waiting import eventually

CAME = TraceContext("4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7", True, "vendor=1")


@pytest.fixture(autouse=True)
def soon(monkeypatch):
    """What takes seconds in earnest takes hundredths here."""
    for name, value in {"EVERY_S": 0.02, "RETRY_S": 0.02, "MAX_RETRY_S": 0.05, "FLUSH_S": 0.5}.items():
        monkeypatch.setattr(trace_export, name, value)


@pytest.fixture
def counted():
    """What the two counters have counted since the test began."""
    names = {name: metrics.SPANS_DROPPED.value(name) for name in metrics.DROPPED_FOR.values}
    taken = metrics.SPANS_EXPORTED.value()

    def since():
        dropped = {name: int(metrics.SPANS_DROPPED.value(name) - before) for name, before in names.items()}
        return int(metrics.SPANS_EXPORTED.value() - taken), {name: count for name, count in dropped.items() if count}

    return since


def settings(endpoint, **own):
    return Settings(tracing={"endpoint": endpoint, **own})


def made(count, parent=CAME):
    for number in range(count):
        span = TRACING.begin(
            UNSENT, f"deliver {number}", parent, {"tenterhook.attempt": number, "tenterhook.app": None}
        )
        span.end()


async def test_they_arrive_as_they_were_made_with_the_headers_that_were_asked_for(counted):
    async with collecting() as collector:
        given = settings(collector.url + "/", headers="X-Api-Key=k=1, x-tenant=shop")
        async with exporting(given, "ingest"):
            failed = TRACING.begin(UNSENT, "deliver", CAME, {"tenterhook.attempt": 2})
            failed.fail("template_failed")
            failed.end(failed.started_ns + 5)
            await eventually(lambda: collector.spans)
            made(3)
        first, *others = collector.spans

    assert not TRACING.is_on
    assert (first.service, first.name, first.kind, first.is_failed) == (
        "tenterhook-ingest",
        "deliver",
        "INTERNAL",
        True,
    )
    assert (first.trace_id, first.parent_id, first.state) == (CAME.trace_id, CAME.span_id, "vendor=1")
    assert first.traceparent == failed.context.traceparent
    assert first.ended_ns - first.started_ns == 5
    assert first.attributes == {"tenterhook.attempt": 2, "error.type": "template_failed"}
    assert [each.attributes for each in others] == [{"tenterhook.attempt": number} for number in range(3)]
    assert (collector.headers[0]["X-Api-Key"], collector.headers[0]["x-tenant"]) == ("k=1", "shop")
    assert counted() == (4, {})


async def test_a_collector_that_is_away_costs_spans_and_nothing_else(monkeypatch, counted):
    monkeypatch.setattr(trace_export, "MAX_WAITING", 100)
    monkeypatch.setattr(trace_export, "BATCH", 40)
    [port] = free_ports(1)
    with capture_logs() as lines:
        async with exporting(settings(f"http://127.0.0.1:{port}"), "dispatcher"):
            made(120)
            await eventually(lambda: any(line["event"] == "traces.not_taken" for line in lines))
            async with collecting(port) as collector:
                collector.status = 503
                await eventually(lambda: collector.requests >= 2)
                assert collector.spans == []
                collector.status = 200
                await eventually(lambda: len(collector.spans) == 100)
                assert [each.name for each in collector.spans] == [f"deliver {number}" for number in range(100)]
            assert counted() == (100, {"queue_full": 20})
            made(7)
            started_s = asyncio.get_running_loop().time()
        took_s = asyncio.get_running_loop().time() - started_s

    assert counted() == (100, {"queue_full": 20, "at_end": 7})
    assert took_s < 5
    said = [line["event"] for line in lines if line["log_level"] != "debug"]
    assert said.count("traces.not_taken") <= 3  # nobody is there, it answers 503, it is gone
    assert "traces.taken_again" in said


async def test_what_is_refused_is_not_tried_again(counted):
    async with collecting() as collector:
        with capture_logs() as lines:
            async with exporting(settings(collector.url), "ingest"):
                collector.status = 401
                made(3)
                await eventually(lambda: counted() == (0, {"refused": 3}))
                collector.status, collector.rejects = 200, 1
                made(2)
                await eventually(lambda: counted() == (1, {"refused": 4}))

    assert [(line["event"], line["status"]) for line in lines if "status" in line] == [("traces.refused", 401)]


async def test_one_that_hangs_holds_nothing_up_but_the_end_for_a_moment(counted):
    loop = asyncio.get_running_loop()
    async with collecting() as collector:
        collector.answers.clear()
        async with exporting(settings(collector.url), "ingest"):
            made(3)
            await eventually(lambda: collector.requests)
            made(2)
            before_s = loop.time()
        assert 0.4 < loop.time() - before_s < 5

    assert counted() == (0, {"at_end": 5})


async def test_off_nothing_of_it_is_loaded_and_nothing_is_made(monkeypatch):
    monkeypatch.setattr(tracing, "import_module", lambda name: pytest.fail(f"{name} was loaded"))

    async with exporting(Settings(), "ingest"):
        assert not TRACING.is_on
        assert TRACING.begin(UNSENT, "deliver", CAME, {}) is None
