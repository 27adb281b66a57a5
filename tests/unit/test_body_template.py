"""Templates: what is one, what they see, and in which line they are wrong."""

import pytest

from schemas.profiles import MAX_TEMPLATE_BYTES
from services.body.template import NAMES, Fault, Template, parsed


@pytest.mark.parametrize(
    ("source", "line", "said"),
    [
        ("{", None, None),
        ("\n{{ nope }}", 2, "there is nothing called 'nope'"),
        ("{{ now }}", 1, "there is nothing called 'now'"),
        ("{{ secret.token }}", 1, "there is nothing called 'secret'"),
        ("{% if event == today %}{% endif %}", 1, "there is nothing called 'today'"),
        ("{{ payload.a[b] }}", 1, "there is nothing called 'b'"),
        ("{% for i in payload.items %}{% endfor %}\n\n{{ forloopp }}", 3, "there is nothing called 'forloopp'"),
        ("{{ payload | append: x }}", 1, "there is nothing called 'x'"),
        ("{{ ['payload'] }}", None, None),
        ("{{ event\n| shout }}", 2, "there is no filter called 'shout'"),
        ("1\n2\n{% include 'x' %}", 3, "unexpected tag 'include'"),
        ("{% render 'x' %}", 1, "unexpected tag 'render'"),
        ("{% tablerow i in payload %}{% endtablerow %}", 1, "unexpected tag 'tablerow'"),
        ("{% liquid\n echo event %}", 1, "unexpected tag 'liquid'"),
        ("{% for i in (1..1000000000) %}{% endfor %}", 1, "there are no ranges"),
        ("{{ (1..1000000000) | join: ',' }}", 1, "there are no ranges"),
        ("{% for i in payload offset: (1..2) %}{% endfor %}", 1, "there are no ranges"),
        ("{\n{% if event %}", 2, "expected tag endif"),
        ("{% endif %}", 1, "unexpected tag 'endif'"),
        ("a\n{{ event", 2, "{{ is never closed"),
        ("{% if event", 1, "{% is never closed"),
        ("{% %}", 1, "a tag without a name"),
        ("{% raw %}{{", 1, "raw is never closed"),
        ("{% comment %}{% comment %}{% endcomment %}", 1, "comment is never closed"),
        ("{{ event" + " " * 1000 + "}}", 1, "more than 1000 characters"),
        ("{{ }}", 1, "expected a primitive expression"),
        ("{{ event event }}", 1, "expected"),
        ("{% assign 1a.b = 2 %}", 1, "expected"),
        ("{% if event %}" * 25 + "{% endif %}" * 25, None, "blocks are nested deeper than 20"),
        ("{% if " + "event and " * 60 + "event %}{% endif %}", 1, "nested too deeply"),
        ("{{ payload" + "[payload" * 60 + "]" * 60 + " }}", 1, "nested too deeply"),
        ("{{ id" + "[id" * 240 + "]" * 240 + " }}", 1, "nested too deeply"),
        ("x" * (MAX_TEMPLATE_BYTES + 1), None, "has 16385 bytes: 16384 at most"),
        ("ü" * (MAX_TEMPLATE_BYTES // 2) + "x", None, "has 16385 bytes"),
        ("a\nb\ud800", 2, "lone surrogate"),
    ],
)
def test_what_is_wrong_is_said_with_its_line(source, line, said):
    made = parsed(source)
    if said is None:
        assert isinstance(made, Template)
        return
    assert isinstance(made, Fault)
    assert said in made.detail
    assert made.line == line


def test_a_fault_tells_its_line():
    assert (str(Fault(3, "why")), str(Fault(None, "why"))) == ("line 3: why", "why")


@pytest.mark.parametrize("name", sorted(NAMES))
def test_every_name_is_there(name):
    assert isinstance(parsed(f"{{{{ {name} }}}}"), Template)


@pytest.mark.parametrize(
    "source",
    [
        "{% assign a = 1 %}{{ a }}",
        "{% capture a %}x{% endcapture %}{{ a }}",
        "{% if event %}{% assign a = 1 %}{% endif %}{{ a }}",
        "{% for i in payload.items %}{{ i }}{{ forloop.index }}{% else %}{% endfor %}",
        "{% comment %}{{ nobody | knows }}{% if %}{% endcomment %}{% # {{ nor this %}",
    ],
)
def test_what_is_assigned_is_known(source):
    assert isinstance(parsed(source), Template)


def test_the_largest_template_is_taken():
    assert isinstance(parsed("x" * MAX_TEMPLATE_BYTES), Template)


def test_a_template_that_was_parsed_stays_for_a_while():
    made = parsed("{{ event }} 1")
    assert parsed("{{ event }} 1") is made
    for number in range(35):
        parsed(f"{'x' * 16_000}{number}")
    assert parsed("{{ event }} 1") is not made
