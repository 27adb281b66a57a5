"""Laws of masking."""

import base64
from urllib.parse import quote

from hypothesis import assume, example, given
from hypothesis import strategies as st

from services.dispatcher.masking import mask, mask_body

#: Without asterisks, which a mask is made of.
SECRET = st.text(st.characters(exclude_characters="*", exclude_categories=["Cs"]), min_size=4, max_size=40)
AROUND = st.text(st.characters(exclude_characters="*", exclude_categories=["Cs"]), max_size=20)


@given(st.lists(SECRET, min_size=1, max_size=3), st.lists(AROUND | st.integers(0, 2), max_size=8))
def test_no_secret_is_left_in_what_holds_them_anywhere(secrets, parts):
    text = "".join(secrets[part % len(secrets)] if isinstance(part, int) else part for part in parts)
    masked = mask(text, secrets)
    assert not any(secret in masked for secret in secrets)
    assert mask(text.encode(), secrets).decode("utf-8", "replace") == masked


@given(SECRET, AROUND, AROUND)
@example("a\\b/", "", "")
def test_no_encoded_secret_is_left_either(secret, before, after):
    assume(secret not in before + after)
    packed = base64.b64encode((before + secret + after).encode()).decode()
    masked = mask(packed, [secret])
    assert masked != packed
    assert packed not in masked
    assert mask(f"{quote(secret, safe='')}", [secret]) == "***"


@given(st.binary(max_size=200), st.lists(SECRET, max_size=3), st.booleans())
def test_any_bytes_can_be_masked(data, secrets, cut):
    masked = mask(data, secrets, cut=cut)
    if masked != data:
        assert b"***" in masked


@given(SECRET, AROUND, st.data())
def test_however_a_body_is_cut_fewer_than_four_characters_are_left(secret, before, data):
    body = (before + secret).encode()
    cut_at = data.draw(st.integers(len(before.encode()), len(body)))
    masked = mask(body[:cut_at], [secret], cut=True).decode("utf-8", "replace")
    # What stood before it may hold the same characters by chance.
    assert masked.count(secret[:4]) == 0


@given(st.binary(max_size=300), st.sampled_from(["gzip", "deflate", "br", "identity", ""]), SECRET)
def test_any_body_in_any_encoding_can_be_masked(body, encoding, secret):
    masked = mask_body(body, encoding, [secret], cut=True)
    assert masked == body or b"***" in masked
