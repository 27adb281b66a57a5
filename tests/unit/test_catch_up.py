"""Whose turn it is to be read again."""

from typing import Any, cast

from aiokafka import TopicPartition

from services.dispatcher.catch_up import CatchUp
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
