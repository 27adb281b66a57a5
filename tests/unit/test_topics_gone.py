"""Topics that vanish under a process: said once, by name, and not for a look that was too early."""

import asyncio

import pytest
from aiokafka.errors import (
    KafkaConnectionError,
    LeaderNotAvailableError,
    NoError,
    TopicAuthorizationFailedError,
    UnknownTopicOrPartitionError,
)
from structlog.testing import capture_logs

from services.runtime import topics_gone
from services.runtime.settings import Settings
from services.runtime.topics_gone import DELETED, MADE_AGAIN, Gone, watch_topics
from streams.connection import BrokerAway
from streams.topic_ids import _ids

BOTH = {"events": "1", "results": "2"}


def said(*looks: dict[str, str]) -> list[dict[str, str]]:
    gone = Gone()
    return [gone.saw(each) for each in looks]


def test_what_is_there_or_was_never_there_is_not_said():
    assert said({}, {}, {"events": "1"}, BOTH, BOTH, BOTH) == [{}] * 6


def test_one_that_was_deleted_is_said_once_and_by_name():
    left = {"results": "2"}
    assert said(BOTH, left, left, left, left) == [{}, {}, {"events": DELETED}, {}, {}]


def test_and_again_when_somebody_has_made_it_again_or_deleted_another():
    again = BOTH | {"events": "9"}
    assert said(BOTH, {"results": "2"}, {"results": "2"}, again, again, again) == [
        {}, {}, {"events": DELETED}, {}, {"events": MADE_AGAIN}, {},
    ]  # fmt: skip
    assert said(BOTH, {"results": "2"}, {"results": "2"}, {}, {}, {}) == [
        {}, {}, {"events": DELETED}, {}, {"results": DELETED}, {},
    ]  # fmt: skip


def test_a_broker_that_does_not_know_all_yet_is_asked_again_soon_and_nothing_is_said():
    gone = Gone()
    gone.saw(BOTH)
    assert not gone.suspects
    assert gone.saw({}) == {}
    assert gone.suspects
    assert gone.saw(BOTH) == {}
    assert not gone.suspects


def test_when_it_is_said_it_is_looked_at_as_seldom_as_before():
    gone = Gone()
    for ids in (BOTH, {}, {}):
        gone.saw(ids)
    assert not gone.suspects


def told(name, error, topic_id=bytes(16)):
    return (error.errno, name, topic_id, False, [], 0, {})


def test_only_of_a_topic_that_the_broker_does_not_know_nothing_is_told():
    there = told("events", NoError, b"\1" * 16)
    assert _ids([there, told("results", UnknownTopicOrPartitionError)]) == {"events": "01" * 16}
    assert _ids([told("events", NoError)]) == {}, "a broker without ids"
    with pytest.raises(LeaderNotAvailableError):
        _ids([there, told("results", LeaderNotAvailableError)])
    with pytest.raises(TopicAuthorizationFailedError) as denied:
        _ids([there, *(told(name, TopicAuthorizationFailedError) for name in ("results", "deliveries"))])
    assert denied.value.args[0] == {"results", "deliveries"}


async def test_no_error_of_the_client_ends_the_watch_and_the_broker_is_said_to_be_away_and_back(monkeypatch):
    looks = [{}, KafkaConnectionError(), KafkaConnectionError(), TopicAuthorizationFailedError({"events"}), {}]
    brokers = [ValueError("a bug in the client"), BrokerAway("nobody listens")]
    are_done = asyncio.Event()

    async def next_of(answers):
        if not answers:
            are_done.set()
            await asyncio.Event().wait()
        if isinstance(answer := answers.pop(0), Exception):
            raise answer
        return answer

    monkeypatch.setattr(topics_gone, "AGAIN_S", 0)
    monkeypatch.setattr(topics_gone, "EVERY_S", 0.01)
    monkeypatch.setattr(topics_gone, "_ids", lambda *_: next_of(looks))
    monkeypatch.setattr(topics_gone, "brokers_at", lambda _: next_of(brokers))
    with capture_logs() as said:
        watching, done = asyncio.ensure_future(watch_topics(Settings())), asyncio.ensure_future(are_done.wait())
        await asyncio.wait((watching, done), return_when=asyncio.FIRST_COMPLETED)
    assert done.done()
    assert not watching.done()
    watching.cancel()
    assert [line["event"] for line in said if line["log_level"] == "warning"] == ["broker.away", "broker.back"]
