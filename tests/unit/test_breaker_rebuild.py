"""Published states held against the results, by somebody who does not believe what the state says of `autoPause`."""

from dataclasses import replace

import msgspec

from services.breaker.auto_pause import AutoPause
from services.breaker.fold import fold, rules_of, state_of
from services.breaker.rebuild import Counting
from streams import codec
from tests.breaking import NOON_MS, delivered, make_result
from tests.records import make_integration

ON, OFF = True, False
DAY_MS = 86_400_000


def versions(*switches, first=1, since_ms=NOON_MS - DAY_MS, step_ms=1_000):
    """A version of the configuration for each, the first one written a day before the first result."""
    return [
        make_integration(auto_pause=is_on, version=first + at, updated_at_ms=since_ms + at * step_ms)
        for at, is_on in enumerate(switches)
    ]


def failures(count, start=0, **changes):
    return [make_result(number, **changes) for number in range(start, start + count)]


def published(results, met, config, start=0):
    """What a breaker publishes that folds these from that offset on. *met*: what it knows of `autoPause` at each."""
    row = None
    for (offset, result), is_on in zip(enumerate(results, start), met, strict=True):
        row = fold(row, result, offset, replace(rules_of(config), auto_pause=is_on))
    return state_of(row, config)


def verified(results, state, config, kept=(), *, first=0):
    """The results as they stand on the log; those below *first* have fallen out of retention."""
    auto_pause = AutoPause()
    for each in kept:
        auto_pause.apply(codec.encode(each))
    auto_pause.add(config)
    # What is gone came onto the log before the first that is kept.
    counting = Counting(config, state, auto_pause, gone_until_ms=results[first].finished_at_ms if first else None)
    for offset, result in enumerate(results):
        if offset >= first:
            counting.see(result, offset)
    return counting.rebuilt()


def test_a_state_that_was_wrongly_never_armed_differs():
    """It says itself that `autoPause` was off, and nobody has ever turned it."""
    [config] = versions(ON)
    results = failures(50)
    wrong = published(results, [OFF] * 50, config)
    assert (wrong.state, wrong.consecutive_failures, wrong.armed_from) == ("active", 50, None)

    found = verified(results, wrong, config)

    assert found.verdict == "differs"
    assert found.differences[0] == "state is 'active', and the results say 'paused'"
    assert any(each.startswith("armed_from is None") for each in found.differences)
    assert verified(results, published(results, [ON] * 50, config), config).verdict == "equal"


def test_what_somebody_turned_is_told_by_the_version_of_each_result():
    kept = versions(OFF, ON)
    results = failures(25) + failures(5, 25, config_version=2)
    state = published(results, [OFF] * 25 + [ON] * 5, kept[-1])
    assert (state.state, state.armed_from, state.tripped_by_offset) == ("paused", 25, 25)

    assert verified(results, state, kept[-1], kept).verdict == "equal"
    never = published(results, [OFF] * 30, kept[-1])
    assert verified(results, never, kept[-1], kept).verdict == "differs", "version 2 had been met a day before"
    always = published(results, [ON] * 30, kept[-1])
    assert verified(results, always, kept[-1], kept).verdict == "partial", "by a breaker that was a day behind"


def test_turned_on_while_results_came_it_may_have_been_met_a_little_later():
    kept = versions(OFF, ON, since_ms=NOON_MS, step_ms=20_000)
    results = failures(20) + failures(80, 20, config_version=2)

    late, far_too_late = (published(results, [OFF] * at + [ON] * (100 - at), kept[-1]) for at in (23, 95))

    assert verified(results, late, kept[-1], kept).verdict == "partial"
    assert verified(results, far_too_late, kept[-1], kept).verdict == "differs"


def test_a_version_that_is_not_kept_is_not_believed_either():
    kept = versions(ON, first=9)
    results = failures(30, config_version=8) + failures(1, 30, config_version=9)
    state = published(results, [OFF] * 30 + [ON], kept[-1])

    assert verified(results, state, kept[-1], kept).verdict == "partial"
    # What an activation has set back matters no more, whether or not a result has followed it.
    activated = make_integration(version=10, epoch=2, updated_at_ms=NOON_MS + DAY_MS)
    assert verified(results, published(results, [OFF] * 31, activated), activated, kept).verdict == "equal"
    again = [*results, *failures(3, 31, config_version=9, epoch=2)]
    clean = published(again, [OFF] * 30 + [ON] * 4, kept[-1])
    assert verified(again, clean, kept[-1], kept).verdict == "equal"
    assert verified(again, published(again, [OFF] * 34, kept[-1]), kept[-1], kept).verdict == "differs"


def test_without_a_published_state_the_versions_say_it():
    kept = versions(OFF, ON)
    found = verified(failures(25), None, kept[-1], kept)

    assert (found.verdict, found.state.state, found.state.armed_from) == ("unpublished", "active", None)


def at(result, at_ms):
    """The same at another time."""
    return msgspec.structs.replace(result, finished_at_ms=at_ms)


def test_since_when_it_was_on_may_be_older_than_what_is_kept():
    [config] = versions(ON)
    old = [at(delivered(0), NOON_MS - 2 * DAY_MS), *(at(each, NOON_MS - DAY_MS - 1) for each in failures(3, 1))]
    results = [*old, delivered(4), *failures(2, 5)]
    state = published(results, [ON] * 7, config)
    assert (state.armed_from, state.consecutive_failures, state.ended) == (0, 2, 1)

    found = verified(results, state, config, first=2)
    assert (found.differences, found.verdict) == ([], "equal")
    for wrong in ({"consecutive_failures": 1}, {"window_ended": [2]}, {"last_status": 204}):
        assert verified(results, replace_state(state, **wrong), config, first=2).verdict == "differs"


def test_a_window_of_which_results_are_gone_is_not_compared_also_after_a_success():
    [config] = versions(ON)
    results = [delivered(0), delivered(1), delivered(2), *failures(2, 3)]
    state = published(results, [ON] * 5, config)

    found = verified(results, state, config, first=2)

    assert (state.delivered, found.state.delivered) == (3, 1)
    assert (found.differences, found.verdict) == ([], "partial")
    for wrong in ({"consecutive_failures": 1}, {"last_status": 204}):
        assert verified(results, replace_state(state, **wrong), config, first=2).verdict == "differs"
    assert verified(results, replace_state(state, delivered=2), config).verdict == "differs"


def test_the_delivery_that_ended_last_may_be_gone_too():
    [config] = versions(ON)
    results = [delivered(0), *failures(2, 1)]
    state = published(results, [ON] * 3, config)

    found = verified(results, state, config, first=1)

    assert (state.last_delivery_id, found.state.last_delivery_id) == (results[0].delivery_id, None)
    assert (found.differences, found.verdict) == ([], "partial")


def replace_state(state, **changes):
    return msgspec.structs.replace(state, **changes)
