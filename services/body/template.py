"""
A template's text, checked and parsed: Liquid, without what a body does not need.

Pure. Tags: `if`, `unless`, `case`, `for` with `break` and `continue`, `assign`, `capture`, `raw`, `comment`. No files,
no other templates, no clock, no secrets. Everything that can be known before an event comes is refused here: names and
filters that are not there, text that is too long, ranges.
"""

from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Final, TextIO

from liquid import BoundTemplate, Environment, RenderContext
from liquid.ast import BlockNode, Node
from liquid.builtin import content, illegal, output
from liquid.builtin.expressions import FilteredExpression, Path
from liquid.builtin.expressions.primitive import RangeLiteral
from liquid.builtin.tags import assign_tag, capture_tag, case_tag, for_tag, if_tag, unless_tag
from liquid.exceptions import BlockNestingError, LiquidError, LiquidSyntaxError
from liquid.expression import Expression
from liquid.token import Token

from schemas.profiles import MAX_BODY_BYTES, MAX_TEMPLATE_BYTES
from services.body.filters import FILTERS
from services.body.lexing import lexed
from services.body.metering import JsonText, Meter, Metered, text_of

#: What a template sees of an event.
NAMES: Final = frozenset({"event", "id", "appId", "occurredAt", "deliveredAt", "attempt", "payload"})

#: `a and b and …`, `a[b[…]]`: each level takes some of the interpreter's stack.
MAX_EXPRESSION_DEPTH: Final = 40

#: Templates that stay parsed, by the length of their texts: a parsed one takes 40 to 80 bytes a character and a
#: kilobyte, so 40 MB at most.
KEPT_CHARS: Final = 500_000
#: What that kilobyte counts for.
_KEPT_AT_LEAST: Final = 20

#: Characters that a step writes, as in `metering`, as a shift.
_WRITTEN_A_STEP: Final = 6


@dataclass(frozen=True, slots=True)
class Fault:
    """Why a template gives no body. Shows what stands in the template, and never what stands in an event."""

    #: Of the template, counted from 1; None where it is no line's fault.
    line: int | None
    detail: str

    def __str__(self) -> str:
        return self.detail if self.line is None else f"line {self.line}: {self.detail}"


@dataclass(frozen=True, slots=True)
class Template:
    """A template that can be rendered."""

    source: str
    parsed: BoundTemplate = field(repr=False)

    def line(self, at: int) -> int:
        """The line in which the character at this position stands, counted from 1."""
        return _line(self.source, at)


class _Output(output.OutputNode):
    """`{{ … }}`: what an event says stays a value, and so adds nothing to the shape that the template gives."""

    __slots__ = ()

    def render_to_output(self, context: RenderContext, buffer: TextIO) -> int:
        value = self.expression.evaluate(context)
        if isinstance(context, Meter):
            context.read(value)
        return buffer.write_value(value) if isinstance(buffer, JsonText) else buffer.write(text_of(value))


class _OutputTag(output.Output):
    node_class = _Output


class _Language(Environment):
    block_nesting_limit = 20
    output_stream_limit = MAX_BODY_BYTES

    def setup_tags_and_filters(self, *, extra: bool = False) -> None:  # noqa: ARG002
        for tag in (
            content.Literal,
            _OutputTag,
            illegal.Illegal,
            if_tag.IfTag,
            unless_tag.UnlessTag,
            case_tag.CaseTag,
            for_tag.ForTag,
            for_tag.BreakTag,
            for_tag.ContinueTag,
            assign_tag.AssignTag,
            capture_tag.CaptureTag,
        ):
            self.add_tag(tag)
        for name, run in FILTERS.items():
            self.add_filter(name, run)

    def tokenizer(self) -> Callable[[str], Iterator[Token]]:
        return lexed


_LANGUAGE: Final = _Language()


class _Kept:
    """Templates that were parsed lately."""

    def __init__(self, chars: int) -> None:
        self._room = chars
        self._kept: OrderedDict[str, Template | Fault] = OrderedDict()

    def get(self, source: str) -> Template | Fault:
        known = self._kept.get(source)
        if known is not None:
            self._kept.move_to_end(source)
            return known
        made = self._kept[source] = _parsed(source)
        self._room -= len(source) + _KEPT_AT_LEAST
        while self._room < 0:
            dropped, _ = self._kept.popitem(last=False)
            self._room += len(dropped) + _KEPT_AT_LEAST
        return made


