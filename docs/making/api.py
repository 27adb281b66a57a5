"""
Writes docs/api.md: docs/openapi.json for people.

    python -m docs.making.api          # `make openapi`

Pure but for `main`; `tests/docs/test_api_documented.py` holds the page to the document.
"""

# ruff: noqa: E501  # a line of the page is a sentence

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

DOCS: Final = Path(__file__).parents[1]

_HEAD: Final = """\
# API reference

Every request of the admin API: what it takes, what it answers, how it is refused.
This page is made by `make openapi` out of [`openapi.json`](openapi.json) (OpenAPI 3.1), which is for programs; the service has the same at `/openapi.json`.
[The admin API](admin.md) explains it; events are posted to [ingest](ingest.md).

It listens on 127.0.0.1:8081 unless the [settings](settings.md) say otherwise. Each request carries `Authorization: Bearer tok_…`.
A refusal is a [problem](errors.md) with one of the codes that its row has; besides these, a method that a path does not have is 405 `method_not_allowed`, and our own fault 500 `internal`.

## All requests

| request | what | role |
|---|---|---|
"""
_ROLE: Final = re.compile(r"Needs the role `(\w+)`")
#: Of names and texts, which say in unreadable words that a line break is none of them.
_LONG_PATTERN: Final = 60


def page(document: Mapping[str, Any]) -> str:
    """The whole page."""
    operations = [
        (method.upper(), path, operation)
        for path, methods in document["paths"].items()
        for method, operation in methods.items()
    ]
    rows = "".join(
        f"| [`{method} {path}`](#{anchor(method, path)}) | {operation['summary']} | {_role(operation)} |\n"
        for method, path, operation in operations
    )
    parts = [_HEAD + rows]
    for tag in document["tags"]:
        parts.append(f"\n## Requests: {tag['name']}\n")
        parts += [
            _operation(method, path, operation, document)
            for method, path, operation in operations
            if operation["tags"] == [tag["name"]]
        ]
    parts.append(
        "\n## What is sent and answered\n\nA field may be absent where it is not said to be required; `[]` after a name stands for each entry of that array.\n"
    )
    parts += [_schema(name, schema) for name, schema in document["components"]["schemas"].items()]
    return "".join(parts)


def anchor(method: str, path: str) -> str:
    """Where the page has a request: its heading, as GitHub and the site name it."""
    return re.sub(r"[^a-z0-9 _-]", "", f"{method} {path}".lower()).replace(" ", "-")


def _role(operation: Mapping[str, Any]) -> str:
    found = _ROLE.search(operation.get("description", ""))
    return found[1] if found else ""


def _operation(method: str, path: str, operation: Mapping[str, Any], document: Mapping[str, Any]) -> str:
    lines = [f"\n### `{method} {path}`\n", f"{operation['summary']}. {operation.get('description', '')}".rstrip(), ""]
    if parameters := operation.get("parameters"):
        lines += ["| in | name | | |", "|---|---|---|---|"]
        lines += [
            _row(each["in"], f"`{each['name']}`", _type(each["schema"]), _said(each, each["schema"]))
            for each in sorted(parameters, key=lambda each: ("path", "query", "header").index(each["in"]))
        ]
        lines.append("")
    if body := operation.get("requestBody"):
        schemas = {_type(media["schema"]) for media in body["content"].values()}
        absent = "" if body.get("required") else ", or nothing"
        lines += [f"Takes {' or '.join(sorted(schemas))}{absent}.", ""]
    lines += ["| status | answer |", "|---|---|"]
    lines += [
        _row(f"{status}", _answer(response, document)) for status, response in sorted(operation["responses"].items())
    ]
    return "\n".join(lines) + "\n"


