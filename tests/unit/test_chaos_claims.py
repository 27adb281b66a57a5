"""The claims hold of a run that went well, and each fails on a record of one that did not."""

from dataclasses import replace
from typing import Any

import msgspec
import pytest

from services.cli.reconcile.proof import Finding, LateOutcome, Report, Said
from streams.records import BreakerRow, IntegrationState, LaneRow, OpenDelivery
from tests.chaos import claims
from tests.chaos.bounds import Bounds, missed, told
from tests.chaos.claims import CLAIMS, check, in_flight, judged_whole, lateness, repeats, sent_while_paused, silences
from tests.chaos.destinations import COMMON, Destination
from tests.chaos.observed import DIED, Changed, Ended, Happened, Observed, Paused, Receipt, Request, Sent, Stored, Taken

#: Of the first event, milliseconds since 1970 UTC.
T = 1_767_355_200_000
EVENTS = 6
STEP_MS = 1_000
DESTINATIONS = {
    "int_a": Destination("int_a"),
    "int_strict": Destination("int_strict", config={"ordering": "strict"}),
    "int_key": Destination("int_key", config={"ordering": "key"}),
}


def event(number: int) -> str:
    return f"e{number}"


def request(integration: str, number: int, at_ms: float, attempt: int = 1, status: int | None = 200) -> Request:
    return Request(integration, event(number), attempt, f"k{number % 2}", at_ms, at_ms + 10, status)


def result(integration: str, number: int, at_ms: int, attempt: int = 1, **changes: Any) -> Ended:
    """Of a request that came at that time."""
    made = Ended(
        partition=0,
        offset=at_ms - T,
        delivery_id=f"{integration}-{number}",
        integration=integration,
        event_id=event(number),
        attempt=attempt,
        outcome="delivered",
        reason="status_200",
        started_ms=at_ms - 1,
        finished_ms=at_ms + 11,
        read_ms=at_ms + 12,
        next_attempt=None,
        next_due_ms=None,
        is_queued=False,
    )
    return made._replace(**changes)


def taken(integration: str, number: int, at_ms: int, attempt: int = 1) -> Taken:
    return Taken(0, at_ms, f"{integration}-{number}", integration, event(number), attempt, at_ms, attempt > 1)


def state(integration: str, **changes: Any) -> IntegrationState:
    fields: dict[str, Any] = {
        "integration": integration,
        "app": "demo",
        "state": "active",
        "epoch": 1,
        "consecutive_failures": 0,
        "delivered": EVENTS,
        "ended": EVENTS,
        "applied_offset": 5,
    }
    return IntegrationState(**fields | changes)


def row(integration: str, failures: int = 0) -> BreakerRow:
    return BreakerRow(
        integration=integration,
        app="demo",
        epoch=1,
        failures=failures,
        window=[],
        delivered=[],
        ended=[],
        recent=[],
        applied_offset=5,
    )


def lane_row(integration: str, held: int, frontier: int = 0) -> LaneRow:
    """*frontier*: see `place`."""
    return LaneRow(
        integration=integration, app="demo", generation=1, reason="paused", frontier=frontier, open=[], held=held
    )


def place(number: int) -> int:
    """Where the event's delivery stands, to each integration."""
    return T + number * STEP_MS + 50


def well() -> Observed:
    """
    Six events a second apart, each delivered to all; the second one to int_a at the second attempt, due a second later.
    """
    seen = Observed(DESTINATIONS)
    for number in range(EVENTS):
        at_ms = T + number * STEP_MS
        seen.sent.append(Sent(event(number), number, COMMON, f"k{number % 2}", at_ms, 1))
        seen.stored.append(Stored(0, number, event(number), f"rec_{number}", COMMON))
        seen.receipts.append(Receipt(f"rec_{number}", event(number), tuple(DESTINATIONS), False, 0, number))
        for name in DESTINATIONS:
            seen.deliveries.append(taken(name, number, place(number)))
            fails = name == "int_a" and number == 1
            seen.requests.append(request(name, number, at_ms + 100, status=503 if fails else 200))
            if not fails:
                seen.results.append(result(name, number, at_ms + 100))
                continue
            due_ms = at_ms + 1_100
            seen.results.append(
                result(
                    name,
                    number,
                    at_ms + 100,
                    outcome=None,
                    reason="status_503",
                    next_attempt=2,
                    next_due_ms=due_ms,
                    is_queued=True,
                )
            )
            seen.deliveries.append(taken(name, number, due_ms + 5, attempt=2))
            seen.requests.append(request(name, number, due_ms + 20, attempt=2))
            seen.results.append(result(name, number, due_ms + 20, attempt=2))
    seen.requests.sort(key=lambda each: each.arrived_ms)
    for name in DESTINATIONS:
        seen.folded[name], seen.published[name] = state(name), state(name)
        seen.folded_rows[name], seen.rows[name] = row(name), row(name)
    seen.changed, seen.configured = [Changed("int_a", "paused", 2)], [Changed("int_a", "paused", 2)]
    seen.faults = [Happened("stop", "dispatcher-1", T + 300, T + 900, T + 2_000, 0)]
    seen.reconciled = Report()
    return seen


