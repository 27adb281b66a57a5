"""Whose turn it is to be read again."""

import asyncio
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any, cast

from aiokafka import TopicPartition

from services.dispatcher.catch_up import HANDED_OUT, CatchUp
from services.dispatcher.lane import Entry
from services.dispatcher.line import Line
from services.dispatcher.pacing import Pacing


class Standing:
    """A consumer that is told where to stand, and a reading with one line that wants more."""

    def __init__(self) -> None:
        self.line = Line("int_1", 0, "demo", 1)
        self.line.read_from = 900
        self.detached = {0: {b"int_1": self.line}}

    def wants(self, line: Line) -> bool:
        return line is self.line

    def assignment(self) -> set[TopicPartition]:
        return {TopicPartition("deliveries", 0)}

    def seek(self, *_: Any) -> None: ...

    def resume(self, *_: Any) -> None: ...


def turns(catch_up: CatchUp, standing: Standing, count: int) -> list[int]:
    """Something comes at each, of nobody; no single record is there yet."""
    found = []
    for _ in range(count):
        found += place(catch_up, standing)
        catch_up._had_turn(0, found[-1])
    return found


def place(catch_up: CatchUp, standing: Standing) -> list[int]:
    plan = catch_up._plan()
    catch_up._direct(cast("Any", standing), plan)
    return list(plan.values())


async def test_single_records_that_never_end_leave_every_other_turn_to_lines():
    standing = Standing()
    catch_up = CatchUp(cast("Any", None), "deliveries", cast("Any", standing), Pacing())
    catch_up._singles[0] = dict.fromkeys((7, 8), cast("Any", None))
    assert turns(catch_up, standing, 4) == [7, 900, 7, 900]
    assert place(catch_up, standing) == place(catch_up, standing)  # what is on its way would be lost
    standing.detached = {}
    assert turns(catch_up, standing, 2) == [7, 7]


class HandedOut:
    """A reading whose lines take what is read for them; *fed* says what, and *was_fed* whom it was said to be all."""

    def __init__(self, *lines: Line, live: int = 1_000) -> None:
        self.detached = {0: {line.integration.encode(): line for line in lines}}
        self._live = live
        self.fed: list[tuple[str, int]] = []
        self.told: list[str] = []

    def live(self, partition: int) -> int:
        return self._live

    def may_feed(self, line: Line) -> bool:
        return True

    def feed(self, line: Line, record: Any) -> None:
        self.fed.append((line.integration, record.offset))
        line.feed(Entry(record.offset, record.timestamp))

    def was_fed(self, line: Line) -> None:
        self.told.append(line.integration)


def line_at(name: str, read_from: int) -> Line:
    line = Line(name, 0, "demo", 1)
    line.is_detached, line.read_from = True, read_from
    return line


def records(*names: str) -> list[Any]:
    """Of these lines, one after the other, from offset 100 on."""
    return [
        SimpleNamespace(offset=at, key=name.encode(), timestamp=5, value=b"")
        for at, name in enumerate(names, start=100)
    ]


async def handed_out(reading: HandedOut, came: list[Any], between: Callable[[], None] = lambda: None) -> list[int]:
    """How many had been fed whenever others had their turn."""
    one = CatchUp(cast("Any", None), "deliveries", cast("Any", reading), Pacing())
    one._at[0] = came[0].offset
    handing, turns = asyncio.create_task(one._hand_out(0, came)), []
    while not handing.done():
        await asyncio.sleep(0)
        if len(reading.fed) not in turns:
            turns.append(len(reading.fed))
            between()
    await handing
    assert one._at[0] == came[-1].offset + 1
    return turns


async def test_what_is_read_is_handed_out_in_turns_and_all_of_it():
    reading = HandedOut(line_at("int_1", 100), line_at("int_2", 100))
    came = records(*["int_1", "int_2", "int_3"] * 10)
    turns = await handed_out(reading, came)
    assert reading.fed == [
        (name, at) for at, name in enumerate(["int_1", "int_2", "int_3"] * 10, 100) if name != "int_3"
    ]
    assert turns == [HANDED_OUT, 2 * HANDED_OUT]
    assert {line.read_from for line in reading.detached[0].values()} == {130}


async def test_a_line_that_was_set_back_meanwhile_is_not_read_beyond_what_it_wants_again():
    line = line_at("int_1", 100)
    reading = HandedOut(line, line_at("int_2", 100))
    await handed_out(reading, records(*["int_1", "int_2"] * 15), lambda: line.unload(0))
    assert [at for name, at in reading.fed if name == "int_1"] == list(range(100, 100 + HANDED_OUT, 2))
    assert line.read_from == 100
    assert [at for name, at in reading.fed if name == "int_2"] == list(range(101, 130, 2))


async def test_one_that_came_meanwhile_takes_what_is_left():
    late = line_at("int_2", 120)
    reading = HandedOut(line_at("int_1", 100))
    await handed_out(
        reading, records(*["int_1"] * 15, *["int_2"] * 15), lambda: reading.detached[0].setdefault(b"int_2", late)
    )
    assert [at for name, at in reading.fed if name == "int_2"] == list(range(120, 130))


async def test_each_line_is_told_when_it_got_something_and_at_the_end():
    reading = HandedOut(line_at("int_1", 100), line_at("int_2", 129), line_at("int_3", 500))
    await handed_out(reading, records(*["int_1"] * 30))
    assert reading.told == ["int_1"] * 3 + ["int_2"]


async def test_nothing_is_handed_out_that_has_not_come_by():
    reading = HandedOut(line_at("int_1", 100), live=104)
    await handed_out(reading, records(*["int_1"] * 30))
    assert [at for _, at in reading.fed] == [100, 101, 102, 103]
    assert reading.detached[0][b"int_1"].read_from == 104
