"""
A template's text as the tokens that python-liquid's parser takes.

Pure. Instead of the library's own lexer, whose expressions look again at the same text from many places: here every
character is looked at a bounded number of times, so that hostile text costs no more than other text of its length.
Comments (`{% comment %}` and `{% # %}`) and `{% raw %}` are done with here; the parser never sees them.
"""

import re
from collections.abc import Iterator
from typing import Final

from liquid.exceptions import LiquidSyntaxError
from liquid.token import TOKEN_CONTENT, TOKEN_EOF, TOKEN_EXPRESSION, TOKEN_OUTPUT, TOKEN_TAG, Token

#: Characters between two delimiters. The library's expressions are looked at again from every one of them, at worst.
MAX_EXPRESSION_CHARS: Final = 1_000

_OPENS: Final = re.compile(r"\{[{%]")
_NAME: Final = re.compile(r"\s*(#|\w+)")
_ENDRAW: Final = re.compile(r"\{%-?\s*endraw\s*-?%\}")
_COMMENT: Final = re.compile(r"\{%-?\s*(comment|endcomment)\s*-?%\}")


def lexed(source: str) -> Iterator[Token]:
    """
    The tokens of a template.

    Raises:
        LiquidSyntaxError: something is opened and not closed, or too long.
    """
    at, strips = 0, False
    while at < len(source):
        opens = _OPENS.search(source, at)
        end = opens.start() if opens else len(source)
        yield from _content(source, at, end, strips=strips)
        if opens is None:
            return
        inside, at, strips = _inside(source, end)
        if source[end + 1] == "{":
            yield Token(TOKEN_OUTPUT, source[end:at], end, source)
            yield _expression(source, inside.start, inside.stop)
            continue
        named = _NAME.match(source, inside.start, inside.stop)
        if named is None:
            raise _error("there is a tag without a name", source, end)
        if named[1] == "raw":
            closed = _ENDRAW.search(source, at)
            if closed is None:
                raise _error("raw is never closed: write {% endraw %}", source, end)
            yield from _content(source, at, closed.start(), strips=False, is_raw=True)
            at, strips = closed.end(), closed[0].endswith("-%}")
        elif named[1] == "comment":
            at, strips = _after_comment(source, at, end)
        elif named[1] != "#":
            yield Token(TOKEN_TAG, named[1], named.start(1), source)
            argument = _expression(source, named.end(), inside.stop)
            if argument.value:
                yield argument


def _content(source: str, start: int, end: int, *, strips: bool, is_raw: bool = False) -> Iterator[Token]:
    """What stands between tags; *strips*: the tag before it ends in a dash."""
    text = source[start:end]
    if strips:
        text = text.lstrip()
        start = end - len(text)
    if not is_raw and source.startswith("-", end + 2):
        text = text.rstrip()
    if text:
        yield Token(TOKEN_CONTENT, text, start, source)


def _inside(source: str, start: int) -> tuple[range, int, bool]:
    """Where what is between the delimiters stands, where they end, and whether they strip what follows."""
    closer = "}}" if source[start + 1] == "{" else "%}"
    close = source.find(closer, start + 2)
    if close < 0:
        raise _error(f"{source[start : start + 2]} is never closed: write {closer}", source, start)
    if close - start > MAX_EXPRESSION_CHARS:
        raise _error(f"more than {MAX_EXPRESSION_CHARS} characters stand between two delimiters", source, start)
    first = start + 2 + (source[start + 2] == "-")
    strips = close > first and source[close - 1] == "-"
    return range(first, close - strips), close + 2, strips


def _expression(source: str, start: int, end: int) -> Token:
    text = source[start:end]
    return Token(TOKEN_EXPRESSION, text.strip(), start + len(text) - len(text.lstrip()), source)


def _after_comment(source: str, at: int, start: int) -> tuple[int, bool]:
    """Where the comment ends that begins before *at*, comments inside it included."""
    depth = 1
    for tag in _COMMENT.finditer(source, at):
        depth += 1 if tag[1] == "comment" else -1
        if not depth:
            return tag.end(), tag[0].endswith("-%}")
    raise _error("comment is never closed: write {% endcomment %}", source, start)


def _error(message: str, source: str, at: int) -> LiquidSyntaxError:
    return LiquidSyntaxError(message, token=Token(TOKEN_EOF, "", at, source))