def doctored(**changes: Any) -> Observed:
    return replace(well(), **changes)


def violated(seen: Observed) -> set[str]:
    """Names of the claims that do not hold."""
    return {CLAIMS[each.number - 1].__name__ for each in check(seen) if each.violations}


def name(claim: Any) -> str:
    return str(claim.__name__)


def test_all_claims_hold_of_a_run_that_went_well():
    assert violated(well()) == set()


def test_every_claim_has_a_sentence_and_a_doctored_record_here():
    assert all(claim.__doc__ for claim in CLAIMS)
    assert {name(claim) for claim in CLAIMS} == {name(claim) for claim, _ in BROKEN}


def without_first(kind: str) -> Observed:
    return doctored(**{kind: getattr(well(), kind)[1:]})


def selected_by_nobody() -> Observed:
    seen = well()
    seen.receipts[2] = seen.receipts[2]._replace(integrations=())
    return seen


def fanned_out_twice() -> Observed:
    seen = well()
    seen.receipts.append(seen.receipts[2]._replace(record_id="rec_other"))
    return seen


def without_result(integration: str, number: int) -> Observed:
    left = [each for each in well().results if (each.integration, each.event_id) != (integration, event(number))]
    return doctored(results=left)


def second_outcome() -> Observed:
    seen = well()
    seen.results.append(result("int_a", 3, T + 9_000, outcome="rejected"))
    return seen


def never_sent() -> Observed:
    return doctored(requests=[each for each in well().requests if each.event_id != event(4)])


def answered_otherwise() -> Observed:
    return doctored(requests=[each._replace(status=500) if each[:2] == ("int_a", "e3") else each for each in well().requests])  # fmt: skip # noqa: E501


def sent_again(*faults: Happened, first_ms: int | None = 3_112) -> Observed:
    """The fourth event, four seconds after it was answered; when the result of that is on the log, None for never."""
    seen = doctored(faults=list(faults))
    first = next(each for each in seen.results if each[3:5] == ("int_a", event(3)))
    seen.results.remove(first)
    if first_ms is not None:
        seen.results.append(first._replace(read_ms=T + first_ms))
    seen.requests.append(request("int_a", 3, T + 7_100))
    seen.results.append(result("int_a", 3, T + 7_100))
    return seen


def unrecorded() -> Observed:
    seen = without_result("int_a", 5)
    return replace(seen, published={**seen.published, "int_a": state("int_a", state="paused")})


def overtaken(integration: str, one: int, other: int) -> Observed:
    """First attempts of two events change places."""
    moved = []
    for each in well().requests:
        if each.integration == integration and each.event_id in {event(one), event(other)}:
            number = other if each.event_id == event(one) else one
            each = each._replace(arrived_ms=T + number * STEP_MS + 100)  # noqa: PLW2901
        moved.append(each)
    return doctored(requests=sorted(moved, key=lambda each: each.arrived_ms))


def overtaken_while_it_waited(integration: str) -> Observed:
    """The third event's last attempt comes after the fifth event, which has its key."""
    seen = well()
    seen.results = [
        each._replace(outcome=None, reason="status_503", next_attempt=2, next_due_ms=T + 4_900)
        if (each.integration, each.event_id) == (integration, "e2")
        else each
        for each in seen.results
    ]
    seen.results.append(result(integration, 2, T + 5_000, attempt=2))
    seen.requests.append(request(integration, 2, T + 5_000, attempt=2))
    return seen


