import pytest

from services.ingest.content_type import check_headers
from services.runtime.problems import Problem


@pytest.mark.parametrize(
    "content_type",
    [
        None,
        "application/json",
        "application/json; charset=utf-8",
        'Application/JSON;charset="UTF-8"',
        "text/plain",
        "text/plain;charset=UTF-8",
    ],
)
def test_json_is_taken_as_application_json_as_text_plain_and_without_a_type(content_type):
    check_headers({} if content_type is None else {"Content-Type": content_type})


@pytest.mark.parametrize(
    "headers",
    [
        {"Content-Type": "application/x-www-form-urlencoded"},
        {"Content-Type": "multipart/form-data; boundary=x"},
        {"Content-Type": "application/jsonp"},
        {"Content-Type": "application/json; charset=latin-1"},
        {"Content-Type": "application/json", "Content-Encoding": "gzip"},
    ],
)
def test_other_bodies_are_refused_as_unsupported(headers):
    with pytest.raises(Problem) as caught:
        check_headers(headers)

    assert (caught.value.status, caught.value.code) == (415, "unsupported_media_type")
