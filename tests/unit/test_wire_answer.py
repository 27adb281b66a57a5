"""Bytes to an answer: where it ends, and where it is made to end."""

import pytest

from schemas.profiles import MAX_RESPONSE_BYTES
from services.dispatcher.sender import MAX_HEAD_BYTES
from services.dispatcher.wire_answer import AnswerReader

CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"


def over_after(start, block):
    """How many bytes a reader takes before it says that it is over, and the reader."""
    reader = AnswerReader()
    taken, is_over = len(start), reader.feed(start)
    while not is_over:
        taken += len(block)
        is_over = reader.feed(block)
        assert taken < 10_000_000, "it would go on for ever"
    return taken, reader


@pytest.mark.parametrize(
    ("start", "block"),
    [
        (b"HTTP/1.1 200 OK\r\nA: ", b"x" * 100),
        (b"HTTP/1.1 200 OK\r\n", b"A: b\r\n"),
        (b"HTTP/1.1 200 OK\r\nA:", b" " * 100),
        (b"", b"HTTP/1.1 100 Continue\r\n\r\n"),
        (b"HTTP/1.1 200 ", b"O" * 100),
        (b"", b"\r\n" * 50),
    ],
)
def test_a_head_without_end_is_a_fault(start, block):
    taken, reader = over_after(start, block)
    assert reader.fault[0] in {"answer_head_too_large", "answer_malformed"}
    assert taken <= MAX_HEAD_BYTES + len(block)


@pytest.mark.parametrize(
    ("start", "block"),
    [
        (CHUNKED + b"1;", b"x" * 100),
        (CHUNKED + b"0\r\nA: ", b"x" * 100),
        (CHUNKED + b"0\r\n", b"A: b\r\n"),
        (CHUNKED, b"1;extension=extension\r\nx\r\n"),
    ],
)
def test_what_stands_beside_a_body_ends_it(start, block):
    taken, reader = over_after(start, block)
    assert reader.is_truncated or reader.fault is not None
    assert not reader.may_go_on
    assert taken <= 9 * MAX_RESPONSE_BYTES


def test_a_declared_length_that_is_too_much_is_not_waited_for():
    _, reader = over_after(b"HTTP/1.1 200 OK\r\nContent-Length: 999999999\r\n\r\n", b"x" * 1_000)
    assert (reader.body, reader.is_truncated, reader.fault) == (b"x" * MAX_RESPONSE_BYTES, True, None)


def test_two_answers_at_once_are_one_and_the_end_of_the_connection():
    reader = AnswerReader()
    answer = b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\na"
    assert reader.feed(answer + answer)
    assert (reader.body, reader.may_go_on, reader.fault) == (b"a", False, None)


def test_http_1_0_goes_on_only_where_it_says_so():
    reader = AnswerReader()
    for headers, goes_on in ((b"Connection: keep-alive\r\n", True), (b"", False)):
        reader.begin()
        assert reader.feed(b"HTTP/1.0 200 OK\r\n%bContent-Length: 0\r\n\r\n" % headers)
        assert reader.may_go_on == goes_on


def test_a_head_that_is_too_large_is_a_fault_in_one_piece_too():
    reader = AnswerReader()
    assert reader.feed(b"HTTP/1.1 200 OK\r\nA: %b\r\nContent-Length: 0\r\n\r\n" % (b"x" * MAX_HEAD_BYTES))
    assert reader.fault[0] == "answer_head_too_large"
