"""Laws of reading answers: how the network cuts them changes nothing, and nothing that comes is too much."""

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from schemas.profiles import MAX_RESPONSE_BYTES
from services.dispatcher.wire_answer import AnswerReader

BODY = st.binary(max_size=60) | st.just(b"x" * (MAX_RESPONSE_BYTES + 5))
HEADER = st.tuples(
    st.from_regex(r"[A-Za-z-]{1,10}", fullmatch=True), st.from_regex(r"[!-~]{0,20}", fullmatch=True)
).filter(lambda header: header[0].lower() not in {"content-length", "transfer-encoding", "connection", "upgrade"})


def with_length(body):
    return b"Content-Length: %d\r\n\r\n%b" % (len(body), body)


def in_chunks(body):
    middle = len(body) // 3
    chunks = b"".join(b"%x\r\n%b\r\n" % (len(part), part) for part in (body[:middle], body[middle:]) if part)
    return b"Transfer-Encoding: chunked\r\n\r\n%b0\r\n\r\n" % chunks


def until_the_end(body):
    return b"\r\n" + body


def read(data, cuts, reader=None):
    """What a reader makes of the data, cut at these places; None where it wants more."""
    reader = reader or AnswerReader()
    reader.begin()
    places = sorted({0, len(data), *(cut % (len(data) + 1) for cut in cuts)})
    is_over = any(reader.feed(data[start:stop]) for start, stop in pairwise(places))
    if not is_over:
        reader.end()
    return (reader.fault, reader.status, reader.headers, reader.body, reader.is_truncated), reader


@given(
    st.sampled_from([200, 404, 503]),
    st.lists(HEADER, max_size=4),
    BODY,
    st.sampled_from([with_length, in_chunks, until_the_end]),
    st.sampled_from([b"", b"HTTP/1.1 100 Continue\r\n\r\n", b"HTTP/1.1 103 X\r\nA: b\r\n\r\n"]),
    st.lists(st.integers(0, 40_000), max_size=8),
)
def test_an_answer_is_read_the_same_however_it_is_cut(status, headers, body, framed, interim, cuts):
    lines = "".join(f"{name}: {value}\r\n" for name, value in headers).encode()
    data = interim + b"HTTP/1.1 %d X\r\n%b%b" % (status, lines, framed(body))
    (fault, *happened), reader = read(data, cuts)
    is_truncated = len(body) > MAX_RESPONSE_BYTES
    kept = tuple(header for header in happened[1] if header[0] not in {"Content-Length", "Transfer-Encoding"})
    assert (fault, happened[0], kept) == (None, status, tuple(headers))
    assert happened[2:] == [body[:MAX_RESPONSE_BYTES], is_truncated]
    assert reader.may_go_on == (framed is not until_the_end and not is_truncated)


@given(st.lists(st.tuples(st.binary(max_size=30), st.lists(st.integers(0, 100), max_size=3)), max_size=5))
def test_one_connection_gives_answer_after_answer(answers):
    reader = AnswerReader()
    for body, cuts in answers:
        happened, _ = read(b"HTTP/1.1 200 OK\r\n" + with_length(body), cuts, reader)
        assert (happened[0], happened[3], reader.may_go_on) == (None, body, True)


@given(
    st.lists(
        st.binary(max_size=200) | st.sampled_from([b"HTTP/1.1 200 OK\r\n", b"\r\n", b"A: b\r\n", b"5\r\n"]), max_size=10
    )
)
def test_nothing_that_comes_is_an_error_of_ours(blocks):
    reader = AnswerReader()
    for block in blocks:
        if reader.feed(block):
            break
    else:
        reader.end()
    assert reader.fault is not None or reader.has_head
    assert len(reader.body) <= MAX_RESPONSE_BYTES
