"""Which attempts of deliveries that waited have come by."""

from services.dispatcher.retried import REMEMBER_S, Retried
from tests.records import make_delivery

SECOND = make_delivery(attempt=2)


def test_a_second_record_of_one_attempt_is_a_repeat_and_the_first_read_again_is_none():
    retried = Retried()

    assert not retried.is_repeated(SECOND, 7, 0.0)
    assert retried.is_repeated(SECOND, 9, 1.0)
    assert not retried.is_repeated(SECOND, 7, 2.0)
    assert not retried.is_repeated(make_delivery(attempt=3), 9, 3.0)


def test_a_first_attempt_is_never_one():
    retried = Retried()

    assert not retried.is_repeated(make_delivery(attempt=1), 7, 0.0)
    assert not retried.is_repeated(make_delivery(attempt=1), 9, 0.0)


def test_what_a_takeover_has_found_counts_and_what_was_before_does_not():
    retried = Retried()
    retried.is_repeated(make_delivery(attempt=5), 3, 0.0)

    retried.begin({(SECOND.delivery_id, 2): 7}, 10.0)

    assert retried.is_repeated(SECOND, 9, 10.0)
    assert not retried.is_repeated(make_delivery(attempt=5), 4, 10.0)


def test_it_is_forgotten_when_it_cannot_come_twice_any_more():
    retried = Retried()
    retried.is_repeated(SECOND, 7, 0.0)

    retried.forget(REMEMBER_S - 1)
    assert retried.is_repeated(SECOND, 9, REMEMBER_S - 1)

    retried.forget(REMEMBER_S)
    assert not retried.is_repeated(SECOND, 9, REMEMBER_S)
