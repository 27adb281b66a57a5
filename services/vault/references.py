"""
References to secrets in URLs and header values: `{secret.keyName}`.

Pure. A name is 1 to 64 of `A-Z a-z 0-9 _ -`. Filling in is one pass, so that a secret whose value looks
like a reference is sent as it is.
"""

import re
from collections.abc import Iterator, Mapping
from typing import Final

#: What a secret may be called.
SECRET_NAME: Final = re.compile(r"[A-Za-z0-9_-]{1,64}")

_REFERENCE: Final = re.compile(rf"\{{secret\.({SECRET_NAME.pattern})\}}")
#: What was meant as a reference, well written or not: `{Secret.x}`, `{secret.}`, `{ secret.x}`.
_MEANT: Final = re.compile(r"\{\s*secret\b[^{}]*\}?", re.IGNORECASE)


class UnknownSecret(LookupError):
    """A template names a secret that the integration does not have."""

    def __init__(self, name: str) -> None:
        super().__init__(f"there is no secret named {name!r}")
        self.name = name


def names(template: str) -> frozenset[str]:
    """The names of all secrets that the template refers to."""
    return frozenset(_REFERENCE.findall(template))


def misspelt(template: str) -> tuple[str, ...]:
    """What looks like a reference and is none, in order: it would be sent as text, and nobody means that."""
    return tuple(found for found in _MEANT.findall(template) if not _REFERENCE.fullmatch(found))


def render(template: str, secrets: Mapping[str, str]) -> str:
    """
    The template with every reference filled in.

    Raises:
        UnknownSecret: a reference names a secret that is not in *secrets*.
    """

    def value(found: re.Match[str]) -> str:
        try:
            return secrets[found[1]]
        except KeyError:
            raise UnknownSecret(found[1]) from None

    return _REFERENCE.sub(value, template)


def parts(template: str) -> Iterator[tuple[str, bool]]:
    """The template's pieces in order: (text, whether it is a reference). Joined, they are the template."""
    end = 0
    for found in _REFERENCE.finditer(template):
        if found.start() > end:
            yield template[end : found.start()], False
        yield found[0], True
        end = found.end()
    if end < len(template):
        yield template[end:], False