def overtaken_while_it_ran(integration: str) -> Observed:
    """As before, but the last attempt comes in time: it runs until after the fifth event has come."""
    seen = overtaken_while_it_waited(integration)
    seen.requests = [each for each in seen.requests if each[:3] != (integration, event(2), 2)]
    seen.requests.append(request(integration, 2, T + 3_900, attempt=2))
    seen.requests.sort(key=lambda each: each.arrived_ms)
    seen.results[-1] = result(integration, 2, T + 3_900, attempt=2, finished_ms=T + 4_500)
    return seen


def together(integration: str, ordering: Any = None) -> Observed:
    """The third event is answered when the fifth, which has its key, has come."""
    changed = replace(DESTINATIONS[integration], config={"ordering": ordering} if ordering else {})
    seen = doctored(destinations={**DESTINATIONS, integration: changed})
    seen.results = [
        each._replace(finished_ms=T + 4_103) if each[3:5] == (integration, event(2)) else each for each in seen.results
    ]
    return seen


def second_attempt(**changes: Any) -> Observed:
    seen = well()
    return replace(seen, results=[each._replace(**changes) if each.attempt == 2 else each for each in seen.results])


def arrived_early() -> Observed:
    return doctored(
        requests=[
            each._replace(arrived_ms=each.arrived_ms - 30) if each.attempt == 2 else each for each in well().requests
        ]
    )


def back_late() -> Observed:
    """The put-back hung in its producer: it was made in time, and came onto the log when it was late."""
    late = [each._replace(read_ms=each.read_ms + 5_100) if each.attempt == 2 else each for each in well().deliveries]  # fmt: skip # noqa: E501
    return doctored(deliveries=late, faults=[])


def published_otherwise() -> Observed:
    return doctored(published={**well().published, "int_a": state("int_a", consecutive_failures=1)})


def row_otherwise() -> Observed:
    return doctored(rows={**well().rows, "int_a": row("int_a", failures=3)})


def holds_what_is_done() -> Observed:
    return doctored(lane_rows={"int_a": lane_row("int_a", EVENTS + 1)})


def left_paused_with_nothing() -> Observed:
    return doctored(destinations={**DESTINATIONS, "int_a": replace(DESTINATIONS["int_a"], is_left_paused=True)})


def holds(held: int, frontier: int = EVENTS - 2, *listed: int) -> Observed:
    """The last two deliveries of an integration that is left paused wait; *frontier*, *listed*: numbers of events."""
    seen = left_paused_with_nothing()
    waiting = (EVENTS - 2, EVENTS - 1)
    seen.results = [each for each in seen.results if each[3:5] not in {("int_a", event(number)) for number in waiting}]
    opened = [OpenDelivery(offset=place(number), attempt=1) for number in listed]
    seen.lane_rows["int_a"] = msgspec.structs.replace(lane_row("int_a", held, place(frontier)), open=opened)
    return seen


def holds_late_copies(held: int, *offsets: int) -> Observed:
    """A frozen worker appended what waits there again, so far from the frontier."""
    seen = holds(held)
    seen.late_copies = [("int_a", place(EVENTS - 2) + offset) for offset in offsets]
    return seen


def holds_what_stands_twice(held: int, frontier: int = EVENTS - 2) -> Observed:
    """The second attempt of the second event stands twice, and the last event, too."""
    seen = holds(held, frontier)
    for number, attempt in ((1, 2), (EVENTS - 1, 1)):
        seen.deliveries.append(taken("int_a", number, place(EVENTS), attempt=attempt))
    return seen


def stopped(code: int, took_ms: int, ran_ms: float = 60_000) -> Observed:
    return doctored(faults=[Happened("stop", "admin", T, T + took_ms, T + took_ms, code, ran_ms)])


def ended_by_itself(target: str, code: int) -> Observed:
    return doctored(faults=[Happened(DIED, target, T + 900, T + 1_000, T + 3_000, code)])


def paused(since_ms: int, until_ms: float = float("inf"), failed_ms: int | None = None, **changes: Any) -> Observed:
    """
    An integration that gets a request each second, the fourth at 3,100, is paused then.

    Args:
        failed_ms: when the last failure's result was on the log, of the request at 1,100; else a person pauses it.
    """
    seen = doctored(**{"faults": []} | changes)
    tripped_by = None
    if failed_ms is not None:
        failed = next(each for each in seen.results if each[3:5] == ("int_key", event(1)))
        seen.results[seen.results.index(failed)] = failed._replace(read_ms=T + failed_ms)
        tripped_by = failed.offset
    seen.paused = [Paused("int_key", T + since_ms, T + until_ms, tripped_by)]
    return seen


