"""What can be told of a URL from its text."""

import pytest

from services.admin.urls import url_fault


@pytest.mark.parametrize(
    "url",
    [
        "https://crm.example",
        "https://crm.example/",
        "HTTPS://CRM.example:8443/a/b?c=d&e=%20",
        "https://crm.example./x",
        "https://192.0.2.1/x",
        "https://[2001:db8::1]:8443/x",
        "https://bücher.example/ü",
        "https://a_b.example/{secret.path}/x?k={secret.token}",
        "https://crm.example?k={secret.token}",
        "https://localhost/x",
        "https://0x7f.1/x",
    ],
)
def test_urls_that_can_be_delivered_to(url):
    assert url_fault(url, allow_http=False) is None


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("", "must start with https://"),
        ("crm.example", "must start with https://"),
        ("ftp://crm.example", "must start with https://"),
        (" https://crm.example", "must start with https://"),
        ("{secret.url}", "must start with https://"),
        ("https:/crm.example", "must start with https://"),
        ("http://crm.example", "does not allow http"),
        ("https://", "needs the name or address of a host"),
        ("https:///path", "needs the name or address of a host"),
        ("https://:443/", "is not a valid URL"),
        ("https://user@crm.example/", "must not carry a user or password"),
        ("https://user:pw@crm.example/", "must not carry a user or password"),
        ("https://good.example@evil.example/", "must not carry a user or password"),
        ("https://{secret.host}/x", "must name its host in plain"),
        ("https://a.example:{secret.port}/x", "must name its host in plain"),
        ("https://a.example{secret.path}", "must name its host in plain"),
        ("https://crm.example/a b", "percent-encode"),
        ("https://crm.example/\n", "percent-encode"),
        ("https://crm.example\\@evil.example/", "must not carry a user or password"),
        ("https://crm.example/\\x", "percent-encode"),
        ("https://crm.example/{token}", "no {secret.name} reference"),
        ("https://crm.example/{secret.}", "no {secret.name} reference"),
        ("https://crm.example/}", "no {secret.name} reference"),
        ("https://crm.example/#x", "fragment"),
        ("https://crm.example:0/", "a port from 1 to 65535"),
        ("https://crm.example:65536/", "is not a valid URL"),
        ("https://crm.example:x/", "is not a valid URL"),
        ("https://[::1/", "is not a valid URL"),
        ("https://[fe80::1%25eth0]/", "is not a valid URL"),
        ("https://a..b/", "is not a valid URL"),
        ("https://a%2fb/", "is not a valid URL"),
        ("https://a|b/", "is not a valid URL"),
        ("https://" + "a" * 64 + ".example/", "is not a valid URL"),
        ("https://" + "a." * 127 + "example/", "is not a valid URL"),
    ],
)
def test_urls_that_cannot_be_delivered_to_are_refused_with_the_reason(url, said):
    fault = url_fault(url, allow_http=False)

    assert said in fault


@pytest.mark.parametrize(
    "url", ["https://u:hunter2@a.example", "https://a.example/?k=hunter2 x", "https://a..b/hunter2"]
)
def test_no_refusal_shows_the_url_since_it_may_hold_a_key(url):
    assert "hunter2" not in url_fault(url, allow_http=False)


def test_http_is_fine_where_the_app_allows_it():
    assert url_fault("http://127.0.0.1:9000/x", allow_http=True) is None
