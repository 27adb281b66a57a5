"""
Laws of the breaker's fold: replays and batching change nothing, epochs separate, and the count is what one would count.

Each is held against a naive recomputation over the whole list of results, which knows no rows.
"""

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from schemas.profiles import BOOKING, INTEGRATION
from services.breaker.announce import event_of, turned
from services.breaker.fold import RECENT, TOLD_AGAIN_MS, Rules, fold, has_turned, is_failure, state_of
from streams import codec
from streams.records import BreakerRow, Result
from streams.success_rate import PIECE_MS, PIECES, rate_of
from tests.breaking import NOON_MS, make_result
from tests.records import make_integration

#: Low, so that a few results reach it.
RULES = Rules(failing_after=2, paused_after=4)
EPOCHS = st.integers(1, 3)
HOUR_MS = 3_600_000


@st.composite
def results(draw: st.DrawFn, epochs: st.SearchStrategy[int] = EPOCHS) -> Result:
    outcome = draw(st.sampled_from([None, None, None, "delivered", "rejected", "exhausted", "blocked", "discarded"]))
    return make_result(
        delivery_id=f"dlv_{draw(st.integers(0, 30))}",
        attempt=draw(st.integers(1, 3)) if outcome not in ("discarded", "blocked") else draw(st.integers(0, 2)),
        outcome=outcome,
        epoch=draw(epochs),
        cause=draw(st.sampled_from(["live", "retry", "replay", "test"])),
        finished_at_ms=NOON_MS + draw(st.integers(0, 60 * HOUR_MS)),
    )


#: Results with the offsets where they stand: rising, with gaps.
@st.composite
def logs(draw: st.DrawFn, epochs: st.SearchStrategy[int] = EPOCHS) -> list[tuple[int, Result]]:
    found = draw(st.lists(results(epochs), max_size=60))
    steps = draw(st.lists(st.integers(1, 3), min_size=len(found), max_size=len(found)))
    offset, log = -1, []
    for step, result in zip(steps, found, strict=True):
        offset += step
        log.append((offset, result))
    return log


def folded(log: Any, row: BreakerRow | None = None, rules: Rules = RULES) -> BreakerRow | None:
    for offset, result in log:
        row = fold(row, result, offset, rules)
    return row


@given(logs(), st.data())
def test_a_replay_from_anywhere_changes_nothing(log, data):
    row, start = folded(log), data.draw(st.integers(0, len(log)))

    assert folded(log[start:], row) is row


@given(logs(), st.data())
def test_a_crash_after_any_write_ends_at_the_same_row(log, data):
    """The row is stored after some result, and read again; results from some earlier one on come again."""
    stored_at = data.draw(st.integers(0, len(log)))
    again_from = data.draw(st.integers(0, stored_at))
    row = folded(log[:stored_at])
    stored = None if row is None else codec.decode_as(BreakerRow, codec.encode(row))

    assert folded(log[again_from:], stored) == folded(log)


@given(logs(epochs=st.just(1)))
def test_the_count_is_the_failures_since_the_last_success(log):
    naive, since_ms = 0, None
    for _, result in log:
        if result.outcome == "delivered":
            naive, since_ms = 0, None
        elif is_failure(result):
            naive, since_ms = naive + 1, since_ms or result.finished_at_ms
    row = folded(log)

    assert (row.failures, row.failing_since_ms) == (naive, since_ms) if row else not log


@given(logs())
def test_only_the_newest_epoch_counts_and_it_starts_clean(log):
    """Older results that come late change nothing of the count, and nothing that was before is in it."""
    row = folded(log)
    if row is None:
        return
    newest = max(result.epoch for _, result in log)
    alone = folded([(offset, result) for offset, result in log if result.epoch == newest])
    count = (
        "epoch",
        "failures",
        "failing_since_ms",
        "failure_reason",
        "has_failed",
        "failing_told_at_ms",
        "armed_from",
    )
    count += ("tripped_by_delivery", "tripped_by_attempt", "tripped_by_offset", "tripped_at_ms", "tripped_failures")

    assert [getattr(row, name) for name in count] == [getattr(alone, name) for name in count]


@given(logs(epochs=st.just(1)))
def test_it_trips_at_the_first_result_that_makes_the_count_full_and_stays_tripped(log):
    naive, tripping = 0, None
    for offset, result in log:
        naive = 0 if result.outcome == "delivered" else naive + is_failure(result)
        if naive == RULES.paused_after and tripping is None:
            tripping = offset
    row = folded(log)

    assert (row.tripped_by_offset if row else None) == tripping


@given(logs(), st.booleans())
def test_without_auto_pause_it_never_trips(log, armed_later):
    row = folded(log, rules=Rules(failing_after=2, paused_after=4, auto_pause=False))

    assert row is None or (row.tripped_by_offset is None and row.armed_from is None)


