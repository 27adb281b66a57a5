import pytest
from multidict import CIMultiDict

from services.ingest.keys import allows_origin, check_origin, kind_of_key, presented_key
from services.runtime.problems import Problem
from tests.apps import ORIGIN, PUBLIC_KEY, SECRET_KEY, make_app, make_key


def refusal(call, *arguments) -> Problem:
    with pytest.raises(Problem) as caught:
        call(*arguments)
    return caught.value


@pytest.mark.parametrize(
    ("headers", "query"),
    [
        ({"Authorization": "Bearer pk_1"}, {}),
        ({"authorization": "bearer  pk_1 "}, {}),
        ({"X-Tenterhook-Key": "pk_1"}, {}),
        ({"x-tenterhook-key": "pk_1"}, {}),
        ({}, {"key": "pk_1"}),
        ({"Authorization": "Bearer pk_1", "X-Tenterhook-Key": "pk_2"}, {"key": "pk_3"}),
        ({"X-Tenterhook-Key": "pk_1"}, {"key": "pk_3"}),
    ],
)
def test_a_key_is_found_in_three_places_the_first_of_them_counts(headers, query):
    assert presented_key(CIMultiDict(headers), query) == "pk_1"


@pytest.mark.parametrize(
    "headers", [{}, {"Authorization": ""}, {"Authorization": "Basic eDp5"}, {"Authorization": "Bearer"}]
)
def test_no_key_is_401_with_a_challenge(headers):
    problem = refusal(presented_key, CIMultiDict(headers), {})

    assert (problem.status, problem.code) == (401, "key_missing")
    assert problem.headers["WWW-Authenticate"] == "Bearer"


def test_a_secret_key_in_the_address_is_refused_even_if_it_is_right():
    problem = refusal(presented_key, CIMultiDict(), {"key": SECRET_KEY})

    assert (problem.status, problem.code) == (401, "secret_key_in_address")
    assert SECRET_KEY not in str(problem.as_json())


def test_a_key_is_of_the_kind_that_the_app_says():
    assert kind_of_key(PUBLIC_KEY, make_app()) == "public"
    assert kind_of_key(SECRET_KEY, make_app()) == "secret"


@pytest.mark.parametrize("key", ["", "pk_other", SECRET_KEY + "x", SECRET_KEY[:-1], "sk_é", "sk_\udcff"])
def test_a_key_that_is_not_the_apps_is_401(key):
    problem = refusal(kind_of_key, key, make_app())

    assert (problem.status, problem.code) == (401, "key_unknown")


def test_an_app_without_keys_takes_no_key():
    assert refusal(kind_of_key, "", make_app(keys=[])).code == "key_unknown"


def test_a_key_counts_wherever_it_stands_among_many():
    keys = [make_key(f"sk_{number}", "secret") for number in range(20)]

    for number in range(20):
        assert kind_of_key(f"sk_{number}", make_app(keys=keys)) == "secret"


@pytest.mark.parametrize(
    ("origins", "origin", "allowed"),
    [
        ([ORIGIN], ORIGIN, True),
        (["*"], ORIGIN, True),
        (["*"], "null", True),
        (["https://other.example", ORIGIN], ORIGIN, True),
        ([], ORIGIN, False),
        ([ORIGIN], "null", False),
        ([ORIGIN], "http://shop.example", False),
        ([ORIGIN], "https://shop.example:8443", False),
        ([ORIGIN], "https://shop.example.evil.example", False),
        ([ORIGIN], "https://evil-shop.example", False),
        ([ORIGIN], "", False),
    ],
)
def test_an_origin_is_allowed_when_it_is_listed_as_it_is(origins, origin, allowed):
    assert allows_origin(make_app(origins=origins), origin) is allowed


def test_a_public_key_is_refused_without_an_origin():
    problem = refusal(check_origin, "public", None, make_app(origins=["*"]))

    assert (problem.status, problem.code) == (403, "origin_missing")


def test_a_public_key_is_refused_from_an_origin_that_is_not_allowed():
    problem = refusal(check_origin, "public", "https://evil.example", make_app())

    assert (problem.status, problem.code) == (403, "origin_not_allowed")


@pytest.mark.parametrize("origin", [None, "https://evil.example"])
def test_a_secret_key_needs_no_origin(origin):
    check_origin("secret", origin, make_app())
