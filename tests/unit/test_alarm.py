"""When failures are a release's fault and not a record's."""

from hypothesis import given
from hypothesis import strategies as st

from streams.engine.alarm import LEAST, WINDOW, Alarm


def rings(verdicts: str, **options) -> bool:
    """Whether it rings after these: a letter is the key of one that raised, a dot one that passed."""
    alarm = Alarm(**options)
    for verdict in verdicts:
        if verdict == ".":
            alarm.passed()
        else:
            alarm.raised(verdict)
    return alarm.rings


def test_a_release_that_raises_for_every_second_record_is_stopped_after_five():
    assert not rings(".a.a.a.a")
    assert rings(".a.a.a.a.a")


def test_a_few_records_that_raise_are_their_own_fault():
    assert not rings("aaaa")
    assert not rings("." * WINDOW + "aaaaa....")
    assert not rings("..a" * 100)


def test_old_failures_are_forgotten():
    assert not rings("aaaa" + "." * WINDOW + "aaaa")


def test_it_goes_on_ringing():
    assert rings("aaaaa" + "." * 100)


def test_one_key_alone_does_not_ring_where_several_are_asked_for():
    assert not rings("a" * 50, keys=2)
    assert rings("aaaab", keys=2)


@given(st.text("ab..", max_size=100))
def test_it_never_rings_without_enough_of_them_in_a_window(verdicts):
    if rings(verdicts):
        windows = [verdicts[max(0, end - WINDOW) : end] for end in range(1, len(verdicts) + 1)]
        assert any(len(w) - w.count(".") >= max(LEAST, len(w) / 2) for w in windows)
