"""What an ingest process remembers of the ids that it has accepted."""

import pytest

from services.dispatcher import event_ids
from services.ingest import repeats
from services.ingest.repeats import VALID_MS, AcceptedIds, Seen, content_of, id_reused, name_of
from tests.logs import make_event

NOW_MS = 1_760_000_000_123


def content(**changes):
    given = changes.pop("occurred_at_given", False)
    return content_of(make_event(**changes), occurred_at_given=given)


def test_an_id_is_valid_for_as_long_as_fan_out_has_it():
    assert repeats.VALID_MS == event_ids.VALID_MS


def test_a_name_is_of_an_app_and_a_kind_of_key():
    events = [
        make_event(event_id="a", app="demo", id_space="secret"),
        make_event(event_id="a", app="demo", id_space="public"),
        make_event(event_id="a", app="other", id_space="secret"),
        make_event(event_id="b", app="demo", id_space="secret"),
        make_event(event_id="ad", app="emo", id_space="secret"),
    ]

    assert len({name_of(event) for event in events}) == 5


@pytest.mark.parametrize(
    "changes",
    [
        {"type": "call_ended2"},
        {"payload": b'{"a": 1}'},
        {"ordering_key": "k"},
        {"occurred_at_given": True},
        {"occurred_at_given": True, "occurred_at_ms": 8},
    ],
)
def test_another_type_payload_ordering_key_or_time_that_was_given_is_another_event(changes):
    first = {"type": "call_ended", "payload": b'{"a":1}', "occurred_at_ms": 7}

    assert content(**first) != content(**{**first, **changes})


def test_when_a_repeat_was_accepted_and_its_record_id_do_not_matter():
    first = content(record_id="rec_1", accepted_at_ms=1, occurred_at_ms=1)
    again = content(record_id="rec_2", accepted_at_ms=2, occurred_at_ms=2)

    assert first == again
    assert content(occurred_at_ms=7, occurred_at_given=True) == content(occurred_at_ms=7, occurred_at_given=True)


def test_parts_of_an_event_do_not_run_together():
    assert content(type="a", ordering_key="bc") != content(type="ab", ordering_key="c")
    assert content(ordering_key="a", payload=b"12") != content(ordering_key="a1", payload=b"2")
    assert content(type="a", occurred_at_ms=12, occurred_at_given=True, payload=b"3") != content(
        type="a", occurred_at_ms=1, occurred_at_given=True, payload=b"23"
    )


def test_a_repeat_is_told_apart_from_another_event_with_the_time_of_the_first():
    ids = AcceptedIds()
    ids.add(b"n" * 15, b"c" * 9, accepted_at_ms=NOW_MS)

    assert ids.find(b"n" * 15, b"c" * 9, now_ms=NOW_MS + 5) == Seen(NOW_MS, same=True)
    assert ids.find(b"n" * 15, b"d" * 9, now_ms=NOW_MS + 5) == Seen(NOW_MS, same=False)
    assert ids.find(b"m" * 15, b"c" * 9, now_ms=NOW_MS + 5) is None


def test_after_a_day_an_id_is_new():
    ids = AcceptedIds()
    ids.add(b"n", b"c" * 9, accepted_at_ms=NOW_MS)

    assert ids.find(b"n", b"c" * 9, now_ms=NOW_MS + VALID_MS - 1) == Seen(NOW_MS, same=True)
    assert ids.find(b"n", b"c" * 9, now_ms=NOW_MS + VALID_MS) is None
    ids.add(b"n", b"d" * 9, accepted_at_ms=NOW_MS + VALID_MS)
    assert ids.find(b"n", b"d" * 9, now_ms=NOW_MS + VALID_MS) == Seen(NOW_MS + VALID_MS, same=True)


def test_the_first_of_two_that_were_under_way_together_stays():
    ids = AcceptedIds()
    ids.add(b"n", b"c" * 9, accepted_at_ms=NOW_MS)
    ids.add(b"n", b"d" * 9, accepted_at_ms=NOW_MS + 1)

    assert ids.find(b"n", b"c" * 9, now_ms=NOW_MS) == Seen(NOW_MS, same=True)


def test_the_newest_are_kept_and_never_more_than_there_is_room_for():
    ids = AcceptedIds(max_ids=100)
    longest = 0
    for number in range(1_000):
        ids.add(b"%d" % number, b"c" * 9, accepted_at_ms=NOW_MS)
        longest = max(longest, len(ids))
        for kept in range(max(0, number - 48), number + 1):
            assert ids.find(b"%d" % kept, b"c" * 9, now_ms=NOW_MS) is not None

    assert longest == 99
    assert ids.find(b"1", b"c" * 9, now_ms=NOW_MS) is None


def test_a_log_that_was_replaced_is_forgotten():
    ids = AcceptedIds()
    ids.add(b"n", b"c" * 9, accepted_at_ms=NOW_MS)
    ids.clear()

    assert ids.find(b"n", b"c" * 9, now_ms=NOW_MS) is None


def test_a_reused_id_is_409():
    assert (id_reused().status, id_reused().code) == (409, "id_reused")
