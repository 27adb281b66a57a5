"""
Templates and events that were made to take long, or much memory.

What they may take is counted in steps; here it is held to seconds, some ten times what it took where it was measured,
so that a filter or a tag whose work is not counted is found.
"""

import json
import time
import tracemalloc

import pytest

from services.body.filters import FILTERS
from services.body.lexing import MAX_EXPRESSION_CHARS
from services.body.rendering import body
from services.body.template import Fault, parsed
from tests.records import make_delivery

#: CPU of this process for one template, parsed and rendered: 0.1 s at worst where it was measured.
MOST_S = 1.0
MOST_BYTES = 40_000_000
#: Work that nobody counts, and that takes 20 ms once, is found.
OFTEN = 60

LARGE = {
    "text": {"s": "a" * 60_000},
    "astral": {"s": "\U0001f600" * 15_000},
    "words": {"s": " a" * 30_000},
    "growing": {"s": "ß" * 30_000},
    "numbers": {"s": list(range(5_000))},
    "texts": {"s": [f"{n * 7919 % 9999:05}" for n in range(7_000)]},
    "objects": {"s": [{"a": n * 7919 % 5000} for n in range(5_000)]},
    "empty": {"s": [[]] * 8_000},
    "number": {"s": int("9" * 4_000)},
    "fractions": {"s": [1.5] * 6_000},
}
ARGUMENTS = {
    "append": "payload.s",
    "at_least": "1",
    "at_most": "1",
    "date": "'%Y'",
    "default": "1",
    "divided_by": "3",
    "join": "payload.s",
    "map": "'a'",
    "minus": "1.5",
    "modulo": "7",
    "plus": "1.5",
    "prepend": "payload.s",
    "remove": "'b'",
    "remove_first": "'b'",
    "replace": "'', payload.s",
    "replace_first": "'a', payload.s",
    "round": "2",
    "slice": "0, 60000",
    "split": "''",
    "sum": "'a'",
    "times": "payload.s",
    "truncate": "60000",
    "truncatewords": "60000",
    "where": "'a', 1",
}


