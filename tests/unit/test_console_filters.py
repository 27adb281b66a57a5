"""A form's fields become a question to the history."""

import pytest

from services.console.filters import asked
from services.history.query import Wanted
from services.runtime.problems import Problem


def test_an_empty_form_asks_for_all():
    found = asked({"outcome": "", "type": " ", "since": ""}, "demo")

    assert (found.wanted, found.is_filtered, found.query) == (Wanted(app="demo"), False, "")


def test_every_field_is_asked_for_and_stands_in_the_form_again():
    query = {
        "integration": "int_1",
        "outcome": "open",
        "type": "call_ended",
        "cause": "test",
        "event": " evt_1 ",
        "since": "2026-01-02T03:04",
        "until": "2026-01-02T03:04:05",
    }
    found = asked(query, "demo")

    assert found.wanted == Wanted(
        app="demo",
        integration="int_1",
        outcome="open",
        type="call_ended",
        cause="test",
        event="evt_1",
        since_ms=1_767_323_040_000,
        until_ms=1_767_323_045_000,
    )
    assert found.typed == query | {"event": "evt_1"}
    assert found.query.startswith("integration=int_1&outcome=open")
    assert found.is_filtered


def test_an_integration_s_page_asks_for_no_other():
    found = asked({"integration": "int_2"}, "demo", "int_1")

    assert (found.wanted.integration, found.is_filtered) == ("int_1", False)


@pytest.mark.parametrize(
    "query", [{"outcome": "nope"}, {"cause": "x"}, {"since": "soon"}, {"until": "2026-13-01T00:00"}]
)
def test_what_the_form_does_not_send_is_refused_by_name(query):
    with pytest.raises(Problem) as refused:
        asked(query, "demo")

    assert (refused.value.code, refused.value.extensions["field"]) == ("invalid_query", next(iter(query)))
