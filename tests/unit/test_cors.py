from services.ingest.cors import cors_headers, preflight_headers
from tests.apps import ORIGIN, make_app


def test_an_allowed_page_may_read_the_answer_with_credentials():
    headers = cors_headers(ORIGIN, make_app())

    assert headers["Access-Control-Allow-Origin"] == ORIGIN
    assert headers["Access-Control-Allow-Credentials"] == "true"
    assert headers["Vary"] == "Origin"


def test_an_app_open_to_all_still_names_the_origin():
    """A browser refuses `*` together with credentials, and a beacon always has credentials."""
    assert cors_headers(ORIGIN, make_app(origins=["*"]))["Access-Control-Allow-Origin"] == ORIGIN


def test_another_page_or_app_may_not_read_it():
    assert cors_headers("https://evil.example", make_app()) == {"Vary": "Origin"}
    assert cors_headers(ORIGIN, None) == {"Vary": "Origin"}
    assert cors_headers(None, make_app()) == {"Vary": "Origin"}


def test_a_preflight_allows_the_method_and_every_header_that_a_key_may_stand_in():
    headers = preflight_headers(ORIGIN, make_app())

    assert headers["Access-Control-Allow-Methods"] == "POST"
    assert headers["Access-Control-Allow-Headers"] == "Authorization, Content-Type, X-Tenterhook-Key"
    assert headers["Access-Control-Max-Age"] == "7200"
