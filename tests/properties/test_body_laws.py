"""
Laws of templates: any text is a template or a fault; a template makes JSON of any event, or a fault; and no event
changes the shape of what is made.
"""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from liquid.exceptions import LiquidSyntaxError
from liquid.lex import get_lexer
from liquid.token import TOKEN_CONTENT

from schemas.profiles import MAX_BODY_BYTES
from services.body.filters import FILTERS
from services.body.lexing import lexed
from services.body.rendering import body
from services.body.template import Fault, parsed
from services.body.trial import template_fault
from tests.records import make_delivery

pytestmark = pytest.mark.timeout(120)

NAMES = ["event", "payload", "payload.a", "payload.b.c", "payload.l", "payload.l[0]", "payload.l.first", "attempt", "x"]
LITERALS = ["1", "-2", "1.5", "'a'", '"b,c"', "nil", "true", "empty", "blank", "'%Y'", "100000000000000000000"]
PIECES = [
    "{{", "}}", "{%", "%}", "{%-", "-}}", " ", "\n", '"', "\\", "{", "}", "[", "]", ":", ",", "|", "(", "..", ")", "'",
    "if", "endif", "for", "in", "endfor", "assign", "=", "capture", "endcapture", "case", "when", "raw", "endraw",
    "comment", "endcomment", "else", "elsif", "unless", "endunless", "break", "#", "and", "==", "contains", ".",
    *NAMES, *LITERALS, *FILTERS,
]  # fmt: skip

primitives = st.sampled_from(NAMES + LITERALS)
filtered = st.builds(
    lambda left, filters: (
        left + "".join(f" | {name}{': ' if given else ''}{', '.join(given)}" for name, given in filters)
    ),
    primitives,
    st.lists(st.tuples(st.sampled_from(sorted(FILTERS)), st.lists(primitives, max_size=2)), max_size=3),
)
outputs = filtered.map("{{{{ {} }}}}".format)
conditions = st.builds(
    "{} {} {}".format, primitives, st.sampled_from(["==", "!=", "<", ">=", "contains", "and"]), primitives
)
texts = st.sampled_from(['"', "1", "", ",", '{"a": ', "}", "[", "]", "\\", "null", " "])
blocks = st.recursive(
    st.one_of(outputs, texts, filtered.map("{{% assign x = {} %}}".format), st.just("{% break %}")),
    lambda inner: st.one_of(
        st.lists(inner, max_size=4).map("".join),
        st.builds("{{% if {} %}}{}{{% else %}}{}{{% endif %}}".format, conditions, inner, inner),
        st.builds("{{% for x in {} %}}{}{{% endfor %}}".format, primitives, inner),
        st.builds("{{% capture x %}}{}{{% endcapture %}}".format, inner),
        st.builds("{{% case {} %}}{{% when {} %}}{}{{% endcase %}}".format, primitives, primitives, inner),
        st.builds('{{"a": {}, "b": "{}"}}'.format, inner, inner),
    ),
    max_leaves=8,
)
#: Those that only make what they are given; others fail as soon as anything is wrong.
written = blocks.map("{{% assign x = 1 %}}{}".format)
templates = st.one_of(written, st.lists(st.sampled_from(PIECES), max_size=25).map("".join), st.text())
#: Of which templates consist, without what only our lexer is done with: comments, raw text.
tokens = st.lists(
    st.sampled_from(
        ["{{", "}}", "{%", "%}", "{%-", "-%}", "{{-", "-}}", " ", "\n", "a", "if", "x y", "-", "'}}'", "|", "{"]
    ),
    max_size=14,
).map("".join)
json_values = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(allow_nan=False, allow_infinity=False), st.text()),
    lambda inner: st.one_of(
        st.lists(inner, max_size=4), st.dictionaries(st.sampled_from(["a", "b", "c", "l", "size"]), inner, max_size=4)
    ),
    max_leaves=12,
)


def made(template, payload, **changes):
    delivery = make_delivery(payload=payload, **changes)
    return body(delivery, "integration", template, attempt=1, at="1970-01-01T00:00:00.000Z")


def strict(text):
    return json.loads(text, parse_constant=pytest.fail)


