"""Why is nothing arriving: the first fault is the reason that a person would find."""

import pytest

from services.console.why import Emitted, checks

SHOWN = {
    "status": "active",
    "statusReason": None,
    "events": ["call_ended"],
    "queueAgeMs": None,
    "lastDelivery": None,
    "successRate": None,
}
LAST = {
    "id": "dlv_1",
    "event": "call_ended",
    "outcome": "delivered",
    "status": 200,
    "attempt": 1,
    "at": "2026-01-02T03:04:05.000Z",
}
FINE = SHOWN | {"lastDelivery": LAST, "successRate": 1.0, "queueAgeMs": 12}
EMITTED = Emitted(60, {"call_ended": 3})


def faults(shown, emitted=None):
    return [check.question for check in checks(shown, emitted) if check.verdict == "fault"]


def test_where_all_is_well_every_check_is_fine():
    assert {check.verdict for check in checks(FINE, EMITTED)} == {"fine"}


def test_of_what_is_new_nothing_is_claimed():
    verdicts = [check.verdict for check in checks(SHOWN, None)]

    assert verdicts == ["fine", "fine", "unknown", "fine", "unknown", "unknown"]


@pytest.mark.parametrize(
    ("changes", "emitted", "reason"),
    [
        ({"status": "paused", "statusReason": "20 attempts in a row failed"}, EMITTED, "Is it paused?"),
        ({"events": []}, EMITTED, "Are events selected?"),
        ({}, Emitted(60, {}), "Does the app emit them?"),
        ({"events": ["call_started"]}, EMITTED, "Does the app emit them?"),
        ({"lastDelivery": LAST | {"outcome": "rejected", "status": 401}}, EMITTED, "What became of the last delivery?"),
        ({"lastDelivery": LAST | {"outcome": "blocked", "status": None}}, EMITTED, "What became of the last delivery?"),
        (
            {"lastDelivery": LAST | {"outcome": "exhausted", "status": None, "attempt": 3}},
            EMITTED,
            "What became of the last delivery?",
        ),
        ({"successRate": 0.0}, EMITTED, "How many arrive?"),
    ],
)
def test_each_reason_is_found_and_no_other(changes, emitted, reason):
    assert faults(FINE | changes, emitted)[:1] == [reason]
    assert {reason} >= set(faults(FINE | changes, emitted)) - {"Does the app emit them?"}


def test_every_fault_that_we_can_mend_has_a_button():
    shown = FINE | {
        "status": "paused",
        "statusReason": None,
        "events": [],
        "lastDelivery": LAST | {"outcome": "rejected"},
    }
    fixes = [check.fix.to for check in checks(shown, None) if check.fix]

    assert fixes == ["#activate", "/edit#events", "/why?look=1", "/edit#url"]


def test_all_events_selected_means_that_any_will_do():
    assert checks(FINE | {"events": ["*"]}, EMITTED)[2].verdict == "fine"
    assert checks(FINE | {"events": ["call_ended", "call_started"]}, EMITTED)[2].verdict == "doubt"
