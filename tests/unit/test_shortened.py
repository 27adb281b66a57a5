"""Partitions that end before what was read of them: found, noted with the commit, and gone when they are mended."""

import asyncio
from types import SimpleNamespace

import pytest
import structlog
from aiokafka import OffsetAndMetadata, TopicPartition
from faust.types import TP
from hypothesis import given
from hypothesis import strategies as st
from structlog.testing import capture_logs

from streams.connection import Connection
from streams.engine import consumer
from streams.engine.consumer import LedgerConsumer, Turn
from streams.engine.shortened import LogShortened, fallen_out, shortened
from streams.engine.standing import is_short, moves_to, noted_short, read
from streams.trouble import Trouble
from tests.committing import coordinator

A = TopicPartition("deliveries", 0)
OFFSETS = st.integers(0, 1_000)
METADATA = st.sampled_from(["", "100;0;0;7", "u2|100;0;0;7", "u0|", "a|b|c"])


def is_found(at, begins, ends, metadata=""):
    return shortened({A: OffsetAndMetadata(at, metadata)}, {A: begins}, {} if ends is None else {A: ends}) == {A}


def test_it_is_found_where_it_ends_before_what_was_committed_and_never_where_nothing_was():
    assert is_found(53, 0, 0)
    assert is_found(53, 0, 52)
    assert not is_found(53, 0, 53)
    assert not is_found(53, 0, None)  # nobody knows where it ends
    assert not is_found(-1, 0, 0)


def test_what_was_noted_holds_until_it_begins_behind_what_was_committed():
    noted = noted_short("u1|100;0;0;7")
    assert is_found(53, 0, 900, noted)
    assert is_found(53, 52, 900, noted)
    assert not is_found(53, 53, 900, noted)
    assert not is_found(53, 100_053, 100_058, noted)


def test_what_has_only_fallen_out_of_retention_is_whole():
    assert not is_found(53, 60, 60)
    assert not is_found(53, 53, 53)


def gap(at, begins, metadata=""):
    return fallen_out({A: OffsetAndMetadata(at, metadata)}, {A: begins}).get(A)


def test_what_retention_took_before_it_was_finished_is_told():
    assert gap(53, 60) == (53, 59)
    assert gap(53, 54, "u2|100;0;0;7") == (53, 53)
    assert gap(-1, 60) == (0, 59), "what was committed is forgotten"
    assert gap(53, 53) is gap(53, 0) is gap(-1, 0) is gap(0, 0) is None
    assert gap(53, 100_053, noted_short("100;0;0;7", 100_053)) is None, "lost with a disk, said then, and mended since"


@given(METADATA, st.lists(st.none() | OFFSETS, max_size=4))
def test_noting_it_any_number_of_times_keeps_the_floor_and_the_count(metadata, times):
    noted = metadata
    for moves in times:
        noted = noted_short(noted, moves)
    assert read(noted) == read(metadata)
    assert is_short(noted) == bool(times)
    assert moves_to(noted) == (times[-1] if times else None)


class Lost(LedgerConsumer):
    """The consumer without Faust and without a broker: one partition was read to 53, and ends at 2 now."""

    def __init__(self, topic: str, metadata: str) -> None:
        self.at, self.sought = TopicPartition(f"t.{topic}", 0), []
        self.stored = {self.at: OffsetAndMetadata(53, metadata)}
        self.app = SimpleNamespace(connection=Connection("nobody:1", "t."))
        self._kafka = SimpleNamespace(
            _coordinator=coordinator(lambda: self.stored, generation=1),
            beginning_offsets=lambda _: _told({self.at: 0}),
            end_offsets=lambda _: _told({self.at: 2}),
            commit=self._store,
            seek=lambda _, offset: self.sought.append(offset),
            assignment=lambda: {self.at},
        )
        self._processors, self._has_exact_ends, self._has_settled = {}, True, False
        self._ledgers, self._live, self._suspects, self._unknown = {}, set(), set(), set()
        self._standing, self._stored, self._read_offset, self._committed_offset = {}, {}, {}, {}
        self._room, self._committing = asyncio.Event(), asyncio.Lock()
        self._commits = Trouble(structlog.get_logger())

    async def _store(self, offsets: dict[TopicPartition, OffsetAndMetadata]) -> None:
        self.stored |= offsets

    async def take_over(self) -> None:
        await self._take_over(self.at.topic, [TP(*self.at)], Turn(1, lambda: False))


async def _told(what: object) -> object:
    return what


async def test_of_the_events_nothing_is_read_and_that_is_noted(monkeypatch):
    monkeypatch.setattr(consumer, "ASK_AGAIN_S", 0)
    lost = Lost("events", "u1|100")
    with pytest.raises(LogShortened):
        await lost.take_over()
    assert (lost.sought, lost._live) == ([], set())
    assert lost.stored[lost.at] == OffsetAndMetadata(53, noted_short("u1|100"))


@pytest.mark.parametrize("metadata", ["", noted_short("u1|100")])
async def test_a_compacted_one_begins_anew_with_what_is_left_which_is_said_once(monkeypatch, metadata):
    monkeypatch.setattr(consumer, "ASK_AGAIN_S", 0)
    lost = Lost("replays", metadata)
    with capture_logs() as said:
        for _ in range(2):
            await lost.take_over()
    assert lost.sought == [0, 0]
    assert lost._live == {lost.at}
    at, noted = lost.stored[lost.at]
    assert (at, is_short(noted)) == (0, False)
    assert [line["event"] for line in said if line["log_level"] == "error"] == ["log.begun_anew"]
