"""Whose turn it is to be read again."""

import asyncio
from collections.abc import Callable
from itertools import pairwise
from types import SimpleNamespace
from typing import Any, cast
from unittest import mock

import pytest
from aiokafka import TopicPartition

from services.dispatcher.catch_up import (
    AT_ONCE,
    HANDED_OUT,
    LETS_BY_S,
    TAKEN,
    TAKES_LATER_S,
    TURN,
    TURN_AMIDST_S,
    TURN_S,
    CatchUp,
)
from services.dispatcher.lane import Entry
from services.dispatcher.line import Line
from services.dispatcher.pacing import AMIDST_S, Pacing
from tests.simulated import simulation


class Standing:
    """A consumer that is told where to stand, and a reading with one line that wants more."""

    def __init__(self) -> None:
        self.line = Line("int_1", 0, "demo", 1)
        self.line.read_from = 900
        self.detached = {0: {b"int_1": self.line}}

    def wants(self, line: Line) -> bool:
        return line is self.line

    takes = wants

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


class Roomy:
    """A reading whose lines have room for so many records more, each a thousandth of what is read for them."""

    def __init__(self, **room: int) -> None:
        self.room = {line_at(name, number): room[name] for number, name in enumerate(room)}
        self.detached = {0: {line.integration.encode(): line for line in self.room}}
        self.asked = 0

    def wants(self, line: Line) -> bool:
        self.asked += 1
        return self.room[line] == 10

    def takes(self, line: Line) -> bool:
        return self.room[line] > 0

    def read(self, catch_up: CatchUp, count: int = AT_ONCE) -> str:
        """So many records more are read, and taken by whom they were read for: who that was."""
        [(_, position)] = catch_up._plan().items()
        [line] = [line for line in self.room if line.read_from == position]
        self.room[line] -= 1
        line.served_s += 1
        catch_up._left[0] -= count
        catch_up.wake(0)
        return line.integration


async def test_a_line_has_its_turn_until_it_has_no_more_room():
    reading = Roomy(int_a=10, int_b=4, int_c=10)
    catch_up = catching_up(reading)
    assert [reading.read(catch_up, 1) for _ in range(20)] == ["int_a"] * 10 + ["int_c"] * 10, "the other has enough"
    assert catch_up._plan() == {}


