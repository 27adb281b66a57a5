"""From when to when an integration was paused, as the log of a run says it."""

from types import SimpleNamespace
from typing import Any

import pytest

from streams import codec, topics
from streams.connection import Connection
from streams.records import IntegrationConfig, IntegrationState
from streams.topics import Partitions
from tests.chaos.following import Following
from tests.chaos.observed import Observed, Paused
from tests.records import make_integration


class Log:
    """Records as they come, each read 5 ms after it was given to a producer."""

    def __init__(self) -> None:
        self.seen = Observed({})
        self.following = Following(
            Connection("nowhere:0", "chaos."), Partitions(1, 1), {"int_a": make_integration("int_a")}, self.seen
        )

    def comes(self, at_ms: int, record: IntegrationConfig | IntegrationState) -> None:
        topic = topics.INTEGRATION_CONFIG if isinstance(record, IntegrationConfig) else topics.INTEGRATION_STATE
        raw: Any = SimpleNamespace(partition=0, offset=at_ms, timestamp=at_ms, key=b"int_a", value=codec.encode(record))
        self.following._read_ms = at_ms + 5
        self.following._see(topic, raw)

    @property
    def paused(self) -> list[Paused]:
        self.following.conclude()
        return self.seen.paused


def state(epoch: int, status: Any = "active", tripped_by: int | None = None, applied: int = 0) -> IntegrationState:
    return IntegrationState(
        integration="int_a", app="demo", state=status, epoch=epoch, consecutive_failures=0, delivered=0, ended=0,
        applied_offset=applied, tripped_by_offset=tripped_by,
    )  # fmt: skip


def config(status: str, epoch: int = 1) -> IntegrationConfig:
    return make_integration("int_a", status=status, epoch=epoch)


@pytest.fixture
def log() -> Log:
    return Log()


def test_the_breakers_pause_lasts_from_when_it_can_be_read_until_an_activation_is_written(log):
    log.comes(100, state(1))
    log.comes(200, state(1, "paused", tripped_by=19, applied=19))
    log.comes(300, state(1, "paused", tripped_by=19, applied=20))
    log.comes(400, config("active", epoch=2))
    log.comes(500, state(2))
    log.comes(600, state(1, "paused", tripped_by=19, applied=20))  # of a breaker that froze
    assert log.paused == [Paused("int_a", 205, 400, 19)]


def test_a_persons_pause_has_no_failure_and_lasts_where_nobody_ends_it(log):
    log.comes(100, config("paused"))
    log.comes(200, config("active", epoch=2))
    log.comes(300, config("paused", epoch=2))
    log.comes(400, state(2, "paused", tripped_by=19))
    assert log.paused == [Paused("int_a", 105, 200), Paused("int_a", 305)]


def test_one_that_is_read_when_it_was_over_was_none(log):
    log.comes(300, config("active", epoch=2))
    log.comes(200, state(1, "paused", tripped_by=19))
    assert log.paused == []
