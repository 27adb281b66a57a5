"""URLs with secrets in them."""

import pytest

from services.dispatcher.target import BadUrl, render_url
from services.vault.references import UnknownSecret

SECRETS = {"path": "a/b c", "token": "x&y=ü%", "dots": ".."}


@pytest.mark.parametrize(
    ("template", "url"),
    [
        ("https://crm.example/hooks", "https://crm.example/hooks"),
        ("https://crm.example/hooks/{secret.path}/x", "https://crm.example/hooks/a%2Fb%20c/x"),
        ("https://crm.example/?t={secret.token}&u=1", "https://crm.example/?t=x%26y%3D%C3%BC%25&u=1"),
        ("https://crm.example/{secret.dots}/x", "https://crm.example/../x"),
        ("https://crm.example/a%2Fb?q=%20", "https://crm.example/a%2Fb?q=%20"),
        ("https://crm.example/a#{secret.token}", "https://crm.example/a"),
        ("https://crm.example:8443", "https://crm.example:8443"),
        ("https://müller.example:8443/ä?ö=ß", "https://xn--mller-kva.example:8443/%C3%A4?%C3%B6=%C3%9F"),
        ("https://straße.example/", "https://xn--strae-oqa.example/"),
    ],
)
def test_secrets_and_what_is_beyond_ascii_are_encoded_and_nothing_else(template, url):
    assert render_url(template, SECRETS) == url


def test_an_unknown_secret_is_named():
    with pytest.raises(UnknownSecret, match="nope"):
        render_url("https://crm.example/{secret.nope}", SECRETS)


@pytest.mark.parametrize(
    "template",
    [
        "https://crm.example/a b",
        "https://crm.example/\r\nX: y",
        "https://crm.example/\x00",
        "https://ex\u2001.example/",
    ],
)
def test_spaces_and_control_characters_are_refused(template):
    with pytest.raises(BadUrl):
        render_url(template, {})


def test_a_line_break_in_a_secret_stays_in_its_place():
    assert (
        render_url("https://crm.example/{secret.a}", {"a": "x\r\nHost: evil"})
        == "https://crm.example/x%0D%0AHost%3A%20evil"
    )


def test_a_refused_url_is_not_shown():
    with pytest.raises(BadUrl) as caught:
        render_url("https://k3y\u00ad\u2001.example/", {})
    assert "k3y" not in str(caught.value)
    assert caught.value.__suppress_context__