async def test_a_turn_ends_all_the_same():
    reading = Roomy(int_a=10, int_b=10)
    catch_up = catching_up(reading)
    for line in reading.room:
        reading.room[line] = 10**6
    reading.wants = reading.takes  # type: ignore[method-assign]
    turns = [reading.read(catch_up) for _ in range(4 * TURN // AT_ONCE)]
    assert turns == (["int_a"] * (TURN // AT_ONCE) + ["int_b"] * (TURN // AT_ONCE)) * 2


async def test_a_turn_ends_with_its_line_though_another_of_its_integration_comes():
    reading = Roomy(int_a=10, int_b=10)
    catch_up = catching_up(reading)
    assert reading.read(catch_up) == "int_a"
    late = line_at("int_a", 7)
    late.served_s = 9
    reading.room[late] = 10
    reading.detached[0][b"int_a"] = late
    catch_up.wake(0)
    assert reading.read(catch_up) == "int_b"


async def test_lines_are_asked_only_where_something_has_moved():
    reading = Roomy(int_a=10, int_b=10)
    catch_up = catching_up(reading)
    plan = catch_up._plan()
    asked = reading.asked
    catch_up.wake(1)
    assert catch_up._plan() == plan
    assert reading.asked == asked
    for room in reading.room:
        reading.room[room] = 0
    catch_up.wake()
    assert catch_up._plan() == {}
    reading.room = dict.fromkeys(reading.room, 10)
    assert catch_up._plan() == {}
    assert catch_up._wanted_of() == [0], "whether anything comes is asked whatever has moved"
    catch_up.wake(0)
    assert catch_up._plan() == plan


class HandedOut:
    """A reading whose lines take what is read for them; *fed* says what, and *told* whose turn it was."""

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


def catching_up(reading: Any, pacing: Pacing | None = None) -> CatchUp:
    one = CatchUp(cast("Any", None), "deliveries", reading, pacing or Pacing())
    one._at[0] = one._at[1] = 100
    return one


async def handed_out(reading: HandedOut, came: list[Any], between: Callable[[], None] = lambda: None) -> list[int]:
    """How many had been fed whenever others had their turn."""
    one = catching_up(reading)
    handing, turns = asyncio.create_task(one._hand_out(0, came)), []
    while not handing.done():
        await asyncio.sleep(0)
        if len(reading.fed) not in turns:
            turns.append(len(reading.fed))
            between()
    await handing
    assert one._at[0] == came[-1].offset + 1
    return turns


def turns_of(reading: HandedOut, came: list[Any], saw_s: float | None = None, single: int | None = None) -> list[float]:
    """
    How long each turn of others was, seconds of a clock that moves with timers alone.

    Args:
        saw_s: when others were in the middle of it last.
        single: the offset of a single record that is wanted.
    """
    with simulation() as (loop, _):
        pacing = Pacing()
        if saw_s is not None:
            pacing.saw_live(loop.time() + saw_s)
        one = catching_up(reading, pacing)
        if single is not None:
            one._singles[1] = {single: loop.create_future()}
        began_s, turns = loop.time(), list[float]()
        feed = reading.feed

        def noting(line: Line, record: Any) -> None:
            turns.append(loop.time() - began_s)
            feed(line, record)

        with mock.patch.object(reading, "feed", noting):
            loop.run_until_complete(one._hand_out(0, came))
        starts_s = sorted(set(turns))
        return [round(after - before, 6) for before, after in pairwise(starts_s)]


@pytest.mark.parametrize(
    ("others_s", "single", "waits_s"),
    [(-AMIDST_S, None, 0), (0, None, AMIDST_S), (0.3, None, LETS_BY_S), (0.3, 7, 0)],
    ids=["nobody", "others", "others that go on", "a request waits"],
)
def test_reading_for_lines_lets_others_by_and_for_a_request_it_does_not(
    others_s: float, single: int | None, waits_s: float
) -> None:
    with simulation() as (loop, _):
        pacing, standing = Pacing(), Standing()
        pacing.saw_live(loop.time())
        pacing.saw_live(loop.time() + others_s)
        catch_up = CatchUp(cast("Any", None), "deliveries", cast("Any", standing), pacing)
        if single is not None:
            catch_up._singles[0] = {single: loop.create_future()}
        began_s = loop.time()
        assert loop.run_until_complete(catch_up._wanted()) == {
            TopicPartition("deliveries", 0): 900 if single is None else single
        }
        assert loop.time() - began_s == pytest.approx(waits_s, abs=0.006), "it looks each 5 ms"


class Buffered:
    """A consumer that has records of nobody's line, and notes how many were asked for and how long it might wait."""

    def __init__(self, count: int) -> None:
        self.left = records(*["int_9"] * count)
        self.asked: list[tuple[int, bool]] = []
        self.on_asked: Callable[[], None] = lambda: None

    async def getmany(self, *_: Any, timeout_ms: int, max_records: int) -> dict[TopicPartition, list[Any]]:
        self.asked.append((max_records, timeout_ms > 0))
        self.on_asked()
        given, self.left = self.left[:max_records], self.left[max_records:]
        return {TopicPartition("deliveries", 0): given} if given else {}


async def taken(consumer: Buffered, one: CatchUp) -> int:
    return await one._take_all(cast("Any", consumer), {TopicPartition("deliveries", 0): 100})


async def test_what_is_there_is_taken_a_little_at_a_time_and_waited_for_only_once():
    assert AT_ONCE % TAKEN == 0
    for there, asks in ((0, 1), (TAKEN, 2), (2 * TAKEN + 1, 4), (9 * AT_ONCE, AT_ONCE // TAKEN)):
        consumer, one = Buffered(there), catching_up(HandedOut(line_at("int_1", 0)))
        assert await taken(consumer, one) == min(there, AT_ONCE)
        assert consumer.asked == [(TAKEN, True), *[(TAKEN, False)] * (asks - 1)]
        assert one._at[0] == 100 + min(there, AT_ONCE)


async def test_a_line_has_its_whole_turn_though_requests_come_to_wait_for_single_records_meanwhile():
    consumer, one = Buffered(AT_ONCE), catching_up(HandedOut(line_at("int_1", 0)))

    def want() -> None:
        one._singles[0] = {9_000: asyncio.get_running_loop().create_future()}

    consumer.on_asked = want
    assert await taken(consumer, one) == AT_ONCE


async def test_the_turn_of_a_single_record_ends_with_it_and_the_next_is_a_line_s():
    """Whatever else has come by then: nobody asked for it."""
    consumer, one = Buffered(50), catching_up(HandedOut(line_at("int_1", 0)))
    one._singles[0] = {120: asyncio.get_running_loop().create_future()}

    def more() -> None:
        consumer.left += records(*["int_9"] * 50) if len(consumer.asked) > 1 else []

    consumer.on_asked = more
    one._at[0] = 120
    consumer.left = consumer.left[20:]
    assert await taken(consumer, one) == 30
    assert 0 in one._had_singles


def test_more_is_taken_when_others_are_by() -> None:
    with simulation() as (loop, _):
        pacing = Pacing()
        pacing.saw_live(loop.time())
        consumer, one = Buffered(2 * TAKEN), catching_up(HandedOut(line_at("int_1", 0)), pacing)
        began_s = loop.time()
        loop.run_until_complete(taken(consumer, one))
        assert loop.time() - began_s == pytest.approx(2 * TAKES_LATER_S, abs=0.006)


async def test_what_stands_behind_a_single_record_is_taken_with_it():
    """It is asked for next, as a rule, and costs a seek otherwise."""
    consumer, one = Buffered(2 * AT_ONCE), catching_up(HandedOut(line_at("int_1", 0)))
    one._singles[0] = {100: asyncio.get_running_loop().create_future()}
    consumer.left[AT_ONCE:] = []
    assert await taken(consumer, one) == AT_ONCE
    assert consumer.asked[0] == (AT_ONCE, True)
    assert len(one._behind[0]) == AT_ONCE - 1


async def test_singles_of_every_partition_are_there_before_anything_is_handed_out():
    """Whichever partition is the first: a request waits for each of them."""
    reading = HandedOut(line_at("int_1", 100))
    one = catching_up(reading)
    wanted: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
    one._singles[1] = {100: wanted}
    fetched = {TopicPartition("deliveries", number): records(*["int_1"] * 30) for number in (0, 1)}
    seen: list[bool] = []
    reading.feed = lambda line, record: seen.append(wanted.done())  # type: ignore[method-assign]
    consumer = SimpleNamespace(beginning_offsets=None)
    await one._take(cast("Any", consumer), fetched)
    assert seen
    assert all(seen)


async def test_what_is_read_is_handed_out_in_turns_and_all_of_it():
    reading = HandedOut(line_at("int_1", 100), line_at("int_2", 100))
    came = records(*["int_1", "int_2", "int_3"] * 10)
    turns = await handed_out(reading, came)
    assert reading.fed == [
        (name, at) for at, name in enumerate(["int_1", "int_2", "int_3"] * 10, 100) if name != "int_3"
    ]
    assert turns == [HANDED_OUT, 2 * HANDED_OUT]
    assert {line.read_from for line in reading.detached[0].values()} == {130}


def test_others_have_a_turn_after_each_ten_and_a_longer_one_while_they_are_in_the_middle_of_it():
    came = records(*["int_1"] * 31)
    assert turns_of(HandedOut(line_at("int_1", 100)), came) == [TURN_S] * 3
    assert turns_of(HandedOut(line_at("int_1", 100)), came, saw_s=0) == [TURN_AMIDST_S] * 3
    assert turns_of(HandedOut(line_at("int_1", 100)), came, saw_s=-AMIDST_S) == [TURN_S] * 3
    assert TURN_AMIDST_S > TURN_S


def test_they_have_a_short_one_while_a_request_waits_for_a_single_record():
    assert turns_of(HandedOut(line_at("int_1", 100)), records(*["int_1"] * 31), saw_s=0, single=500) == []


def test_what_is_handed_out_of_one_partition_and_the_next_counts_as_one():
    with simulation() as (loop, _):
        reading = HandedOut(line_at("int_1", 100))
        reading.detached[1] = {b"int_2": line_at("int_2", 100)}
        one, began_s = catching_up(reading), loop.time()
        loop.run_until_complete(one._hand_out(0, records(*["int_1"] * 6)))
        assert loop.time() == began_s
        loop.run_until_complete(one._hand_out(1, records(*["int_2"] * 6)))
        assert loop.time() == pytest.approx(began_s + TURN_S)


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
