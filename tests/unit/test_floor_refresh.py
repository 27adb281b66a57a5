"""When a partition is committed again: with news at once, for its floor alone now and then."""

from types import SimpleNamespace
from typing import Any

from faust.types import TP

from streams.engine.consumer import LedgerConsumer

AT = TP("events", 0)
#: On the loop's clock.
LONG_AGO = -1_000.0


class _Consumer(SimpleNamespace):
    """As much of a consumer as that question needs."""

    def __init__(self, floor: str) -> None:
        super().__init__(_committed_offset={AT: 5}, _has_settled=False, _standing={}, looks=0)
        self.floor, self._stored_floors = floor, {AT: ("stored", LONG_AGO)}

    def _floor(self, tp: TP) -> str:
        assert tp == AT
        self.looks += 1
        return self.floor

    def should_commit(self, offset: int) -> bool:
        itself: Any = self
        return LedgerConsumer._should_commit(itself, AT, offset)


async def test_an_offset_that_moved_is_news_at_once():
    assert _Consumer("stored").should_commit(6)


async def test_a_floor_that_moved_is_news_when_it_is_looked_at():
    consumer = _Consumer("moved")

    assert consumer.should_commit(5)
    assert consumer.should_commit(5), "until it is stored"


async def test_a_floor_that_has_not_moved_is_not_looked_at_again_for_a_while():
    consumer = _Consumer("stored")

    assert [consumer.should_commit(5) for _ in range(10)] == [False] * 10
    assert consumer.looks == 1
    consumer.floor = "moved"
    assert not consumer.should_commit(5)