def found_by_reconcile(kind: Any) -> Observed:
    report = Report()
    report.found(Finding(kind, 0, 3, "int_a", "dlv_0"))
    return doctored(reconciled=report)


def found_late() -> Observed:
    report = Report()
    late, other = (Said(0, at, 1, "delivered", generation) for at, generation in ((9, 1), (8, 2)))
    report.found_late(LateOutcome(0, 3, "int_a", "dlv_0", late, other))
    return doctored(reconciled=report)


BROKEN: list[tuple[Any, Observed]] = [
    (claims.no_acknowledged_event_is_lost, without_first("stored")),
    (claims.no_acknowledged_event_is_lost, without_first("receipts")),
    (claims.no_acknowledged_event_is_lost, selected_by_nobody()),
    (claims.no_acknowledged_event_is_lost, fanned_out_twice()),
    (claims.one_outcome, without_result("int_strict", 2)),
    (claims.one_outcome, second_outcome()),
    (claims.results_are_true, never_sent()),
    (claims.results_are_true, answered_otherwise()),
    (claims.only_what_was_in_flight_is_repeated, sent_again()),
    (claims.only_what_was_in_flight_is_repeated, unrecorded()),
    (claims.one_at_a_time, together("int_a", "integration")),
    (claims.one_at_a_time, together("int_a", "strict")),
    (claims.one_at_a_time, together("int_a", "key")),
    (claims.order_is_kept, overtaken("int_a", 2, 3)),
    (claims.order_is_kept, overtaken("int_strict", 2, 3)),
    (claims.order_is_kept, overtaken("int_key", 2, 4)),
    (claims.nothing_overtakes_what_fails, overtaken_while_it_waited("int_strict")),
    (claims.nothing_overtakes_what_fails, overtaken_while_it_waited("int_key")),
    (claims.nothing_overtakes_what_fails, overtaken_while_it_ran("int_strict")),
    (claims.nothing_overtakes_what_fails, overtaken_while_it_ran("int_key")),
    (claims.no_retry_is_early, second_attempt(started_ms=T + 2_050)),
    (claims.no_retry_is_early, arrived_early()),
    (claims.no_retry_is_late, back_late()),
    (claims.the_breaker_is_a_fold, published_otherwise()),
    (claims.tables_are_true, row_otherwise()),
    (claims.tables_are_true, holds_what_is_done()),
    (claims.tables_are_true, left_paused_with_nothing()),
    (claims.tables_are_true, doctored(lane_rows={}, results=[])),
    (claims.tables_are_true, holds(1)),
    (claims.tables_are_true, holds(2, EVENTS - 1, EVENTS - 2)),
    (claims.tables_are_true, holds(1, EVENTS - 1)),
    (claims.tables_are_true, holds(1, EVENTS - 1, EVENTS - 3)),
    (claims.tables_are_true, holds(3, EVENTS - 3)),
    (claims.tables_are_true, holds_late_copies(3, -1)),
    (claims.tables_are_true, holds_late_copies(3, 0, 1)),
    (claims.tables_are_true, holds_what_stands_twice(3)),
    (claims.nothing_is_quarantined, doctored(quarantined=["events 0@3: unreadable"])),
    (claims.changes_are_kept, doctored(configured=[])),
    (claims.changes_are_kept, doctored(configured=[Changed("int_a", "paused", 2), Changed("int_a", "active", 1)])),
    (claims.who_is_asked_to_stop_ends, stopped(-9, 2_000)),
    (claims.who_is_asked_to_stop_ends, stopped(0, 31_000)),
    (claims.who_is_asked_to_stop_ends, stopped(-15, 20)),
    (claims.who_is_asked_to_stop_ends, stopped(-15, 31_000, ran_ms=500)),
    (claims.who_is_asked_to_stop_ends, stopped(-9, 29_000, ran_ms=500)),
    (claims.who_is_asked_to_stop_ends, stopped(1, 20, ran_ms=500)),
    (claims.nobody_ends_unasked, ended_by_itself("dispatcher-1", 1)),
    (claims.nobody_ends_unasked, ended_by_itself("admin", 0)),
    (claims.nothing_starts_while_paused, paused(2_200, 4_000, failed_ms=1_112)),
    (claims.nothing_starts_while_paused, paused(2_090)),
    (claims.nothing_starts_while_paused, paused(2_090, 3_101)),
    (claims.reconcile_proves_it, found_by_reconcile("no_delivery")),
    (claims.reconcile_proves_it, found_by_reconcile("two_outcomes")),
]


