"""How arrivals under kills are judged: lost, repeated, out of order, silent."""

from bench.kills import GAP_S, ROWS, STOCK, WORKERS, Found, found, plan, summary
from bench.stage import Arrival

SECOND = 1_000_000_000


def arrivals(integration, *numbers_at_s):
    return [Arrival(integration, number, int(at_s * SECOND), 1) for number, at_s in numbers_at_s]


def test_everything_once_and_in_order_is_nothing_lost():
    came = arrivals("a", (9, 0), (10, 1), (11, 2), (12, 4.5)) + arrivals("b", (10, 1), (11, 2), (12, 3), (13, 4))

    assert found(came, ["a", "b"], range(10, 13)) == Found(3, 6, 0, 0, 0, 2.5)


def test_a_repeat_is_neither_an_order_violation_nor_a_delivery():
    came = arrivals("a", (10, 0), (11, 1), (10, 5), (11, 6), (12, 7))

    assert found(came, ["a"], range(10, 13)) == Found(3, 3, 0, 2, 0, 6.0)


def test_what_comes_first_after_a_later_one_is_out_of_order_and_what_never_comes_is_lost():
    came = arrivals("a", (10, 0), (13, 1), (11, 2), (12, 3))

    assert found(came, ["a", "b"], range(10, 15)) == Found(5, 4, 6, 0, 2, 1.0)
    assert found([], ["a"], range(2)) == Found(2, 0, 2, 0, 0, 0.0)


def test_kills_are_the_same_for_all_and_meet_every_worker():
    kills = plan(7, 100)

    assert kills == plan(7, 100) != plan(8, 100)
    assert {worker for _, worker in kills} == set(range(WORKERS))
    assert all(GAP_S[0] <= gap <= GAP_S[1] for gap, _ in kills)


def test_the_summary_has_a_row_for_each_figure_and_a_column_for_each_side():
    figures = dict.fromkeys(ROWS, 1_000)
    lines = summary({"tenterhook": {**figures, "uncommitted": None}, **dict.fromkeys(STOCK, figures)})

    assert len(lines) == 1 + len(ROWS)
    assert [line.count("1,000") for line in lines[1:]] == [3 if key == "uncommitted" else 4 for key in ROWS]
