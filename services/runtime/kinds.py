"""
Every kind of problem there is, as data: whose it is, code, status, title, when it comes, and what to do.

A `Problem` is raised with one of them. `docs/errors.md` lists them, and the admin API's description has those that
its routes may answer with; both are made from here.
"""

from dataclasses import dataclass
from typing import Final, Literal

Of = Literal["every service", "ingest", "admin"]


@dataclass(frozen=True, slots=True)
class Kind:
    """What the problems of one code have in common."""

    #: Whose answer it is.
    of: Of
    #: Stable, in snake_case, the same in API, command and logs.
    code: str
    #: Of HTTP.
    status: int
    #: What kind of problem this is, for people.
    title: str
    #: When it comes. Plain words: it stands in the API's description too.
    when: str
    #: What to do. Links are as from `docs/`.
    remedy: str
    #: The status may be another of 4xx: whatever the cause has.
    is_any_4xx: bool = False


# fmt: off
# -- every service ------------------------------------------------------------------------------------------------

NOT_FOUND: Final = Kind(
    "every service", "not_found", 404, "No such address",
    "nothing answers at this path",
    "look the path up",
)
METHOD_NOT_ALLOWED: Final = Kind(
    "every service", "method_not_allowed", 405, "Wrong method",
    "the path is there, the method is not; `Allow` names those that are",
    "use one of them",
)
REQUEST_TOO_LARGE: Final = Kind(
    "every service", "request_too_large", 413, "Request too large",
    "the body is above the limit, which `maxBytes` names",
    "send less",
)
BODY_INCOMPLETE: Final = Kind(
    "every service", "body_incomplete", 400, "Body incomplete",
    "the connection or the chunked coding broke before the body was there",
    "repeat the request",
)
BODY_TOO_SLOW: Final = Kind(
    "every service", "body_too_slow", 408, "Body too slow",
    "the body was not complete within 10 s, 60 s for a batch, 30 s for the admin service",
    "repeat it",
)
NOT_HTTP: Final = Kind(
    "every service", "not_http", 400, "Not HTTP",
    "the request is malformed, or a line of it is longer than 8,190 bytes",
    "correct the client",
)
HTTP_ERROR: Final = Kind(
    "every service", "http_error", 400, "Refused",
    "anything else about HTTP that was refused; the status says what",
    "correct the request",
    is_any_4xx=True,
)
INTERNAL: Final = Kind(
    "every service", "internal", 500, "Our fault",
    "our fault; the log has the cause, the answer has not",
    "repeat it, then tell the operator",
)
BROKER_UNAVAILABLE: Final = Kind(
    "every service", "broker_unavailable", 503, "No answer from the log",
    "the log did not answer, or did not confirm in time; `detail` says what is stored",
    "repeat it after `Retry-After`: an event with the same `id`, a create with its `Idempotency-Key`; a `retry`, "
    "`test` or replay only when the [audit log](admin.md) has none of it, since each sends once more",
)
CONFIG_UNREADABLE: Final = Kind(
    "every service", "config_unreadable", 503, "Configuration unreadable",
    "the newest record of the app or integration cannot be read, and nothing is known from before; nothing was stored",
    "repeat it after `Retry-After`; the operator [writes it again](operating.md#configuration-that-cannot-be-read)",
)
INVALID_JSON: Final = Kind(
    "every service", "invalid_json", 400, "Not JSON",
    "the body is not JSON in UTF-8, or is nested too deeply (some hundred levels are taken)",
    "send JSON; ingest takes one object, or a [batch](ingest.md#batches)",
)
UNSUPPORTED_MEDIA_TYPE: Final = Kind(
    "every service", "unsupported_media_type", 415, "Unsupported media type",
    "the body says that it is not JSON, or not UTF-8, or compressed; ingest takes plain text too",
    "send JSON as it is",
)

# -- ingest -------------------------------------------------------------------------------------------------------

