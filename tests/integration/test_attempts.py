"""Attempts without lanes: what they keep, what they wait for, and what they make of a configuration nobody checked."""

import asyncio
from typing import Any

import pytest
from structlog.testing import capture_logs

from services.dispatcher.attempt import Attempts
from services.dispatcher.pacing import Pacing
from services.dispatcher.sender import Answer, MaySend, NoResources, Request, Unsent, Withheld, always
from services.dispatcher.together import Together
from streams import codec
from streams.engine.processor import ReadAt
from streams.records import IntegrationConfig
from streams.states import States
from streams.views import Apps, Integrations
from tests.apps import make_app
from tests.dispatching import KEYRING, sealed_header
from tests.records import make_delivery, make_integration
from tests.waiting import eventually

READ_AT = ReadAt(0, 0, 1)


class Config:
    """As much of a follower as attempts ask for: how far the configuration is known."""

    def __init__(self) -> None:
        self.position = 0
        self._moved = asyncio.Event()

    async def reach(self, offset: int) -> None:
        while self.position < offset:
            await self._moved.wait()
            self._moved.clear()

    def move(self, position: int) -> None:
        self.position = position
        self._moved.set()


class Asked:
    """A sender that answers 200 and notes what it was asked."""

    def __init__(self) -> None:
        self.requests: list[Request] = []
        #: In place of its next answers.
        self.raises: list[Exception] = []

    async def send(self, request: Request, may_send: MaySend = always) -> Answer:
        if self.raises:
            raise self.raises.pop()
        assert may_send()
        self.requests.append(request)
        return Answer(status=200)

    async def close(self) -> None:
        """Nothing is open."""


class Bench:
    def __init__(self, *configs: IntegrationConfig, **options: Any) -> None:
        self.config, self.sender, self.now_ms = Config(), Asked(), 1_000
        integrations, apps = Integrations(), Apps()
        app = make_app()
        apps.apply(app.app.encode(), codec.encode(app), 0)
        for offset, config in enumerate(configs):
            integrations.apply(config.id.encode(), codec.encode(config), offset)
        self.attempts = Attempts(
            config=self.config,  # type: ignore[arg-type]
            integrations=integrations,
            apps=apps,
            states=States(),
            keyring=KEYRING,
            sender=self.sender,
            brand="X-Brand",
            version="0",
            now_ms=lambda: self.now_ms,
            together=Together(Pacing()),
            **options,
        )


def with_a_secret(name: str) -> IntegrationConfig:
    return make_integration(name, headers={"X-Secret": sealed_header("demo", name, "X-Secret", "opened-secret")})


async def test_opened_secrets_are_forgotten_though_nothing_is_delivered_any_more():
    bench = Bench(with_a_secret("int_1"), with_a_secret("int_2"), opened_for_ms=50)
    for name in ("int_1", "int_2"):
        await bench.attempts.attempt(make_delivery(integration=name), READ_AT, always)
    assert set(bench.attempts._ready) == {"int_1", "int_2"}
    await eventually(lambda: bench.attempts._ready == {})


async def test_a_configuration_that_is_late_is_waited_for_with_an_alarm():
    bench = Bench(behind_alarm_s=0.01)
    with capture_logs() as lines:
        reaching = asyncio.create_task(bench.attempts.reach(7))
        await eventually(lambda: lines)
        assert not reaching.done()
        bench.config.move(7)
        await reaching
    assert [(line["event"], line["log_level"]) for line in lines] == [
        ("config.behind", "error"),
        ("trouble.over", "warning"),
    ]
    assert (lines[0]["position"], lines[0]["wanted"]) == (0, 7)


async def test_a_configuration_that_is_known_is_not_waited_for():
    bench = Bench(behind_alarm_s=0.0)
    bench.config.move(7)
    with capture_logs() as lines:
        await bench.attempts.reach(7)
    assert lines == []


@pytest.mark.parametrize(("written", "kept"), [(0, 1), (-5, 1), (3, 3), (1_000_000, 100)])
async def test_requests_at_once_stay_within_the_limits_whatever_is_written(written, kept):
    """Zero would keep the lane, and in the end its partition, still for ever."""
    bench = Bench(make_integration("int_1", ordering="none", max_in_flight=written))
    assert bench.attempts.pace("int_1") == ("none", kept)


@pytest.mark.parametrize(("written", "kept"), [(0, 1), (5_000, 5_000), (3_600_000, 10_000)])
async def test_the_timeout_stays_within_the_limits_whatever_is_written(written, kept):
    """Draining and rebalances wait for a request: an hour would make them cut it off and send it again."""
    bench = Bench(make_integration("int_1", timeout_ms=written))
    await bench.attempts.attempt(make_delivery(integration="int_1"), READ_AT, always)
    assert [request.timeout_ms for request in bench.sender.requests] == [kept]


@pytest.mark.parametrize("why", [Withheld(), NoResources(24, "no file left")])
async def test_what_was_not_sent_has_no_result_and_whoever_asked_for_it_decides_anew(why, monkeypatch):
    monkeypatch.setattr("services.dispatcher.attempt.NO_RESOURCES_RETRY_S", 0.0)
    bench = Bench(make_integration("int_1"))
    bench.sender.raises = [why]
    with pytest.raises(Unsent):
        await bench.attempts.attempt(make_delivery(integration="int_1"), READ_AT, always)
    result = await bench.attempts.attempt(make_delivery(integration="int_1"), READ_AT, always)
    assert (result.outcome, len(bench.sender.requests)) == ("delivered", 1)
