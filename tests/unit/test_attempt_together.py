"""The result of a request that took long is made when such results are written, and says when the request had ended."""

import asyncio
from types import SimpleNamespace
from typing import Any
from unittest import mock

import pytest

from schemas.profiles import MAX_TIMEOUT_MS
from services.dispatcher import attempt
from services.dispatcher.attempt import Attempts
from services.dispatcher.pacing import Pacing
from services.dispatcher.sender import Answer, Failure, MaySend, Request, always
from services.dispatcher.together import Together
from services.dispatcher.traced import attempt_span, attempted
from services.dispatcher.verdict import verdict
from services.runtime.tracing import Tracing
from streams import codec
from streams.engine.processor import ReadAt
from streams.records import Result
from streams.states import States
from streams.trace_context import TraceContext
from streams.views import Apps, Integrations
from tests.apps import make_app
from tests.breaking import make_result
from tests.dispatching import KEYRING
from tests.records import make_delivery, make_integration
from tests.simulated import BASE_MS, SimulatedLoop, now_ms

CAME = TraceContext("4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7", True, "")


def attempted_after(took_s: float, answer: Answer | Failure, *, is_sent: bool = True) -> tuple[Result, int]:
    """The result of a request that takes so long, and how many milliseconds after its start it is made."""
    made_ms: list[int] = []

    async def send(_request: Request, may_send: MaySend = always) -> Answer | Failure:
        assert not is_sent or may_send()
        await asyncio.sleep(took_s)
        return answer

    def noting(*args: Any, **kwargs: Any) -> Any:
        made_ms.append(now_ms())
        return verdict(*args, **kwargs)

    async def run() -> tuple[Result, int]:
        integrations, apps, config, app = Integrations(), Apps(), make_integration("int_1"), make_app()
        apps.apply(app.app.encode(), codec.encode(app), 0)
        integrations.apply(config.id.encode(), codec.encode(config), 1)
        sender: Any = SimpleNamespace(send=send)
        attempts = Attempts(
            config=None,  # type: ignore[arg-type]
            integrations=integrations,
            apps=apps,
            states=States(),
            keyring=KEYRING,
            sender=sender,
            brand="X-Brand",
            version="0",
            now_ms=now_ms,
            together=Together(Pacing()),
        )
        await asyncio.sleep(0.001)
        began_ms = now_ms()
        result = await attempts.attempt(make_delivery(integration="int_1"), ReadAt(0, 0, 1), always)
        assert result.started_at_ms == began_ms
        assert made_ms == [now_ms()], "all of it then"
        return result, now_ms() - began_ms

    with asyncio.Runner(loop_factory=SimulatedLoop) as runner, mock.patch.object(attempt, "verdict", noting):
        return runner.run(run())


def test_a_slow_one_waits_for_others_and_its_next_attempt_does_not() -> None:
    result, after_ms = attempted_after(4.005, Answer(status=500))
    assert result.finished_at_ms - result.started_at_ms == 4_005
    assert 4_005 < after_ms <= 4_045, "the next time at which such results are written"
    assert result.finished_at_ms > BASE_MS
    delay_ms = make_integration("int_1").delays_ms[0]
    assert result.next_due_at_ms == pytest.approx(result.finished_at_ms + delay_ms, abs=0.2 * delay_ms + 1)
    assert result.next_due_at_ms is not None
    assert result.next_due_at_ms >= result.finished_at_ms + 0.8 * delay_ms
    assert after_ms < MAX_TIMEOUT_MS


def test_a_fast_one_waits_for_nobody() -> None:
    result, after_ms = attempted_after(0.02, Answer(status=200))
    assert (result.finished_at_ms - result.started_at_ms, after_ms) == (20, 20)


def test_what_came_to_no_connection_waits_for_nobody() -> None:
    """Whoever gets the partition meanwhile makes it again."""
    failure = Failure(code="timeout", detail="it ran out while connecting")
    result, after_ms = attempted_after(10.005, failure, is_sent=False)
    assert (result.reason, after_ms) == ("timeout", 10_005)


def test_its_span_ends_when_the_request_has() -> None:
    ends_ns: list[int] = []
    tracing = Tracing()
    tracing.start(1.0, lambda _, at_ns: ends_ns.append(at_ns))

    def ended_ns(finished_ms: int, now_ns: int) -> int:
        span = attempt_span(tracing, CAME, make_delivery())
        assert span is not None
        span.started_ns = 1_000_000_000_000_000_000
        attempted(span, make_result(outcome="delivered", status=200, finished_at_ms=finished_ms), now_ns)
        return ends_ns[-1] - span.started_ns

    assert ended_ns(1_000_000_004_000, 1_000_000_004_200_000_000) == 4_001_000_000, "known to the millisecond"
    assert ended_ns(1_000_000_000_003, 1_000_000_000_003_400_000) == 3_400_000, "it is over now"
    assert ended_ns(999_999_999_000, 1_000_000_004_200_000_000) == 0, "not before it began"
