"""
Which plain values of a request must not be kept when a receiver echoes them.

Pure. Header values are sealed as a whole, words such as `Bearer` included; a receiver that echoes one often echoes
its credential alone, so the credential is a value of its own here.
"""

import base64
import re
from collections.abc import Iterable, Iterator
from typing import Final

from services.dispatcher.sign import SECRET_PREFIX
from services.vault.opened import OpenedSecrets

#: Parts of a header value from this length on are masked by themselves; shorter ones are mostly words.
_PART_CHARS: Final = 8
_SEPARATORS: Final = re.compile(r"[\s;,]+")
#: A scheme and its credential. Source: RFC 9110, section 11.4, `credentials`.
_CREDENTIALS: Final = re.compile(r"([A-Za-z][A-Za-z0-9-]*)[ \t]+([^\s,;]+)")


def values_to_mask(opened: OpenedSecrets, headers: Iterable[tuple[str, str]]) -> tuple[str, ...]:
    """
    All secrets of an integration and all values of its own headers, each once.

    Args:
        headers: the integration's own, with secrets filled in.
    """
    values = list(opened.secrets.values())
    for secret, _ in opened.signing:
        values.append(secret.removeprefix(SECRET_PREFIX))
    for _, value in headers:
        values.append(value)
        values.extend(_parts(value))
    return tuple(dict.fromkeys(value for value in values if value))


def _parts(value: str) -> Iterator[str]:
    credentials = _CREDENTIALS.fullmatch(value.strip())
    if credentials is not None:
        yield credentials[2]
        if credentials[1].lower() == "basic":
            yield from _basic(credentials[2])
    for part in _SEPARATORS.split(value):
        yield from (piece.strip('"') for piece in (part, part.partition("=")[2]) if len(piece) >= _PART_CHARS)


def _basic(credential: str) -> Iterator[str]:
    """User and password, and the password alone."""
    try:
        decoded = base64.b64decode(credential, validate=True).decode()
    except ValueError:
        return
    yield decoded
    yield decoded.partition(":")[2]
