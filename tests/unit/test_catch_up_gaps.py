"""Reading again where the log begins later by now: what is said of it, once."""

from types import SimpleNamespace

import pytest
from aiokafka import TopicPartition
from structlog.testing import capture_logs

from services.dispatcher.catch_up import CatchUp
from services.dispatcher.lane import Entry
from services.dispatcher.line import Line
from services.dispatcher.pacing import Pacing
from streams.records import LaneRow

P = TopicPartition("t.deliveries", 2)


class Log:
    """A consumer of a log that begins there, and has nothing to give yet."""

    def __init__(self, begins):
        self.begins = begins
        self.asked = 0

    async def position(self, partition):
        return self.begins

    async def beginning_offsets(self, partitions):
        self.asked += 1
        return dict.fromkeys(partitions, self.begins)


def line_of(integration, read_from, held=1, held_to=1_000):
    row = LaneRow(
        integration=integration, app="demo", generation=1, reason="paused", frontier=read_from, open=[], held=held,
        held_to=held_to, oldest_at_ms=100,
    )  # fmt: skip
    return Line.of_row(row, 2, 2)


class Reading:
    def __init__(self, *lines, **read_from):
        self.fed = []
        lines = [*lines, *(line_of(name, at) for name, at in read_from.items())]
        self.detached = {2: {line.integration.encode(): line for line in lines}}

    def live(self, partition):
        return 1_000

    def may_feed(self, line):
        return True

    def feed(self, line, record):
        line.feed(Entry(record.offset, record.timestamp))

    def was_fed(self, line):
        self.fed.append((line.integration, line.read_from))


def catching_up(reading, at):
    one = CatchUp(None, P.topic, reading, Pacing())
    one._at[2] = at
    return one


def said(lines):
    return [(each["partition"], each["first"], each["last"], each["integrations"]) for each in lines]


async def test_what_fell_out_is_said_once_with_all_whose_lines_it_was():
    reading = Reading(int_b=40, int_a=45, int_c=90)
    one, log = catching_up(reading, 45), Log(60)

    with capture_logs() as lines:
        await one._pass_gaps(log, [P])
        one._at[2] = 40  # where the next line stands
        await one._pass_gaps(log, [P])

    assert said(lines) == [(2, 40, 59, ["int_a", "int_b"])]
    assert (lines[0]["event"], lines[0]["log_level"], lines[0]["topic"]) == (
        "deliveries.fallen_out", "error", "t.deliveries",
    )  # fmt: skip
    assert reading.fed == [("int_a", 60), ("int_b", 60)]

    with capture_logs() as lines:
        log.begins, one._at[2] = 95, 90
        await one._pass_gaps(log, [P])
    assert said(lines) == [(2, 60, 94, ["int_a", "int_b", "int_c"])]


async def test_it_is_said_too_where_records_come_at_once():
    one, log = catching_up(Reading(int_a=45), 45), Log(60)

    with capture_logs() as lines:
        await one._tell_gap(log, P, 60)

    assert said(lines) == [(2, 45, 59, ["int_a"])]


@pytest.mark.parametrize(("reached", "begins", "asked"), [(45, 45, 0), (46, 45, 1), (46, 0, 1)])
async def test_offsets_without_a_record_are_passed_over_in_silence(reached, begins, asked):
    one, log = catching_up(Reading(int_a=45), 45), Log(begins)

    with capture_logs() as lines:
        await one._tell_gap(log, P, reached)

    assert (lines, log.asked) == ([], asked)


async def test_a_line_that_held_nothing_has_lost_nothing():
    reading = Reading(int_a=40)
    reading.detached[2][b"int_a"].held = 0
    one = catching_up(reading, 40)
    with capture_logs() as lines:
        await one._pass_gaps(Log(60), [P])
    assert lines == []
    assert reading.fed == [("int_a", 60)]


def counts(line):
    return line.read_from, line.held, line.held_since_ms, line.is_dirty


async def test_what_fell_out_is_not_held_any_more():
    """How many of those that are left are its own is known when the last that was counted has been read."""
    gone, few, many = (line_of(f"int_{held_to}", 40, 5, held_to) for held_to in (60, 63, 90))
    one = catching_up(Reading(gone, few, many), 40)
    with capture_logs() as lines:
        await one._pass_gaps(Log(60), [P])
    assert said(lines) == [(2, 40, 59, ["int_60", "int_63", "int_90"])]
    assert [counts(line) for line in (gone, few, many)] == [(60, 0, None, True), (60, 3, 100, True), (60, 5, 100, True)]

    with capture_logs() as lines:
        await one._pass_gaps(Log(95), [P])
    assert said(lines) == [(2, 60, 94, ["int_63", "int_90"])]
    assert [counts(line) for line in (few, many)] == [(95, 0, None, True)] * 2


async def test_how_old_what_is_left_can_be_is_known_with_what_comes_behind_what_fell_out():
    lines = [line_of(f"int_{held_to}", 40, 5, held_to) for held_to in (60, 63, 90)]
    one = catching_up(Reading(*lines), 40)
    came = [SimpleNamespace(offset=60 + number, key=b"int_63", timestamp=700 + number) for number in range(3)]
    with capture_logs():
        await one._tell_gap(Log(60), P, 60)
    one._distribute(2, came)
    assert [counts(line) for line in lines] == [(63, 0, None, True), (63, 0, None, True), (63, 5, 700, True)]
    assert lines[1].waiting == 3
