"""Who may start beside whom in the line of one integration."""

import pytest

from services.dispatcher.lane import Lane


def lane_of(*items: tuple[str, str]) -> Lane[str]:
    lane: Lane[str] = Lane()
    for key, name in items:
        lane.add(name, key or None)
    return lane


def started(lane: Lane[str], ordering, max_in_flight=10) -> list[str]:
    names = []
    while (next_one := lane.start(ordering, max_in_flight)) is not None:
        names.append(next_one[1])
    return names


@pytest.mark.parametrize("ordering", ["integration", "strict"])
def test_a_kept_line_has_one_in_flight_whatever_max_in_flight_says(ordering):
    lane = lane_of(("", "a"), ("", "b"))

    assert started(lane, ordering) == ["a"]
    lane.end("")
    assert started(lane, ordering) == ["b"]


def test_without_an_order_up_to_max_in_flight_go_at_once():
    lane = lane_of(("k", "a"), ("k", "b"), ("k", "c"))

    assert started(lane, "none", 2) == ["a", "b"]
    lane.end("k")
    assert started(lane, "none", 2) == ["c"]


def test_a_running_key_holds_only_itself():
    lane = lane_of(("x", "x1"), ("x", "x2"), ("y", "y1"), ("x", "x3"))

    assert started(lane, "key") == ["x1", "y1"]
    lane.end("x")
    assert started(lane, "key") == ["x2"]
    lane.end("y")
    assert started(lane, "key") == []
    lane.end("x")
    assert started(lane, "key") == ["x3"]
    assert (lane.waiting, lane.running) == (0, 1)


def test_deliveries_without_a_key_are_one_key():
    lane = lane_of(("", "a"), ("", "b"), ("k", "c"))

    assert started(lane, "key") == ["a", "c"]


def test_what_was_parked_by_key_keeps_its_order_when_the_ordering_changes():
    lane = lane_of(("x", "x1"), ("x", "x2"), ("x", "x3"))
    assert started(lane, "key") == ["x1"]

    assert started(lane, "none", 10) == []
    lane.end("x")
    assert started(lane, "none", 10) == ["x2"]
