"""
What `services.admin.openapi` describes the API with: data alone, one module a resource.

A module may have `SCHEMAS` (JSON Schema 2020-12, by name) and `PARAMETERS` (of path and query: Parameter Objects
without `in`, by name; `Differences.from` where the routes that answer with `Differences` mean something else by
`from`). Name the module below. Limits are the code's own constants, so that they cannot differ. The problems are those
of `services.runtime.kinds`.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from services.admin.documented import (
    apps,
    audit,
    credentials,
    deliveries,
    integrations,
    parameters,
    problems,
    replays,
    secrets,
)
from services.runtime import kinds

#: A part of an OpenAPI document.
Part = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Documented:
    """Everything that routes may name."""

    schemas: Mapping[str, Part]
    #: Of path and query.
    parameters: Mapping[str, Part]
    #: Headers of requests, those of answers, and the kinds of problems, by name or code.
    request_headers: Mapping[str, Part]
    answer_headers: Mapping[str, Part]
    problems: Mapping[str, kinds.Kind]


_RESOURCES: Final = (apps, credentials, integrations, secrets, replays, deliveries, audit)

DOCUMENTED: Final = Documented(
    schemas={name: schema for module in (problems, *_RESOURCES) for name, schema in module.SCHEMAS.items()},
    parameters={
        name: each for module in (parameters, *_RESOURCES) for name, each in getattr(module, "PARAMETERS", {}).items()
    },
    request_headers=parameters.REQUEST_HEADERS,
    answer_headers=parameters.ANSWER_HEADERS,
    problems={kind.code: kind for kind in kinds.DECLARED if kind.of != "ingest"},
)
