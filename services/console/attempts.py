"""
Attempts of a delivery for people: where their time went, as bars of a drawing, and the request as a command. Pure.

Both are made of the API's JSON, in which every secret is masked already.
"""

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

#: Width of the drawing; its longest attempt is as wide.
WIDTH: Final = 600.0
#: What a part that took any time at all is drawn with, to be seen.
_LEAST: Final = 2.0

#: In the order in which they follow each other. What was measured before TLS had a time of its own has it in `connect`.
_PARTS: Final = (("dnsMs", "DNS"), ("connectMs", "connect"), ("tlsMs", "TLS"), ("waitMs", "wait"), ("readMs", "read"))
#: By kind: what the colours mean.
LABELS: Final = {name.removesuffix("Ms"): label for name, label in _PARTS} | {"rest": "the rest"}


@dataclass(frozen=True, slots=True)
class Part:
    """A part of an attempt's time."""

    #: One of `LABELS`.
    kind: str
    label: str
    ms: float
    x: float
    width: float


def bars(attempts: Sequence[Mapping[str, Any]]) -> list[list[Part]]:
    """
    The parts of each attempt's time, side by side, all attempts on one scale.

    What no part accounts for (a time-out while connecting, say) is the rest.
    """
    longest = max((_total_ms(each) for each in attempts), default=0.0) or 1.0
    return [_bar(each, WIDTH / longest) for each in attempts]


def _bar(attempt: Mapping[str, Any], scale: float) -> list[Part]:
    found: list[Part] = []
    x = told = 0.0
    timing = attempt["timing"]
    parts = [(name.removesuffix("Ms"), label, timing[name]) for name, label in _PARTS]
    told = sum(ms for _, _, ms in parts if ms is not None)
    for kind, label, ms in (*parts, ("rest", LABELS["rest"], max(0.0, timing["totalMs"] - told))):
        if ms:
            width = max(_LEAST, ms * scale)
            found.append(Part(kind, label, ms, round(x, 1), round(width, 1)))
            x += width
    return found


def _total_ms(attempt: Mapping[str, Any]) -> float:
    timing = attempt["timing"]
    return float(max(timing["totalMs"], sum(timing[name] or 0.0 for name, _ in _PARTS)))


def curl(attempt: Mapping[str, Any]) -> str:
    """
    The attempt's request as a command: secrets masked, and as it was sent but for them.

    Without the body, where that is not known any more, it is read from body.json.
    """
    lines = [f"curl -i {shlex.quote(attempt['url'])}"]
    lines += [f"-H {shlex.quote(f'{name}: {value}')}" for name, value in attempt["requestHeaders"].items()]
    body = attempt["requestBody"]
    # Not --data-binary, for which a body that begins with @ is the name of a file.
    lines.append("--data-binary @body.json" if body is None else f"--data-raw {shlex.quote(body)}")
    return " \\\n  ".join(lines)


@dataclass(frozen=True, slots=True)
class Hour:
    """An hour of the last day, as two bars on each other."""

    label: str
    x: int
    delivered: float
    failed: float


@dataclass(frozen=True, slots=True)
class Hours:
    """The last day as a drawing."""

    #: What it says, in words.
    label: str
    bars: list[Hour]
    width: int
    height: int
    #: Of a bar; what is left of its hour is a gap.
    bar: int


def hours(rates: Sequence[Mapping[str, Any]], *, height: int, step: int) -> Hours:
    """
    The outcomes by hour as heights, drawn to the busiest; discarded ones are in neither.

    What failed at all is drawn with two units, to be seen beside thousands that arrived.

    Args:
        step: width of an hour.
    """
    ended = [(each["delivered"], each["rejected"] + each["exhausted"] + each["blocked"]) for each in rates]
    most = max((good + bad for good, bad in ended), default=0) or 1
    good, bad = sum(good for good, _ in ended), sum(bad for _, bad in ended)
    found = []
    for at, (each, (delivered, failed)) in enumerate(zip(rates, ended, strict=True)):
        failed_height = max(_LEAST, round(failed * height / most, 1)) if failed else 0.0
        delivered_height = min(height - failed_height, round(delivered * height / most, 1))
        label = f"{each['startAt'][11:16]}: {delivered} delivered, {failed} not"
        found.append(Hour(label, at * step, delivered_height, failed_height))
    return Hours(f"{good:,} delivered, {bad:,} not", found, len(found) * step, height, step - max(1, step // 6))
