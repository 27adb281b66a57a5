"""What the admin API's handlers share: the query, the headers and the body of a request, however odd."""

import json
from contextlib import suppress

import pytest
from aiohttp.test_utils import make_mocked_request
from hypothesis import given
from hypothesis import strategies as st

from services.admin.routes.route import (
    MAX_DEPTH,
    MAX_LIMIT,
    check_headers,
    check_query,
    if_match,
    json_in,
    limit_of,
    number_of,
)
from services.runtime.problems import Problem


def get(path="/", headers=None):
    return make_mocked_request("GET", path, headers=headers or {})


def refusal(decide):
    with pytest.raises(Problem) as refused:
        decide()
    return refused.value.status, refused.value.code


@pytest.mark.parametrize("given", ["0", "201", "-1", "+1", "1.0", "", " 1", "\u0661", "1" * 5000, "0" * 17 + "19999"])
def test_a_limit_that_is_none_is_refused(given):
    """Digits without end too: some thousands of them are more than Python turns into a number."""
    assert refusal(lambda: limit_of(get(f"/?limit={given.replace('+', '%2B')}"))) == (400, "invalid_query")


@given(st.integers(1, 10**9))
def test_a_number_in_the_query_is_taken_or_refused_by_its_value(number):
    request = get(f"/?limit={number}")

    if number <= MAX_LIMIT:
        assert limit_of(request) == number
    else:
        assert refusal(lambda: limit_of(request)) == (400, "invalid_query")


def test_a_number_without_a_default_is_required():
    assert refusal(lambda: number_of(get(), "from", None, most=9)) == (400, "invalid_query")


@pytest.mark.parametrize("query", ["limt=1", "limit=1&limit=1", "limit[]=1", "%FF=1", "=1", "limit=1&x", "%00=1"])
def test_a_query_with_something_else_is_refused(query):
    assert refusal(lambda: check_query(get(f"/?{query}"), ("limit", "cursor"))) == (400, "invalid_query")


@pytest.mark.parametrize("query", ["", "limit=1", "limit=1&cursor=%FF", "cursor="])
def test_a_query_with_what_is_known_is_let_pass(query):
    check_query(get(f"/?{query}"), ("limit", "cursor"))


@given(st.binary(max_size=40))
def test_a_refused_query_can_be_told_whatever_bytes_it_has(name):
    """A problem is JSON, which has no place for half a character."""
    query = "".join(f"%{byte:02X}" for byte in name) + "=1"
    with pytest.raises(Problem) as refused:
        check_query(get(f"/?{query}"), ())

    json.dumps(refused.value.as_json(), ensure_ascii=False).encode()


@pytest.mark.parametrize("given", ['"7"', "*", '"1", "7"', 'W/"7"', '""', '"1","2" ,"3"'])
def test_an_if_match_is_taken_as_it_stands(given):
    assert if_match(get(headers={"If-Match": given})) == given


@pytest.mark.parametrize("given", ["7", "", '"7', '"1" "2"', "'7'", '*, "7"', '"7",', 'w/"7"', '"a b"'])
def test_an_if_match_that_is_none_is_refused(given):
    assert refusal(lambda: if_match(get(headers={"If-Match": given}))) == (400, "invalid_header")


def test_if_match_may_stand_in_two_lines():
    request = make_mocked_request("GET", "/", headers=[("If-Match", '"1"'), ("If-Match", '"2"')])

    assert if_match(request) == '"1", "2"'
    assert if_match(get()) is None


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"{}{}",
        b"{} x",
        b'"\xff"',
        b'{"\xff": 1}',
        b'"\\ud800"',
        b"NaN",
        b"1e400",
        b"1" * 5000,
        b"\xef\xbb\xbf{}",
        b'"\x00"',
        b"[" * 100_000,
    ],
)
def test_what_is_no_json_is_refused(body):
    assert refusal(lambda: json_in(body)) == (400, "invalid_json")


@given(st.binary(max_size=60))
def test_any_bytes_are_json_or_refused(body):
    with suppress(Problem):
        json_in(body)


@pytest.mark.parametrize(("opened", "closed"), [("[", "]"), ('{"a":', "}"), ('[{"a":', "}]")])
def test_json_has_a_greatest_depth(opened, closed):
    """Every level counts, and nothing that recurs over a body that was taken can run out of stack."""
    levels = len(opened.replace('"a":', ""))
    most = MAX_DEPTH // levels

    json_in((opened * most + "1" + closed * most).encode())

    for more in (most + 1, 400, 900):
        assert refusal(lambda count=more: json_in((opened * count + "1" + closed * count).encode())) == (
            400,
            "invalid_json",
        )


def test_brackets_side_by_side_are_no_depth():
    assert json_in(b"[" + b"[]," * 5000 + b"[]]") == [[]] * 5001


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Content-Type": "application/json"},
        {"Content-Type": "Application/JSON; charset=utf-8"},
        {"Content-Type": "application/merge-patch+json"},
        {"Content-Type": "application/x-www-form-urlencoded"},
        {"Content-Type": "text/plain"},
        {"Content-Encoding": "identity"},
    ],
)
def test_bodies_that_say_nothing_else_are_taken(headers):
    check_headers(headers)


@pytest.mark.parametrize(
    "headers",
    [
        {"Content-Type": "text/xml"},
        {"Content-Type": "multipart/form-data; boundary=x"},
        {"Content-Type": "application/jsonp"},
        {"Content-Encoding": "gzip"},
        {"Content-Type": "application/json", "Content-Encoding": "br"},
    ],
)
def test_bodies_that_say_that_they_are_no_json_are_refused(headers):
    assert refusal(lambda: check_headers(headers)) == (415, "unsupported_media_type")
