"""Laws of the lane: each delivery is attempted as often as it fails, in order within what its ordering orders."""

from collections import defaultdict

from hypothesis import given
from hypothesis import strategies as st

from services.dispatcher.lane import Entry, Lane, Pace

ORDERINGS = st.sampled_from(["integration", "strict", "key", "none"])


@given(
    deliveries=st.lists(st.tuples(st.integers(0, 2), st.integers(0, 2)), max_size=40),
    paces=st.lists(st.tuples(ORDERINGS, st.integers(1, 5)), min_size=1, max_size=1),
    choice=st.randoms(use_true_random=False),
)
def test_each_starts_once_an_attempt_in_order_and_never_beside_what_it_must_follow(  # noqa: C901
    deliveries, paces, choice
):
    """*deliveries*: key, and how often it fails."""
    [(ordering, most)] = paces
    pace, lane = Pace(ordering, most), Lane()
    for offset, (key, _) in enumerate(deliveries):
        lane.add(Entry(offset, 0, key=key))
    ended: list[int] = []
    attempts: dict[int, int] = defaultdict(int)
    first: list[int] = []
    now_ms = 0
    while not lane.is_empty:
        while (entry := lane.start(pace, now_ms)) is not None:
            assert entry.due_at_ms is None or entry.due_at_ms <= now_ms
            if not attempts[entry.offset]:
                first.append(entry.offset)
            attempts[entry.offset] += 1
            if ordering == "strict":
                assert all(offset in ended for offset in range(entry.offset))
            if ordering == "key":
                before = [n for n in range(entry.offset) if deliveries[n][0] == entry.key]
                assert set(before) <= set(ended)
        assert len(lane.running) <= (most if ordering in ("key", "none") else 1)
        if not lane.running:
            assert lane.next_due_ms is not None
            now_ms = lane.next_due_ms
            continue
        entry = lane.running[choice.choice(sorted(lane.running))]
        if ordering in ("strict", "key") and attempts[entry.offset] <= deliveries[entry.offset][1]:
            lane.keep(entry, attempts[entry.offset] + 1, now_ms + choice.randint(1, 50))
        else:
            ended.append(entry.offset)
            lane.end(entry)

    assert sorted(ended) == list(range(len(deliveries)))
    if ordering in ("strict", "key"):
        assert all(attempts[offset] == fails + 1 for offset, (_, fails) in enumerate(deliveries))
    if ordering != "key":
        assert first == sorted(first)
    assert (lane.queued_bytes, lane.opened, lane.parked) == (0, 0, 0)


@given(
    keys=st.lists(st.integers(0, 3), max_size=40),
    choice=st.randoms(use_true_random=False),
    most=st.integers(0, 5),
)
def test_unloading_splits_what_waits_and_loses_nothing(keys, choice, most):
    """What is dropped stands behind everything that is left, so that one offset says where to read it again."""
    lane, ordering = Lane(), choice.choice(["key", "none", "integration"])
    for offset, key in enumerate(keys):
        lane.add(Entry(offset, 0, key=key, size=3))
        if choice.random() < 0.1:
            lane.open_queued()
        if choice.random() < 0.3:
            lane.start(Pace(ordering, 3), 0)
        if lane.running and choice.random() < 0.2:
            lane.end(lane.running[min(lane.running)])
    before = {entry.offset for entry in lane.entries()}
    dropped = [entry.offset for entry in lane.unload(most)]
    left = {entry.offset for entry in lane.entries()}
    head = lane.head()

    assert before == left | set(dropped)
    assert dropped == sorted(dropped)
    assert not dropped or max(left, default=-1) < dropped[0]
    assert all(each.offset < (head.offset if head else 10**6) for each in lane.open_deliveries())
    assert len(left) - len(lane.open_deliveries()) <= most
    queued = [*lane.reopened(), *(entry for entry in lane.entries() if not is_open(lane, entry))]
    assert lane.queued_bytes == sum(entry.size for entry in queued)


def is_open(lane: Lane, entry: Entry) -> bool:
    return entry.offset in {each.offset for each in lane.open_deliveries()}
