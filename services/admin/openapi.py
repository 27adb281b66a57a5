"""
The description of the admin API: OpenAPI 3.1, made from the table of routes.

Pure. A `Route` names what it takes and gives; what the names mean is data in `services.admin.documented`, one module a
resource. A name that is not there is a fault (`Undocumented`), and a test looks for it. So a new route needs:

1. its `Route`, with `body`, `answer`, `query`, `headers`, `gives` and the `errors` that are its own;
2. the schemas, parameters and problems that are new in `services.admin.documented`;
3. `make openapi`, which writes `docs/openapi.json`.

What follows from a route's kind nobody has to say: a token (401), its role (403), its app (404), a query (400), a body
(400, 413, 415), an `Idempotency-Key` (400, 409), an `If-Match` (400, 412), and the log that may be away (503).

The description is exact where JSON Schema can be. What it cannot say, such as which event types an app has of its own
or that a secret is there to be filled in, stands in words beside it, and a refusal names it (`invalid_fields`).
"""

import re
import sys
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping
from typing import Any, Final, cast

import msgspec

from services.admin.documented import DOCUMENTED, Documented, Part
from services.admin.routes import all_routes
from services.admin.routes.route import MAX_BODY_BYTES, Api, Route
from services.runtime.problems import CONTENT_TYPE

#: Of the API: the `1` in its paths.
VERSION: Final = "1"

_PLACE: Final = re.compile(r"\{([^}]+)\}")
_BEARER: Final = "bearer"
_PATCH_TYPE: Final = "application/merge-patch+json"

_FOR_ALL: Final = (
    "not_http",
    "invalid_query",
    "token_missing",
    "token_unknown",
    "broker_unavailable",
    "config_unreadable",
)
_OF_BODY: Final = (
    "invalid_json",
    "invalid_fields",
    "body_incomplete",
    "body_too_slow",
    "request_too_large",
    "unsupported_media_type",
)
_OF_HEADER: Final = {
    "Idempotency-Key": ("invalid_header", "idempotency_key_reused"),
    "If-Match": ("invalid_header", "version_mismatch"),
}
#: Headers that every refusal of a status has.
_OF_STATUS: Final = {401: ("WWW-Authenticate",), 429: ("Retry-After",), 503: ("Retry-After",)}
_WORDS: Final = {
    200: "Done.",
    201: "Created.",
    202: "Begun.",
    204: "Done, and there is nothing to say.",
}


class Undocumented(LookupError):
    """Routes name what `services.admin.documented` does not have. The message says which, where, and what to add."""


def document(routes: Iterable[Route], documented: Documented = DOCUMENTED) -> dict[str, Any]:
    """
    The description of these routes.

    Raises:
        Undocumented: a route, or a schema, names what there is not.
    """
    listed = list(routes)
    if faults := [*_faults(listed, documented), *_dangling(documented)]:
        raise Undocumented("\n".join(faults))
    paths: defaultdict[str, dict[str, Any]] = defaultdict(dict)
    for route in listed:
        paths[route.path][route.method.lower()] = _operation(route, listed, documented)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "tenterhook: the admin API",
            "version": VERSION,
            "summary": "Configures where an app's events are delivered, and shows what became of them.",
            "description": "Refusals are problems (RFC 9457) with a `code` that stays the same. A path that is there "
            "answers any other method with 405 and `Allow`. What nobody expected is 500, code `internal`. "
            f"Bodies have at most {MAX_BODY_BYTES:,} bytes.",
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "servers": [{"url": "/"}],
        "security": [{_BEARER: []}],
        "tags": [{"name": name} for name in dict.fromkeys(_tag(route) for route in listed)],
        "paths": dict(paths),
        "components": {
            "schemas": _needed(listed, documented),
            "responses": {
                _refusal_name(status, codes): _refusal(status, codes, documented)
                for route in listed
                for status, codes in _by_status(route, documented).items()
            },
            "securitySchemes": {
                _BEARER: {
                    "type": "http",
                    "scheme": "bearer",
                    "description": "A token of one app or of the installation, with a role: a viewer reads, an "
                    "operator also acts on what is there, an admin also creates, changes and deletes.",
                }
            },
        },
    }