def filled(unit, before="", after=""):
    """As often as a template may hold it."""
    return before + unit * ((16_300 - len(before) - len(after)) // len(unit)) + after


def ends_soon(template, payload):
    delivery = make_delivery(payload=json.dumps(payload, ensure_ascii=False).encode())
    started = time.process_time()
    made = body(delivery, "integration", template, attempt=1, at="1970-01-01T00:00:00.000Z")
    assert time.process_time() - started < MOST_S
    return made


@pytest.mark.parametrize("kind", LARGE)
def test_no_filter_takes_long_however_often(kind):
    for name in FILTERS:
        argument = f": {ARGUMENTS[name]}" if name in ARGUMENTS else ""
        ends_soon(f"{{% assign x = payload.s | {name}{argument} %}}" * OFTEN + "1", LARGE[kind])


@pytest.mark.parametrize("kind", LARGE)
@pytest.mark.parametrize(
    "unit",
    [
        "{% if payload.s == payload.s %}{% endif %}",
        "{% if payload.s contains 'zz' %}{% endif %}",
        "{% if 'zz' contains payload.s %}{% endif %}",
        "{% if payload.s < payload.s %}{% endif %}",
        "{% case payload.s %}{% when payload.s, payload.s, payload.s %}{% endcase %}",
        "{% capture x %}{{ payload.s }}{% endcapture %}",
        "{% for i in payload.s %}{% endfor %}",
    ],
)
def test_nothing_else_takes_long_either(kind, unit):
    ends_soon(unit * OFTEN + "1", LARGE[kind])


@pytest.mark.parametrize(
    "unit",
    [
        "{% if 1 %}{% endif %}",
        "{% if 1 == 2 %}{% elsif 1 == 2 %}{% elsif 1 == 2 %}{% elsif 1 == 2 %}{% endif %}",
        "{% assign a = 1 %}",
        "{% if a.b.c.d.e.f.g.h %}{% endif %}",
        "{% if a.b[a.b[a.b[a.b]]] %}{% endif %}",
        "{% capture b %}{% endcapture %}",
        "{% capture b %}" + "x" * 500 + "{% endcapture %}",
        "{% case 1 %}{% when 2, 3, 4, 5, 6, 7, 8, 9 %}{% endcase %}",
        "{{ 'abc' }}",
        "{% assign b = 'a' | upcase | downcase | strip | size | plus: 1 | times: 2 %}",
        "{% for j in a.n %}{% for k in a.n %}{% for l in a.n %}{% endfor %}{% endfor %}{% endfor %}",
        "{% for j in a.n reversed %}{% break %}{% endfor %}",
        "{% for j in a.n offset: 1999 %}{{ j }}{% endfor %}",
    ],
)
def test_a_loop_takes_no_more_rounds_than_there_are_steps(unit):
    template = filled(unit, "{% assign a = payload %}{% for i in payload.n %}", "{% endfor %}")
    made = ends_soon(template, {"n": [1] * 2_000})
    assert isinstance(made, Fault)


def test_loops_that_follow_each_other_are_counted_together():
    """The library's own limit is of the product of nested ones."""
    template = "{% for i in payload.n %}{% endfor %}" * 11 + "1"
    assert ends_soon(template, {"n": [1] * 1_000}) == b"1"
    assert "20000 steps" in ends_soon(template * 2, {"n": [1] * 1_000}).detail


@pytest.mark.parametrize(
    ("template", "said"),
    [
        ("{% assign x = 'ab' %}" + "{% assign x = x | append: x %}" * 40, "steps|longer than 65536"),
        ("{% assign x = 'ab' %}" + "{% assign x = x | prepend: x | append: x %}" * 40, "steps|longer than 65536"),
        ("{% assign x = 'abcdefghij' %}" + "{% assign x = x | replace: '', x %}" * 40, "steps|longer than 65536"),
        ("{% assign x = payload.t | replace: '', payload.t %}", "steps|longer than 65536"),
        ("{% assign x = payload.t | replace: 'a', payload.t %}", "steps|longer than 65536"),
        ("{% assign x = payload.t | split: '' | join: payload.t %}", "steps|longer than 65536"),
        ("{% assign x = 10 %}" + "{% assign x = x | times: x %}" * 40, "too large"),
        ("{% assign x = 1e300 %}" + "{% assign x = x | times: x %}" * 3, "too large|expected|called"),
        ("{% assign x = 10.5 %}" + "{% assign x = x | times: x %}" * 40, "too large"),
        ("{{ 'nan' | plus: 1 }}", "too large"),
        ("{{ payload.big | plus: 1 }}", "too large"),
        ("{% for i in payload.n %}{{ payload.t }}{% endfor %}", "more than 65536 bytes|steps"),
        ("{% capture x %}{% for i in payload.n %}{{ payload.t }}{% endfor %}{% endcapture %}1", "65536 bytes|steps"),
        ("".join(f"{{% assign a{n} = payload.n %}}" for n in range(101)), "more than 100 names"),
        ("{% for i in payload.n %}" * 20 + "{% endfor %}" * 20, "steps|nested"),
    ],
)
def test_what_doubles_ends(template, said):
    made = ends_soon(template, {"t": "a" * 20_000, "n": [1] * 20, "big": 10**4_000})
    assert isinstance(made, Fault)
    assert any(each in made.detail for each in said.split("|")), made


@pytest.mark.parametrize(
    "source",
    [
        "{{",
        "{{ " * 5_000,
        "{{" + " " * 16_000,
        ("{{" + " " * 990 + "}}") * 16,
        "{%" * 8_000,
        "{%" + " " * 16_000 + "%}",
        "{{-" * 5_000,
        "{" * 16_000,
        "{%raw%}" * 2_300,
        "{%raw%}" + ("{%" + " " * 100) * 150,
        "{%doc%}" * 2_300,
        "{%comment%}" * 1_400,
        "{%comment%}" + "{%raw%}" * 2_000 + "{%endcomment%}",
        ("{{" + "(" * 990 + "}}") * 16,
        ("{{ event" + "[" * 900 + "}}") * 16,
        ("{{ event" + "['" * 480 + "}}") * 16,
        ("{{ " + "'" * 990 + " }}") * 16,
        ("{{ event" + "|size" * 190 + "}}") * 16,
        ("{{ event" + ".b" * 490 + " }}") * 16,
        ("{{ " + "9" * 990 + " }}") * 16,
        "{% if event %}" * 1_100,
        "{% if event %}{% elsif event %}" * 500,
        filled("{% case 1 %}{% when 1 %}{% endcase %}"),
        filled("{{a|a|a|a|a|a|a|a|a|a|a}}"),
        filled("{%a%}"),
    ],
)
def test_parsing_ends(source):
    started = time.process_time()
    parsed(source[:16_384])
    assert time.process_time() - started < MOST_S


def test_memory_is_bounded():
    """A name for each of 100 texts, and arrays of their characters: what can be kept on the way."""
    template = (
        "".join(f"{{% assign a{n} = payload.s | upcase %}}" for n in range(90))
        + "{% for i in payload.n %}{% assign b = payload.s | split: '' %}{% endfor %}1"
    )
    parsed(template)
    tracemalloc.start()
    ends_soon(template, {"s": "\U0001f600é" * 3_000, "n": [1] * 1_000})
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < MOST_BYTES


def test_an_expression_has_an_end():
    longest = "{{" + "'" + "x" * (MAX_EXPRESSION_CHARS - 4) + "'}}"
    assert not isinstance(parsed(longest), Fault)
    assert isinstance(parsed(longest.replace("x", "xx", 1)), Fault)
