"""
An event's life as a picture: a row a step, with bars over time. Pure: moments in, lines of styled text out.

Time is not to scale: a request takes milliseconds, a wait hours. Each stretch between two instants at which something
happened is as wide as the logarithm of its length, so that order is kept and nothing vanishes; the axis says when.
"""

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Final, Literal

from rich.text import Text

from services.cli.moments import Moment
from services.runtime.times import read_ms

Kind = Literal["instant", "on the way", "in line", "dns", "connect", "wait", "read", "request", "waiting", "open"]

#: Of a request, in the order in which they come.
PHASES: Final[tuple[Kind, ...]] = ("dns", "connect", "wait", "read")

_UNICODE: Final[Mapping[Kind, str]] = {
    "instant": "●",
    "on the way": "─",
    "in line": "┄",
    "dns": "░",
    "connect": "▒",
    "wait": "▓",
    "read": "█",
    "request": "■",
    "waiting": "·",
    "open": "▷",
}
_ASCII: Final[Mapping[Kind, str]] = {
    "instant": "*",
    "on the way": "-",
    "in line": "~",
    "dns": "d",
    "connect": "c",
    "wait": "w",
    "read": "r",
    "request": "#",
    "waiting": ".",
    "open": ">",
}
_STYLES: Final[Mapping[str, str]] = {
    "delivered": "green",
    "rejected": "red",
    "exhausted": "bold red",
    "blocked": "magenta",
    "discarded": "dim",
    "quarantined": "bold red",
    "open": "yellow",
}

#: Below this many columns bars say nothing, and only the words are left.
_LEAST_BARS: Final = 12
_MOST_BARS: Final = 60
_LABEL: Final = 12
_MS_A_SECOND, _S_A_MINUTE, _S_AN_HOUR = 1_000, 60, 3_600


@dataclass(frozen=True, slots=True)
class Bar:
    """A stretch of time; an instant where it ends as it begins."""

    kind: Kind
    start_ms: float
    end_ms: float


@dataclass(frozen=True, slots=True)
class Row:
    """A step. Without bars it is a heading."""

    label: str
    bars: tuple[Bar, ...]
    said: str
    #: A key of `_STYLES`; "" for none.
    style: str = ""


def rows(moments: Sequence[Moment]) -> list[Row]:
    """The steps: the event's own, then those of each delivery. *moments*: in their order, at least one."""
    found = [*_of_event([each for each in moments if each.delivery is None])]
    for delivery in dict.fromkeys(each.delivery for each in moments if each.delivery is not None):
        found += _of_delivery([each for each in moments if each.delivery == delivery])
    return found


def _of_event(moments: Iterable[Moment]) -> Iterator[Row]:
    began_ms = None
    for one in moments:
        began_ms = one.at_ms if began_ms is None else began_ms
        if one.what == "accepted":
            yield Row("accepted", (_instant(one),), f"{one.details['type']}, {one.details['bytes']:,} bytes")
        elif one.what == "receipt":
            yield Row("fanned out", (Bar("on the way", began_ms, one.at_ms), _instant(one)), _selected(one.details))
        else:
            yield Row(one.what, (_instant(one),), _because(one.details), one.what)


def _selected(details: Mapping[str, Any]) -> str:
    if "repeatOf" in details:
        return f"to nobody: it repeats {details['repeatOf']}"
    if details["integrations"] == "none":
        return "to nobody: no integration selects it"
    count = details["integrations"].count(",") + 1
    return f"to {count} integration{'s' if count > 1 else ''}"


def _of_delivery(moments: Sequence[Moment]) -> Iterator[Row]:
    first = moments[0]
    cause = next((each.details["cause"] for each in moments if "cause" in each.details), "live")
    ends = [each.details["outcome"] for each in moments if each.what == "outcome"]
    outcome = ends[0] if ends else "open"
    yield Row(first.integration or "", (), f"{outcome}  ({cause}, {first.delivery})", outcome)
    way = _Way()
    for one in moments:
        yield from way.step(one)
    yield from way.rest(has_ended=bool(ends))


