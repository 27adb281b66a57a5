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
    "already_revealed": Kind(409, "this version was shown before; `revealedAt` says when"),
    "app_exists": Kind(409, "there is an app of this id already"),
    "app_in_use": Kind(409, "the app has integrations or subscriptions; `integrations` counts them"),
    "app_unknown": Kind(404, "there is no such app"),
    "body_incomplete": Kind(400, "the connection, or the chunked coding, broke before the body was there"),
    "body_too_slow": Kind(408, "the body was not complete within 30 s"),
    "broker_unavailable": Kind(503, "the log did not answer, or did not confirm in time; `detail` says what is stored"),
    "config_unreadable": Kind(
        503, "the newest record of the app or integration cannot be read, and nothing is known from before"
    ),
    "cursor_invalid": Kind(400, "the cursor is not one of this list, or the filters are others"),
    "delivery_open": Kind(409, "the delivery has not ended"),
    "delivery_unknown": Kind(404, "there is no delivery of this id with a result, or it is not kept any more"),
    "held_choice_required": Kind(409, "deliveries are held, and the body does not say what becomes of them"),
    "history_unavailable": Kind(
        503, "the delivery history cannot be read now, or has not been read to its end yet since the start"
    ),
    "idempotency_key_reused": Kind(409, "the `Idempotency-Key` came with another body before"),
    "idempotency_key_spent": Kind(409, "what was created under the `Idempotency-Key` has been deleted since"),
    "installation_token_required": Kind(403, "it takes a token of the installation, and this is one of an app"),
    "integration_deleted": Kind(409, "the integration that the delivery was for has been deleted"),
    "integration_unknown": Kind(404, "the app has no such integration or subscription"),
    "invalid_fields": Kind(400, "fields are missing, unknown or wrong; `errors` names each"),
    "invalid_header": Kind(400, "a header is malformed; `field` names it"),
    "invalid_json": Kind(400, "the body is not JSON"),
    "invalid_query": Kind(400, "a parameter of the query is malformed, unknown or given twice; `field` names it"),
    "last_admin_token": Kind(409, "it is the only token of an admin of the installation"),
    "limit_reached": Kind(409, "there are as many of these as there can be, which `limit` says"),
    "no_such_key": Kind(404, "the app has no key of this id"),
    "no_such_token": Kind(404, "there is no token of this name here"),
    "no_such_type": Kind(404, "the event type is not one of the app's own"),
    "not_http": Kind(400, "the request is malformed, or a line of it is too long"),
    "payload_expired": Kind(410, "the delivery has fallen out of retention, and its payload with it"),
    "quota_exceeded": Kind(409, "the app has as many active integrations as it may have"),
    "replay_ended": Kind(409, "the replay has ended, so there is nothing to cancel"),
    "replay_unknown": Kind(404, "the integration has no such replay"),
    "request_too_large": Kind(413, "the body is above the limit, which `maxBytes` names"),
    "reveal_limit": Kind(429, "as many secrets of the integration were shown within an hour as may be"),
    "rotations_under_way": Kind(409, "two old signing secrets are valid still"),
    "role_insufficient": Kind(403, "the token's role does not allow this"),
    "secret_in_use": Kind(409, "the URL or a header refers to the secret; `usedBy` names the places"),
    "secret_missing": Kind(409, "the version refers to a secret that is not there any more"),
    "secret_unreadable": Kind(409, "a secret does not open: it was changed, or its key is not there"),
    "secret_unknown": Kind(404, "the integration has no secret of this name"),
    "shown_once": Kind(409, "the `Idempotency-Key` created a key or token, which only the first answer showed"),
    "signing_off": Kind(409, "requests of the integration are not signed"),
    "token_exists": Kind(409, "there is a token of this name"),
    "token_missing": Kind(401, "no bearer token was shown"),
    "token_unknown": Kind(401, "the token is not one of this app or of the installation"),
    "type_in_use": Kind(409, "integrations select the event type; `integrations` has their ids"),
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
