"""What templates make of events: values stay values, and whatever goes wrong is a fault that shows no value."""

import json

import pytest

from services.body.envelope import envelope, iso_ms
from services.body.rendering import body, preview
from services.body.template import Fault
from tests.records import make_delivery

NOW_MS = 1_763_788_763_042
AT = "2025-11-22T05:19:23.042Z"
PAYLOAD = {
    "callId": "call_1",
    "durationS": 42,
    "price": 1.5,
    "live": True,
    "none": None,
    "quote": 'He said "no"\\\n\t\u2028é\U0001f600',
    "items": [{"title": "a", "n": 2}, {"title": "b", "n": 1}, {"title": None}],
    "a b": {"size": "own"},
    "at": "2026-01-02T03:04:05+02:00",
}


def made(template, payload=PAYLOAD, **changes):
    delivery = make_delivery(payload=json.dumps(payload).encode(), **changes)
    return body(delivery, "integration", template, attempt=delivery.attempt, at=AT)


def value(expression, payload=PAYLOAD):
    """What an expression is, as JSON says it."""
    written = made(f"{{{{ {expression} }}}}", payload)
    assert isinstance(written, bytes), written
    return json.loads(written)


def test_slack_gets_what_slack_wants():
    text = '{"text": "Call {{ payload.callId }} ended after {{ payload.durationS }} s"}'
    assert made(text) == b'{"text": "Call call_1 ended after 42 s"}'


def test_a_template_sees_the_event_and_the_attempt():
    names = ["event", "id", "appId", "occurredAt", "deliveredAt", "attempt"]
    written = made("[" + ",".join(f"{{{{ {name} }}}}" for name in names) + "]", attempt=3)
    assert json.loads(written) == ["call_ended", "evt_1", "demo", "2023-11-14T22:13:20.000Z", AT, 3]


@pytest.mark.parametrize("profile", ["integration", "booking"])
def test_without_a_template_it_is_the_profiles_own(profile):
    delivery = make_delivery()
    assert body(delivery, profile, None, attempt=2, at=AT) == envelope(delivery, profile, attempt=2, at=AT)


def test_a_booking_is_rendered_as_any_event():
    delivery = make_delivery(type="scheduled.created", payload=b'{"scheduled_call": {"id": "b"}}')
    template = '{"text": "{{ event }} {{ payload.scheduled_call.id }}"}'
    assert body(delivery, "booking", template, attempt=1, at=AT) == b'{"text": "scheduled.created b"}'


class TestValues:
    @pytest.mark.parametrize("name", [name for name in PAYLOAD if name != "a b"])
    def test_outside_a_string_every_value_is_itself(self, name):
        assert value(f"payload.{name}") == PAYLOAD[name]
        assert value(f"payload.{name} | json") == PAYLOAD[name]

    def test_inside_a_string_a_text_is_escaped(self):
        assert json.loads(made('{"a": "<{{ payload.quote }}>"}')) == {"a": f"<{PAYLOAD['quote']}>"}

    @pytest.mark.parametrize(
        ("name", "text"), [("none", ""), ("nope", ""), ("nope.deeper", ""), ("live", "true"), ("price", "1.5")]
    )
    def test_inside_a_string_the_rest_is_text(self, name, text):
        assert json.loads(made(f'"{{{{ payload.{name} }}}}"')) == text

    def test_inside_a_string_an_object_is_its_json(self):
        assert json.loads(made('"{{ payload["a b"] }} {{ payload.callId | json }}"')) == '{"size":"own"} "call_1"'

    def test_a_value_cannot_add_a_field(self):
        hostile = '", "channel": "#ceo'
        for template in (
            '{"text": "{{ payload.x }}"}',
            '{"text": {{ payload.x }}}',
            '{"text": {{ payload.x | json }}}',
        ):
            assert json.loads(made(template, {"x": hostile})) == {"text": hostile}

    def test_a_value_behind_a_backslash_is_refused_since_it_could_end_the_string(self):
        assert made('{"text": "\\{{ payload.x }}"}', {"x": 'a", "b": "c'}) == Fault(1, "a value follows a backslash")

    def test_a_backslash_that_is_escaped_is_none(self):
        assert json.loads(made('"\\\\{{ payload.x }}"', {"x": '"'})) == '\\"'

    def test_what_is_captured_is_a_text(self):
        template = '{% capture a %}"{{ payload.quote }}", {% endcapture %}[{{ a }}, "{{ a }}"]'
        assert json.loads(made(template)) == [f'"{PAYLOAD["quote"]}", '] * 2

    def test_raw_text_is_left_alone(self):
        assert made('{% raw %}{"a": "{{ x }}{% if %}"}{% endraw %}') == b'{"a": "{{ x }}{% if %}"}'

    def test_dashes_take_white_space_away(self):
        assert made("[1 {%- if event -%}  , 2  {%- endif -%} ]") == b"[1, 2]"

    def test_the_body_has_no_white_space_around_it_and_keeps_that_inside(self):
        assert made('\n {"a":\n 1}\n') == b'{"a":\n 1}'