INVALID_EVENT: Final = Kind(
    "ingest", "invalid_event", 400, "Not an event",
    "it is JSON and not an event; `field` names what is wrong",
    "correct that field",
)
EMPTY_BATCH: Final = Kind(
    "ingest", "empty_batch", 400, "Empty batch",
    "there is no event in the batch",
    "send one at least",
)
KEY_MISSING: Final = Kind(
    "ingest", "key_missing", 401, "Key missing",
    "no key was shown",
    "send it, see [ingest](ingest.md#keys)",
)
KEY_UNKNOWN: Final = Kind(
    "ingest", "key_unknown", 401, "Unknown app or key",
    "there is no such app, or the key is not one of its keys; which of the two is not told",
    "check both",
)
SECRET_KEY_IN_ADDRESS: Final = Kind(
    "ingest", "secret_key_in_address", 401, "Secret key in the address",
    "`?key=` with something other than a public key",
    "send it in a header, and replace it: addresses end in logs",
)
ORIGIN_MISSING: Final = Kind(
    "ingest", "origin_missing", 403, "Origin missing",
    "a public key without `Origin`",
    "use a secret key on servers",
)
ORIGIN_NOT_ALLOWED: Final = Kind(
    "ingest", "origin_not_allowed", 403, "Origin not allowed",
    "the page's origin is not one of the app's",
    "add the origin to the app",
)
SECRET_KEY_REQUIRED: Final = Kind(
    "ingest", "secret_key_required", 403, "Secret key required",
    "a booking (`scheduled.…`) with a public key",
    "send it from a server",
)
ID_REUSED: Final = Kind(
    "ingest", "id_reused", 409, "Another event has this id",
    "another event was accepted under this `id` within 24 hours, and ingest knows",
    "give a new event an id of its own, see [repeats](ingest.md#repeats)",
)
EVENT_TOO_LARGE: Final = Kind(
    "ingest", "event_too_large", 413, "Event too large",
    "the body that receivers would get could be above 65,536 bytes",
    "send less, or a reference",
)
TOO_MANY_EVENTS: Final = Kind(
    "ingest", "too_many_events", 413, "Too many events",
    "the batch has more than 500 events, which `maxEvents` names",
    "send it in parts",
)
UNKNOWN_TYPE: Final = Kind(
    "ingest", "unknown_type", 422, "Unknown event type",
    "a public key with a type that is neither in the catalogue nor the app's own",
    "correct it, or add it to the app",
)
RESERVED_TYPE: Final = Kind(
    "ingest", "reserved_type", 422, "Reserved event type",
    "a type that starts with `tenterhook.`",
    "choose another name",
)
RATE_LIMITED: Final = Kind(
    "ingest", "rate_limited", 429, "Too many events",
    "the app's public keys post more than its rate",
    "repeat it after `Retry-After`, see [rate](ingest.md#rate)",
)
OVERLOADED: Final = Kind(
    "ingest", "overloaded", 503, "Too busy",
    "more waits to be stored than can be held; this was not stored",
    "repeat it after `Retry-After`",
)

# -- admin --------------------------------------------------------------------------------------------------------

