"""docs/templates.md says what templates are: its examples work, its names, tags, filters and limits are the code's."""

import json
import re
from pathlib import Path

import pytest

from schemas.profiles import MAX_BODY_BYTES, MAX_TEMPLATE_BYTES
from services.body import filters, lexing, metering, template
from services.body.rendering import body
from services.body.trial import template_fault
from tests.records import make_delivery

PAGE = (Path(__file__).parents[2] / "docs" / "templates.md").read_text(encoding="utf-8")
EXAMPLES = re.findall(r"^```liquid\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)


def cells(first):
    """The second cell of the table row that begins so."""
    return re.search(rf"^\| {re.escape(first)} \| (.*) \|$", PAGE, re.MULTILINE)[1]


def test_every_name_is_there_and_no_other():
    assert set(re.findall(r"^\| `(\w+)` \|", PAGE, re.MULTILINE)) == template.NAMES


def test_every_filter_is_there_and_no_other():
    named = " ".join(cells(row) for row in ("filters on text", "on numbers", "on arrays", "on anything"))
    assert sorted(re.findall(r"`(\w+)`", named)) == sorted(filters.FILTERS)


def test_every_directive_is_there_and_no_other():
    named = re.search(r"knows `(%.*?)`", PAGE)[1]
    assert sorted(named.split()) == sorted(f"%{each}" for each in filters._DIRECTIVES)


def test_every_tag_is_there_and_those_left_out_are_not():
    tags = {
        name for name in template._LANGUAGE.tags if name.isidentifier() and name not in ("content", "output", "illegal")
    }
    inside = {"elsif", "else", "when", "limit", "offset", "reversed", "forloop"}
    assert set(re.findall(r"`([\w#]+)`", cells("tags"))) == tags | inside | {"comment", "raw", "#"}
    left_out = re.search(r"the tags (.*?) are not there", PAGE)[1]
    assert not tags & set(re.findall(r"`(\w+)`", left_out))


def test_every_limit_is_the_codes():
    assert f"{MAX_TEMPLATE_BYTES:,} bytes" in cells("a template")
    assert f"{lexing.MAX_EXPRESSION_CHARS:,} characters between" in cells("a template")
    assert f"blocks {template._LANGUAGE.block_nesting_limit} deep" in cells("a template")
    assert f"expressions {template.MAX_EXPRESSION_DEPTH}" in cells("a template")
    assert f"{MAX_BODY_BYTES:,} bytes" == cells("a body")
    assert f"{metering.MAX_CHARS:,} characters or entries" == cells("a text or an array on the way")
    assert str(metering.MAX_NAMES) == cells("names given by `assign` and `capture`")
    assert f"{metering.MAX_STEPS:,} steps" in cells("a rendering")


@pytest.mark.parametrize("number", range(len(EXAMPLES)))
def test_every_example_may_be_configured(number):
    assert template_fault(EXAMPLES[number], "integration", "demo", ["*"]) is None


def made(number, payload, event_type="call_ended"):
    delivery = make_delivery(type=event_type, payload=json.dumps(payload).encode())
    return json.loads(body(delivery, "integration", EXAMPLES[number], attempt=1, at="1970-01-01T00:00:00.000Z"))


def test_the_first_example_gives_what_the_page_says():
    event, given = re.search(r"^Of `(.*)` it makes\n\n```json\n(.*?)\n```", PAGE, re.MULTILINE | re.DOTALL).groups()
    assert made(0, json.loads(event)["payload"]) == json.loads(given)


def test_the_slack_example_calls_nobody_whatever_a_visitor_is_called():
    payload = {
        "callId": "c",
        "durationS": 4,
        "visitor": {"name": '<!channel> & "co"'},
        "recordingUrl": "https://a.example",
    }
    written = made(1, payload)
    assert written["text"] == '&lt;!channel&gt; &amp; "co" ended call c after 4 s'
    assert [block["type"] for block in written["blocks"]] == ["section", "actions"]
    assert made(1, {"callId": "c"})["text"] == "Somebody ended call c after  s"
    assert [block["type"] for block in made(1, {})["blocks"]] == ["section"]


def test_the_examples_of_teams_and_discord_have_what_those_want():
    teams = made(2, {"callId": "c"})["attachments"][0]
    assert teams["contentType"] == "application/vnd.microsoft.card.adaptive"
    assert teams["content"]["body"][1]["facts"][1] == {"title": "At", "value": "14 Nov 2023, 22:13 UTC"}
    assert len(made(3, {"callId": "c", "note": "n" * 9_000})["content"]) < 2_000


def test_the_last_example_has_a_body_for_every_type():
    assert made(4, {"scheduled_call": {"id": "b"}}, "scheduled.created") == {"action": "upsert", "booking": {"id": "b"}}
    assert made(4, {"items": [{"title": "a"}, {"title": "b"}]})["lines"] == ["1. A", "2. B"]
    assert made(4, None, "widget_opened") == {"action": "ignore", "event": "widget_opened"}