def _answer(response: Mapping[str, Any], document: Mapping[str, Any]) -> str:
    if "$ref" in response:
        response = _resolved(response["$ref"], document)
    content = response.get("content", {})
    if "application/problem+json" in content:
        codes = content["application/problem+json"]["schema"]["allOf"][1]["properties"]["code"]
        return ", ".join(f"`{code}`" for code in codes.get("enum", [codes.get("const")]))
    kinds = " or ".join(sorted({_type(media["schema"]) for media in content.values() if "schema" in media}))
    headers = ", ".join(f"`{name}`" for name in response.get("headers", {}))
    return "; ".join(part for part in (kinds or response["description"].rstrip("."), headers) if part)


def _resolved(reference: str, document: Mapping[str, Any]) -> Mapping[str, Any]:
    found: Any = document
    for name in reference.removeprefix("#/").split("/"):
        found = found[name.replace("~1", "/").replace("~0", "~")]
    return dict(found)


def _schema(name: str, schema: Mapping[str, Any]) -> str:
    lines = [f"\n### {name}\n"]
    if "description" in schema:
        lines += [schema["description"], ""]
    lines += ["| field | | |", "|---|---|---|"]
    lines += [_row(f"`{field}`", kind, said) for field, kind, said in _fields(schema)]
    return "\n".join(lines) + "\n"


def _fields(schema: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str, str]]:
    """Name, type and words of each field; those of objects inside follow theirs, with a dot."""
    required = schema.get("required", ())
    for name, field in schema.get("properties", {}).items():
        yield prefix + name, _type(field), _said({"required": name in required}, field)
        inner = field.get("items", field)
        yield from _fields(inner, f"{prefix}{name}{'[]' if 'items' in field else ''}.")


def _type(schema: Mapping[str, Any]) -> str:
    if "$ref" in schema:
        name = schema["$ref"].rsplit("/", 1)[1]
        return f"[{name}](#{name.lower()})"
    if "anyOf" in schema and "type" not in schema:
        return " or ".join(_type(each) for each in schema["anyOf"])
    if "enum" in schema:
        return " or ".join(f"`{json.dumps(each)}`" for each in schema["enum"])
    if "const" in schema:
        return f"`{json.dumps(schema['const'])}`"
    types = schema.get("type", "any")
    names = types if isinstance(types, list) else [types]
    entries = f" of {_type(schema['items'])}" if "items" in schema else ""
    return " or ".join(f"`{name}`{entries if name == 'array' else ''}" for name in names)


def _said(parameter: Mapping[str, Any], schema: Mapping[str, Any]) -> str:
    """Whether it is required, its limits, and what it is."""
    limits = []
    for low, high, unit in (
        ("minimum", "maximum", ""),
        ("minLength", "maxLength", " characters"),
        ("minItems", "maxItems", " entries"),
        ("minProperties", "maxProperties", " fields"),
    ):
        least, most = schema.get(low), schema.get(high)
        if most is not None:
            limits.append(f"{f'{least:,} to' if least is not None else 'at most'} {most:,}{unit}")
        elif least:
            limits.append(f"at least {least:,}{unit}")
    if "pattern" in schema and len(schema["pattern"]) < _LONG_PATTERN:
        limits.append(f"`{schema['pattern']}`")
    if schema.get("format"):
        limits.append(schema["format"])
    if "default" in schema:
        limits.append(f"`{json.dumps(schema['default'])}` by default")
    words = [
        "Required." if parameter.get("required") else "",
        _sentence(", ".join(limits)),
        parameter.get("description") or schema.get("description", ""),
    ]
    return " ".join(word for word in words if word)


def _sentence(text: str) -> str:
    return f"{text[0].upper()}{text[1:]}." if text else ""


def _row(*cells: str) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|").replace("\n", " ") for cell in cells) + " |"


def main() -> None:
    """Write the page."""
    document = json.loads((DOCS / "openapi.json").read_text(encoding="utf-8"))
    (DOCS / "api.md").write_text(page(document), encoding="utf-8")


if __name__ == "__main__":
    main()