@pytest.mark.parametrize(("claim", "seen"), BROKEN, ids=[name(claim) for claim, _ in BROKEN])
def test_a_claim_fails_on_a_doctored_record(claim, seen):
    assert name(claim) in violated(seen)


def test_what_reconcile_tells_apart_as_late_fails_no_claim():
    assert violated(found_late()) == set()


def test_keys_that_go_on_beside_each_other_are_in_order():
    assert name(claims.order_is_kept) not in violated(overtaken("int_key", 2, 3))


def test_what_has_only_just_been_started_may_die_of_the_signal():
    assert violated(stopped(-15, 20, ran_ms=500)) == set()


def test_a_row_counts_what_it_lists_and_what_it_does_not():
    for seen in (
        holds(2),
        holds(1, EVENTS - 1, EVENTS - 2),
        holds(0, EVENTS, EVENTS - 2, EVENTS - 1),
        holds_late_copies(3, -1, 0),
        holds_what_stands_twice(4),
    ):
        assert name(claims.tables_are_true) not in violated(seen)


@pytest.mark.parametrize(("integration", "ordering", "other"), [("int_a", "none", 2), ("int_key", "key", 3)])
def test_without_an_order_and_of_different_keys_requests_go_beside_each_other(integration, ordering, other):
    seen = together(integration, ordering)
    if ordering == "key":  # it ends before the fifth event, which has its key, and after the fourth, which has not
        seen.results = [each._replace(finished_ms=T + 3_600) if each.finished_ms == T + 4_103 else each for each in seen.results]  # fmt: skip # noqa: E501
    assert violated(seen) == set()


def test_a_process_that_ended_by_itself_excuses_nothing():
    seen = sent_again(*ended_by_itself("dispatcher-1", 1).faults, first_ms=None)
    seen.faults = [each._replace(began_ms=T + 3_105, ended_ms=T + 3_106) for each in seen.faults]
    wrong = {claims.only_what_was_in_flight_is_repeated, claims.nobody_ends_unasked}
    assert {name(each) for each in wrong} <= violated(seen)


def faults(*what: tuple[str, int, int]) -> list[Happened]:
    """Of these kinds, from when to when."""
    names = {"node": "node-1", "breaker": "breaker"}
    return [
        Happened("kill" if kind == "breaker" else kind, names.get(kind, "dispatcher-1"), T + a, T + b, T + b + 1_000)
        for kind, a, b in what
    ]


@pytest.mark.parametrize(
    ("happened", "first_ms", "allowed"),
    [
        # While the first, of 3,100 to 3,112, was in flight, and before the second, of 7,100.
        (faults(("kill", 3_105, 3_106)), None, True),
        (faults(("node", 3_105, 5_000)), None, True),
        (faults(("node", 3_105, 5_000)), 5_020, True),
        (faults(("freeze", 3_105, 11_000)), None, True),
        (faults(("freeze", 3_105, 11_000)), 11_005, True),
        # Its result was on the log when somebody took over: of a worker that lived on, or of a node that did.
        (faults(("kill", 3_105, 3_106)), 3_112, False),
        (faults(("kill", 3_300, 3_301)), 3_299, False),
        (faults(("kill", 3_105, 3_106)), 3_900, False),
        (faults(("node", 3_105, 5_000)), 4_900, False),
        (faults(("node", 2_500, 5_000)), 3_112, False),
        (faults(("freeze", 3_105, 11_000)), 3_112, False),
        # Between the two, and it was recorded, or had not come.
        (faults(("kill", 3_500, 3_501)), 3_112, False),
        (faults(("freeze", 3_500, 11_500)), 3_112, False),
        (faults(("node", 3_500, 5_000)), 3_112, False),
        (faults(("kill", 2_500, 2_501)), 3_112, False),
        # No crash of a dispatcher.
        (faults(("stop", 3_105, 3_106)), 3_112, False),
        (faults(("breaker", 3_105, 3_106)), 3_112, False),
        # The second alone was in flight: it should not have been sent at all.
        (faults(("kill", 7_105, 7_106)), 3_112, False),
        (faults(("freeze", 7_105, 15_000)), 3_112, False),
        (faults(("node", 7_105, 9_000)), 3_112, False),
        (faults(("kill", 2_500, 2_501), ("kill", 3_500, 3_501), ("kill", 7_105, 7_106)), 3_112, False),
        # A freeze that was over, or not yet begun, when the second was begun.
        (faults(("freeze", 3_500, 7_099)), 3_112, False),
    ],
    ids=str,
)
def test_a_repeat_is_allowed_where_the_first_request_was_in_flight_at_a_crash_between_the_two(
    happened, first_ms, allowed
):
    seen = sent_again(*happened, first_ms=first_ms)
    assert (name(claims.only_what_was_in_flight_is_repeated) not in violated(seen)) == allowed
    assert repeats(seen) == 1
    # Its second result is no second outcome then, and one otherwise.
    assert (name(claims.one_outcome) not in violated(seen)) == allowed
    # Nor does it count among those that there may be a repeat for.
    assert allowed or in_flight(seen) == in_flight(replace(seen, requests=seen.requests[:-1]))


