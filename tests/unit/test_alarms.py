"""One integration's faults stop its line; those of several, their partition."""

import pytest

from services.dispatcher.alarms import Alarms
from services.dispatcher.line import Line
from streams.engine.alarm import LEAST

FAULT = ValueError("ours")


@pytest.fixture
def lines():
    return [Line(name, partition, "demo", 1) for name, partition in (("int_a", 0), ("int_b", 0), ("int_c", 1))]


def fail(alarms: Alarms, line: Line, times: int) -> bool:
    return [alarms.raised(line, FAULT) for _ in range(times)][-1]


def test_one_that_raises_often_stops_alone(lines):
    alarms, [one, neighbour, elsewhere] = Alarms(), lines

    assert not fail(alarms, one, LEAST - 1)
    assert alarms.raised(one, FAULT)

    assert [alarms.stop(each) for each in lines] == [True, False, False]
    assert not alarms.stop_all_of(0)
    assert alarms.said(lines) == (
        "too many attempts raise, so nothing is sent on partitions [], for integrations ['int_a']"
    )
    assert alarms.said([neighbour, elsewhere]) is None


def test_several_that_raise_stop_all_of_their_partition(lines):
    alarms, [one, other, _] = Alarms(), lines

    fail(alarms, one, LEAST - 1)
    assert alarms.raised(other, FAULT)

    assert [alarms.stop(each) for each in lines] == [True, True, False]
    assert alarms.stop_all_of(0)
    assert "partitions [0], for integrations []" in (alarms.said(lines) or "")


def test_faults_are_few_where_most_pass(lines):
    alarms, [one, *_] = Alarms(), lines

    for _ in range(20):
        alarms.passed(one)
    assert not fail(alarms, one, LEAST)

    assert alarms.said(lines) is None
