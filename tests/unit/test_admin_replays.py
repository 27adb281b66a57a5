"""What may be asked of a replay, how it is cancelled and shown."""

import pytest

from services.admin.replays import DEFAULT_RATE, MAX_RATE, asked, cancelled, replay_json
from services.admin.rules import Refused
from services.runtime.problems import Problem
from tests.records import make_integration, make_replay

NOW_MS = 1_767_355_200_000  # 2026-01-02T12:00:00Z
CONFIG = make_integration()


def wanted(**body):
    return asked({"from": "2026-01-02T00:00:00Z"} | body, CONFIG, replay="rpl_1", who="anna", now_ms=NOW_MS)


def refused(**body) -> set[str]:
    """The fields that are refused."""
    with pytest.raises(Refused) as raised:
        wanted(**body)
    return {refusal.field for refusal in raised.value.refusals}


def test_it_goes_up_to_now_and_at_a_modest_rate_unless_told_otherwise():
    found = wanted()

    assert (found.until_ms - found.from_ms, found.until_ms) == (12 * 3_600_000, NOW_MS)
    assert (found.id, found.app, found.integration, found.asked_by) == ("rpl_1", "demo", "int_1", "anna")
    assert (found.rate, found.state, found.types, found.event_ids, found.generation) == (
        DEFAULT_RATE, "running", [], [], -1,
    )  # fmt: skip


def test_all_that_is_given_is_in_the_row():
    found = wanted(until="2026-01-02T06:00:00+01:00", types=["a", "b", "a"], eventIds=["e"], rate=5, dryRun=True)

    assert (found.until_ms - found.from_ms, found.types, found.event_ids, found.rate) == (
        5 * 3_600_000, ["a", "b"], ["e"], 5,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("body", "fields"),
    [
        ({"from": None}, {"from"}),
        ({"from": 5, "rate": 0}, {"from", "rate"}),
        ({"from": "yesterday"}, {"from"}),
        ({"from": "0001-01-01T00:00:00+14:00"}, {"from"}),
        ({"from": "1969-12-31T23:59:59Z"}, {"from"}),
        ({"until": "9999-12-31T23:59:59-14:00"}, {"until"}),
        ({"sample": 3}, {"sample"}),
        ({"until": "2026-01-02T12:00:00.001Z"}, {"until"}),
        ({"until": "2026-01-02T00:00:00Z"}, {"from"}),
        ({"rate": MAX_RATE + 1}, {"rate"}),
        ({"types": "a"}, {"types"}),
        ({"types": ["a", 5, ""]}, {"types.1", "types.2"}),
        ({"eventId": ["e"]}, {"eventId"}),
    ],
)
def test_what_cannot_be_is_refused_field_by_field(body, fields):
    assert refused(**body) == fields


def test_what_runs_is_cancelled_in_the_row_of_who_asks():
    progress = make_replay(generation=4, events_next=9, outcomes={"delivered": 3}, types=["a"], event_ids=["e"])
    row = cancelled(progress, who="ben", now_ms=7)

    assert row == make_replay(
        state="cancelled", types=["a"], event_ids=["e"], updated_by="ben", updated_at_ms=7, asked_by="anna"
    )


@pytest.mark.parametrize("state", ["done", "failed", "cancelled"])
def test_what_has_ended_cannot_be_cancelled(state):
    with pytest.raises(Problem) as problem:
        cancelled(make_replay(state=state), who="ben", now_ms=7)

    assert (problem.value.status, problem.value.code) == (409, "replay_ended")


def test_it_is_shown_in_camel_case_with_its_progress():
    replay = make_replay(
        until_ms=1_000,
        state="failed",
        reason="integration_deleted",
        reached_ms=5,
        outcomes={"rejected": 1, "delivered": 2},
    )

    assert replay_json(replay, 0.33333) == {
        "id": "rpl_1",
        "integration": "int_1",
        "from": "1970-01-01T00:00:00.000Z",
        "until": "1970-01-01T00:00:01.000Z",
        "types": None,
        "eventIds": None,
        "rate": 20,
        "status": "failed",
        "reason": "integration_deleted",
        "progress": {
            "share": 0.3333,
            "ended": 3,
            "outcomes": {"delivered": 2, "rejected": 1},
            "reachedAt": "1970-01-01T00:00:00.005Z",
        },
        "createdBy": "anna",
        "createdAt": "1970-01-01T00:00:00.000Z",
        "updatedAt": "1970-01-01T00:00:00.000Z",
    }
