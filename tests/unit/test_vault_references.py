"""References to secrets in templates."""

import pytest

from services.vault.references import UnknownSecret, misspelt, names, parts, render


def test_the_names_of_all_references_are_found():
    assert names("https://x/{secret.path}/{secret.B-2_}?k={secret.path}") == {"path", "B-2_"}


@pytest.mark.parametrize(
    "text", ["", "plain", "{secret}", "{secret.}", "{secret.a b}", "{secret.ü}", "{{secret.a", "secret.a"]
)
def test_what_is_no_reference_stays_as_it_is(text):
    assert (names(text), render(text, {})) == (frozenset(), text)


def test_references_are_filled_in():
    assert render("Bearer {secret.a}{secret.b}", {"a": "1", "b": "2", "c": "3"}) == "Bearer 12"


def test_an_unknown_reference_is_named():
    with pytest.raises(UnknownSecret, match="'b'") as caught:
        render("{secret.a}{secret.b}", {"a": "1"})
    assert caught.value.name == "b"


def test_a_value_that_looks_like_a_reference_is_sent_as_it_is():
    assert render("{secret.a}", {"a": "{secret.b}", "b": "never"}) == "{secret.b}"


def test_a_value_with_backslashes_and_group_numbers_is_sent_as_it_is():
    assert render("{secret.a}", {"a": r"\1\g<0>\n"}) == r"\1\g<0>\n"


@pytest.mark.parametrize(
    ("template", "found"),
    [
        ("{Secret.a}", ("{Secret.a}",)),
        ("{secret.}", ("{secret.}",)),
        ("{ secret.a }", ("{ secret.a }",)),
        ("{secret:a} {secret.ok}", ("{secret:a}",)),
        ("x{secret.a", ("{secret.a",)),
        ("{secret." + "a" * 65 + "}", ("{secret." + "a" * 65 + "}",)),
        ("{secretary}", ()),
        ("{secret.fine}", ()),
    ],
)
def test_what_was_meant_as_a_reference_and_is_none_is_found(template, found):
    assert misspelt(template) == found


def test_a_template_comes_apart_into_text_and_references():
    assert list(parts("Bearer {secret.a}!")) == [("Bearer ", False), ("{secret.a}", True), ("!", False)]