class TestLanguage:
    @pytest.mark.parametrize(
        ("expression", "expected"),
        [
            ("payload.items.size", 3),
            ("payload.items[0].title", "a"),
            ("payload.items.last", {"title": None}),
            ('payload["a b"].size', "own"),
            ("payload.items | map: 'title'", ["a", "b", None]),
            ("payload.items | map: 'title' | join: '-'", "a-b-"),
            ("payload.items | where: 'n', 1 | first", {"title": "b", "n": 1}),
            ("payload.items | sum: 'n'", 3),
            ("payload.items | size", 3),
            ("payload.callId | slice: 0, 4 | upcase | append: '!'", "CALL!"),
            ("payload.nope | default: 'somebody'", "somebody"),
            ("payload.live | append: ''", "true"),
            ("payload.nope | append: payload.none", ""),
            ("payload.durationS | divided_by: 60.0 | round: 1", 0.7),
            ("payload.durationS | times: 2 | plus: 1", 85),
            ("'7' | plus: 1", 8),
            ("'a,b' | split: ',' | reverse", ["b", "a"]),
            ("'aXbX' | replace: 'X', 'yy'", "ayybyy"),
            ("'<b>' | escape", "&lt;b&gt;"),
            ("'a b/ü' | url_encode", "a+b%2F%C3%BC"),
            ("'one two three' | truncatewords: 2", "one two..."),
            ("payload.at | date: '%Y-%m-%d %H:%M:%S'", "2026-01-02 01:04:05"),
            (
                "0 | date: '%A, %e %B %Y %I %p %j %y %b %a %s %%%d'",
                "Thursday,  1 January 1970 12 AM 001 70 Jan Thu 0 %01",
            ),
            ("payload.none | date: '%Y'", ""),
        ],
    )
    def test_an_expression_is(self, expression, expected):
        assert value(expression) == expected

    def test_a_list_is_written_with_a_loop(self):
        template = (
            '[{% for item in payload.items limit: 2 %}"{{ forloop.index }} {{ item.title }}"'
            "{% unless forloop.last %},{% endunless %}{% endfor %}]"
        )
        assert json.loads(made(template)) == ["1 a", "2 b"]

    def test_a_case_takes_one_of_several(self):
        template = '{% case event %}{% when "a", "call_ended" %}1{% else %}2{% endcase %}'
        assert (made(template), made(template, type="other")) == (b"1", b"2")

    @pytest.mark.parametrize("name", ["a", "now", "today"])
    def test_what_was_assigned_in_a_branch_not_taken_is_nil(self, name):
        """Also where the library has something of that name, which the clock says."""
        template = f"{{% if payload.nope %}}{{% assign {name} = 1 %}}{{% endif %}}{{{{ {name} }}}}"
        assert made(template) == b"null"

    def test_it_is_the_same_every_time(self):
        template = '{"a": "{{ occurredAt | date: "%s" }}", "b": {{ payload }}}'
        assert made(template) == made(template)


