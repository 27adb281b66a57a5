"""
The filters of templates: those of Liquid that make sense for JSON, each within the limits of `metering`.

Pure. Most are the library's own, behind a fence: what goes in is counted, and made a text, a number or an array first;
what comes out is checked. Those whose result can be far longer than what goes in look at its length before they make
it. Left out: `concat` (an array could hold the same payload thousands of times), `uniq` (each entry is compared with
each), filters that read HTML, and the library's `date`, which reads the clock and the zone of its machine.
"""

from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from functools import partial
from typing import Any, Final

from liquid.builtin.filters import array, math, misc, string
from liquid.filter import with_context

from services.body.metering import MAX_CHARS, Json, Meter, Unrenderable, in_json, text_of

_MONTHS: Final = (
    "January February March April May June July August September October November December".split()  # noqa: SIM905
)
_DAYS: Final = "Monday Tuesday Wednesday Thursday Friday Saturday Sunday".split()  # noqa: SIM905
#: In the C locale, whatever that of the process is.
_DIRECTIVES: Final[Mapping[str, Callable[[datetime], str]]] = {
    "Y": lambda at: f"{at.year:04}",
    "m": lambda at: f"{at.month:02}",
    "d": lambda at: f"{at.day:02}",
    "e": lambda at: f"{at.day:2}",
    "H": lambda at: f"{at.hour:02}",
    "I": lambda at: f"{(at.hour - 1) % 12 + 1:02}",
    "M": lambda at: f"{at.minute:02}",
    "S": lambda at: f"{at.second:02}",
    "p": lambda at: "AM" if at.hour < 12 else "PM",  # noqa: PLR2004
    "j": lambda at: f"{at.timetuple().tm_yday:03}",
    "y": lambda at: f"{at.year % 100:02}",
    "B": lambda at: _MONTHS[at.month - 1],
    "b": lambda at: _MONTHS[at.month - 1][:3],
    "A": lambda at: _DAYS[at.weekday()],
    "a": lambda at: _DAYS[at.weekday()][:3],
    "s": lambda at: str(int(at.timestamp())),
    "%": lambda _: "%",
}


def json(value: object) -> Json:
    """The value as JSON, which stays as it is where it is written out."""
    return Json(in_json(value))


def date(value: object, pattern: object) -> str:
    """
    A time in UTC by a pattern: `%Y-%m-%d %H:%M`.

    The time is ISO 8601 (without a zone: UTC) or seconds since 1970; nothing for nil.
    """
    if value is None:
        return ""
    at = _time(value)
    first, *pieces = str(pattern).split("%")
    written = [first]
    is_percent = False
    for piece in pieces:
        if is_percent:  # this piece follows "%%"
            is_percent = False
            written.append(piece)
        elif not piece:
            is_percent = True
            written.append("%")
        elif piece[0] in _DIRECTIVES:
            written += (_DIRECTIVES[piece[0]](at), piece[1:])
        else:
            raise Unrenderable(f"date knows no such directive: use one of %{' %'.join(_DIRECTIVES)}")
    return "".join(written)


def _time(value: object) -> datetime:
    try:
        if isinstance(value, str):
            at = datetime.fromisoformat(value)
            return at.replace(tzinfo=UTC) if at.tzinfo is None else at.astimezone(UTC)
        if isinstance(value, int | float) and not isinstance(value, bool):
            return datetime.fromtimestamp(value, UTC)
    except (ValueError, OverflowError, OSError):
        pass
    raise Unrenderable("date cannot read this as a time: give it ISO 8601, or seconds since 1970")


def join(entries: list[object], separator: object = " ") -> str:
    """The entries of an array as one text."""
    between = text_of(separator)
    texts = [text_of(entry) for entry in entries]
    _fits(sum(map(len, texts)) + len(between) * max(0, len(texts) - 1))
    return between.join(texts)


def replace(text: str, old: object, new: object = "") -> str:
    """The text with every occurrence of *old* as *new*."""
    sought, put = text_of(old), text_of(new)
    _fits(len(text) + text.count(sought) * (len(put) - len(sought)))
    return text.replace(sought, put)


def _fits(chars: int) -> None:
    if chars > MAX_CHARS:
        raise Unrenderable(f"a text on the way is longer than {MAX_CHARS}")


def _as_it_is(value: object) -> object:
    return value


def _number(value: object) -> object:
    if isinstance(value, bool | list | dict | tuple):
        raise Unrenderable("this filter takes numbers")
    return value


def _entries(value: object) -> object:
    """An array; one of a single entry of anything else, as in Liquid."""
    if value is None or isinstance(value, list):
        return value or []
    return [value]


def _argument(value: object) -> object:
    """What stands behind a filter's colon: texts and numbers as they are, the rest as text."""
    return value if isinstance(value, str | int | float) and not isinstance(value, bool) else text_of(value)


#: What a filter's value is made first, and its arguments; and the filters themselves.
_KINDS: Final[tuple[tuple[Callable[[object], object], Callable[[object], object], Mapping[str, Any]], ...]] = (
    (
        text_of,
        _argument,
        {
            "append": string.append,
            "base64_encode": string.base64_encode,
            "capitalize": string.capitalize,
            "downcase": string.downcase,
            "escape": string.escape,
            "lstrip": string.lstrip,
            "prepend": string.prepend,
            "remove": string.remove,
            "remove_first": string.remove_first,
            "replace": replace,
            "replace_first": string.replace_first,
            "rstrip": string.rstrip,
            "split": string.split,
            "squish": string.squish,
            "strip": string.strip,
            "strip_newlines": string.strip_newlines,
            "truncate": string.truncate,
            "truncatewords": string.truncatewords,
            "upcase": string.upcase,
            "url_encode": string.url_encode,
        },
    ),
    (
        _number,
        _number,
        {
            "abs": math.abs_,
            "at_least": math.at_least,
            "at_most": math.at_most,
            "ceil": math.ceil,
            "divided_by": math.divided_by,
            "floor": math.floor,
            "minus": math.minus,
            "modulo": math.modulo,
            "plus": math.plus,
            "round": math.round_,
            "times": math.times,
        },
    ),
    (
        _entries,
        _as_it_is,
        {
            "compact": array.compact,
            "join": join,
            "map": array.map_,
            "reverse": array.reverse,
            "sort": array.sort,
            "sort_natural": array.sort_natural,
            "sum": array.sum_,
            "where": array.where,
        },
    ),
    (
        _as_it_is,
        _as_it_is,
        {
            "date": date,
            "default": misc.default,
            "first": array.first,
            "json": json,
            "last": array.last,
            "size": misc.size,
            "slice": string.slice_,
        },
    ),
)


def _fenced(
    name: str, run: Callable[..., object], taken: Callable[[object], object], argument: Callable[[object], object]
) -> Callable[..., object]:
    """A filter within the limits: counted before and after, its value and arguments of the kind that it takes."""
    needs_environment = getattr(run, "with_environment", False)

    def fenced(value: object, *given: object, context: Meter, **named: object) -> object:
        context.doing = name
        context.filtered(value, *given, *named.values())
        work = partial(run, environment=context.env) if needs_environment else run
        result = context.checked(work(taken(value), *map(argument, given), **named))
        context.filtered(result)
        context.doing = None
        return result

    return with_context(fenced)


#: As a template names them.
FILTERS: Final[Mapping[str, Callable[..., object]]] = {
    name: _fenced(name, run, taken, argument) for taken, argument, named in _KINDS for name, run in named.items()
}