def described() -> dict[str, Any]:
    """The description of the whole API."""
    return document(all_routes(cast("Api", _Nobody())))


def as_json(described: Mapping[str, Any]) -> bytes:
    """As `docs/openapi.json` has it, for people to read and to compare."""
    return msgspec.json.format(msgspec.json.encode(described), indent=2) + b"\n"


def _needed(routes: Iterable[Route], documented: Documented) -> dict[str, Part]:
    """The schemas that routes name, and those that these refer to; in the order of `documented`."""
    wanted = ["Problem", *(name for route in routes for name in _schemas(route))]
    found: set[str] = set()
    while wanted:
        name = wanted.pop()
        if name not in found:
            found.add(name)
            wanted += _references(documented.schemas[name])
    return {name: schema for name, schema in documented.schemas.items() if name in found}


class _Nobody:
    """Stands for what handlers work with, where none of them is ever called."""

    def __getattr__(self, name: str) -> "_Nobody":
        return self


# -- what is missing -----------------------------------------------------------------------------------------------


def _faults(routes: Iterable[Route], documented: Documented) -> Iterator[str]:
    """What routes name and nothing describes."""
    here = "in services/admin/documented"
    seen: set[tuple[str, str]] = set()
    for route in routes:
        where = f"{route.method} {route.path}"
        if (route.method, route.path) in seen:
            yield f"{where}: is there twice"
        seen.add((route.method, route.path))
        named: tuple[tuple[str, str, Iterable[str], Collection[str]], ...] = (
            ("schema", f"SCHEMAS {here}", _schemas(route), documented.schemas),
            ("parameter", f"PARAMETERS {here}", _unknown_parameters(route, documented), ()),
            ("request header", f"parameters.REQUEST_HEADERS {here}", route.headers, documented.request_headers),
            ("answer header", f"parameters.ANSWER_HEADERS {here}", route.gives, documented.answer_headers),
            ("problem", "services/runtime/kinds.py", _codes(route), documented.problems),
        )
        for what, place, names, known in named:
            for name in names:
                if name not in known:
                    yield f"{where}: there is no {what} {name!r}; add it to {place}"


def _schemas(route: Route) -> list[str]:
    """Names of the schemas that the route names."""
    return [name for name in (route.body, route.answer, *(answer for _, answer in route.also)) if name is not None]


def _unknown_parameters(route: Route, documented: Documented) -> list[str]:
    names = [*_PLACE.findall(route.path), *route.query]
    return [name for name in names if not {name, _own(route, name)} & documented.parameters.keys()]


def _dangling(documented: Documented) -> Iterator[str]:
    """What schemas refer to and nothing describes."""
    for name, schema in documented.schemas.items():
        for target in _references(schema):
            if target not in documented.schemas:
                yield f"schema {name!r} refers to {target!r}, and there is no such schema in services/admin/documented"


def _references(part: Any) -> Iterator[str]:
    if isinstance(part, Mapping):
        if isinstance(part.get("$ref"), str):
            yield part["$ref"].rpartition("/")[2]
        for inner in part.values():
            yield from _references(inner)
    elif isinstance(part, list):
        for inner in part:
            yield from _references(inner)


# -- one route -----------------------------------------------------------------------------------------------------


def _operation(route: Route, others: list[Route], documented: Documented) -> dict[str, Any]:
    found: dict[str, Any] = {
        "operationId": _operation_id(route),
        "tags": [_tag(route)],
        "summary": route.summary,
        "description": f"Needs the role `{route.role}`.",
        "parameters": [*_parameters(route, documented)],
    }
    if route.body is not None:
        content = {"schema": _schema(route.body)}
        types = ("application/json", _PATCH_TYPE) if route.method == "PATCH" else ("application/json",)
        found["requestBody"] = {"required": not route.body_optional, "content": dict.fromkeys(types, content)}
    done = {str(route.status): _done(route, others, documented)}
    done |= {str(status): {"description": _WORDS[status], "content": _json(answer)} for status, answer in route.also}
    return found | {"responses": {**done, **_refusals(route, documented)}}