def sent_three_times(second_ms: int, *happened: tuple[str, int, int]) -> Observed:
    """At 3,100, where nothing was recorded of it, then, and at 7,100."""
    seen = sent_again(*faults(*happened))
    seen.results = [each for each in seen.results if each.started_ms != T + 3_099 or each.integration != "int_a"]
    seen.requests.append(request("int_a", 3, T + second_ms))
    seen.results.append(result("int_a", 3, T + second_ms))
    seen.requests.sort(key=lambda each: each.arrived_ms)
    return seen


@pytest.mark.parametrize(
    ("happened", "allowed"),
    [
        ([("kill", 3_105, 3_106), ("kill", 5_105, 5_106)], True),
        # The second was recorded when the third was sent: the first one's kill does not excuse that.
        ([("kill", 3_105, 3_106)], False),
        ([("kill", 3_105, 3_106), ("kill", 6_000, 6_001)], False),
        # Nor does one that lasts explain two copies.
        ([("node", 3_105, 8_000)], False),
        ([("node", 3_105, 8_000), ("kill", 5_105, 5_106)], True),
    ],
)
def test_each_repeat_needs_a_crash_of_its_own(happened, allowed):
    seen = sent_three_times(5_100, *happened)
    if ("kill", 5_105, 5_106) in happened or happened[0][0] == "node":  # nor was anything recorded of the second
        seen.results = [each for each in seen.results if each.started_ms != T + 5_099 or each.integration != "int_a"]
    assert repeats(seen) == 2
    assert (name(claims.only_what_was_in_flight_is_repeated) not in violated(seen)) == allowed


def test_what_a_frozen_worker_had_begun_and_sends_when_it_wakes_counts_as_in_flight():
    """The first came from its successor. This one was begun before the freeze: HTTP has no way to take it back."""
    seen = doctored(faults=faults(("freeze", 2_500, 11_000)))
    seen.requests.append(request("int_a", 3, T + 11_010))
    seen.results.append(result("int_a", 3, T + 11_010, started_ms=T + 2_499))
    assert violated(seen) == set()
    # Begun when its session was over, it should not have been sent; and another freeze explains nothing.
    begun_late = [each._replace(started_ms=T + 11_005) if each.started_ms == T + 2_499 else each for each in seen.results]  # fmt: skip # noqa: E501
    assert name(claims.only_what_was_in_flight_is_repeated) in violated(replace(seen, results=begun_late))
    assert name(claims.one_outcome) in violated(replace(seen, results=begun_late))
    later = replace(seen, faults=faults(("freeze", 9_000, 17_000)))
    assert name(claims.only_what_was_in_flight_is_repeated) in violated(later)
    # It was begun when the first one had long been recorded, and froze before its first byte.
    recorded = replace(seen, faults=faults(("freeze", 4_000, 11_000)))
    assert name(claims.only_what_was_in_flight_is_repeated) in violated(recorded)


