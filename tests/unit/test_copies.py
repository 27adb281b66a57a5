"""Retries that stand twice on the log, told by what came by in their line."""

from hypothesis import given
from hypothesis import strategies as st

from services.dispatcher.copies import MOST, Copies
from tests.records import make_delivery

WINDOW_MS = 20_000


def retry(number, attempt=2):
    return make_delivery(delivery_id=f"dlv_{number}", attempt=attempt)


def test_the_second_copy_is_one_and_the_first_read_again_is_not():
    copies = Copies()
    assert not copies.is_repeated(retry(1), 7, 1_000, WINDOW_MS)
    assert not copies.is_repeated(retry(1), 7, 1_000, WINDOW_MS)
    assert not copies.is_repeated(retry(1, attempt=3), 8, 1_000, WINDOW_MS)
    assert not copies.is_repeated(retry(1, attempt=1), 9, 1_000, WINDOW_MS)
    assert not copies.is_repeated(retry(1, attempt=1), 10, 1_000, WINDOW_MS)
    assert copies.is_repeated(retry(1), 11, 1_000 + WINDOW_MS, WINDOW_MS)


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 15_000)), max_size=30), st.data())
def test_owners_that_take_a_line_over_anywhere_drop_what_one_would_have_dropped(steps, data):
    """Each reads on from a frontier: what stood there and above is read again; no copy that was dropped does."""
    log, at_ms = [], 0
    for offset, (number, after_ms) in enumerate(steps):
        at_ms += after_ms
        log.append((retry(number), offset, at_ms))
    alone = Copies()
    wanted = [alone.is_repeated(*each, WINDOW_MS) for each in log]

    copies, found, read_to = Copies(), [False] * len(log), 0
    while read_to < len(log):
        until = data.draw(st.integers(read_to + 1, len(log)))
        for delivery, offset, came_ms in log[read_to:until]:
            found[offset] = copies.is_repeated(delivery, offset, came_ms, WINDOW_MS)
        dropped = [offset for offset in range(read_to, until) if found[offset]]
        read_to = data.draw(st.integers(max([read_to, *dropped]) + 1, until))
        copies = Copies(copies.below(read_to))
    # A row's are remembered a little longer, never shorter.
    assert all(not one or several for one, several in zip(wanted, found, strict=True))


def test_it_remembers_no_more_than_fits_a_row():
    copies = Copies()
    for number in range(MOST + 50):
        assert not copies.is_repeated(retry(number), number, 1_000, WINDOW_MS)
    assert len(copies.below(10**9)) == MOST
    assert copies.is_repeated(retry(MOST + 49), 10**6, 1_000, WINDOW_MS)


def test_what_is_at_the_frontier_or_above_is_read_again_and_not_in_the_row():
    copies = Copies()
    for number in range(4):
        copies.is_repeated(retry(number), number, 1_000, WINDOW_MS)
    after = Copies(copies.below(2))
    assert [after.is_repeated(retry(number), 10 + number, 1_000, WINDOW_MS) for number in range(4)] == [
        True, True, False, False,
    ]  # fmt: skip


def test_what_a_row_named_is_looked_through_for_the_first_retry_alone():
    class Counted(dict):
        seen = 0

        def items(self):
            for each in super().items():
                Counted.seen += 1
                yield each

    copies = Copies(range(1, MOST))
    copies._came = Counted(copies._came)
    assert not copies.is_repeated(retry(0), 0, 1_000, WINDOW_MS)
    Counted.seen = 0
    for number in range(1, 50):
        assert not copies.is_repeated(retry(number), number, 1_000 + number, WINDOW_MS)
    assert Counted.seen <= 3 * 49
    assert len(copies.below(10**9)) == MOST
    copies.is_repeated(retry(50), 50, 1_000 + WINDOW_MS, WINDOW_MS)
    assert set(range(1, MOST)) & set(copies.below(10**9)), "they count as if they had come with the first"
    copies.is_repeated(retry(51), 51, 1_001 + WINDOW_MS, WINDOW_MS)
    assert not set(range(1, MOST)) & set(copies.below(10**9))
