"""The problems that routes may answer with, and how one looks. What to do about each, docs/errors.md says."""

from dataclasses import dataclass
from typing import Any, Final

from services.admin.documented.words import TEXT, shown
from services.runtime.problems import TYPE_PREFIX


@dataclass(frozen=True, slots=True)
class Kind:
    """Status of the problems of a code, and when they come."""

    status: int
    when: str


PROBLEMS: Final = {
    "app_unknown": Kind(404, "there is no such app"),
    "body_incomplete": Kind(400, "the connection, or the chunked coding, broke before the body was there"),
    "broker_unavailable": Kind(503, "the log did not answer, or did not confirm in time; `detail` says what is stored"),
    "held_choice_required": Kind(409, "deliveries are held, and the body does not say what becomes of them"),
    "idempotency_key_reused": Kind(409, "the `Idempotency-Key` came with another body before"),
    "idempotency_key_spent": Kind(409, "what was created under the `Idempotency-Key` has been deleted since"),
    "integration_unknown": Kind(404, "the app has no such integration or subscription"),
    "invalid_fields": Kind(400, "fields are missing, unknown or wrong; `errors` names each"),
    "invalid_header": Kind(400, "a header is malformed; `field` names it"),
    "invalid_json": Kind(400, "the body is not JSON"),
    "invalid_query": Kind(400, "a parameter of the query is malformed, unknown or given twice; `field` names it"),
    "not_http": Kind(400, "the request is malformed, or a line of it is too long"),
    "quota_exceeded": Kind(409, "the app has as many active integrations as it may have"),
    "request_too_large": Kind(413, "the body is above the limit, which `maxBytes` names"),
    "role_insufficient": Kind(403, "the token's role does not allow this"),
    "secret_missing": Kind(409, "the version refers to a secret that is not there any more"),
    "secret_unreadable": Kind(409, "a secret does not open: it was changed, or its key is not there"),
    "token_missing": Kind(401, "no bearer token was shown"),
    "token_unknown": Kind(401, "the token is not one of this app or of the installation"),
    "unsupported_media_type": Kind(415, "the body says that it is not JSON, or compressed"),
    "version_mismatch": Kind(412, "it is at another version than `If-Match` names"),
    "version_unknown": Kind(404, "there is no such version, or it is not kept any more"),
}

_FIELD: Final = {**TEXT, "description": "The field of the JSON that is wrong, nested with dots; empty: all of it."}

SCHEMAS: Final[dict[str, Any]] = {
    "Problem": shown(
        {
            "type": {**TEXT, "pattern": f"^{TYPE_PREFIX}[a-z0-9_]+$", "description": "A name, not an address."},
            "title": {**TEXT, "description": "The same for every problem of the code."},
            "status": {"type": "integer", "minimum": 400, "maximum": 599},
            "detail": {**TEXT, "description": "What exactly is wrong, and what to do. For people; it may change."},
            "code": {**TEXT, "pattern": "^[a-z0-9_]+$", "description": "For programs; it stays the same."},
            "field": _FIELD,
            "errors": {"type": "array", "items": shown({"field": _FIELD, "detail": TEXT})},
        },
        optional=("field", "errors"),
        description="Why a request was refused. RFC 9457. Some codes have members of their own.",
    )
}
