"""The proof: one event for two integrations, with what follows from it, and what is wrong with it."""

import pytest

from services.cli.reconcile.proof import DeliveriesProof, EventsProof, Open, Pairs, Report, Span, packed
from streams.records import HandOver, LaneRow, Marker, OpenDelivery
from tests.logs import make_event
from tests.reconciling import INTEGRATIONS, delivery_of, make_receipt, result_of

EVENTS = "t.events"
AT = 40
EVENT = make_event(accepted_at_ms=5_000)
RECEIPT = make_receipt(EVENT, 0, AT)
DELIVERIES = [delivery_of(EVENT, RECEIPT, integration) for integration in INTEGRATIONS]
RESULTS = [result_of(delivery) for delivery in DELIVERIES]


def marker(generation):
    return Marker(source_topic=EVENTS, source_partition=0, generation=generation, owner="w", at_ms=0)


def proved(
    *,
    receipts=(RECEIPT,),
    deliveries=tuple(DELIVERIES),
    results=tuple(RESULTS),
    events=((AT, EVENT),),
    fanned_out=AT + 1,
    finished=2,
    put_aside=(),
    retrying=(),
    quarantined=(),
    rows=(),
    first=0,
    kept=(0, AT + 10),
    span=None,
):
    """Deliveries and results stand from offset 0 on, in the order given; notes of workers may stand among them."""
    span, report, pairs = span or Span(), Report(), Pairs(1)
    one = EventsProof(
        0, AT, AT + 10, committed=fanned_out, quarantined=put_aside, events=EVENTS, report=report, span=span
    )
    for offset, event in events:
        one.see_event(offset, event, 5_000)
    for each in receipts:
        if isinstance(each, Marker):
            one.see_marker(each)
        else:
            for integration in one.see_receipt(each):
                pairs.add(0, each, integration)
    one.end()
    known = Open(
        committed=finished,
        rows={row.integration: row for row in rows},
        retrying={packed(each.delivery_id) for each in retrying},
        quarantined={packed(each.delivery_id) for each in quarantined},
    )
    two = DeliveriesProof(
        0,
        pairs=pairs,
        known=known,
        fanned_out={0: fanned_out},
        kept={0: kept},
        put_aside={0: put_aside},
        span_of_deliveries=(first, 10),
        events=EVENTS,
        report=report,
        span=span,
    )
    for offset, each in enumerate(deliveries):
        if isinstance(each, Marker):
            two.see_marker(each)
        else:
            two.see_delivery(offset, each)
    for offset, each in enumerate(results):
        if isinstance(each, Marker | HandOver):
            two.see_note(each)
        else:
            two.see_result(offset, each)
    two.end()
    assert report.pairs == report.outcomes.total() + report.open + report.quarantined + report.missing
    return report


def found(report):
    return [(each.kind, each.integration, each.partition, each.offset) for each in report.findings]


def test_what_is_whole_is_proven():
    report = proved()

    assert report.is_proven
    assert (report.accepted, report.fanned_out, report.pairs) == (1, 1, 2)
    assert report.outcomes == {"delivered": 2}


def test_a_missing_receipt_is_found_and_its_results_are_stray():
    report = proved(receipts=())

    assert found(report) == [
        ("no_receipt", None, 0, AT),
        ("stray_outcome", "int_a", 0, AT),
        ("stray_outcome", "int_b", 0, AT),
    ]


def test_a_missing_delivery_is_found_whether_it_has_a_result_or_not():
    without = proved(deliveries=DELIVERIES[1:], results=RESULTS[1:], finished=1)
    with_result = proved(deliveries=DELIVERIES[1:], finished=1)

    assert found(without) == found(with_result) == [("no_delivery", "int_a", 0, AT)]
    assert without.findings[0].delivery == DELIVERIES[0].delivery_id
    assert (without.missing, with_result.missing) == (1, 0)


def test_a_delivery_that_retention_took_after_its_result_is_not_missed():
    assert proved(deliveries=DELIVERIES[1:], finished=1, first=1).is_proven


def test_a_missing_result_is_found():
    assert found(proved(results=RESULTS[:1])) == [("no_outcome", "int_b", 0, AT)]


def test_an_attempt_that_was_not_the_last_is_no_outcome():
    failed = result_of(DELIVERIES[1], outcome=None, next_attempt=2)

    assert found(proved(results=[RESULTS[0], failed])) == [("no_outcome", "int_b", 0, AT)]


def test_a_second_outcome_is_found_and_the_first_one_counts():
    report = proved(results=[*RESULTS, result_of(DELIVERIES[0], attempt=2, outcome="exhausted")])

    assert found(report) == [("two_outcomes", "int_a", 0, AT)]
    assert report.outcomes == {"delivered": 2}


