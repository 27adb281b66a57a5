"""Topics that vanish under a process: said once, by name, and not for a look that was too early."""

from services.runtime.topics_gone import DELETED, MADE_AGAIN, Gone

BOTH = {"events": "1", "results": "2"}


def said(*looks: dict[str, str]) -> list[dict[str, str]]:
    gone = Gone()
    return [gone.saw(each) for each in looks]


def test_what_is_there_or_was_never_there_is_not_said():
    assert said({}, {}, {"events": "1"}, BOTH, BOTH, BOTH) == [{}] * 6


def test_one_that_was_deleted_is_said_once_and_by_name():
    left = {"results": "2"}
    assert said(BOTH, left, left, left, left) == [{}, {}, {"events": DELETED}, {}, {}]


def test_and_again_when_somebody_has_made_it_again_or_deleted_another():
    again = BOTH | {"events": "9"}
    assert said(BOTH, {"results": "2"}, {"results": "2"}, again, again, again) == [
        {}, {}, {"events": DELETED}, {}, {"events": MADE_AGAIN}, {},
    ]  # fmt: skip
    assert said(BOTH, {"results": "2"}, {"results": "2"}, {}, {}, {}) == [
        {}, {}, {"events": DELETED}, {}, {"results": DELETED}, {},
    ]  # fmt: skip


def test_a_broker_that_does_not_know_all_yet_is_asked_again_soon_and_nothing_is_said():
    gone = Gone()
    gone.saw(BOTH)
    assert not gone.suspects
    assert gone.saw({}) == {}
    assert gone.suspects
    assert gone.saw(BOTH) == {}
    assert not gone.suspects


def test_when_it_is_said_it_is_looked_at_as_seldom_as_before():
    gone = Gone()
    for ids in (BOTH, {}, {}):
        gone.saw(ids)
    assert not gone.suspects