class TestFaults:
    @pytest.mark.parametrize(
        ("template", "line", "said"),
        [
            ("", None, "nothing is written"),
            ("{% if payload.nope %}1{% endif %}", None, "nothing is written"),
            ('{"a":\n\n}', 3, "not JSON"),
            ('{"a":\n{% for i in payload.items %}\n{{ i.title }}\n{% endfor %}}', 3, "not JSON"),
            ('{"a": 1}\n{{ payload.live }}', 2, "not JSON"),
            ('{"a": 1', 1, "not JSON"),
            ("hello {{ event }}", 1, "not JSON"),
            ("1\n{{ payload.durationS | divided_by: 0 }}", 2, "the filter divided_by cannot work"),
            ("\n{{ payload.callId | date: '%Y' }}", 2, "cannot read this as a time"),
            ("{{ payload.durationS | date: '%N' }}", 1, "knows no such directive"),
            ("{{ payload.durationS | date }}", 1, "the filter date cannot work"),
            ("{{ payload.callId | sort: 1, 2 }}", 1, "the filter sort cannot work"),
            ("{{ payload.items | sort }}", 1, "the filter sort cannot work"),
            ("{{ payload.items | plus: 1 }}", 1, "takes numbers"),
            ("{{ payload.durationS | plus: payload.live }}", 1, "takes numbers"),
            ("{{ payload.callId | compact: 'secret-callId' }}", 1, "the filter compact cannot work"),
            ("{% if payload.durationS > payload.callId %}{% endif %}", 1, "different kinds are compared"),
            ("{% for i in payload.items %}{{ forloop }}{% endfor %}", 1, "no value that can be written"),
            ("\n{% break %}", 2, "outside a loop"),
            ("{% for i in payload.items limit: payload.callId %}{% endfor %}", 1, "different kinds"),
        ],
    )
    def test_what_goes_wrong_is_said_with_its_line_and_without_a_value(self, template, line, said):
        fault = made(template)
        assert isinstance(fault, Fault)
        assert said in fault.detail
        assert fault.line == line
        assert "call_1" not in str(fault)
        assert "secret-callId" not in str(fault)

    @pytest.mark.parametrize(
        "payload",
        [b'{"n": 1e400}', b'"\\ud83d"', b"[" * 5_000 + b"]" * 5_000, b'{"a": ' + b"[" * 990 + b"]" * 990 + b"}"],
    )
    def test_a_payload_that_cannot_be_read_is_a_fault(self, payload):
        fault = body(make_delivery(payload=payload), "integration", "{{ payload }}", attempt=1, at=AT)
        assert isinstance(fault, Fault)

    def test_a_body_may_have_the_largest_size_and_no_byte_more(self):
        assert len(made('"{{ payload.x }}"', {"x": "a" * 65_534})) == 65_536
        assert made('"{{ payload.x }}"', {"x": "a" * 65_535}) == Fault(1, "more than 65536 bytes are written")


class TestPreview:
    def test_it_is_the_body_of_a_first_attempt(self):
        assert preview(make_delivery(attempt=5), "integration", "{{ attempt }}", at_ms=NOW_MS) == b"1"
        assert preview(make_delivery(), "booking", None, at_ms=NOW_MS).startswith(
            b'{"event":"call_ended","deliveredAt"'
        )

    def test_a_template_that_fails_is_its_fault(self):
        assert preview(make_delivery(), "integration", "{{ nope }}", at_ms=NOW_MS).line == 1

    def test_an_envelope_that_is_too_large_is_a_fault(self):
        large = make_delivery(payload=b'"' + b"a" * 65_536 + b'"')
        assert "65536 at most" in preview(large, "integration", None, at_ms=NOW_MS).detail


def test_times_of_the_envelope_are_those_of_templates():
    assert json.loads(envelope(make_delivery(), "integration", attempt=1, at=iso_ms(NOW_MS)))["deliveredAt"] == AT
