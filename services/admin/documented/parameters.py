"""The parameters and headers that paths share. The ones of a single resource stand in its module."""

from typing import Any, Final

from services.admin.documented.words import TEXT, TIME, number
from services.admin.idempotency import MAX_KEY_CHARS
from services.admin.routes.route import DEFAULT_LIMIT, MAX_LIMIT

PARAMETERS: Final[dict[str, Any]] = {
    # of the path
    "app": {"description": "The app's id.", "schema": {"type": "string", "pattern": "^[a-z0-9_-]{1,64}$"}},
    "id": {"description": "Its id.", "schema": {"type": "string", "pattern": "^[A-Za-z0-9_-]{1,128}$"}},
    # of the query
    "limit": {
        "description": "How many the page may have.",
        "schema": {**number(1, MAX_LIMIT), "default": DEFAULT_LIMIT},
    },
    "cursor": {"description": "`next` of the page before.", "schema": TEXT},
    "since": {"description": "Only what happened at that time or later.", "schema": TIME},
    "until": {"description": "Only what happened before that time.", "schema": TIME},
    "action": {"description": "Only this action, for example `integration.create`.", "schema": TEXT},
    "target": {"description": "Only what was done to this.", "schema": TEXT},
    "who": {"description": "Only what the token of this name did.", "schema": TEXT},
}

REQUEST_HEADERS: Final[dict[str, Any]] = {
    "Idempotency-Key": {
        "description": "Repeated with the same key and body, a create gives the same answer and creates nothing; a "
        "signing secret is in it until it is rotated.",
        "schema": {"type": "string", "pattern": rf"^[ -~]{{1,{MAX_KEY_CHARS}}}$"},
    },
    "If-Match": {
        "description": "The `ETag` of the version that the change was made for.",
        "schema": {"type": "string", "pattern": r'^(\*|"[!#-~]*")$', "examples": ['"7"', "*"]},
    },
}

ANSWER_HEADERS: Final[dict[str, Any]] = {
    "ETag": {"description": "The version, for `If-Match`.", "schema": {"type": "string", "pattern": '^"[0-9]+"$'}},
    "Location": {
        "description": "The path of what was created.",
        "schema": {"type": "string", "format": "uri-reference"},
    },
    "Retry-After": {"description": "Repeat it after so many seconds.", "schema": number(1, 86_400)},
    "WWW-Authenticate": {"description": "The scheme that is wanted.", "schema": {"const": "Bearer"}},
}
