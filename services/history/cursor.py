"""
Where a list goes on: the last delivery that was looked at, as a text that says nothing to its holder. Pure.

It names a place in an order that does not change, so what has come in since then moves nothing. It belongs to one
question: with another one's it would leave out what the other would have shown.
"""

import base64
import hashlib
import struct
from typing import Final, NamedTuple

_FORM: Final = struct.Struct(">qq8s")

#: As text, in base64: four letters for three bytes, and it comes out even.
CURSOR_CHARS: Final = _FORM.size // 3 * 4


class BadCursor(ValueError):
    """No cursor of this list; the message says why."""


class Cursor(NamedTuple):
    """Order of the last delivery: when it began, or ended where the list goes by that, and its first result's place."""

    at_ms: int
    place: int


def encoded(cursor: Cursor, question: str) -> str:
    """
    The text that goes on there.

    Args:
        question: what is listed; another text for another list.
    """
    return base64.urlsafe_b64encode(_FORM.pack(*cursor, _mark(question))).decode()


def decoded(text: str, question: str) -> Cursor:
    """
    The cursor that the text is.

    Raises:
        BadCursor: it is none, or of another list.
    """
    try:
        at_ms, place, mark = _FORM.unpack(base64.b64decode(text, altchars=b"-_", validate=True))
    except (ValueError, struct.error):
        raise BadCursor("it is not one that a list has answered with") from None
    if mark != _mark(question):
        raise BadCursor("it is of a list with other filters")
    return Cursor(at_ms, place)


def _mark(question: str) -> bytes:
    return hashlib.blake2b(question.encode(), digest_size=8).digest()
