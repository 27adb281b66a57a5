"""One request that arrived at `tenterhook sink`: for people, and as JSON for programs. Pure."""

import base64
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from rich.text import Text

from services.cli.verify import Verdict, Verified

#: Characters of a body that are printed for people.
_MOST_SHOWN: Final = 4_000

#: Headers that every request has, or that are told elsewhere on the screen.
_USUAL: Final = frozenset(
    {"accept", "accept-encoding", "connection", "content-length", "content-type", "host", "user-agent"}
    | {"webhook-id", "webhook-timestamp", "webhook-signature"}
)

#: What a terminal obeys, and what turns the direction of what it shows; tabs and line ends of a body stay.
_CONTROL: Final = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]")

_MARKS: Final[dict[Verdict, tuple[str, str]]] = {
    "yes": ("✓", "green"),
    "no": ("✗ WRONG", "bold red"),
    "unsigned": ("unsigned", "dim"),
    "unchecked": ("?", "yellow"),
}


@dataclass(frozen=True, slots=True)
class Arrival:
    """A request, what its signatures are worth, and what it was answered."""

    number: int
    #: ISO 8601.
    at: str
    method: str
    path: str
    headers: Mapping[str, str]
    body: bytes
    verified: Verified
    #: None: no answer was given.
    answered: int | None
    brand: str

    @property
    def event(self) -> str | None:
        """The event's type, as the header says."""
        return self.headers.get(f"{self.brand}-Event")

    @property
    def delivery(self) -> str | None:
        """`<integration>:<attempt>`."""
        return self.headers.get(f"{self.brand}-Delivery")

    def as_json(self) -> dict[str, Any]:
        """For programs."""
        return {
            "number": self.number,
            "at": self.at,
            "method": self.method,
            "path": self.path,
            "event": self.event,
            "delivery": self.delivery,
            "webhookId": self.headers.get("webhook-id"),
            "signature": self.verified.brand,
            "standardSignature": self.verified.standard,
            "answered": self.answered,
            "headers": dict(self.headers),
            **_body_json(self.body),
        }

    def as_text(self) -> Text:
        """For people: a line of what and whether, the integration's own headers, and the body."""
        status = "no answer" if self.answered is None else str(self.answered)
        good = self.answered is not None and self.answered < 300  # noqa: PLR2004  # 2xx
        text = Text.assemble(
            (f"#{self.number} ", "dim"),
            (_harmless(self.event or f"{self.method} {self.path}"), "bold cyan"),
            _harmless(f"  {self.delivery or ''}  "),
            *self._signatures(),
            "  → ",
            (status, "green" if good else "red"),
            (f"  {self.at}\n", "dim"),
        )
        for name, value in self._own_headers():
            text.append(_harmless(f"  {name}: {value}\n"), "dim")
        return text.append(_harmless(_body_text(self.body)) + "\n")

    def _signatures(self) -> Iterator[tuple[str, str]]:
        for name, verdict in (("sha256", self.verified.brand), ("webhook", self.verified.standard)):
            mark, style = _MARKS[verdict]
            yield f"{name} {mark} ", style
        if "unchecked" in (self.verified.brand, self.verified.standard):
            yield "(--secret checks) ", "dim"

    def _own_headers(self) -> Iterator[tuple[str, str]]:
        """Those that the integration set."""
        for name, value in self.headers.items():
            if name.lower() not in _USUAL and not name.lower().startswith(f"{self.brand.lower()}-"):
                yield name, value


def _harmless(text: str) -> str:
    """Without the characters that a terminal would obey, or that would show the rest as what it is not."""
    return _CONTROL.sub("\N{REPLACEMENT CHARACTER}", text)


def _body_json(body: bytes) -> dict[str, Any]:
    """`body`: the JSON in it, or null; `text`: as it came, or null; `base64`, where it is no text."""
    try:
        text = body.decode()
    except UnicodeDecodeError:
        return {"body": None, "text": None, "base64": base64.b64encode(body).decode()}
    try:
        return {"body": json.loads(text), "text": text}
    except (ValueError, RecursionError):
        return {"body": None, "text": text}


def _body_text(body: bytes) -> str:
    """Of JSON its fields on lines, else the text as it is."""
    parsed = _body_json(body)
    if parsed["text"] is None:
        return f"({len(body)} bytes that are no text)"
    fields = parsed["body"]
    shown = parsed["text"] if fields is None else json.dumps(fields, ensure_ascii=False, indent=2)
    return shown if len(shown) <= _MOST_SHOWN else shown[:_MOST_SHOWN] + f"\n… ({len(body)} bytes)"
