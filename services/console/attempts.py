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

_PARTS: Final = (("dnsMs", "DNS"), ("connectMs", "connect and TLS"), ("waitMs", "wait"), ("readMs", "read"))


@dataclass(frozen=True, slots=True)
class Part:
    """A part of an attempt's time."""

    #: `dns`, `connect`, `wait`, `read` or `rest`.
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
    for kind, label, ms in (*parts, ("rest", "the rest", max(0.0, timing["totalMs"] - told))):
        if ms:
            width = max(_LEAST, ms * scale)
            found.append(Part(kind, label, ms, round(x, 1), round(width, 1)))
            x += width
    return found


def _total_ms(attempt: Mapping[str, Any]) -> float:
    timing = attempt["timing"]
    return float(max(timing["totalMs"], sum(timing[name] or 0.0 for name, _ in _PARTS)))


def curl(attempt: Mapping[str, Any]) -> str:
    """The attempt's request as a command, secrets masked; its body is to be put into body.json."""
    lines = [f"curl -i {shlex.quote(attempt['url'])}"]
    lines += [f"-H {shlex.quote(f'{name}: {value}')}" for name, value in attempt["requestHeaders"].items()]
    return " \\\n  ".join([*lines, "--data-binary @body.json"])


@dataclass(frozen=True, slots=True)
class Hour:
    """An hour of the last day, as two bars on each other."""

    label: str
    x: int
    delivered: float
    failed: float


def hours(rates: Sequence[Mapping[str, Any]], *, height: float = 40.0, step: int = 12) -> list[Hour]:
    """The outcomes by hour as heights; discarded ones are in neither."""
    ended = [(each["delivered"], each["rejected"] + each["exhausted"] + each["blocked"]) for each in rates]
    most = max((good + bad for good, bad in ended), default=0) or 1
    return [
        Hour(
            f"{each['startAt'][11:16]}: {good} delivered, {bad} not",
            at * step,
            round(good * height / most, 1),
            round(bad * height / most, 1),
        )
        for at, (each, (good, bad)) in enumerate(zip(rates, ended, strict=True))
    ]
