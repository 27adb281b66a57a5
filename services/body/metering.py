"""
What keeps the rendering of a template bounded: in time, in memory, in what it writes.

Pure. Time is counted in steps, not in seconds, so that a template that ends on one machine ends on all of them. Every
node of a template costs as many steps as it has parts, and a step for every 64 characters that it reads or writes; a
filter costs one for every 16, since some of them do work for each character. A step is worth about a microsecond.
"""

import re
from collections.abc import Mapping
from io import StringIO
from typing import Any, Final, TextIO

import msgspec
from liquid import BoundTemplate, RenderContext
from liquid.ast import Node
from liquid.expression import Expression
from liquid.output import LimitedStringIO
from liquid.token import Token
from liquid.undefined import UNDEFINED, Undefined

from schemas.profiles import MAX_BODY_BYTES

#: Of one rendering. A message with a line for each of 300 entries takes some 13,000; 20,000 took up to 60 ms.
MAX_STEPS: Final = 20_000
#: Names that `assign` and `capture` may give.
MAX_NAMES: Final = 100
#: Characters of one text on the way, and entries of one array.
MAX_CHARS: Final = MAX_BODY_BYTES
#: Whole numbers are below: no arithmetic grows beyond what every receiver's JSON can read.
MAX_NUMBER: Final = 2**64

#: What an entry of an array or an object counts for, in characters.
_ENTRY: Final = 8
#: As a shift. Whole numbers of thousands of digits come in payloads, and take long to write out.
_BITS_A_CHARACTER: Final = 1
_WALKED_A_STEP: Final = 2  # 4 entries, as a shift
_READ_A_STEP: Final = 6  # 64 characters
_FILTERED_A_STEP: Final = 4  # 16 characters

_ENDS_OR_ESCAPES: Final = re.compile(r'["\\]')
_to_json: Final = msgspec.json.Encoder().encode


class Unrenderable(Exception):
    """Why the template cannot be rendered, for people. Never shows a value."""


class Json(str):
    """Text that is JSON already: what the filter `json` gives."""

    __slots__ = ()


class Meter(RenderContext):
    """The names that a template sees, and what it has spent."""

    __slots__ = ("_bulks", "_missing", "at", "doing", "steps")

    def __init__(self, template: BoundTemplate, names: Mapping[str, object], missing: object = None) -> None:
        super().__init__(template, globals=names)
        # Without the library's `now` and `today`: a rendering is the same whenever it is done.
        self.scope = type(self.scope)(self.locals, self.globals)
        #: What is left.
        self.steps = MAX_STEPS
        #: The node being rendered.
        self.at: Token | None = None
        #: The filter being applied.
        self.doing: str | None = None
        self._missing = missing
        # Kept with what it is of, so that no other value can have the same id.
        self._bulks: dict[int, tuple[object, int]] = {}

    def spend(self, steps: int) -> None:
        """
        Count work that is about to be done.

        Raises:
            Unrenderable: it is too much.
        """
        self.steps -= steps
        if self.steps < 0:
            raise Unrenderable(f"it takes more than {MAX_STEPS} steps: fewer loops, shorter texts")

    def read(self, value: object) -> None:
        """Count that a value is compared, looked through or written out."""
        self.spend(self.bulk(value) >> _READ_A_STEP)

    def filtered(self, *values: object) -> None:
        """Count that a filter takes or gives these."""
        self.spend(sum(map(self.bulk, values)) >> _FILTERED_A_STEP)

    def bulk(self, value: object) -> int:
        """About how many characters it has, all that is inside it included."""
        if isinstance(value, str):
            return len(value)
        if isinstance(value, int):
            return _ENTRY + (value.bit_length() >> _BITS_A_CHARACTER)
        if not isinstance(value, list | dict | tuple):
            return _ENTRY
        known = self._bulks.get(id(value))
        if known is not None:
            return known[1]
        self.spend(len(value) >> _WALKED_A_STEP)
        inside = [*value, *value.values()] if isinstance(value, dict) else value
        bulk = _ENTRY + sum(_ENTRY + self.bulk(each) for each in inside)
        self._bulks[id(value)] = value, bulk
        return bulk

    def checked(self, value: object) -> object:
        """
        A value on the way, as it is.

        Raises:
            Unrenderable: it is too large.
        """
        if isinstance(value, str | list) and len(value) > MAX_CHARS:
            raise Unrenderable(f"a text or an array on the way is longer than {MAX_CHARS}")
        if isinstance(value, int | float) and not -MAX_NUMBER < value < MAX_NUMBER:
            raise Unrenderable("a number on the way is too large")
        return value

    # -- what the library asks of a context --------------------------------------------------------------------

    def get(self, path: list[object], *, token: Token | None, default: object = UNDEFINED) -> object:  # noqa: ARG002
        """What a path leads to; nil where it leads nowhere."""
        value = super().get(path, token=token, default=None)
        if value is None and path[0] == "payload":
            value = self._missing
        self.read(value)
        return value

    def assign(self, key: str, val: Any) -> None:
        """Give a name to a value."""
        if len(self.locals) >= MAX_NAMES and key not in self.locals:
            raise Unrenderable(f"it gives more than {MAX_NAMES} names")
        self.locals[key] = val

    def get_buffer(self, buf: TextIO | None = None) -> StringIO:  # noqa: ARG002
        """What `capture` writes into."""
        return LimitedStringIO(limit=MAX_BODY_BYTES, newline="")

    def raise_for_loop_limit(self, length: int = 1) -> None:
        """Count the rounds of a loop that is about to begin."""
        self.spend(length)


