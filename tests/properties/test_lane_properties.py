"""Laws of the lane: each delivery starts once, and in order within what its ordering orders."""

import itertools

from hypothesis import given
from hypothesis import strategies as st

from services.dispatcher.lane import Lane


@given(
    keys=st.lists(st.sampled_from("xyz"), max_size=40),
    ordering=st.sampled_from(["integration", "strict", "key", "none"]),
    max_in_flight=st.integers(1, 5),
    choice=st.randoms(use_true_random=False),
)
def test_each_starts_once_in_order_and_never_beside_what_it_must_follow(keys, ordering, max_in_flight, choice):
    lane: Lane[int] = Lane()
    for number, key in enumerate(keys):
        lane.add(number, key)
    running: list[tuple[str, int]] = []
    begun: list[tuple[str, int]] = []
    while True:
        while (next_one := lane.start(ordering, max_in_flight)) is not None:
            if ordering == "key":
                assert next_one[0] not in [key for key, _ in running]
            running.append(next_one)
            begun.append(next_one)
        assert len(running) <= (max_in_flight if ordering in ("key", "none") else 1)
        if not running:
            break
        lane.end(running.pop(choice.randrange(len(running)))[0])

    assert sorted(number for _, number in begun) == list(range(len(keys)))
    groups = itertools.groupby(sorted(begun, key=lambda one: one[0]), lambda one: one[0]) if ordering == "key" else ()
    for _, group in groups:
        numbers = [number for _, number in group]
        assert numbers == sorted(numbers)
    if ordering != "key":
        assert [number for _, number in begun] == list(range(len(keys)))
