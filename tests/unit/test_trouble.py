"""What fails again and again: a line when it begins, one when it is over, and little in between."""

from types import SimpleNamespace

import pytest
import structlog
from aiokafka.errors import KafkaConnectionError, KafkaTimeoutError, TopicAuthorizationFailedError
from structlog.testing import capture_logs

from streams.trouble import MOST_KINDS, QUIET_S, REMIND_S, Trouble


@pytest.fixture
def clock():
    return SimpleNamespace(now_s=1_000.0)


@pytest.fixture
def lines():
    with capture_logs() as lines:
        yield lines


@pytest.fixture
def trouble(clock, lines):
    return Trouble(structlog.get_logger("test"), now_s=lambda: clock.now_s, topic="events")


def said(lines):
    """What those hear who do not listen to debug, since the last time."""
    told = [line for line in lines if line["log_level"] != "debug"]
    lines.clear()
    return told


def away(number=0):
    return ConnectionError(f"Connection at 127.0.0.1:{9092 + number} closed")


def test_ten_failures_are_a_line_with_a_traceback_and_their_end_is_one_with_how_many(trouble, clock, lines):
    errors = [away(number) for number in range(10)]
    for error in errors:
        trouble.raised("fetch.failed", error, retry_s=1)
        clock.now_s += 1
    assert [line["event"] for line in lines] == ["fetch.failed"] * 10
    assert said(lines) == [
        {
            "event": "fetch.failed",
            "log_level": "error",
            "topic": "events",
            "retry_s": 1,
            "reason": repr(away()),
            "exc_info": errors[0],
        }
    ]

    trouble.over()
    trouble.over()
    assert said(lines) == [
        {
            "event": "trouble.over",
            "log_level": "warning",
            "of": "fetch.failed",
            "topic": "events",
            "times": 10,
            "for_s": 9.0,
        }
    ]


def test_a_broker_that_is_away_is_one_trouble_however_it_shows(trouble, lines):
    for error in (
        KafkaTimeoutError("not within 10000 ms"),
        KafkaConnectionError("no bootstrap"),
        TimeoutError(),
        away(),
    ):
        trouble.met("ends.unknown", error)
    assert [line["reason"] for line in said(lines)] == ["KafkaTimeoutError('not within 10000 ms')"]
    trouble.met("ends.unknown", TopicAuthorizationFailedError("events"))
    assert [line["times"] for line in said(lines)] == [5]


def test_where_there_was_none_nothing_is_over(trouble, lines):
    trouble.over()
    assert lines == []


def test_another_kind_is_said_at_once_without_a_second_traceback(trouble, clock, lines):
    for number in range(3):
        trouble.met("catch_up.interrupted", away(number), retry_s=0.5)
        clock.now_s += 1
        trouble.raised("catch_up.raised", KeyError("line"))
        clock.now_s += 1
        trouble.raised("catch_up.raised", ValueError("line"))
        clock.now_s += 1
    first, second, third = said(lines)
    assert (first["log_level"], first["retry_s"], "exc_info" in first, "times" in first) == (
        "warning",
        0.5,
        False,
        False,
    )
    assert (second["log_level"], second["times"], second["for_s"], "exc_info" in second) == ("error", 2, 1.0, True)
    assert (third["reason"], "exc_info" in third) == ("ValueError('line')", False)

    trouble.over()
    [over] = said(lines)
    assert over["of"] == "catch_up.interrupted, catch_up.raised"


def test_messages_that_differ_each_time_are_some_lines_and_no_more(trouble, lines):
    for number in range(50):
        trouble.met("fetch.failed", f"no leader of {'abcdefghij'[number % 10] * (number + 1)}", level="error")
    assert [(line["log_level"], line.get("times")) for line in said(lines)] == [
        ("error", None),
        *(("error", number) for number in range(2, MOST_KINDS + 1)),
    ]


def test_what_lasts_is_said_again_now_and_then_with_how_long_it_has(trouble, clock, lines):
    for _ in range(int(2 * REMIND_S) + 2):
        trouble.raised("takeover.failed", away())
        clock.now_s += 1
    assert [(line.get("times"), line.get("for_s"), "exc_info" in line) for line in said(lines)] == [
        (None, None, True),
        (301, 300.0, False),
        (601, 600.0, False),
    ]


def test_what_fails_every_other_time_is_back_and_not_over_before_it_is_quiet(trouble, clock, lines):
    """As where the machine is short of sockets: some requests find one, and others do not."""
    for _ in range(100):
        trouble.raised("sender.out_of_resources", OSError(24, "no more"))
        trouble.over()
        clock.now_s += 1
    first, over, back = said(lines)
    assert (first["event"], over["event"], back["event"]) == (
        "sender.out_of_resources",
        "trouble.over",
        "sender.out_of_resources",
    )
    assert ("exc_info" in first, "exc_info" in back) == (True, False)

    clock.now_s += QUIET_S
    trouble.over()
    [over] = said(lines)
    assert (over["times"], over["for_s"]) == (99, 98.0)

    clock.now_s += QUIET_S
    trouble.raised("sender.out_of_resources", OSError(24, "no more"))
    trouble.over()
    first, over = said(lines)
    assert "exc_info" in first
    assert over["times"] == 1


def test_the_end_may_have_a_name_of_its_own(lines):
    trouble = Trouble(structlog.get_logger("test"), over="traces.taken_again")
    trouble.met("traces.not_taken", "status 503")
    trouble.over()
    assert [(line["event"], line.get("of")) for line in said(lines)] == [
        ("traces.not_taken", None),
        ("traces.taken_again", "traces.not_taken"),
    ]