class Metered(Node):
    """A node that costs its steps, each time it is rendered."""

    __slots__ = ("cost", "node")

    def __init__(self, node: Node, cost: int) -> None:
        super().__init__(node.token)
        self.node = node
        self.cost = cost
        self.blank = node.blank

    def render_to_output(self, context: RenderContext, buffer: TextIO) -> int:
        """Render the node."""
        if isinstance(context, Meter):
            context.at = self.token
            context.spend(self.cost)
        if isinstance(buffer, JsonText):
            buffer.places.append((buffer.size, self.token.start_index))
        return self.node.render(context, buffer)


class JsonText(LimitedStringIO):
    """What is being rendered: JSON, of a limited size. Knows whether what comes next stands inside a JSON string."""

    def __init__(self) -> None:
        # Without the library's translation of line ends.
        super().__init__(limit=MAX_BODY_BYTES, newline="")
        #: Bytes written before each node, and where the node stands in the template.
        self.places: list[tuple[int, int]] = []
        self._is_inside = self._is_escaped = False

    def write(self, text: str) -> int:
        """What stands in the template."""
        at = 1 if self._is_escaped and text else 0
        self._is_escaped = self._is_escaped and not text
        while at < len(text):
            if not self._is_inside:
                found = text.find('"', at)
                if found < 0:
                    break
                self._is_inside, at = True, found + 1
                continue
            special = _ENDS_OR_ESCAPES.search(text, at)
            if special is None:
                break
            if special[0] == '"':
                self._is_inside, at = False, special.end()
            else:
                at = special.end() + 1
                self._is_escaped = at > len(text)
        return super().write(text)

    def write_value(self, value: object) -> int:
        """
        What an event says, so that it stays one value whatever it is: inside a string as text, elsewhere as JSON.

        Raises:
            Unrenderable: it can be neither.
        """
        if self._is_escaped:
            raise Unrenderable("a value follows a backslash")
        if self._is_inside:
            return super().write(in_json(text_of(value))[1:-1])
        return super().write(value if isinstance(value, Json) else in_json(value))


def text_of(value: object) -> str:
    """
    A value as text: nothing for nil, JSON for an array or an object.

    Raises:
        Unrenderable: it is no value of an event.
    """
    if isinstance(value, str):
        return str(value)
    return "" if _is_nothing(value) else in_json(value)


def in_json(value: object) -> str:
    """
    A value as JSON, without white space; nil is null.

    Raises:
        Unrenderable: it is no value of an event.
    """
    if isinstance(value, Json):
        value = str(value)
    try:
        return _to_json(None if _is_nothing(value) else value).decode()
    except (TypeError, UnicodeEncodeError):
        raise Unrenderable("this is no value that can be written out") from None


def _is_nothing(value: object) -> bool:
    """Nil, and the library's words for it: `empty`, `blank`, the loop around the outermost."""
    return value is None or isinstance(value, Undefined | Expression)