def test_a_result_that_a_producer_stored_twice_is_one():
    assert proved(results=[*RESULTS, RESULTS[0]]).is_proven


def owned(generation):
    """A worker's marker on the results."""
    return Marker(source_topic="t.deliveries", source_partition=0, generation=generation, owner="w", at_ms=0)


def handed(generation, source_offset=0):
    return HandOver(
        delivery_id=DELIVERIES[0].delivery_id, integration="int_a", attempt=1, source_partition=0,
        source_offset=source_offset, source_generation=generation, until_ms=9_000,
    )  # fmt: skip


def made_by(generation, **changes):
    """The outcome of the first delivery, as the owner of this generation wrote it."""
    return result_of(DELIVERIES[0], source_generation=generation, **{"started_at_ms": 5_000 + generation} | changes)


OTHER = RESULTS[1]
FROZEN, SUCCESSOR = made_by(5), made_by(6, outcome="rejected")


def said(report):
    """Of each late outcome: where it stands, and where the other one does."""
    return [(each.late.offset, each.other.offset) for each in report.late]


@pytest.mark.parametrize(
    ("results", "expected"),
    [
        # The frozen one wakes before its successor has made the attempt, and after.
        ([owned(5), OTHER, owned(6), FROZEN, SUCCESSOR], [(3, 4)]),
        ([owned(5), OTHER, owned(6), SUCCESSOR, FROZEN], [(4, 3)]),
        # What it says when it wakes, nobody has read who took over before.
        ([owned(5), OTHER, owned(6), handed(5), FROZEN, SUCCESSOR], [(4, 5)]),
        # Two that froze, one after the other, and a third that made it; stored twice as well.
        ([owned(5), OTHER, owned(6), owned(7), FROZEN, made_by(7), made_by(7), SUCCESSOR], [(4, 5), (7, 5)]),
        # A retry of the same delivery, made in another generation, ended it.
        ([owned(5), OTHER, owned(6), FROZEN, owned(8), made_by(8, attempt=2, source_offset=4)], [(3, 5)]),
    ],
)
def test_an_outcome_of_who_had_lost_the_partition_is_told_apart_and_proves_nothing_wrong(results, expected):
    report = proved(results=results)

    assert (report.is_proven, said(report), report.late_outcomes) == (True, expected, len(expected))
    assert report.outcomes.total() == 2, "one of each delivery: the first on the log"
    [*_, last] = report.late
    assert (last.partition, last.offset, last.integration) == (0, AT, "int_a")
    assert last.delivery == DELIVERIES[0].delivery_id


def test_a_late_outcome_is_named_with_both_results():
    [found] = proved(results=[owned(5), OTHER, owned(6), FROZEN, SUCCESSOR]).late

    assert (found.late.partition, found.late.generation, found.late.attempt, found.late.outcome) == (
        0, 5, 1, "delivered",
    )  # fmt: skip
    assert (found.other.generation, found.other.outcome) == (6, "rejected")


@pytest.mark.parametrize(
    "results",
    [
        # Nothing says that the first had lost it, or only afterwards.
        [OTHER, FROZEN, SUCCESSOR],
        [owned(5), OTHER, FROZEN, SUCCESSOR, owned(6)],
        [owned(5), OTHER, FROZEN, owned(6), SUCCESSOR],
        # It had handed the request over: its successor waits.
        [owned(5), OTHER, handed(5), owned(6), FROZEN, SUCCESSOR],
        [owned(5), OTHER, handed(5), owned(6), handed(5), owned(7), FROZEN, made_by(7)],
        # Two of one that had it.
        [owned(6), OTHER, SUCCESSOR, made_by(6, attempt=2)],
        [owned(6), OTHER, FROZEN, SUCCESSOR, made_by(6, attempt=2)],
        # A group that was deleted starts counting anew.
        [owned(9), OTHER, owned(1), FROZEN, made_by(1)],
    ],
)
def test_every_other_second_outcome_is_found(results):
    assert found(proved(results=results)) == [("two_outcomes", "int_a", 0, AT)]


def test_another_request_that_was_handed_over_counts_for_itself_alone():
    results = [owned(5), OTHER, handed(5, source_offset=7), owned(6), FROZEN, SUCCESSOR]

    assert said(proved(results=results)) == [(4, 5)]


def test_a_single_outcome_counts_whoever_wrote_it():
    report = proved(results=[owned(5), OTHER, owned(6), FROZEN])

    assert (report.is_proven, report.late, report.outcomes.total()) == (True, [], 2)


def test_retries_replays_and_tests_are_not_counted():
    again = delivery_of(EVENT, RECEIPT, "int_a", cause="retry", run="c", delivery_id="dlv_" + "0" * 32)

    assert proved(deliveries=[*DELIVERIES, again], results=[*RESULTS, result_of(again)], finished=3).is_proven


