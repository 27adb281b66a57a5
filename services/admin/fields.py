"""
Reads the fields of a JSON object, and collects what is wrong with them.

Pure. A reader never stops at the first fault: it notes a refusal, gives the default, and goes on, so that
one answer names every field that has to be changed. `null` counts as absent.
"""

from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any, Final, TypeVar
from unicodedata import category

from services.runtime.times import read_ms

T = TypeVar("T", bound=str)

_KINDS: Final = {bool: "true or false", str: "a text", int: "a whole number", float: "a number", list: "an array"}
#: Control characters, halves of a pair, line and paragraph separators.
_NOT_IN_A_LINE: Final = {"Cc", "Cs", "Zl", "Zp"}


@dataclass(frozen=True, slots=True)
class Refusal:
    """What is wrong with one field. Neither part ever holds a secret's or a header's value."""

    #: As in the JSON, nested with dots: `retry.delaysMs`.
    field: str
    detail: str


class Fields:
    """The fields of one JSON object; `refusals` is shared with the readers of nested ones."""

    def __init__(self, given: dict[str, Any], prefix: str = "", refusals: list[Refusal] | None = None) -> None:
        self.given = given
        self.prefix = prefix
        self.refusals = [] if refusals is None else refusals
        self._known: list[str] = []

    def refuse(self, name: str, detail: str) -> None:
        """Notes what is wrong with the field *name* of this object."""
        self.refusals.append(Refusal(self.prefix + name, detail))

    def has(self, name: str) -> bool:
        """Whether the field is there and not null."""
        self._known.append(name)
        return self.given.get(name) is not None

    def text(self, name: str, *, most: int) -> str:
        """A required text of 1 to *most* characters, none of them a control character; empty when refused."""
        if not self.has(name):
            self.refuse(name, "is required")
            return ""
        value = self.given[name]
        if not isinstance(value, str):
            self.refuse(name, f"must be a text, not {kind(value)}")
        elif fault := text_fault(value, most=most):
            self.refuse(name, fault)
        else:
            return value
        return ""

    def number(self, name: str, default: int, *, least: int, most: int) -> int:
        """A whole number from *least* to *most*."""
        if not self.has(name):
            return default
        if fault := number_fault(self.given[name], least=least, most=most):
            self.refuse(name, fault)
            return default
        return int(self.given[name])

    def time_ms(self, name: str) -> int | None:
        """A time in ISO 8601 with its zone, in milliseconds since 1970 UTC; None where it is absent or refused."""
        if not self.has(name):
            return None
        at_ms = read_ms(self.given[name])
        if at_ms is None:
            self.refuse(name, "must be a time in ISO 8601 with its zone, for example 2026-01-02T03:04:05Z")
        return at_ms

    def flag(self, name: str, *, default: bool) -> bool:
        """True or false."""
        if not self.has(name):
            return default
        value = self.given[name]
        if not isinstance(value, bool):
            self.refuse(name, f"must be true or false, not {kind(value)}")
            return default
        return value

    def choice(self, name: str, default: T, choices: tuple[T, ...]) -> T:
        """One of the *choices*."""
        if not self.has(name):
            return default
        value = self.given[name]
        if not isinstance(value, str) or value not in choices:
            self.refuse(name, f"must be one of {', '.join(choices)}")
            return default
        return choices[choices.index(value)]

    def list(self, name: str, *, most: int) -> list[Any]:
        """An array of at most *most* entries; empty when absent."""
        if not self.has(name):
            return []
        value = self.given[name]
        if not isinstance(value, list):
            self.refuse(name, f"must be an array, not {kind(value)}")
            return []
        if len(value) > most:
            self.refuse(name, f"has {len(value)} entries, at most {most} are allowed")
            return []
        return value

    def object(self, name: str, *, most: int) -> dict[str, Any]:
        """An object of at most *most* fields; empty when absent."""
        if not self.has(name):
            return {}
        value = self.given[name]
        if not isinstance(value, dict):
            self.refuse(name, f"must be an object, not {kind(value)}")
            return {}
        if len(value) > most:
            self.refuse(name, f"has {len(value)} entries, at most {most} are allowed")
            return {}
        return value

    def nested(self, name: str) -> "Fields":
        """The reader of an object inside this one; of an empty one when absent."""
        return Fields(self.object(name, most=100), f"{self.prefix}{name}.", self.refusals)

    def nothing_else(self, read_only: frozenset[str] = frozenset()) -> None:
        """Refuses every field that was given and not asked for: a misspelt one must not pass in silence."""
        for name in self.given:
            if name in self._known:
                continue
            if name in read_only:
                self.refuse(name, "is set by tenterhook: leave it out")
                continue
            meant = get_close_matches(name, self._known, n=1)
            self.refuse(shortened(name), f"is unknown; did you mean {meant[0]}?" if meant else "is unknown")


def kind(value: Any) -> str:
    """What a JSON value is, for people, without showing it."""
    return "null" if value is None else _KINDS.get(type(value), "an object")


def shortened(name: str) -> str:
    """A name from outside, fit for a message."""
    return name if len(name) <= 64 else name[:64] + "…"  # noqa: PLR2004  # as long as a secret's name


def text_fault(value: str, *, most: int) -> str | None:
    """Why this text cannot be used, or None."""
    if not value.strip():
        return "is empty"
    if len(value) > most:
        return f"has {len(value)} characters, at most {most} are allowed"
    return control_fault(value)


def control_fault(value: str) -> str | None:
    """Why this text cannot stand in one line (of a header, of a page), or None. The text is not shown."""
    for at, letter in enumerate(value):
        if category(letter) in _NOT_IN_A_LINE:
            return f"has a control character (U+{ord(letter):04X}) at position {at}"
    return None


def number_fault(value: Any, *, least: int, most: int) -> str | None:
    """Why this is no whole number from *least* to *most*, or None. `5.0` is one, as JSON has it."""
    is_whole = isinstance(value, int) or (isinstance(value, float) and value.is_integer())
    if isinstance(value, bool) or not is_whole:
        return f"must be a whole number, not {kind(value)}"
    if not least <= value <= most:
        return f"must be from {least} to {most}, not {value}"
    return None
