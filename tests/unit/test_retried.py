"""Which attempts of deliveries that waited have come by."""

from services.dispatcher.retried import REMEMBER_S, Came, Retried
from tests.records import make_delivery

SECOND = make_delivery(attempt=2)


def test_a_second_record_of_one_attempt_is_a_repeat_and_the_first_read_again_is_none():
    retried = Retried()

    assert not retried.is_repeated(SECOND, 7, 0, 0.0)
    assert retried.is_repeated(SECOND, 9, 0, 1.0)
    assert not retried.is_repeated(SECOND, 7, 0, 2.0)
    assert not retried.is_repeated(make_delivery(attempt=3), 9, 0, 3.0)


def test_a_first_attempt_is_never_one():
    retried = Retried()

    assert not retried.is_repeated(make_delivery(attempt=1), 7, 0, 0.0)
    assert not retried.is_repeated(make_delivery(attempt=1), 9, 0, 0.0)


def test_what_a_takeover_has_found_counts_and_what_was_before_does_not():
    retried = Retried()
    retried.is_repeated(make_delivery(attempt=5), 3, 0, 0.0)

    retried.begin({(SECOND.delivery_id, 2): Came(SECOND.integration, 7, 0)}, 10.0)

    assert retried.is_repeated(SECOND, 9, 0, 10.0)
    assert not retried.is_repeated(make_delivery(attempt=5), 4, 0, 10.0)


def test_it_is_forgotten_when_it_cannot_come_twice_any_more():
    retried = Retried()
    retried.is_repeated(SECOND, 7, 0, 0.0)

    retried.forget(REMEMBER_S - 1)
    assert retried.is_repeated(SECOND, 9, 0, REMEMBER_S - 1)

    retried.forget(REMEMBER_S)
    assert not retried.is_repeated(SECOND, 9, 0, REMEMBER_S)


def test_a_line_is_told_what_may_stand_again_behind_what_it_has_read():
    retried = Retried(window_ms=20_000)
    retried.begin({("dlv_0", 3): Came("int_1", 4, 50_000)}, 0.0)
    for number, integration in enumerate(["int_1", "int_2", "int_1"], 1):
        for offset in (number, 10):
            delivery = make_delivery(delivery_id=f"dlv_{number}", integration=integration, attempt=2)
            retried.is_repeated(delivery, offset, 50_000 + number, float(number))

    offsets = [[each.offset for each in retried.of("int_1", since_ms).values()] for since_ms in (None, 70_001, 70_004)]
    assert offsets == [[4, 1, 3], [1, 3], []]
    retried.forget(REMEMBER_S + 2)
    assert (list(retried.of("int_1", None)), retried.of("int_2", None)) == ([("dlv_3", 2)], {})
    retried.begin({}, REMEMBER_S + 2)
    assert retried.of("int_1", None) == {}