def _operation_id(route: Route) -> str:
    """
    `get_integrations`, `post_integrations_id_pause`: the method, and the path without what all of them have.

    What is of no app, and has a namesake in one, says so: `get_installation_tokens`.
    """
    path = route.path.removeprefix("/v1/").removeprefix("apps/{app}/")
    if not route.path.startswith("/v1/apps"):
        path = f"installation_{path}"
    return re.sub(r"\W+", "_", f"{route.method.lower()}_{path}").strip("_")


def _tag(route: Route) -> str:
    """The resource: the first part of the path that is its own."""
    path = route.path.removeprefix("/v1/").removeprefix("apps/{app}/")
    return path.partition("/")[0]


def _parameters(route: Route, documented: Documented) -> Iterator[dict[str, Any]]:
    for name in _PLACE.findall(route.path):
        yield {"name": name, "in": "path", "required": True, **_parameter(route, name, documented)}
    for name in route.query:
        yield {"name": name, "in": "query", **_parameter(route, name, documented)}
    for name in route.headers:
        yield {"name": name, "in": "header", **documented.request_headers[name]}


def _parameter(route: Route, name: str, documented: Documented) -> Part:
    return documented.parameters.get(_own(route, name)) or documented.parameters[name]


def _own(route: Route, name: str) -> str:
    return f"{route.answer}.{name}"


def _done(route: Route, others: list[Route], documented: Documented) -> dict[str, Any]:
    found: dict[str, Any] = {"description": _WORDS[route.status]}
    if route.gives:
        found["headers"] = {name: {"required": True, **documented.answer_headers[name]} for name in route.gives}
    if route.answer is not None:
        found["content"] = _json(route.answer)
    if links := _links(route, others):
        found["links"] = links
    return found


def _links(route: Route, others: list[Route]) -> dict[str, Any]:
    """What can be done next with what was created, where that has an `id`."""
    if route.method != "POST" or "Location" not in route.gives:
        return {}
    known = {name: f"$request.path.{name}" for name in _PLACE.findall(route.path)}
    known |= {name: f"$response.body#/{name}" for name in ("id", "version")}
    places = {other: _PLACE.findall(other.path) for other in others if other.path.startswith(f"{route.path}/{{id}}")}
    return {
        _operation_id(other): {
            "operationId": _operation_id(other),
            "parameters": {name: known[name] for name in names},
        }
        for other, names in places.items()
        if known.keys() >= set(names)
    }


def _codes(route: Route) -> list[str]:
    """Codes of all problems that the route may answer with."""
    codes = [*_FOR_ALL, *route.errors]
    if route.role != "viewer":
        codes.append("role_insufficient")
    if "{app}" in route.path:
        codes.append("app_unknown")
    if route.body is not None:
        codes += _OF_BODY
    for header in route.headers:
        codes += _OF_HEADER.get(header, ())
    return sorted(set(codes))


def _by_status(route: Route, documented: Documented) -> dict[int, list[str]]:
    found: defaultdict[int, list[str]] = defaultdict(list)
    for code in _codes(route):
        found[documented.problems[code].status].append(code)
    return dict(sorted(found.items()))


def _refusals(route: Route, documented: Documented) -> dict[str, Any]:
    return {
        str(status): {"$ref": f"#/components/responses/{_refusal_name(status, codes)}"}
        for status, codes in _by_status(route, documented).items()
    }


def _refusal_name(status: int, codes: list[str]) -> str:
    """`404.app_unknown`: many routes refuse for the same reasons."""
    return ".".join((str(status), *codes))


def _refusal(status: int, codes: list[str], documented: Documented) -> dict[str, Any]:
    found: dict[str, Any] = {
        "description": "\n".join(f"- `{code}`: {documented.problems[code].when}" for code in codes),
        "content": {
            CONTENT_TYPE: {
                "schema": {
                    "allOf": [
                        _schema("Problem"),
                        {"properties": {"status": {"const": status}, "code": {"enum": codes}}},
                    ]
                }
            }
        },
    }
    if headers := _OF_STATUS.get(status):
        found["headers"] = {name: {"required": True, **documented.answer_headers[name]} for name in headers}
    return found


def _json(name: str) -> dict[str, Any]:
    return {"application/json": {"schema": _schema(name)}}


def _schema(name: str) -> dict[str, Any]:
    return {"$ref": f"#/components/schemas/{name}"}


if __name__ == "__main__":
    sys.stdout.buffer.write(as_json(described()))
