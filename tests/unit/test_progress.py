"""Partitions with work that do not move, and those that have a right to stand still."""

from streams.engine.progress import LOOK_S, STUCK_S, Progress, Seen

HEAD = Seen(committable=3, position=9, unfinished=6, has_work=True)
LOOKS = int(STUCK_S / LOOK_S)


def looked(*seen: Seen, gap_s: float = LOOK_S) -> dict:
    """What stands still after these, a look each."""
    progress, found = Progress(), {}
    for number, each in enumerate(seen):
        found = progress.look(number * gap_s, {"p": each})
    return found


def test_a_partition_with_work_that_does_not_move_is_found_after_a_while():
    assert looked(*[HEAD] * LOOKS) == {}
    assert looked(*[HEAD] * (LOOKS + 1)) == {"p": STUCK_S}


def test_one_without_work_may_stand_still_for_ever():
    idle = HEAD._replace(unfinished=0, committable=9, has_work=False)
    assert looked(*[idle] * 1_000) == {}
    assert looked(*[idle] * 1_000, idle._replace(has_work=True)) == {}, "it has just come"


def test_each_kind_of_movement_is_progress():
    for moved in (HEAD._replace(committable=4), HEAD._replace(position=10), HEAD._replace(unfinished=5)):
        assert looked(*[HEAD] * LOOKS, moved, *[moved] * (LOOKS - 1)) == {}


def test_a_process_that_was_frozen_gets_its_time_anew():
    assert looked(HEAD, HEAD, gap_s=10 * STUCK_S) == {}


def test_what_is_given_up_is_forgotten():
    progress = Progress()
    for number in range(LOOKS):
        progress.look(number * LOOK_S, {"p": HEAD})
    progress.look(LOOKS * LOOK_S, {})
    assert progress.look((LOOKS + 1) * LOOK_S, {"p": HEAD}) == {}
