"""Which headers an integration may set."""

import pytest

from schemas.headers import HOP_BY_HOP, MAX_VALUE_CHARS, OWNED, refused_header


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("Authorization", "Bearer abc"),
        ("x-api-key", ""),
        ("X-Custom_1.2", "a\tb"),
        ("Accept", "*/*"),
        ("X-ApifyCloudy", "not the brand's"),
        ("Cookie", "{secret.session}"),
    ],
)
def test_ordinary_headers_are_allowed(name, value):
    assert refused_header(name, value) is None


@pytest.mark.parametrize(
    "name", [*sorted(HOP_BY_HOP), *sorted(OWNED), "X-ApifyCloud-Event", "X-ApifyCloud-Replay", "x-apifycloud-anything"]
)
def test_hop_by_hop_and_owned_names_are_refused_in_any_case(name):
    assert name.upper() in refused_header(name.upper(), "a")


def test_the_brand_is_a_setting():
    assert refused_header("X-Acme-Event", "a", brand="X-Acme")
    assert refused_header("X-ApifyCloud-Event", "a", brand="X-Acme") is None


@pytest.mark.parametrize("name", ["", "a b", "a:b", "a\r\nb", "ä", "a\x00", "(a)", "a" * 129])
def test_what_is_no_name_is_refused(name):
    assert refused_header(name, "a")


@pytest.mark.parametrize(
    "value", ["a\r\nX-Evil: 1", "a\nb", "a\x00b", "a\x7f", "ü", "日本", "x" * (MAX_VALUE_CHARS + 1)]
)
def test_what_no_header_line_can_carry_is_refused_and_not_shown(value):
    refusal = refused_header("X-A", value)
    assert "X-A" in refusal
    assert value not in refusal
