"""
From bytes to one answer: no sockets, no clock.

The parser is llhttp's (Node's), through httptools. What this file adds are the limits: on the head, on the body, and
on what may come beside the body (chunk sizes and extensions, trailers).
"""

from typing import Final

from httptools import HttpParserError, HttpParserUpgrade, HttpResponseParser

from schemas.profiles import MAX_RESPONSE_BYTES
from services.dispatcher.sender import MAX_HEAD_BYTES, MAX_RESPONSE_HEADER_BYTES, FailureCode

#: All bytes after the head, at most: a body in chunks of one byte each takes six times what it holds.
_MAX_BYTES_AFTER_HEAD: Final = 8 * MAX_RESPONSE_BYTES
_SWITCHING_PROTOCOLS: Final = 101
_FIRST_FINAL_STATUS: Final = 200

Fault = tuple[FailureCode, str]
_TOO_LARGE: Final[Fault] = (
    "answer_head_too_large",
    f"the head of the endpoint's answer is longer than {MAX_HEAD_BYTES} bytes",
)
_MALFORMED: Final[Fault] = ("answer_malformed", "the endpoint's answer is no valid HTTP/1.1")
BROKEN_OFF: Final[Fault] = ("reset", "the endpoint closed the connection before its answer was complete")


class _Enough(Exception):
    """Stops the parser: what follows is not looked at."""


class AnswerReader:
    """Reads the answers of one connection, one after the other: `begin`, then `feed` until it says that it is over."""

    def __init__(self) -> None:
        self._parser = HttpResponseParser(self)
        self.begin()

    def begin(self) -> None:
        """Get ready for the next answer."""
        self.status = 0
        #: Whether the head of the final answer is complete.
        self.has_head = False
        #: Whether there was more body than is kept.
        self.is_truncated = False
        #: Whether the connection may be used for another request, once the answer is over.
        self.may_go_on = False
        #: Why there is no answer, once it is over; else None.
        self.fault: Fault | None = None
        self._is_complete = False
        #: All that has come, and how much of it when the head was complete.
        self._bytes = 0
        self._bytes_of_head = 0
        #: Names and values alone, trailers included.
        self._header_bytes = 0
        self._headers: list[tuple[bytes, bytes]] = []
        self._blocks: list[bytes] = []
        self._size = 0

    def feed(self, data: bytes) -> bool:
        """Take what has come; whether the answer is over: complete, cut off, or faulty."""
        self._bytes += len(data)
        try:
            self._parser.feed_data(data)
        except HttpParserUpgrade:
            self.may_go_on = False
            return True
        except HttpParserError:
            self.may_go_on = False
            if not self._is_complete and not self.is_truncated:
                self.fault = _TOO_LARGE if self._header_bytes > MAX_HEAD_BYTES else _MALFORMED
            return True
        return self._is_complete or self._is_too_much()

    def end(self) -> None:
        """No more will come. That completes a body that says nowhere how long it is; else it is a fault."""
        self.may_go_on = False
        if not self.has_head or self._says_its_length():
            self.fault = BROKEN_OFF

    @property
    def headers(self) -> tuple[tuple[str, str], ...]:
        """The first headers of the final answer, as many as fit into what is kept."""
        kept = []
        room = MAX_RESPONSE_HEADER_BYTES
        for name, value in self._headers if self.has_head else ():
            room -= len(name) + len(value)
            if room < 0:
                break
            kept.append((name.decode("latin-1"), text_of(value)))
        return tuple(kept)

    @property
    def body(self) -> bytes:
        """The body so far, as much as is kept of it."""
        return b"".join(self._blocks)

    def _is_too_much(self) -> bool:
        """Whether it has gone on for too long beside the body."""
        if not self.has_head:
            if self._bytes <= MAX_HEAD_BYTES:
                return False
            self.fault = _TOO_LARGE
        elif self._bytes - self._bytes_of_head <= _MAX_BYTES_AFTER_HEAD:
            return False
        self.is_truncated = True
        return True

    def _says_its_length(self) -> bool:
        for name, value in self._headers:
            lower = name.lower()
            if lower == b"content-length" or (lower == b"transfer-encoding" and b"chunked" in value.lower()):
                return True
        return False

    # ---- what the parser calls

    def on_message_begin(self) -> None:
        """A second answer, which nobody asked for, ends the connection."""
        if self._is_complete:
            raise _Enough

    def on_header(self, name: bytes, value: bytes) -> None:
        """A header, or a trailer, which is not kept."""
        self._header_bytes += len(name) + len(value)
        if self._header_bytes > MAX_HEAD_BYTES:
            raise _Enough
        if not self.has_head:
            self._headers.append((name, value))

    def on_headers_complete(self) -> None:
        """The head of an answer, interim ones included."""
        self.status = self._parser.get_status_code()
        if self.status < _FIRST_FINAL_STATUS and self.status != _SWITCHING_PROTOCOLS:
            self._headers.clear()
        else:
            self.has_head = True
            self._bytes_of_head = self._bytes

    def on_body(self, data: bytes) -> None:
        """A piece of the body."""
        self._blocks.append(data[: MAX_RESPONSE_BYTES - self._size])
        self._size += len(data)
        if self._size > MAX_RESPONSE_BYTES:
            self.is_truncated = True
            raise _Enough

    def on_message_complete(self) -> None:
        """The end of an answer, interim ones included."""
        if self.has_head:
            self._is_complete = True
            self.may_go_on = self._parser.should_keep_alive()


def text_of(value: bytes) -> str:
    """UTF-8 where it is that, else Latin-1, in which every byte is a character."""
    try:
        return value.decode()
    except UnicodeDecodeError:
        return value.decode("latin-1")
