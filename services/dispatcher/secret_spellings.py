"""
How one character of a secret may be spelled, as a regular expression: one function for each encoding.

Pure. The choices for one character differ within their first characters, so that a sequence of them matches in one
way at most and no input makes the search explode. Letters and digits of ASCII are spelled as they are everywhere.
"""

import re
from collections.abc import Callable
from typing import Final

Spelling = Callable[[str], bytes]

#: No spelling of a character is longer in bytes: `%25F0%259F%2598%2580`.
MAX_SPELLING_BYTES: Final = 20

_NAMED_JSON: Final = {'"': '"', "\\": "\\", "/": "/", "\b": "b", "\f": "f", "\n": "n", "\r": "r", "\t": "t"}
_NAMED_HTML: Final = {"&": "amp", "<": "lt", ">": "gt", '"': "quot", "'": "apos"}
_LAST_LATIN_1: Final = "\xff"
_LAST_ASCII: Final = 0x7F


def is_fixed(char: str) -> bool:
    """Whether every encoding leaves this character as it is."""
    return char.isascii() and char.isalnum()


def plain(char: str) -> bytes:
    """As it is, in UTF-8."""
    return re.escape(char.encode("utf-8", "surrogatepass"))


def latin_1(char: str) -> bytes:
    """As it is, in Latin-1, as headers carry it."""
    return re.escape(char.encode("latin-1"))


def json(char: str) -> bytes:
    """As it is where JSON allows it, escaped with a backslash, or by number: encoders differ in what they escape."""
    if is_fixed(char):
        return plain(char)
    units = char.encode("utf-16-be", "surrogatepass")
    spellings = [b"".join(rb"\\u" + _hex(units[at : at + 2].hex()) for at in range(0, len(units), 2))]
    if char in _NAMED_JSON:
        spellings.append(rb"\\" + re.escape(_NAMED_JSON[char].encode()))
    if char not in '"\\':
        spellings.append(plain(char))
    return _choice(*spellings)


def url(char: str, percent: bytes = b"%") -> bytes:
    """Percent-encoded, as UTF-8 or Latin-1, or as it is; a space may be a plus."""
    if is_fixed(char):
        return plain(char)
    spellings = [b"".join(percent + _hex(f"{byte:02x}") for byte in char.encode("utf-8", "surrogatepass"))]
    if not char.isascii() and char <= _LAST_LATIN_1:
        spellings.append(percent + _hex(f"{ord(char):02x}"))
    if char == " ":
        spellings += [rb"\+", percent + b"2[Bb]"]
    elif char != "%":
        spellings.append(plain(char))
    return _choice(*spellings)


def url_twice(char: str) -> bytes:
    """As a URL within a URL has it."""
    return url(char, b"%25")


def html(char: str) -> bytes:
    """As it is, or as a named or numbered entity."""
    if is_fixed(char):
        return plain(char)
    spellings = [b"&#0{0,3}%d;" % ord(char), b"&#[xX]0{0,3}" + _hex(f"{ord(char):x}") + b";"]
    if char in _NAMED_HTML:
        spellings.append(b"&%b;" % _NAMED_HTML[char].encode())
    if char != "&":
        spellings.append(plain(char))
    return _choice(*spellings)


def base64(char: str) -> bytes:
    """A character of base64 in both alphabets, and as URLs, JSON and HTML spell it."""
    if char not in "+/":
        return plain(char)
    other = b"-" if char == "+" else b"_"
    return _choice(other, url(char), url_twice(char), json(char), html(char))


#: Where none of these is in the data, a spelling looks the same as `plain`. Spellings that are not listed never do.
MARKS: Final[dict[Spelling, tuple[bytes, ...]]] = {
    json: (b"\\",),
    url: (b"%", b"+"),
    url_twice: (b"%25", b"+"),
    html: (b"&",),
}


def is_cut(data: bytes, at: int) -> bool:
    """Whether the data may end within the spelling of a character that begins here, or ends here."""
    left = len(data) - at
    return left == 0 or (left < MAX_SPELLING_BYTES and (data[at] in b"%\\&" or data[at] > _LAST_ASCII))


def _choice(*spellings: bytes) -> bytes:
    return b"(?:" + b"|".join(dict.fromkeys(spellings)) + b")"


def _hex(digits: str) -> bytes:
    """Hex digits in either case."""
    return "".join(f"[{digit}{digit.upper()}]" if digit.isalpha() else digit for digit in digits).encode()
