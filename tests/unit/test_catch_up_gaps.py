"""Reading again where the log begins later by now: what is said of it, once."""

from types import SimpleNamespace

import pytest
from aiokafka import TopicPartition
from structlog.testing import capture_logs

from services.dispatcher.catch_up import CatchUp

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


class Reading:
    def __init__(self, **read_from):
        self.fed = []
        self.detached = {
            2: {
                name.encode(): SimpleNamespace(integration=name, read_from=at, served_s=0.0, held=1)
                for name, at in read_from.items()
            }
        }

    def live(self, partition):
        return 1_000

    def was_fed(self, line):
        self.fed.append((line.integration, line.read_from))


def catching_up(reading, at):
    one = CatchUp(None, P.topic, reading)
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