def joined(lexed):
    """Kind, text and place of each token; the library gives a text in pieces, places it before what it strips."""
    found = []
    for token in lexed:
        if token.kind != TOKEN_CONTENT:
            found.append((token.kind, token.value, token.start_index if token.value else None))
        elif found and found[-1][0] == TOKEN_CONTENT:
            found[-1] = (TOKEN_CONTENT, found[-1][1] + token.value, None)
        else:
            found.append((TOKEN_CONTENT, token.value, None))
    return found


@settings(deadline=None)
@given(tokens)
def test_our_lexer_gives_the_librarys_tokens(source):
    # Behind a dash the library drops a line's end at the end of all too: to its expressions the text ends before it.
    source = source.rstrip("\n")
    try:
        ours = joined(lexed(source))
    except LiquidSyntaxError:
        return
    assert joined(get_lexer()(source)) == ours


@settings(deadline=None)
@given(templates, json_values)
def test_a_body_is_json_or_there_is_a_fault(template, payload):
    result = made(template, json.dumps(payload).encode())
    if isinstance(result, Fault):
        assert result.detail
        assert result.line is None or 1 <= result.line <= template.count("\n") + 1
        return
    strict(result)
    assert len(result) <= MAX_BODY_BYTES


@settings(deadline=None)
@given(templates, st.binary())
def test_no_payload_raises(template, payload):
    result = made(template, payload)
    assert isinstance(result, bytes | Fault)


@settings(deadline=None)
@given(templates, json_values)
def test_the_same_event_gives_the_same_body(template, payload):
    event = json.dumps(payload).encode()
    assert made(template, event) == made(template, event)


@settings(deadline=None)
@given(templates, st.lists(st.sampled_from(["call_ended", "*", "scheduled.created", "mine"]), max_size=3))
def test_what_is_refused_is_refused_with_a_reason(template, events):
    fault = template_fault(template, "integration", "demo", events)
    assert fault is None or fault
    if isinstance(parsed(template), Fault):
        assert fault is not None


@settings(deadline=None)
@given(st.one_of(st.text(), st.sampled_from(['", "b": "', "\\", '\\"', "}", '"}', "{{ event }}", "\\u0022", "\n"])))
def test_a_text_is_one_value_wherever_it_stands(text):
    payload = json.dumps({"s": text}).encode()
    template = (
        '{% capture c %}{{ payload.s }}"{{ payload.s }}{% endcapture %}'
        '{"bare": {{ payload.s }}, "json": {{ payload.s | json }}, "inside": "<{{ payload.s }}>",'
        ' "captured": "{{ c }}", "list": ["{{ payload.s }}", {{ c }}, {{ payload }}],'
        '"key": { {{ payload.s }}: "{{ payload.s | json }}"} }'
    )
    result = made(template, payload)
    assert isinstance(result, bytes)
    captured = f'{text}"{text}'
    shape = strict(result)
    quoted = shape["key"].pop(text)
    assert strict(quoted) == text
    assert shape == {
        "bare": text,
        "json": text,
        "inside": f"<{text}>",
        "captured": captured,
        "list": [text, captured, {"s": text}],
        "key": {},
    }


@settings(deadline=None)
@given(json_values)
def test_any_value_outside_a_string_is_itself(value):
    result = made("[{{ payload }}, {{ payload | json }}]", json.dumps(value).encode())
    assert isinstance(result, bytes)
    assert strict(result) == [value, value]


@settings(max_examples=30, deadline=None)
@given(st.text(alphabet="ab\u00e9\U0001f600'\"\\\n{}%x "), json_values)
def test_a_fault_shows_no_value_of_the_event(secret, value):
    """A mark stands everywhere in the event, and in no message."""
    mark = "mark-7f3a"
    payload = json.dumps({"a": mark + secret, "b": {"c": mark}, "l": [mark, {"a": mark}, value]}).encode()
    for template in (
        *(f"{{{{ payload.{path} | {name}: payload.a }}}}" for path in ("a", "b", "l") for name in FILTERS),
        *(f"{{{{ payload.{path} | {name}: 1, payload.a }}}}" for path in ("a", "l") for name in FILTERS),
        "{% if payload.a < payload.l %}{% endif %}",
        "{% for i in payload.l limit: payload.a %}{% endfor %}",
        "x{{ payload.a }}",
    ):
        result = made(template, payload)
        assert isinstance(result, bytes) or mark not in str(result)