class _Way:
    """Where a delivery is between two of its records."""

    def __init__(self) -> None:
        #: When it went into its line; None: it is not in one.
        self._in_line_ms: int | None = None
        #: Since when it waits for its next attempt, until when, and in which topics so far.
        self._waits_ms: int | None = None
        self._due_ms: int | None = None
        self._topics: list[str] = []

    def step(self, one: Moment) -> Iterator[Row]:
        """What the record tells of the way up to it."""
        if one.what == "delivery":
            self._in_line_ms = one.at_ms
        elif one.what == "waiting":
            self._topics.append(one.topic)
        elif one.what == "put back":
            yield from self._waited(one.at_ms)
            self._in_line_ms = one.at_ms
        elif one.what in {"attempt", "outcome"}:
            began_ms = one.at_ms - one.details["ms"]
            yield from self._waited(began_ms)
            yield _attempt(one, began_ms, self._in_line_ms)
            self._in_line_ms = None
            if "next" in one.details:
                self._waits_ms, self._due_ms = one.at_ms, read_ms(one.details.get("due"))
        else:
            yield Row(f"  {one.what}", (_instant(one),), _because(one.details), one.what)

    def rest(self, *, has_ended: bool) -> Iterator[Row]:
        """What is still to come, behind the last record."""
        if self._waits_ms is not None:
            until_ms = max(self._due_ms or self._waits_ms, self._waits_ms)
            bars = (Bar("waiting", self._waits_ms, until_ms), Bar("open", until_ms, until_ms))
            took = duration(until_ms - self._waits_ms)
            yield Row("  waits", bars, f"{took}{_in(self._topics)}, then again", "open")
        elif self._in_line_ms is not None and not has_ended:
            yield Row("  in line", (Bar("open", self._in_line_ms, self._in_line_ms),), "not sent yet", "open")

    def _waited(self, until_ms: int) -> Iterator[Row]:
        if self._waits_ms is not None:
            # Written by two machines, of which one may be early.
            until_ms = max(until_ms, self._waits_ms)
            bar = Bar("waiting", self._waits_ms, until_ms)
            yield Row("  waits", (bar,), f"{duration(until_ms - self._waits_ms)}{_in(self._topics)}")
        self._waits_ms, self._topics = None, []


def _in(lines: Sequence[str]) -> str:
    return f" in {' → '.join(lines)}" if lines else " in its place"


def _attempt(one: Moment, began_ms: int, in_line_ms: int | None) -> Row:
    bars: list[Bar] = []
    if in_line_ms is not None and in_line_ms < began_ms:
        bars.append(Bar("in line", in_line_ms, began_ms))
    phases = [(kind, one.details[f"{kind}Ms"]) for kind in PHASES if f"{kind}Ms" in one.details]
    if phases:
        # What the phases leave of the whole (rendering, masking) stands before them.
        at_ms = max(one.at_ms - sum(took_ms for _, took_ms in phases), began_ms)
        for kind, took_ms in phases:
            bars.append(Bar(kind, at_ms, at_ms + took_ms))
            at_ms += took_ms
    else:
        bars.append(Bar("request" if one.details["ms"] else "instant", began_ms, one.at_ms))
    reason = str(one.details["reason"]).removeprefix("status_").replace("_", " ")
    took = ", ".join(f"{kind} {took_ms:g}" for kind, took_ms in phases)
    said = f"{reason}, {duration(one.details['ms'])}" + (f" ({took})" if took else "")
    if "outcome" in one.details:
        said = f"{one.details['outcome']}: {said}"
    return Row(f"  attempt {one.details['attempt']}", tuple(bars), said, one.details.get("outcome", "open"))


def _instant(one: Moment) -> Bar:
    return Bar("instant", one.at_ms, one.at_ms)


def _because(details: Mapping[str, Any]) -> str:
    return ", ".join(f"{name} {value}" for name, value in details.items() if name != "from")


def duration(ms: float) -> str:
    """As people say it: `34 ms`, `5.0 s`, `5 min 20 s`, `5 h 41 min`."""
    if ms < _MS_A_SECOND:
        return f"{ms:.0f} ms"
    seconds = ms / _MS_A_SECOND
    if seconds < _S_A_MINUTE:
        return f"{seconds:.1f} s"
    if seconds < _S_AN_HOUR:
        return f"{seconds // _S_A_MINUTE:.0f} min {seconds % _S_A_MINUTE:.0f} s"
    return f"{seconds // _S_AN_HOUR:.0f} h {seconds % _S_AN_HOUR // _S_A_MINUTE:.0f} min"


