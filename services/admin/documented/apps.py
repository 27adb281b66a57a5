"""Apps and their event types, and what is done with their data keys."""

import re
from typing import Any, Final

from schemas.catalogue import BOOKING_PREFIX, CATALOGUE, MAX_TYPE_LENGTH, OWN_PREFIX, TYPE_NAME
from services.admin.apps import (
    APP_ID,
    DEFAULT_PUBLIC_RATE,
    MAX_MAX_ACTIVE,
    MAX_ORIGIN_CHARS,
    MAX_ORIGINS,
    MAX_OWN_TYPES,
    MAX_PUBLIC_RATE,
    ORIGIN,
)
from services.admin.documented.words import (
    FLAG,
    TEXT,
    TIME,
    all_nullable,
    asked,
    choice,
    count,
    nullable,
    number,
    page_of,
    shown,
    text,
)
from services.admin.rules import MAX_NAME_CHARS

_RESERVED: Final = (BOOKING_PREFIX, OWN_PREFIX)

_ID: Final = {"type": "string", "pattern": f"^{APP_ID.pattern}$"}
_TYPE: Final = text(most=MAX_TYPE_LENGTH, pattern=f"^{TYPE_NAME.pattern}$")
#: A type that an app can have of its own.
_OWN_TYPE: Final = {
    **_TYPE,
    "not": {"anyOf": [choice(*sorted(CATALOGUE)), {"pattern": f"^({'|'.join(map(re.escape, _RESERVED))})"}]},
    "description": "None that is built in, and none that starts with `scheduled.` or `tenterhook.`.",
}

_SETTINGS: Final = {
    "name": {**text(most=MAX_NAME_CHARS), "description": "Its id, where it is absent."},
    "origins": {
        "type": "array",
        "items": text(most=MAX_ORIGIN_CHARS, pattern=rf"^(\*|{ORIGIN.pattern})$"),
        "maxItems": MAX_ORIGINS,
        "description": "Pages that may post with a public key, as browsers send them: without a scheme's own port. "
        "`*` stands alone and allows all.",
    },
    "eventTypes": {
        "type": "array",
        "items": _OWN_TYPE,
        "maxItems": MAX_OWN_TYPES,
    },
    "allowHttp": {**FLAG, "description": "Whether its integrations may have `http` URLs."},
    "maxActive": {**number(0, MAX_MAX_ACTIVE), "description": "Active integrations at once."},
    "publicRatePerS": {
        **number(1, MAX_PUBLIC_RATE),
        "default": DEFAULT_PUBLIC_RATE,
        "description": "Events a second that come with public keys.",
    },
}

SCHEMAS: Final[dict[str, Any]] = {
    "NewApp": asked({"id": _ID} | all_nullable(_SETTINGS), required=("id",)),
    "AppPatch": asked(
        {"id": {**_ID, "description": "The app's own: it cannot be changed."}} | all_nullable(_SETTINGS),
        description="A merge patch (RFC 7396): what is null falls back to its default.",
    ),
    "App": shown(
        {
            "id": _ID,
            "name": TEXT,
            "origins": {"type": "array", "items": TEXT},
            "eventTypes": {"type": "array", "items": TEXT},
            "allowHttp": FLAG,
            "maxActive": count(),
            "publicRatePerS": count(),
            "version": count(1),
            "createdAt": TIME,
            "updatedAt": TIME,
        }
    ),
    "Apps": page_of("App"),
    "NewEventType": asked({"type": _OWN_TYPE}, required=("type",)),
    "EventType": shown(
        {
            "type": TEXT,
            "source": choice("catalogue", "app", "tenterhook"),
            "description": nullable(TEXT) | {"description": "Null for the app's own types."},
            "sample": {"type": ["object", "null"], "description": "A payload; null for the app's own types."},
        }
    ),
    "EventTypes": page_of("EventType"),
    "Rewrap": {
        **asked({"newDataKeys": nullable(FLAG) | {"description": "Make a new data key, and seal all under that."}}),
        "type": ["object", "null"],
    },
    "Rewrapped": shown(
        {
            "app": _ID,
            "integrations": {**count(), "description": "How many were written."},
            "left": {"type": "array", "items": TEXT, "description": "What does not open, and stays as it is."},
        }
    ),
    "Erase": asked(
        {"confirm": {**text(most=200), "description": "The app's id: every secret that it has stored is lost."}},
        required=("confirm",),
    ),
    "Erased": shown({"app": _ID, "erased": {**count(), "description": "How many data keys; the app has a new one."}}),
}

PARAMETERS: Final[dict[str, Any]] = {
    "eventType": {"description": "An event type of the app's own.", "schema": _TYPE},
}