def test_a_frozen_worker_that_had_sent_nothing_may_leave_a_result_beside_its_successors():
    seen = doctored(faults=faults(("freeze", 3_000, 11_000)))
    timeout = result("int_a", 3, T + 11_010, started_ms=T + 2_999, outcome="exhausted", reason="timeout")
    seen.results.append(timeout)
    assert violated(seen) == set()
    seen = replace(seen, faults=faults(("freeze", 9_000, 17_000)))
    assert name(claims.one_outcome) in violated(seen)


@pytest.mark.parametrize(
    ("happened", "allowed"),
    [
        # Answered at 5,110.
        ([("kill", 5_105, 5_106)], True),
        ([("kill", 6_000, 6_001)], True),
        ([("kill", 6_200, 6_201)], False),
        ([("node", 5_105, 5_900)], True),
        ([("node", 6_200, 7_000)], False),
        # Nothing could be written meanwhile, or hardly.
        ([("node", 1_000, 4_000), ("kill", 7_000, 7_001)], True),
        ([("node", 1_000, 4_000), ("kill", 11_000, 11_001)], False),
        ([("node", -3_000, 0), ("kill", 7_000, 7_001)], False),
    ],
    ids=str,
)
def test_a_request_without_a_result_was_in_flight_at_a_crash_soon_after_its_answer(happened, allowed):
    seen = replace(unrecorded(), faults=faults(*happened))
    assert (name(claims.only_what_was_in_flight_is_repeated) not in violated(seen)) == allowed


def test_a_delivery_that_a_paused_integration_holds_needs_no_outcome():
    seen = without_result("int_strict", 5)
    seen.requests = [each for each in seen.requests if each[:2] != ("int_strict", "e5")]
    seen.lane_rows["int_strict"] = lane_row("int_strict", 1, place(EVENTS - 1))
    assert violated(seen) == {name(claims.one_outcome)}
    paused = state("int_strict", state="paused")
    by_the_breaker = {"published": {**seen.published, "int_strict": paused}, "folded": {**seen.folded, "int_strict": paused}}  # fmt: skip # noqa: E501
    assert violated(replace(seen, **by_the_breaker)) == set()
    by_somebody = [*seen.configured, Changed("int_strict", "paused", 2)]
    assert violated(replace(seen, configured=by_somebody)) == set()
    active_again = [*by_somebody, Changed("int_strict", "active", 3)]
    assert violated(replace(seen, configured=active_again)) == {name(claims.one_outcome)}


def test_what_comes_within_a_second_of_a_pause_or_after_its_end_may_be_sent():
    for seen in (
        paused(2_110, 3_100),
        paused(4_105),
        paused(2_110, 4_000, failed_ms=2_105),
        # To another integration.
        replace(paused(2_090), paused=[Paused("int_other", T + 1_000)]),
    ):
        assert violated(seen) == set()


@pytest.mark.parametrize(
    ("since_ms", "failed_ms", "target", "allowed"),
    [
        # Struck from 2,000 until 3,000; the first request that is late came at 3,100.
        (1_990, None, "dispatcher-1", True),
        (1_990, None, "node-1", True),
        (1_990, None, "admin", False),
        # A breaker that was struck explains that it published late, and not that somebody sends all the same.
        (3_050, 1_990, "breaker", True),
        (3_050, 1_990, "breaker-2", True),
        (3_050, 1_990, "ingest", False),
        (1_995, 1_990, "breaker", False),
    ],
)
def test_times_in_which_who_has_to_know_of_a_pause_was_struck_are_left_out(since_ms, failed_ms, target, allowed):
    fault = Happened("kill", target, T + 2_000, T + 2_001, T + 3_000)
    # The request at 2,100 came while the fault lasted.
    seen = paused(since_ms, 4_000, failed_ms, faults=[fault])
    assert (name(claims.nothing_starts_while_paused) not in violated(seen)) == allowed
    # It excuses a second, not what follows.
    assert name(claims.nothing_starts_while_paused) in violated(paused(since_ms, 4_101, failed_ms, faults=[fault]))


def test_what_had_begun_when_its_worker_froze_may_be_sent_when_it_wakes():
    freeze = Happened("freeze", "dispatcher-1", T + 2_950, T + 13_000, T + 15_000)
    seen = paused(2_945, faults=[freeze])
    gone = {("int_key", event(number)) for number in (3, 4, 5)}
    seen.requests = [each for each in seen.requests if each[:2] not in gone] + [request("int_key", 3, T + 13_010)]
    assert name(claims.nothing_starts_while_paused) not in violated(seen)
    assert [each.after_ms for each in sent_while_paused(seen)] == [5]