class Scale:
    """From times to columns, 0 to *width* - 1."""

    def __init__(self, instants_ms: Iterable[float], width: int) -> None:
        """*instants_ms*: every time at which a bar begins or ends, at least one."""
        self._width = width
        self._at: dict[float, float] = {}
        at = 0.0
        ordered = sorted(set(instants_ms))
        self._at[ordered[0]] = at
        for before, after in pairwise(ordered):
            at += math.log1p(after - before)
            self._at[after] = at
        self._whole = at or 1.0

    def column(self, at_ms: float) -> int:
        """Of one of the instants."""
        return round(self._at[at_ms] / self._whole * (self._width - 1))

    def axis(self) -> str:
        """Times since the first instant, where there is room for them; the last one always."""
        start_ms, end_ms = min(self._at), max(self._at)
        cells = [" "] * self._width
        last = f"+{duration(end_ms - start_ms)}"
        free_until = self._width - len(last) - 1
        if free_until > 0:
            cells[self._width - len(last) :] = last
        free_from = 0
        for at_ms in self._at:
            text = "0" if at_ms == start_ms else f"+{duration(at_ms - start_ms)}"
            column = self.column(at_ms)
            if free_from <= column and column + len(text) < free_until:
                cells[column : column + len(text)] = text
                free_from = column + len(text) + 1
        return "".join(cells)


def picture(moments: Sequence[Moment], *, width: int, ascii_only: bool) -> list[Text]:
    """
    The lines.

    Args:
        moments: in their order, at least one.
        width: of the terminal, in columns. No line is wider.
        ascii_only: for terminals that show nothing else.
    """
    steps = rows(moments)
    glyphs = _ASCII if ascii_only else _UNICODE
    label = max(_LABEL, *(len(step.label) for step in steps if step.bars)) + 1
    said = max(len(step.said) for step in steps if step.bars)
    # Half of the width is enough for the words, and bars are no wider than anybody looks.
    room = min(width - label - 1 - min(said, width // 2), _MOST_BARS)
    scale = Scale((at for step in steps for bar in step.bars for at in (bar.start_ms, bar.end_ms)), max(room, 1))
    has_bars = room >= _LEAST_BARS
    lines = [Text(" " * label + scale.axis(), "dim")] if has_bars else []
    for step in steps:
        style = _STYLES.get(step.style, "")
        if not step.bars:
            lines += [Text(""), Text.assemble((step.label, "bold"), "  ", (step.said, style))]
            continue
        line = Text(f"{step.label:<{label}}")
        if has_bars:
            line.append("".join(_drawn(step.bars, scale, room, glyphs)), style)
            line.append(" ")
        lines.append(line.append(step.said, style))
    if has_bars and (legend := _legend(steps, glyphs)):
        lines += [Text(""), Text(legend, "dim")]
    return [_fitting(line, width, ascii_only=ascii_only) for line in lines]


def _fitting(line: Text, width: int, *, ascii_only: bool) -> Text:
    if ascii_only:
        # What a program has named may be anything; arrows are ours.
        plain = line.plain.replace("→", ">").encode("ascii", "replace").decode()
        line = Text(plain, line.style, spans=line.spans)
    line.truncate(width, overflow="crop" if ascii_only else "ellipsis")
    return line


def _drawn(bars: Iterable[Bar], scale: Scale, width: int, glyphs: Mapping[Kind, str]) -> list[str]:
    """Cells: each bar at least one, where another has not been drawn behind it."""
    cells = [" "] * width
    for bar in bars:
        start, end = scale.column(bar.start_ms), scale.column(bar.end_ms)
        for at in range(start, max(end, start + 1)):
            cells[at] = glyphs[bar.kind]
    return cells


def _legend(steps: Iterable[Row], glyphs: Mapping[Kind, str]) -> str:
    kinds = {bar.kind for step in steps for bar in step.bars}
    shown: tuple[Kind, ...] = ("in line", *PHASES, "request", "waiting")
    return "  ".join(f"{glyphs[kind]} {kind}" for kind in shown if kind in kinds)
