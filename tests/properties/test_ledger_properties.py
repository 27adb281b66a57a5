"""Laws of the ledger, over any order of takes and finishes."""

from hypothesis import given
from hypothesis import strategies as st

from streams.ledger import Ledger


@given(
    gaps=st.lists(st.integers(1, 3), max_size=40),
    order=st.randoms(use_true_random=False),
    share=st.floats(0, 1),
)
def test_committable_is_the_first_offset_that_is_not_finished(gaps, order, share):
    ledger, offsets, at = Ledger(0), [], 0
    for index, gap in enumerate(gaps):
        at += gap
        offsets.append(at)
        ledger.take([(at, 7)], str(index))
    finished = order.sample(offsets, int(len(offsets) * share))
    for offset in finished:
        ledger.finish(offset)
    left = sorted(set(offsets) - set(finished))

    assert ledger.committable == (left[0] if left else ledger.position)
    assert ledger.unfinished_bytes == 7 * len(left)
    assert ledger.floor("now") == (str(offsets.index(left[0])) if left else "now")


@given(st.lists(st.booleans(), max_size=60), st.randoms(use_true_random=False))
def test_the_commit_never_goes_back(steps, order):
    ledger, at, seen = Ledger(0), 0, 0
    open_ones: list[int] = []
    for is_take in steps:
        if is_take or not open_ones:
            ledger.take([(at, 1)], str(at))
            open_ones.append(at)
            at += 1
        else:
            ledger.finish(open_ones.pop(order.randrange(len(open_ones))))
        assert ledger.committable >= seen
        assert int(ledger.floor(str(at))) <= ledger.committable
        seen = ledger.committable
