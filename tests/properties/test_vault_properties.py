"""Laws of the vault: what is sealed opens where it belongs and nowhere else; templates are filled in once."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.vault.references import names, parts, render
from services.vault.seal import Context, Keyring, Unsealable

contexts = st.builds(
    Context, app=st.text(), integration=st.text(), name=st.text(), version=st.integers(min_value=0, max_value=2**64 - 1)
)
secret_names = st.text("abcXYZ019_-", min_size=1, max_size=64)
templates = st.lists(st.one_of(st.text(), secret_names.map("{{secret.{}}}".format))).map("".join)


@given(st.binary(min_size=32, max_size=32), st.binary(), contexts)
def test_what_is_sealed_opens_in_its_own_context(kek, plain, context):
    assert Keyring(kek).open(Keyring(kek).seal(plain, context), context) == plain


@given(contexts, contexts)
def test_two_contexts_have_one_encoding_only_where_they_are_the_same(one, other):
    assert (one.encoded() == other.encoded()) == (one == other)


@given(st.binary(max_size=40), contexts, contexts)
def test_a_sealed_value_opens_in_no_other_context(plain, one, other):
    if one == other:
        return
    keyring = Keyring(bytes(32))
    with pytest.raises(Unsealable):
        keyring.open(keyring.seal(plain, one), other)


@given(st.binary(max_size=100), contexts)
def test_bytes_from_anywhere_never_open_and_never_crash(data, context):
    with pytest.raises(Unsealable):
        Keyring(bytes(32)).open(data, context)


@given(templates, st.text())
def test_a_template_whose_references_are_known_is_rendered_without_error(template, value):
    known = dict.fromkeys(names(template), value)

    assert render(template, known) == "".join(value if is_reference else text for text, is_reference in parts(template))


@given(templates)
def test_the_parts_of_a_template_are_the_template(template):
    assert "".join(text for text, _ in parts(template)) == template