def test_lateness_leaves_out_the_time_in_which_deliveries_may_have_waited_for_a_fault():
    due_ms = T + 2_100
    assert [(late_ms, left_ms) for _, late_ms, left_ms in lateness(doctored(faults=[]))] == [(5, 0)]
    during = Happened("kill", "dispatcher-1", due_ms - 1_000, due_ms - 999, due_ms + 2)
    assert [(late_ms, left_ms) for _, late_ms, left_ms in lateness(doctored(faults=[during, during]))] == [(3, 2)]
    assert [judged_whole(doctored(faults=faults)) for faults in ([], [during])] == [1, 0]
    elsewhere = during._replace(target="ingest")
    assert judged_whole(doctored(faults=[elsewhere])) == 1
    assert in_flight(doctored(faults=[during])) > 0


def test_silence_is_the_longest_time_without_a_request_from_the_fault_until_all_is_ready():
    fault = Happened("kill", "dispatcher-1", T + 150, T + 151, T + 3_500)
    fewer = [each for each in well().requests if each[:2] != ("int_strict", "e2")]
    [silence] = silences(doctored(faults=[fault], requests=fewer), ("int_a", "int_strict"))
    assert (silence.fault, silence.integration, round(silence.seconds, 3)) == ("kill dispatcher-1", "int_strict", 2.0)


def test_who_gets_nothing_any_more_after_a_fault_was_silent_as_long_as_events_came():
    fault = Happened("kill", "dispatcher-1", T + 150, T + 151, T + 400)
    before = [each for each in well().requests if each.integration != "int_strict" or each.arrived_ms < T + 150]
    [silence] = silences(doctored(faults=[fault], requests=before), ("int_a", "int_strict"))
    assert (silence.integration, round(silence.seconds, 3)) == ("int_strict", 4.85)


def test_bounds_in_seconds_are_of_each_fault_and_its_longest_silence():
    happened = faults(("kill", 150, 151), ("stop", 150, 151))
    fewer = [each for each in well().requests if each[:2] != ("int_strict", "e1")]
    seen, steady = doctored(faults=[each._replace(settled_ms=T + 3_500) for each in happened], requests=fewer), ("int_a", "int_strict")  # fmt: skip # noqa: E501
    assert missed(Bounds(silent_s={"kill": 2.0, "stop": 2.0}), seen, steady) == []
    [late] = missed(Bounds(silent_s={"kill": 2.0, "stop": 1.9}), seen, steady)
    assert late == "after stop dispatcher-1 int_strict got nothing for 1.9 s, of at most 1.9"
    assert told(Bounds(silent_s={"kill": 2.0}), seen, steady) == [
        "ok  kill dispatcher-1: 1.9 s of at most 2 (int_strict)"
    ]
    # What was not measured was not kept.
    assert missed(Bounds(silent_s={"freeze": 9.0}), seen, steady) == ["there was no freeze to measure"]


def test_a_run_that_judged_no_retry_as_it_is_has_missed_its_least():
    during = Happened("kill", "dispatcher-1", T + 1_000, T + 1_001, T + 9_000)
    assert missed(Bounds(least_judged=1), doctored(faults=[]), ()) == []
    assert missed(Bounds(least_judged=1), doctored(faults=[during]), ()) == [
        "0 retries were judged with nothing taken off, of at least 1"
    ]


def test_a_run_whose_breaker_paused_nothing_has_missed_its_least():
    assert missed(Bounds(least_tripped=1), paused(2_110, 4_000, failed_ms=2_105), ()) == []
    assert missed(Bounds(least_tripped=1), paused(2_110), ()) == [
        "the breaker paused an integration 0 times, of at least 1"
    ]


def test_a_run_in_which_nobody_paused_any_more_has_missed_its_least():
    seen = doctored(destinations={**DESTINATIONS, "int_a": replace(DESTINATIONS["int_a"], is_paused_at_times=True)})
    assert missed(Bounds(least_pauses=1), seen, ()) == []
    assert missed(Bounds(least_pauses=2), seen, ()) == ["1 pauses were acknowledged, of at least 2"]
    assert missed(Bounds(least_pauses=1), replace(seen, destinations=DESTINATIONS), ()) != []