@given(logs(), st.data())
def test_the_offset_from_which_it_was_armed_is_enough_to_fold_it_again(log, data):
    """Somebody turns `autoPause` on and off; `armed_from` of the outcome says all that a rebuild needs to know."""
    switches = data.draw(st.lists(st.booleans(), min_size=len(log), max_size=len(log)))
    row = None
    for (offset, result), is_armed in zip(log, switches, strict=True):
        row = fold(row, result, offset, Rules(RULES.failing_after, RULES.paused_after, auto_pause=is_armed))
    again = None
    for offset, result in log:
        is_armed = row.armed_from is not None and offset >= row.armed_from
        again = fold(again, result, offset, Rules(RULES.failing_after, RULES.paused_after, auto_pause=is_armed))

    assert again == row


@given(logs())
def test_the_window_holds_every_delivery_once_and_nothing_older_than_a_day(log):
    row = folded(log)
    ended, recent = {}, []
    for _, result in log:
        if result.outcome is None or result.delivery_id in recent:
            continue
        recent = [*recent, result.delivery_id][-RECENT:]
        if result.outcome != "discarded":
            piece = result.finished_at_ms // PIECE_MS
            ended.setdefault(piece, []).append(result.outcome)
            newest = max(ended)
            ended = {number: outcomes for number, outcomes in ended.items() if number > newest - PIECES}
    if row is None:
        return

    assert dict(zip(row.window, row.ended, strict=True)) == {piece: len(each) for piece, each in ended.items()}
    assert row.window == sorted(row.window)
    assert sum(row.delivered) == sum(each.count("delivered") for each in ended.values())


@given(logs())
def test_a_pause_is_told_once_an_epoch_and_failing_again_only_after_a_recovery_and_an_hour(log):
    """Whatever comes, also failures of delivering the very events, and under one id whenever it is folded again."""
    row, told, ids, recovered_at = None, [], [], -1
    for number, (offset, result) in enumerate(log):
        new = fold(row, result, offset, RULES)
        for kind in turned(row, new):
            told.append((new.epoch, kind, result.finished_at_ms, number))
            ids.append(event_of(kind, new, make_integration(), NOON_MS, "rec_1").event_id)
            if kind == "failing":
                earlier = [each for each in told[:-1] if each[:2] == (new.epoch, kind)]
                assert all(result.finished_at_ms - each[2] >= TOLD_AGAIN_MS for each in earlier[-1:])
                assert all(recovered_at > each[3] for each in earlier[-1:])
        if result.outcome == "delivered" and result.epoch == new.epoch:
            recovered_at = number
        row = new
    pauses = [epoch for epoch, kind, *_ in told if kind == "paused"]

    assert len(pauses) == len(set(pauses))
    assert len(ids) == len(set(ids))


@given(logs(), st.integers(0, 90))
def test_the_rate_is_that_of_the_day_up_to_now_as_far_as_it_is_known(log, hours):
    row = folded(log)
    if row is None:
        return
    state, now_ms = state_of(row, make_integration()), NOON_MS + hours * HOUR_MS
    pieces = zip(row.window, row.delivered, row.ended, strict=True)
    within = [(good, all_) for piece, good, all_ in pieces if piece > now_ms // PIECE_MS - PIECES]
    ended = sum(all_ for _, all_ in within)

    if row.window:
        assert rate_of(state, now_ms) == (sum(good for good, _ in within) / ended if ended else None)
    assert state.ended == sum(state.window_ended), "older releases show the whole"


@given(logs())
def test_an_event_about_a_state_has_the_same_ids_whenever_it_is_made(log):
    row = folded(log)
    if row is None:
        return
    one, other = (
        event_of("paused", row, make_integration(), now_ms, f"rec_{now_ms}") for now_ms in (NOON_MS, NOON_MS + 5)
    )

    assert one.event_id == other.event_id
    assert one.event_id != event_of("failing", row, make_integration(), NOON_MS, "rec_1").event_id


@given(logs(), st.integers(1, 5), st.sampled_from([INTEGRATION, BOOKING]))
def test_what_is_published_is_of_the_newer_of_the_two_epochs(log, epoch, profile):
    row = folded(log)
    if row is None:
        return
    state = state_of(row, make_integration(profile=profile.name, epoch=epoch))

    assert state.epoch == max(row.epoch, epoch)
    assert (state.state == "paused") == (row.epoch >= epoch and row.tripped_by_offset is not None)
    if epoch > row.epoch:
        assert (state.state, state.consecutive_failures, state.reason) == ("active", 0, None)
    assert not has_turned(state, state)
