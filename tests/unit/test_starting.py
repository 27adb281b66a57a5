"""
A start is tried anew while the broker comes and goes, until it is there or nobody wants it; where the broker forbids
something, it ends.
"""

import asyncio
from contextlib import AsyncExitStack

import pytest
from aiokafka.errors import (
    ClusterAuthorizationFailedError,
    GroupAuthorizationFailedError,
    KafkaConnectionError,
    KafkaTimeoutError,
    TopicAuthorizationFailedError,
)

from services.admin import config_log
from services.admin.config_log import ConfigLog
from services.ingest import append
from services.ingest.append import EventLog
from services.runtime import starting
from services.runtime.serving import StartupError
from services.runtime.starting import until_started
from streams import topics
from streams.connection import Connection

NOWHERE = Connection("127.0.0.1:9")


class Start:
    """Fails as often as it is told to, and notes what was opened and closed."""

    def __init__(self, *failures: Exception) -> None:
        self.failures = list(failures)
        self.opened = 0
        self.closed = 0
        self.goes_on = asyncio.Event()
        self.goes_on.set()

    def _close(self) -> None:
        self.closed += 1

    async def __call__(self, stack: AsyncExitStack) -> str:
        self.opened += 1
        stack.callback(self._close)
        await self.goes_on.wait()
        if self.failures:
            raise self.failures.pop(0)
        return "started"


@pytest.fixture(autouse=True)
def _the_broker_is_there_at_once(monkeypatch):
    async def there(*_: object, **__: object) -> None:
        return

    monkeypatch.setattr(starting, "wait_for_broker", there)
    monkeypatch.setattr(starting, "_PAUSES_S", (0.0, 0.0))
    monkeypatch.setattr(starting, "_LATE_S", 0.0)


async def test_what_was_opened_before_the_broker_went_away_is_closed_and_opened_anew():
    start = Start(KafkaConnectionError(), OSError(), KafkaTimeoutError())

    started, stack = await until_started("dispatcher", NOWHERE, start)

    assert (started, start.opened, start.closed) == ("started", 4, 3)
    await stack.aclose()
    assert start.closed == 4


async def test_any_other_error_goes_through():
    start = Start(ValueError("a bug"))

    with pytest.raises(ValueError, match="a bug"):
        await until_started("dispatcher", NOWHERE, start)

    assert (start.opened, start.closed) == (1, 1)


async def test_nothing_is_started_that_nobody_wants():
    start, stop = Start(), asyncio.Event()
    stop.set()

    assert await until_started("dispatcher", NOWHERE, start, stop=stop) is None
    assert start.opened == 0


async def test_a_start_that_hangs_is_cut_off_by_a_stop():
    start, stop = Start(), asyncio.Event()
    start.goes_on.clear()
    trying = asyncio.create_task(until_started("dispatcher", NOWHERE, start, stop=stop))
    while not start.opened:  # noqa: ASYNC110  # it tells nobody
        await asyncio.sleep(0)
    stop.set()

    assert await trying is None
    assert (start.opened, start.closed) == (1, 1)


async def test_a_pause_between_two_starts_is_cut_short_by_a_stop(monkeypatch):
    monkeypatch.setattr(starting, "_PAUSES_S", (3600.0, 3600.0))
    start, stop = Start(KafkaConnectionError(), KafkaConnectionError()), asyncio.Event()
    trying = asyncio.create_task(until_started("dispatcher", NOWHERE, start, stop=stop))
    while not start.closed:  # noqa: ASYNC110  # it tells nobody
        await asyncio.sleep(0)
    stop.set()

    assert await trying is None
    assert start.opened == 1


@pytest.mark.parametrize(
    ("error", "grants"),
    [
        (TopicAuthorizationFailedError("tenterhook.schemas"), ["Read and Write on topic tenterhook.schemas"]),
        (
            TopicAuthorizationFailedError({"tenterhook.events", "tenterhook.deliveries"}),
            ["Read and Write on topic tenterhook.deliveries", "Read on topic tenterhook.events"],
        ),
        (GroupAuthorizationFailedError("tenterhook.dispatcher"), ["Read on group tenterhook.dispatcher"]),
        (TopicAuthorizationFailedError("strange"), ["topic strange"]),
        (ClusterAuthorizationFailedError(), ["docs/deploying.md"]),
        (TopicAuthorizationFailedError(29), ["what is missing"]),
        (TopicAuthorizationFailedError(None), ["what is missing"]),
        (TopicAuthorizationFailedError(["tenterhook.events", None]), ["Read on topic tenterhook.events"]),
    ],
)
async def test_a_start_that_the_broker_forbids_ends_and_says_what_to_grant(error, grants):
    start = Start(error)

    with pytest.raises(StartupError, match=r"broker\.denied") as raised:
        await until_started("dispatcher", NOWHERE, start)

    assert (start.opened, start.closed) == (1, 1)
    for each in grants:
        assert each in str(raised.value)


async def test_whoever_looks_at_the_topics_first_ends_too_where_the_broker_forbids_it(monkeypatch):
    async def ensure(*_: object, **__: object) -> None:
        raise TopicAuthorizationFailedError("tenterhook.schemas")

    async def there(*_: object, **__: object) -> None:
        return

    for module in (append, config_log):
        monkeypatch.setattr(module, "wait_for_broker", there)
    monkeypatch.setattr(topics, "ensure", ensure)
    monkeypatch.setattr(config_log, "ensure", ensure)
    one = topics.Partitions(1, 1)

    with pytest.raises(StartupError, match=r"Read and Write on topic tenterhook\.schemas"):
        await asyncio.wait_for(EventLog(NOWHERE, one, replication=1).keep_open(), 5)
    with pytest.raises(StartupError, match=r"Read and Write on topic tenterhook\.schemas"):
        await asyncio.wait_for(ConfigLog(NOWHERE).open(one, replication=1), 5)