ROW = {"integration": "int_b", "app": "demo", "generation": 1, "reason": "paused", "held": 1}


@pytest.mark.parametrize(
    "how",
    [
        {"finished": 1},
        {"finished": None},
        {"retrying": [DELIVERIES[1]]},
        {"rows": [LaneRow(**ROW, frontier=1, open=[])]},
        {"rows": [LaneRow(**ROW, frontier=9, open=[OpenDelivery(offset=1, attempt=2)])]},
    ],
)
def test_what_waits_is_open(how):
    report = proved(results=RESULTS[:1], **how)

    assert (report.is_proven, report.open) == (True, 1)


@pytest.mark.parametrize(
    "row",
    [
        LaneRow(**ROW, frontier=2, open=[]),
        LaneRow(**ROW, frontier=0, open=[], until=1),
        LaneRow(**ROW | {"integration": "int_c"}, frontier=0, open=[]),
    ],
)
def test_a_row_holds_only_what_it_says(row):
    assert found(proved(results=RESULTS[:1], rows=[row])) == [("no_outcome", "int_b", 0, AT)]


def test_a_delivery_that_was_put_back_for_a_retry_is_open_until_it_is_taken():
    back = delivery_of(
        EVENT, RECEIPT, "int_b", attempt=2, retry_line="retry.5s", retry_partition=0, source_generation=0
    )
    standing = [DELIVERIES[0], DELIVERIES[1], marker(2), back]

    assert proved(deliveries=standing, results=RESULTS[:1], finished=3).open == 1
    assert found(proved(deliveries=standing, results=RESULTS[:1], finished=4)) == [("no_outcome", "int_b", 0, AT)]


def test_an_event_that_fan_out_has_not_finished_is_waiting_and_so_are_its_deliveries():
    early = proved(receipts=(), deliveries=(), results=(), fanned_out=AT)
    half = proved(deliveries=DELIVERIES[:1], results=RESULTS[:1], fanned_out=AT, finished=1)

    assert (early.is_proven, early.waiting) == (True, 1)
    assert (half.is_proven, half.open) == (True, 1)


def test_what_was_put_aside_is_counted_and_an_outcome_outweighs_it():
    event = proved(receipts=(), deliveries=(), results=(), put_aside={AT})
    unreadable = proved(events=[(AT, None)], receipts=(), deliveries=(), results=(), put_aside={AT})
    delivery = proved(results=RESULTS[:1], quarantined=DELIVERIES)

    assert (event.is_proven, event.quarantined_events) == (True, 1)
    assert (unreadable.is_proven, unreadable.quarantined_events) == (True, 1)
    assert (delivery.is_proven, delivery.quarantined, delivery.outcomes.total()) == (True, 1, 1)


def test_an_event_that_was_put_aside_after_its_receipt_was_written_is_quarantined():
    none = proved(put_aside={AT}, deliveries=(), results=(), finished=0)
    one = proved(put_aside={AT}, deliveries=DELIVERIES[:1], results=RESULTS[:1], finished=1)

    assert (none.is_proven, none.fanned_out, none.quarantined_events) == (True, 0, 1)
    assert (none.pairs, none.quarantined) == (2, 2)
    assert (one.is_proven, one.quarantined_events, one.quarantined, one.outcomes.total()) == (True, 1, 1, 1)
    lost = proved(put_aside={AT}, deliveries=DELIVERIES[:1], results=(), finished=1)
    assert found(lost) == [("no_outcome", "int_a", 0, AT)], "what was appended of it goes on as ever"


AGAIN = make_receipt(EVENT, 0, AT + 1)
DELIVERED_AGAIN = [delivery_of(EVENT, AGAIN, integration) for integration in INTEGRATIONS]
#: Of an event that was put aside and put back: it stands a second time.
BACK = {
    "events": ((AT, EVENT), (AT + 1, EVENT)), "receipts": (RECEIPT, AGAIN), "put_aside": {AT}, "fanned_out": AT + 2,
}  # fmt: skip


def test_an_event_that_was_put_back_counts_once():
    report = proved(**BACK, deliveries=DELIVERED_AGAIN, results=[result_of(each) for each in DELIVERED_AGAIN])

    assert (report.is_proven, report.accepted, report.fanned_out, report.quarantined_events) == (True, 2, 1, 1)
    assert (report.pairs, report.outcomes, report.quarantined) == (2, {"delivered": 2}, 0)
    waits = proved(**BACK | {"fanned_out": AT + 1}, deliveries=(), results=(), finished=0)
    assert (waits.is_proven, waits.open, waits.pairs) == (True, 2, 2)
    lost = proved(**BACK, deliveries=DELIVERED_AGAIN[:1], results=RESULTS[:1], finished=1)
    assert found(lost) == [("no_delivery", "int_b", 0, AT + 1)]


