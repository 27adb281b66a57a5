"""
Secrets out of what is kept of an answer.

Pure. A receiver that echoes a request does so in its own way: as it came, in JSON or HTML, in a URL, in base64 (alone
or inside a longer text, as in Basic credentials), compressed, or cut off in the middle by our own limit. Every such
form of every secret becomes `***`. What a receiver does to a secret on purpose (reversing it, say) is beyond this.
"""

import re
import zlib
from collections.abc import Iterable, Iterator, Sequence
from typing import Final, TypeVar

from services.dispatcher.secret_forms import Text, texts_of

MASK: Final = "***"
_MASK: Final = MASK.encode()

#: A piece of a secret at the end of a body that we cut off is masked from this length on; a shorter one says little,
#: and masking it would hit every other body.
MIN_TAIL_CHARS: Final = 4
#: An answer with more occurrences of one secret than this is masked as a whole, which bounds the time spent on it.
_MAX_OCCURRENCES: Final = 256
#: What is looked at of a compressed answer, at most, in bytes of its plain form; one that holds more is dropped.
_MAX_PLAIN_BYTES: Final = 262_144

_Data = TypeVar("_Data", bytes, str)
_Span = tuple[int, int]


def mask(data: _Data, secrets: Sequence[str], *, cut: bool = False) -> _Data:
    """
    The data with every form of every secret replaced by `***`.

    A secret shorter than four characters is replaced only where it stands alone, between characters that are
    neither letters nor digits: anywhere else it is a coincidence, and masking it would spell it out.

    Args:
        secrets: plain values, as `Planned.masks`.
        cut: whether the data was cut off at its end, so that the beginning of a secret may stand there.
    """
    texts = texts_of(tuple(secrets))
    if isinstance(data, bytes):
        return _mask(data, texts, cut)
    raw = data.encode("utf-8", "surrogatepass")
    masked = _mask(raw, texts, cut)
    # A Latin-1 form may begin inside a character of the text; what is left of that one is replaced.
    return data if masked is raw else masked.decode("utf-8", "replace")


def mask_headers(headers: Iterable[tuple[str, str]], secrets: Sequence[str]) -> dict[str, str]:
    """An answer's headers with every value masked; those of one name joined by commas, as RFC 9110 has it."""
    joined: dict[str, str] = {}
    for name, value in headers:
        joined[name] = f"{joined[name]}, {value}" if name in joined else value
    # One search for all of them finds nothing, as a rule.
    together = "\n".join(joined.values())
    if mask(together, secrets) == together:
        return joined
    return {name: mask(value, secrets) for name, value in joined.items()}


def mask_body(body: bytes, content_encoding: str, secrets: Sequence[str], *, cut: bool = False) -> bytes:
    """
    A body that is kept, masked; `***` as a whole where a secret may hide in its compressed form.

    We ask for no compression, so a body that comes compressed all the same is rare. One that cannot be looked into
    is dropped where there is a secret to lose.

    Args:
        content_encoding: the answer's header of that name; empty where it has none.
    """
    encoding = content_encoding.strip().lower()
    if not body or not secrets or encoding in {"", "identity"}:
        return mask(body, secrets, cut=cut)
    plain = _inflated(body) if encoding in {"gzip", "x-gzip", "deflate"} else None
    # A cut-off form at the end of what came out is a secret half hidden, so the plain text counts as cut.
    if plain is None or mask(plain, secrets, cut=True) != plain:
        return _MASK
    return mask(body, secrets, cut=cut)


def _inflated(body: bytes) -> bytes | None:
    """What a gzip, zlib or raw deflate stream holds, as far as it came; None where it is none or holds too much."""
    for window_bits in (zlib.MAX_WBITS | 32, -zlib.MAX_WBITS):
        stream = zlib.decompressobj(window_bits)
        try:
            plain = stream.decompress(body, _MAX_PLAIN_BYTES)
        except zlib.error:
            continue
        return None if stream.unconsumed_tail or stream.unused_data else plain
    return None


def _mask(data: bytes, texts: Iterable[Text], cut: bool) -> bytes:
    """The data itself where there is nothing to mask."""
    spans: list[_Span] = []
    for text in texts:
        if text.anchor in data:
            for form in text.forms:
                if not form.may_differ(data):
                    continue
                found = _occurrences(form.pattern, data)
                if len(found) > _MAX_OCCURRENCES:
                    return _MASK
                spans += found
    if cut:
        spans += _tails(data, texts)
    return _replaced(data, spans) if spans else data


def _occurrences(pattern: re.Pattern[bytes], data: bytes) -> list[_Span]:
    """Where a form stands, overlapping ones included; one more than the most that is allowed, where there are more."""
    spans: list[_Span] = []
    found = pattern.search(data)
    while found and len(spans) <= _MAX_OCCURRENCES:
        spans.append(found.span())
        found = pattern.search(data, found.start() + 1)
    return spans


def _tails(data: bytes, texts: Iterable[Text]) -> Iterator[_Span]:
    """From where on the end of the data may be the beginning of a secret."""
    for text in texts:
        for form in text.forms:
            start = form.partial_at_end(data, MIN_TAIL_CHARS)
            if start is not None:
                yield start, len(data)


def _replaced(data: bytes, spans: Iterable[_Span]) -> bytes:
    """The data with the spans, joined where they touch, replaced."""
    out: list[bytes] = []
    end = 0
    for start, stop in sorted(spans):
        if start > end or not out:
            out += (data[end:start], _MASK)
        end = max(end, stop)
    out.append(data[end:])
    return b"".join(out)
