"""Why is nothing arriving: the first fault is the reason that a person would find, with what mends it."""

import pytest

from services.console.why import MOST_ADDED, Emitted, checks, emits

SHOWN = {"status": "active", "statusReason": None, "events": ["call_ended"], "queueAgeMs": None, "successRate": None}
FINE = SHOWN | {"successRate": 1.0, "queueAgeMs": 12}
OFFERED = frozenset({"call_started", "call_ended", "widget_opened"})

PAUSED, SELECTED, REACHED, ANSWERED, WAITS, RATE = (
    "Is it paused?",
    "Are events selected?",
    "Can its address be reached?",
    "What became of the last delivery?",
    "Does something wait?",
    "How many arrive?",
)


def tried(outcome="delivered", reason="status_200", status=200, detail=None, number=1, wait=None):
    timing = {"waitMs": wait}
    attempt = {"number": number, "reason": reason, "status": status, "detail": detail, "timing": timing}
    at = "2026-01-02T03:04:05.000Z"
    return {"id": "dlv_1", "event": "call_ended", "outcome": outcome, "lastAt": at, "attempts": [attempt]}


REFUSED = tried("blocked", "address_refused", None, "the host leads to 10.0.0.7, a private address", 0)
REJECTED = tried("rejected", "status_401", 401)


def found(shown=FINE, last=None, held=0):
    return {check.question: check for check in checks(shown, held, last or tried())}


def faults(*given, **named):
    return [question for question, check in found(*given, **named).items() if check.verdict == "fault"]


def buttons(check):
    return [(fix.to, dict(fix.sends), fix.role) for fix in check.fixes if fix.sends is not None]


def test_where_all_is_well_every_check_is_fine():
    assert {check.verdict for check in found().values()} == {"fine"}
    assert emits(["call_ended"], Emitted(60, {"call_ended": 3}), OFFERED).verdict == "fine"


def test_of_what_is_new_nothing_is_claimed():
    verdicts = [check.verdict for check in checks(SHOWN, 0, None)]

    assert verdicts == ["fine", "fine", "unknown", "unknown", "fine", "unknown"]
    assert emits(["call_ended"], None, OFFERED).verdict == "unknown"


@pytest.mark.parametrize(
    ("changes", "last", "reasons"),
    [
        ({"status": "paused", "statusReason": "20 attempts in a row failed"}, tried(), [PAUSED]),
        ({"events": []}, tried(), [SELECTED]),
        ({}, REFUSED, [REACHED, ANSWERED]),
        ({}, tried("exhausted", "timeout", None, number=3), [REACHED, ANSWERED]),
        ({}, tried("exhausted", "timeout", None, number=3, wait=5_000.0), [ANSWERED]),
        ({}, tried("exhausted", "reset", None, number=3, wait=12.0), [ANSWERED]),
        ({}, tried("open", "dns_failed", None), [REACHED, ANSWERED]),
        ({}, REJECTED, [ANSWERED]),
        ({}, tried("exhausted", "status_503", 503, number=3), [ANSWERED]),
        ({}, tried("blocked", "secret_unknown", None, "there is no secret token", 0), [ANSWERED]),
        ({"successRate": 0.0}, tried(), [RATE]),
    ],
)
def test_each_reason_is_found_and_no_other(changes, last, reasons):
    assert faults(FINE | changes, last) == reasons


def test_a_pause_is_ended_with_one_button_for_each_choice():
    paused = FINE | {"status": "paused", "statusReason": None}

    assert buttons(found(paused)[PAUSED]) == [("/activate", {"held": "drain"}, "operator")]
    assert buttons(found(paused, held=7)[PAUSED]) == [
        ("/activate", {"held": "drain"}, "operator"),
        ("/activate", {"held": "skip"}, "operator"),
    ]
    assert "the 7 held" in found(paused, held=7)[PAUSED].fixes[0].label


def test_what_was_refused_can_be_sent_again_and_what_is_open_cannot():
    again = ("/deliveries/dlv_1/retry", {}, "operator")

    assert buttons(found(last=REJECTED)[ANSWERED]) == [again]
    assert found(last=REJECTED)[ANSWERED].fixes[0].to == "/deliveries/dlv_1"
    assert "10.0.0.7" in found(last=REFUSED)[REACHED].answer
    assert buttons(found(last=REFUSED)[REACHED]) == [("/test", {}, "operator")]
    assert again not in buttons(found(last=tried("open", "status_503", 503))[ANSWERED])


def test_an_event_that_is_emitted_and_not_selected_is_added_with_a_button():
    check = emits(["call_ended"], Emitted(60, {"call_started": 3, "of_a_server": 1}), OFFERED)

    assert (check.verdict, buttons(check)) == ("fault", [("/select", {"event": "call_started"}, "admin")])
    assert emits([], Emitted(60, {}), OFFERED).verdict == "fault"
    many = {f"type_{number}": 1 for number in range(100)}
    assert len(emits([], Emitted(60, many), frozenset(many)).fixes) == MOST_ADDED


def test_all_events_selected_means_that_any_will_do():
    emitted = Emitted(60, {"call_ended": 3})

    assert found(FINE | {"events": ["*"]})[SELECTED].verdict == "fine"
    assert emits(["*"], emitted, OFFERED).verdict == "fine"
    assert emits(["call_ended", "call_started"], emitted, OFFERED).verdict == "doubt"
    assert "among the first 3" in emits(["*"], Emitted(60, {"call_ended": 3}, is_all=False), OFFERED).answer