_kept: Final = _Kept(KEPT_CHARS)


def parsed(source: str) -> Template | Fault:
    """The template with this text, or why it is none. Remembered, as far as there is room."""
    fault = _length_fault(source)
    return fault if fault is not None else _kept.get(source)


def _length_fault(source: str) -> Fault | None:
    try:
        size = len(source.encode())
    except UnicodeEncodeError as error:
        return Fault(_line(source, error.start), "half a character (a lone surrogate) stands here")
    if size > MAX_TEMPLATE_BYTES:
        return Fault(None, f"the template has {size} bytes: {MAX_TEMPLATE_BYTES} at most")
    return None


def _parsed(source: str) -> Template | Fault:
    try:
        template = _LANGUAGE.from_string(source)
        _Walk(template).check()
    except BlockNestingError:
        return Fault(None, f"blocks are nested deeper than {_Language.block_nesting_limit}")
    except LiquidError as error:
        if isinstance(error.__cause__, RecursionError):
            return Fault(None, "an expression is nested too deeply")
        return Fault(_line_of(error.token, source), _shortened(str(error.message)))
    except RecursionError:
        return Fault(None, "an expression is nested too deeply")
    return Template(source, template)


class _Walk:
    """Looks at every node of a template, refuses what it must not hold, and puts a meter around each."""

    def __init__(self, template: BoundTemplate) -> None:
        self._template = template
        self._static = RenderContext(template)
        self._given: set[str] = set()
        self._used: list[tuple[str, Token]] = []

    def check(self) -> None:
        self._block(self._template.nodes)
        known = NAMES | self._given
        for name, token in self._used:
            if name not in known:
                raise LiquidSyntaxError(
                    f"there is nothing called {name!r}: a template sees {', '.join(sorted(NAMES))} and what it assigns",
                    token=token,
                )

    def _block(self, nodes: list[Node]) -> None:
        nodes[:] = [Metered(node, self._cost(node)) for node in nodes]

    def _cost(self, node: Node) -> int:
        """The steps of a node without those of the blocks in it, which are looked at by the way."""
        self._given.update(str(name) for name in (*node.template_scope(), *node.block_scope()))
        cost = 1 + self._expressions(node.expressions(), 1)
        if isinstance(node, content.ContentNode):
            cost += len(node.text) >> _WRITTEN_A_STEP
        for child in node.children(self._static, include_partials=False):
            if isinstance(child, BlockNode):
                self._block(child.nodes)
            else:
                cost += self._cost(child)
        return cost

    def _expressions(self, expressions: Iterable[Expression], depth: int) -> int:
        return sum(self._expression(each, depth) for each in expressions)

    def _expression(self, expression: Expression, depth: int) -> int:
        if depth > MAX_EXPRESSION_DEPTH:
            raise LiquidSyntaxError("an expression is nested too deeply", token=expression.token)
        cost = 1
        if isinstance(expression, RangeLiteral):
            raise LiquidSyntaxError("there are no ranges: loop over an array", token=expression.token)
        if isinstance(expression, Path):
            cost += len(expression.path)
            name = expression.path[0]
            if not isinstance(name, str):
                raise LiquidSyntaxError("a path begins with a name", token=expression.token)
            self._used.append((name, expression.token))
        if isinstance(expression, FilteredExpression):
            for each in expression.filters or ():
                cost += 1
                if each.name not in FILTERS:
                    raise LiquidSyntaxError(f"there is no filter called {each.name!r}", token=each.token)
        return cost + self._expressions(expression.children(), depth + 1)


def _line_of(token: Token | None, source: str) -> int:
    """Where something stands; the last line for what is missed at the end."""
    return _line(source, len(source) if token is None or token.start_index < 0 else token.start_index)


def _line(source: str, at: int) -> int:
    return source.count("\n", 0, at) + 1


def _shortened(message: str) -> str:
    most = 200
    return message if len(message) <= most else message[:most] + "…"
