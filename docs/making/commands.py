"""What the command says of its own arguments and options, as tables for docs/commands.md. Pure."""

import re
from collections.abc import Iterable, Iterator
from inspect import Parameter
from typing import Final

from cyclopts import App, Argument

#: Where the page says what the options of `shared_table` are.
_SHARED: Final = "[see above](#options-of-many-commands)"


def all_of(of: App, prefix: str = "") -> dict[str, App]:
    """Every command that does something, by its full name."""
    found: dict[str, App] = {}
    for name in of:
        if not name.startswith("-"):
            found |= all_of(of[name], f"{prefix}{name} ") or {prefix + name: of[name]}
    return found


def arguments(of: App) -> list[Argument]:
    """All that it takes, with what its docstring says of each."""
    return list(of.assemble_argument_collection(parse_docstring=True))


def options_table(of: App) -> Iterator[str]:
    """What one command takes. The options that it shares with many stand in one row, named alone."""
    yield "| option | meaning | default |"
    yield "|---|---|---|"
    for each in arguments(of):
        if each.show and not each.keys:
            yield f"| {_names(each)} | {_meaning(each)} | {_default(each)} |"
        elif not each.show:
            shared = ", ".join(_names(inner) for inner in each.children)
            yield f"| {shared} | {_cell(each.parameter.help)} | {_SHARED} |"


def shared_table(every: Iterable[App]) -> Iterator[str]:
    """The options that many commands have."""
    yield "| option | meaning | variable |"
    yield "|---|---|---|"
    shared = {each.name: each for of in every for each in arguments(of) if each.show and each.keys}
    for each in shared.values():
        yield f"| {_names(each)} | {_cell(each.parameter.help)} | {_variables(each)} |"


def _names(of: Argument) -> str:
    names = [f"`{name}`" for name in of.names]
    match of.field_info.kind:
        case Parameter.VAR_POSITIONAL:
            return f"{names[0]} …"
        case Parameter.POSITIONAL_OR_KEYWORD:
            return f"the first word, or {names[0]}"
    return ", ".join(names)


def _meaning(of: Argument) -> str:
    meaning = _cell(of.parameter.help)
    if choices := of.get_choices():
        meaning += f" One of {', '.join(f'`{choice}`' for choice in choices)}."
    return meaning + (f" Variable: {_variables(of)}." if of.parameter.env_var else "")


def _variables(of: Argument) -> str:
    return ", ".join(f"`{name}`" for name in of.parameter.env_var or ())


def _default(of: Argument) -> str:
    value = of.field_info.default
    if of.required:
        return "required"
    if value is of.field_info.empty or value is None or value == ():
        return "none"
    if isinstance(value, bool):
        return f"`{of.names[0]}`" if value else ", ".join(f"`{name}`" for name in of.negatives) or "off"
    return f"`{value}`"


def _cell(text: str | None) -> str:
    """A docstring's words in a table: one line, options as code, no character that means something there."""
    spans = re.split(r"(`[^`]*`)", " ".join((text or "").split()))
    return "".join(span if span.startswith("`") else _escaped(span) for span in spans)


def _escaped(words: str) -> str:
    return re.sub(r"(?<![\w-])--[a-z][a-z-]*", r"`\g<0>`", re.sub(r"[|*<]", r"\\\g<0>", words))
