"""The JSON Schemas that others are made of."""

from typing import Any, Final

#: Control characters, line and paragraph separators: what no name, header or URL may hold. Halves of a pair, which are
#: refused as well, no JSON text can hold that we read.
_CONTROL: Final = r"\u0000-\u001f\u007f-\u009f\u2028\u2029"
_SPACE: Final = r"\u0020\u00a0\u1680\u2000-\u200a\u202f\u205f\u3000"

#: What stands in a character class of a pattern for a character that is neither.
BLANK: Final = _CONTROL + _SPACE

#: Text in one line, and text in one line that is not blank.
ONE_LINE: Final = f"^[^{_CONTROL}]*$"
NOT_BLANK: Final = f"^[^{_CONTROL}]*[^{BLANK}][^{_CONTROL}]*$"

#: A time, in ISO 8601 with its zone; answers have it in UTC, to the millisecond.
TIME: Final = {"type": "string", "format": "date-time", "examples": ["2026-01-02T03:04:05.678Z"]}
TEXT: Final = {"type": "string"}
FLAG: Final = {"type": "boolean"}


def text(*, most: int, pattern: str = NOT_BLANK, least: int = 1) -> dict[str, Any]:
    """A text of that many characters."""
    return {"type": "string", "minLength": least, "maxLength": most, "pattern": pattern}


def number(least: int, most: int) -> dict[str, Any]:
    """A whole number in these bounds."""
    return {"type": "integer", "minimum": least, "maximum": most}


def count(least: int = 0) -> dict[str, Any]:
    """A whole number without an upper bound."""
    return {"type": "integer", "minimum": least}


def choice(*values: str) -> dict[str, Any]:
    """One of the values."""
    return {"type": "string", "enum": list(values)}


def ref(name: str) -> dict[str, Any]:
    """The schema of that name."""
    return {"$ref": f"#/components/schemas/{name}"}


def nullable(schema: dict[str, Any]) -> dict[str, Any]:
    """The same, or null."""
    if "$ref" in schema or "anyOf" in schema or "type" not in schema:
        return {"anyOf": [schema, {"type": "null"}]}
    with_null = {**schema, "type": [schema["type"], "null"]}
    if "enum" in schema:
        with_null["enum"] = [*schema["enum"], None]
    return with_null


def all_nullable(properties: dict[str, Any]) -> dict[str, Any]:
    """The properties, each of which may be null."""
    return {name: nullable(schema) for name, schema in properties.items()}


def asked(properties: dict[str, Any], *, required: tuple[str, ...] = (), description: str = "") -> dict[str, Any]:
    """An object in a request: it has no other properties, so that a misspelt one does not pass in silence."""
    return _object(properties, required, description) | {"additionalProperties": False}


def shown(properties: dict[str, Any], *, optional: tuple[str, ...] = (), description: str = "") -> dict[str, Any]:
    """An object in an answer: it has all of them but the optional ones, and may come to have more."""
    return _object(properties, tuple(name for name in properties if name not in optional), description)


def page_of(name: str) -> dict[str, Any]:
    """A page of a list of these."""
    cursor = nullable(TEXT) | {"description": "The `cursor` of the page after; null on the last one."}
    return shown({"items": {"type": "array", "items": ref(name)}, "next": cursor})


def _object(properties: dict[str, Any], required: tuple[str, ...], description: str) -> dict[str, Any]:
    found: dict[str, Any] = {"type": "object", "properties": properties}
    if required:
        found["required"] = list(required)
    return found | ({"description": description} if description else {})
