"""Laws of the delivery history: however the log is cut, interleaved and replayed, the tables say what the log says."""

import tempfile
from contextlib import closing
from pathlib import Path
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from services.history import cursor
from services.history.cursor import Cursor
from services.history.fold import fold
from services.history.packed import packed_id, packed_record, pattern_of, unpacked_id, unpacked_record
from services.history.store import Raw, Store
from streams import codec
from streams.records import Result
from tests.breaking import NOON_MS, make_result
from tests.histories import everything_in, raws, told_by

PARTITIONS = 3
HOUR_MS = 3_600_000


@st.composite
def results(draw: st.DrawFn, partition: int) -> Result:
    """Any result of one of a few deliveries, in no sensible order."""
    outcome = draw(st.sampled_from([None, None, "delivered", "rejected", "exhausted", "blocked", "discarded"]))
    number = partition + PARTITIONS * draw(st.integers(0, 4))
    started_ms = NOON_MS + draw(st.integers(0, 4 * HOUR_MS))
    return make_result(
        number,
        f"int_{number % 4}",
        app=f"app_{number % 2}",
        attempt=0 if outcome in ("blocked", "discarded") else draw(st.integers(1, 4)),
        outcome=outcome,
        reason=draw(st.sampled_from(["status_503", "timeout"])),
        status=draw(st.sampled_from([None, 200, 503])),
        response_body=draw(st.binary(max_size=40)),
        started_at_ms=started_ms,
        finished_at_ms=started_ms + draw(st.integers(0, 9_000)),
        next_due_at_ms=draw(st.none() | st.just(started_ms + 20_000)),
    )


@st.composite
def logs(draw: st.DrawFn) -> list[list[Raw]]:
    """A log of a few partitions; a delivery stands in one of them."""
    return [
        raws(draw(st.lists(results(partition), max_size=12)), partition=partition) for partition in range(PARTITIONS)
    ]


@settings(max_examples=80, deadline=None)
@given(logs(), st.data())
def test_any_interleaving_with_replays_gives_what_the_log_says(log: list[list[Raw]], data: Any):
    # Drawn before the file is opened, since drawing may end the test.
    at = [0] * PARTITIONS
    batches: list[tuple[list[Raw], dict[int, int]]] = []
    for _ in range(data.draw(st.integers(0, 6))):
        spans = {}
        for partition in data.draw(st.permutations(range(PARTITIONS)))[: data.draw(st.integers(0, PARTITIONS))]:
            start = data.draw(st.integers(0, at[partition]))  # at its position, or anywhere before it
            end = data.draw(st.integers(start, len(log[partition])))
            spans[partition] = start, end
            at[partition] = max(at[partition], end)
        records = [raw for partition, (start, end) in spans.items() for raw in log[partition][start:end]]
        batches.append((records, {partition: end for partition, (_, end) in spans.items()}))
    everything = [raw for part in log for raw in part]
    batches.append((everything, {number: len(part) for number, part in enumerate(log)}))

    with tempfile.TemporaryDirectory() as folder, closing(Store(Path(folder))) as store:
        for records, positions in batches:
            store.fold(records, positions)

        assert everything_in(store.path) == told_by(everything)
        assert store.positions() == {number: len(part) for number, part in enumerate(log)}


@given(st.lists(results(0), max_size=12), st.data())
def test_a_result_that_was_folded_changes_nothing(log: list[Result], data: Any):
    """Of one delivery, so that each result meets the row of those before it."""
    its = [result for result in log if result.delivery_id == log[0].delivery_id]
    row = None
    for place, result in enumerate(its):
        row = fold(row, result, place)
    for place in data.draw(st.lists(st.integers(0, max(0, len(its) - 1)), max_size=5)) if its else []:
        assert fold(row, its[place], place) is row


@given(st.text() | st.from_regex(r"\Adlv_[0-9a-fA-F ]{32}\Z"))
def test_an_id_is_what_it_was_before_it_was_packed(text: str):
    assert unpacked_id(packed_id(text, "dlv_"), "dlv_") == text


def test_an_id_of_ours_takes_sixteen_bytes():
    assert packed_id("dlv_" + "0f" * 16, "dlv_") == b"\x0f" * 16


@given(results(0), results(1))
def test_a_result_is_what_it_was_before_it_was_packed_whichever_it_was_packed_with(first: Result, second: Result):
    value, pattern = codec.encode(second), pattern_of(first)

    assert unpacked_record(packed_record(value, pattern), pattern) == value


INT64 = st.integers(-(2**63), 2**63 - 1)


@given(INT64, INT64, st.text())
def test_a_cursor_is_what_it_was(at_ms: int, place: int, question: str):
    assert cursor.decoded(cursor.encoded(Cursor(at_ms, place), question), question) == (at_ms, place)