INVALID_FIELDS: Final = Kind(
    "admin", "invalid_fields", 400, "Fields to correct",
    "fields are missing, unknown or wrong; `errors` names each",
    "correct them",
)
INVALID_HEADER: Final = Kind(
    "admin", "invalid_header", 400, "Header to correct",
    "a request header is malformed; `field` names it",
    "correct it",
)
INVALID_QUERY: Final = Kind(
    "admin", "invalid_query", 400, "Query to correct",
    "a parameter of the query is malformed, unknown or given twice; `field` names it",
    "correct it",
)
CURSOR_INVALID: Final = Kind(
    "admin", "cursor_invalid", 400, "Cursor invalid",
    "the cursor is not one that this list has answered with, or the filters are others",
    "leave it out, or repeat the filters",
)
INVALID_FORM: Final = Kind(
    "admin", "invalid_form", 400, "Not a form",
    "what a page of the console was sent is no form, or has too many fields",
    "send the page's own form",
)
FORM_FOREIGN: Final = Kind(
    "admin", "form_foreign", 403, "Not from this page",
    "a form of the console came from another site, or from a page of an earlier session",
    "open the page again, and repeat it",
)
TOKEN_MISSING: Final = Kind(
    "admin", "token_missing", 401, "Token missing",
    "no bearer token was shown",
    "send `Authorization: Bearer …`",
)
TOKEN_UNKNOWN: Final = Kind(
    "admin", "token_unknown", 401, "Unknown token",
    "there is no such token, or it is one of another app",
    "check it",
)
ROLE_INSUFFICIENT: Final = Kind(
    "admin", "role_insufficient", 403, "Not allowed for this role",
    "the token's role does not allow this",
    "use another token",
)
INSTALLATION_TOKEN_REQUIRED: Final = Kind(
    "admin", "installation_token_required", 403, "Only for the installation's tokens",
    "it concerns the whole installation, or takes a limit off an app, and the token is one app's",
    "use a token of the installation",
)
APP_UNKNOWN: Final = Kind(
    "admin", "app_unknown", 404, "No such app",
    "there is no such app",
    "check its name",
)
SCHEMA_UNKNOWN: Final = Kind(
    "admin", "schema_unknown", 404, "No such schema",
    "there is no schema of that id, at `GET /schemas/ids/{id}`",
    "see [topics](topics.md#reading-the-results)",
)
DELIVERY_UNKNOWN: Final = Kind(
    "admin", "delivery_unknown", 404, "No such delivery",
    "there is no delivery of this id with a result, or it is not kept any more",
    "list them",
)
DELIVERY_OPEN: Final = Kind(
    "admin", "delivery_open", 409, "Still being tried",
    "the delivery that should be sent again has not ended",
    "wait for its outcome",
)
INTEGRATION_DELETED: Final = Kind(
    "admin", "integration_deleted", 409, "Its integration is deleted",
    "the integration that a delivery was for has been deleted",
    "nowhere to send it",
)
PAYLOAD_EXPIRED: Final = Kind(
    "admin", "payload_expired", 410, "Payload gone",
    "the delivery has fallen out of retention, and its payload with it",
    "send the event anew",
)
REPLAY_UNKNOWN: Final = Kind(
    "admin", "replay_unknown", 404, "No such replay",
    "the integration has no replay of this id",
    "list its replays",
)
REPLAY_ENDED: Final = Kind(
    "admin", "replay_ended", 409, "Replay ended",
    "the replay that should be cancelled has ended",
    "look at how it ended",
)
APP_EXISTS: Final = Kind(
    "admin", "app_exists", 409, "The app is there",
    "there is an app of this id",
    "choose another",
)
APP_IN_USE: Final = Kind(
    "admin", "app_in_use", 409, "The app has integrations",
    "the app has integrations or subscriptions; `integrations` counts them",
    "delete them first",
)
NO_SUCH_KEY: Final = Kind(
    "admin", "no_such_key", 404, "No such key",
    "the app has no key of this id",
    "list them",
)
NO_SUCH_TOKEN: Final = Kind(
    "admin", "no_such_token", 404, "No such token",
    "there is no token of this name here",
    "list them",
)
TOKEN_EXISTS: Final = Kind(
    "admin", "token_exists", 409, "The name is taken",
    "there is a token of this name",
    "choose another, or delete that one",
)
NOT_FIRST: Final = Kind(
    "admin", "not_first", 409, "There is one already",
    "the installation has a token of an admin already",
    "use that one",
)
LAST_ADMIN_TOKEN: Final = Kind(
    "admin", "last_admin_token", 409, "The last admin's token",
    "it is the only token of an admin of the whole installation",
    "create its successor first",
)
SHOWN_ONCE: Final = Kind(
    "admin", "shown_once", 409, "It was shown already",
    "the `Idempotency-Key` created a key or token, which only the first answer showed; `created` names it",
    "delete that, and create another under a new key",
)
NO_SUCH_TYPE: Final = Kind(
    "admin", "no_such_type", 404, "No such event type",
    "the event type is not one of the app's own",
    "list them",
)
TYPE_IN_USE: Final = Kind(
    "admin", "type_in_use", 409, "An integration selects it",
    "integrations select the event type; `integrations` has their ids",
    "take it out of their `events`",
)
LIMIT_REACHED: Final = Kind(
    "admin", "limit_reached", 409, "No more of these",
    "there are as many keys, tokens or event types as there can be, which `limit` says",
    "delete one",
)
INTEGRATION_UNKNOWN: Final = Kind(
    "admin", "integration_unknown", 404, "No such integration or subscription",
    "the app has no such integration or subscription",
    "check the id",
)
SECRET_UNKNOWN: Final = Kind(
    "admin", "secret_unknown", 404, "No such secret",
    "the integration has no secret of this name",
    "list them",
)
SECRET_IN_USE: Final = Kind(
    "admin", "secret_in_use", 409, "Secret in use",
    "the URL or a header refers to the secret; `usedBy` names the places",
    "take the references out",
)
ALREADY_REVEALED: Final = Kind(
    "admin", "already_revealed", 409, "Shown already",
    "this version of the secret was revealed before; `revealedAt` says when",
    "store it anew",
)
REVEAL_LIMIT: Final = Kind(
    "admin", "reveal_limit", 429, "Too many reveals",
    "10 secrets of the integration were revealed within an hour",
    "wait for `Retry-After`",
)
SECRET_UNREADABLE: Final = Kind(
    "admin", "secret_unreadable", 409, "Cannot be opened",
    "a secret does not open: its key was erased or is not there, or its record was changed",
    "store it anew, see [erasing](security.md#erasing-an-apps-secrets); `detail` says where something has to be done "
    "before",
)
SIGNING_OFF: Final = Kind(
    "admin", "signing_off", 409, "Not signed",
    "requests of the integration are not signed",
    "turn signing on",
)
ROTATIONS_UNDER_WAY: Final = Kind(
    "admin", "rotations_under_way", 409, "Rotated just before",
    "two old signing secrets are valid still",
    'wait until the first has ended, or end all with `{"now": true}`',
)
IDEMPOTENCY_KEY_REUSED: Final = Kind(
    "admin", "idempotency_key_reused", 409, "Key used for something else",
    "the `Idempotency-Key` was used for a different request",
    "use a new one",
)
IDEMPOTENCY_KEY_SPENT: Final = Kind(
    "admin", "idempotency_key_spent", 409, "What it created is deleted",
    "what was created under the `Idempotency-Key` has been deleted since",
    "use a new one",
)
VERSION_MISMATCH: Final = Kind(
    "admin", "version_mismatch", 412, "It has changed meanwhile",
    "`If-Match` names another version than the present one, which `version` is",
    "get it again, and make the change anew",
)
VERSION_UNKNOWN: Final = Kind(
    "admin", "version_unknown", 404, "No such version",
    "there is no such version of the integration, or it is not kept any more",
    "look its history up",
)
SECRET_MISSING: Final = Kind(
    "admin", "secret_missing", 409, "A secret is missing",
    "the version to go back to refers to a secret that is gone",
    "put the secret first",
)
HELD_CHOICE_REQUIRED: Final = Kind(
    "admin", "held_choice_required", 409, "What becomes of what is held?",
    "deliveries are held, as many as `held` says, and the activation does not say what becomes of them",
    "repeat it with [`held`](admin.md#pausing)",
)
QUOTA_EXCEEDED: Final = Kind(
    "admin", "quota_exceeded", 409, "No place left",
    "the app has as many active integrations as it may have",
    "pause or delete one",
)
HISTORY_UNAVAILABLE: Final = Kind(
    "admin", "history_unavailable", 503, "Delivery history unavailable",
    "the delivery history cannot be read now, or has not been read to its end yet since the start",
    "repeat it after `Retry-After`",
)

# fmt: on
# -- all -------------------------------------------------------------------------------------------------------------

DECLARED: Final[tuple[Kind, ...]] = tuple(found for found in globals().values() if isinstance(found, Kind))