def test_what_was_appended_of_an_event_before_it_was_put_aside_may_have_an_outcome_of_its_own():
    deliveries = [DELIVERIES[0], *DELIVERED_AGAIN]
    again = [result_of(each, source_offset=1, started_at_ms=9_000) for each in DELIVERED_AGAIN]

    report = proved(**BACK, deliveries=deliveries, results=[RESULTS[0], *again], finished=3)
    thrice = proved(**BACK, deliveries=deliveries, results=[RESULTS[0], *again, made_by(9)], finished=3)

    assert (report.is_proven, report.outcomes.total()) == (True, 2)
    assert found(thrice) == [("two_outcomes", "int_a", 0, AT + 1)]
    unasked = proved(**BACK | {"put_aside": ()}, deliveries=deliveries, results=[RESULTS[0], *again], finished=3)
    assert found(unasked) == [("two_outcomes", "int_a", 0, AT + 1)]


def test_the_first_receipt_counts():
    later = make_receipt(EVENT, 0, AT, integrations=["int_c"])

    assert proved(receipts=[RECEIPT, later]).pairs == 2


def test_a_receipt_of_another_event_at_the_same_offset_is_none_of_this_one():
    """As where a partition lost its records, and grew beyond what had been read of it before anybody looked."""
    lost = make_event(1, accepted_at_ms=5_000)
    receipt = make_receipt(lost, 0, AT)
    deliveries = [delivery_of(lost, receipt, integration) for integration in INTEGRATIONS]

    report = proved(receipts=[receipt], deliveries=deliveries, results=[result_of(each) for each in deliveries])

    assert not report.is_proven
    assert ("no_receipt", None, 0, AT) in found(report)


def test_an_event_that_cannot_be_read_here_may_have_any_receipt():
    assert proved(events=[(AT, None)], span=Span(5_000, 5_001)).is_proven


def test_what_a_replaced_fan_out_appended_late_does_not_count():
    late = make_receipt(EVENT, 0, AT, integrations=["int_c"])
    theirs = make_receipt(EVENT, 0, AT, source_generation=2)
    assert proved(receipts=[marker(2), late, theirs]).pairs == 2

    report = proved(deliveries=[DELIVERIES[0], marker(2), DELIVERIES[1]], results=RESULTS[:1], finished=3)
    assert found(report) == [("no_delivery", "int_b", 0, AT)]


def test_a_repeat_of_an_event_id_selects_nobody():
    report = proved(
        receipts=[make_receipt(EVENT, 0, AT, integrations=[], repeat_of="rec_0")], deliveries=(), results=()
    )

    assert (report.is_proven, report.repeats, report.pairs) == (True, 1, 0)


def test_only_what_was_accepted_in_the_range_is_counted():
    assert proved(span=Span(5_000, 5_001)).pairs == 2
    assert (proved(span=Span(5_001)).accepted, proved(span=Span(0, 5_000)).accepted) == (0, 0)
    assert proved(span=Span(5_001)).is_proven


def other(offset, **changes):
    """A delivery that no receipt led to, of the event at that offset."""
    return delivery_of(EVENT, make_receipt(EVENT, 0, offset), "int_z", delivery_id="dlv_" + "1" * 32, **changes)


def test_an_outcome_of_nowhere_is_stray():
    assert found(proved(results=[*RESULTS, result_of(other(AT))])) == [("stray_outcome", "int_z", None, None)]


@pytest.mark.parametrize("how", [{"first": 1}, {"kept": (1, AT + 10)}, {"span": Span(5_000, 5_001)}])
def test_an_outcome_whose_delivery_or_event_may_be_out_of_retention_or_range_is_not_stray(how):
    late = result_of(other(AT, accepted_at_ms=9_000))

    assert proved(results=[*RESULTS, late], **how).is_proven


def test_an_outcome_of_an_event_that_came_while_the_log_was_read_is_not_stray():
    with_delivery = other(AT + 10)
    assert proved(deliveries=[*DELIVERIES, with_delivery], results=[*RESULTS, result_of(with_delivery)]).is_proven
    assert proved(results=[*RESULTS, result_of(other(AT + 10), source_offset=10)]).is_proven


def test_a_thousand_findings_are_kept_and_all_are_counted():
    events = [(AT + number, EVENT) for number in range(10)]
    report = Report()
    proof = EventsProof(0, 0, 5_000, committed=9_999, quarantined=(), events=EVENTS, report=report, span=Span())
    for offset in range(5_000):
        proof.see_event(offset, events[0][1], 0)
    proof.end()

    assert (len(report.findings), report.counts) == (1_000, {"no_receipt": 5_000})
