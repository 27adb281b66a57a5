"""What the receiver for trying out answers."""

import pytest

from services.cli.errors import WrongUsage
from services.cli.faults import Faults


def answers(faults, requests=6, draw=0.5):
    return [faults.answer(count, draw) for count in range(requests)]


def test_everything_is_taken_unless_told_otherwise():
    assert answers(Faults()) == [200] * 6


def test_a_status_alone_answers_every_request():
    assert answers(Faults(status=503)) == [503] * 6


def test_flapping_fails_that_many_then_takes_as_many():
    assert answers(Faults(flap=2)) == [500, 500, 200, 200, 500, 500]
    assert answers(Faults(flap=1, status=429)) == [429, 200, 429, 200, 429, 200]


def test_a_share_fails_by_the_draw():
    faults = Faults(fail_rate=0.3)

    assert (faults.answer(0, 0.29), faults.answer(0, 0.3)) == (500, 200)
    assert (Faults(fail_rate=0).answer(0, 0.0), Faults(fail_rate=1).answer(0, 0.999)) == (200, 500)


def test_hanging_never_answers():
    assert answers(Faults(hang=True)) == [None] * 6


@pytest.mark.parametrize(
    "options",
    [
        {"flap": 1, "hang": True},
        {"flap": 1, "fail_rate": 0.5},
        {"hang": True, "status": 500},
        {"status": 199},
        {"status": 600},
        {"fail_rate": -0.1},
        {"fail_rate": 1.1},
        {"fail_rate": float("nan")},
        {"flap": 0},
    ],
)
def test_options_that_contradict_each_other_or_make_no_sense_are_refused(options):
    with pytest.raises(WrongUsage):
        Faults(**options)
