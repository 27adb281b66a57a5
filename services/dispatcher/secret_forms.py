"""
The forms in which a secret may come back: as it is, in JSON, in a URL (once or twice encoded), in HTML, in base64.

Pure. Nearly every answer holds no secret at all, so looking for a text costs one `anchor in data` until its anchor is
found, and nothing is compiled before.
"""

import base64
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property, lru_cache
from itertools import takewhile
from typing import Final

from services.dispatcher import secret_spellings as spell
from services.dispatcher.secret_spellings import Spelling

#: Shorter secrets are looked for only where they stand alone.
MIN_CHARS: Final = 4
_BASE64: Final = b"[A-Za-z0-9+/_-]"
_PADDING: Final = b"(?:=|%3[Dd]){0,2}"
_WORD: Final = b"[A-Za-z0-9]"
_RUN: Final = re.compile(r"[A-Za-z0-9]+")
#: Longer secrets (certificates, tokens with claims) are looked for in pieces of at most so many characters, which
#: bounds the time that a pattern takes to compile and to compare: seconds without, for an answer made to that end.
_MAX_CHARS: Final = 128
#: Characters compared in search of a cut-off form, for one form and one answer, at most: about 5 ms.
_MAX_STEPS: Final = 8_192
#: Sets of secrets whose forms are remembered: those of the integrations that are busy. They are plain values in
#: memory, like the key that opens them, and like it never leave it.
_REMEMBERED: Final = 512


@dataclass(frozen=True)
class Form:
    """One text and one way to spell it."""

    text: str
    spelling: Spelling
    #: Around the text: what else must stand there, or belongs to it.
    before: bytes = b""
    after: bytes = b""
    #: Whether only the whole text counts, and no beginning of it at the data's end.
    is_whole: bool = False

    @cached_property
    def _chars(self) -> list[bytes]:
        return [self.spelling(char) for char in self.text]

    def may_differ(self, data: bytes) -> bool:
        """Whether this form can look different from the plain one in the data."""
        marks = spell.MARKS.get(self.spelling)
        return marks is None or any(mark in data for mark in marks)

    @cached_property
    def pattern(self) -> re.Pattern[bytes]:
        """Finds this form."""
        return re.compile(self.before + b"".join(self._chars) + self.after)

    def partial_at_end(self, data: bytes, min_chars: int) -> int | None:
        """
        Where the first incomplete occurrence of this form begins that runs into the data's end; None where none does.

        Args:
            min_chars: of the text that must be there; fewer are taken for a coincidence.
        """
        if self.is_whole or not self.may_differ(data):
            return None
        window = max(0, len(data) - spell.MAX_SPELLING_BYTES * len(self.text))
        head = "".join(takewhile(spell.is_fixed, self.text[:min_chars])).encode()
        if head and data.find(head, window) < 0:
            return None
        if all(map(spell.is_fixed, self.text)):
            return _cut_literal(self.text.encode(), data, min_chars)
        steps = 0
        for found in re.compile(self._chars[0]).finditer(data, window):
            runs_out, taken = self._runs_out(data, found.start(), min_chars)
            steps += taken
            # What takes this long to look at was made to: better too much masked than too little.
            if runs_out or steps > _MAX_STEPS:
                return found.start()
        return None

    def _runs_out(self, data: bytes, at: int, min_chars: int) -> tuple[bool, int]:
        """Whether the data ends inside an occurrence that begins here, and how many characters were compared."""
        for count, char in enumerate(self._chars):
            found = re.compile(char).match(data, at)
            if not found:
                return count >= min_chars and spell.is_cut(data, at), count + 1
            at = found.end()
        return False, len(self._chars)


@dataclass(frozen=True)
class Text:
    """All forms of one text, and the letters and digits that every one of them must hold as they are."""

    #: Empty where the text holds neither letters nor digits.
    anchor: bytes
    forms: tuple[Form, ...]


@lru_cache(maxsize=_REMEMBERED)
def texts_of(secrets: tuple[str, ...]) -> tuple[Text, ...]:
    """All that is looked for: each secret, or each piece of a long one, as text and in base64."""
    pieces = dict.fromkeys(piece for secret in secrets for piece in _pieces(secret))
    return tuple(text for piece in pieces for text in _texts(piece))


def _pieces(secret: str) -> Iterator[str]:
    """Nearly equal pieces, so that none is too short to be told from a coincidence."""
    count = -(-len(secret) // _MAX_CHARS)
    for number in range(count):
        yield secret[number * len(secret) // count : (number + 1) * len(secret) // count]


def _texts(secret: str) -> Iterator[Text]:
    yield Text(_anchor(secret), tuple(_spelled(secret)))
    raw = secret.encode("utf-8", "surrogatepass")
    for form in _in_base64(raw) if len(secret) >= MIN_CHARS else _alone_in_base64(raw):
        yield Text(_anchor(form.text), (form,))


def _anchor(text: str) -> bytes:
    return max(_RUN.findall(text), key=len, default="").encode()


def _spelled(secret: str) -> Iterator[Form]:
    is_short = len(secret) < MIN_CHARS
    before, after = (b"(?<!%b)" % _WORD, b"(?!%b)" % _WORD) if is_short else (b"", b"")
    spellings: list[Spelling] = [spell.plain]
    if not all(map(spell.is_fixed, secret)):
        spellings += [spell.json, spell.url, spell.url_twice, spell.html]
        if not secret.isascii() and max(secret) <= "\xff":
            spellings.append(spell.latin_1)
    for spelling in spellings:
        yield Form(secret, spelling, before, after, is_short)


def _in_base64(secret: bytes) -> Iterator[Form]:
    """
    The secret in base64, wherever it begins in a longer text.

    Three bytes make four characters, so there are three ways it may fall. Characters that it shares with its
    neighbours are not compared, but they belong to the match.
    """
    for lead in range(3):
        encoded = base64.b64encode(bytes(lead) + secret).decode().rstrip("=")
        # One byte before it reaches into the second character, two reach into the third.
        first = lead + 1 if lead else 0
        last = (lead + len(secret)) * 8 // 6
        yield Form(
            encoded[first:last],
            spell.base64,
            _BASE64 + b"?" if lead else b"",
            (_BASE64 + b"?" if last < len(encoded) else b"") + _PADDING,
        )


def _alone_in_base64(secret: bytes) -> Iterator[Form]:
    """A short secret in base64, where nothing of base64 stands around it."""
    encoded = base64.b64encode(secret).decode().rstrip("=")
    yield Form(encoded, spell.base64, b"(?<!%b)" % _BASE64, _PADDING + b"(?!%b)" % _BASE64, is_whole=True)


def _cut_literal(text: bytes, data: bytes, min_chars: int) -> int | None:
    """Where the longest beginning of the text stands that is the data's end."""
    for length in range(min(len(text) - 1, len(data)), min_chars - 1, -1):
        if data.endswith(text[:length]):
            return len(data) - length
    return None
