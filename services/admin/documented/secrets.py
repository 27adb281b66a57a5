"""The secrets of an integration, and the rotation of its signing secret."""

from typing import Any, Final

from services.admin.documented.words import (
    FLAG,
    ONE_LINE,
    TEXT,
    TIME,
    asked,
    count,
    nullable,
    number,
    page_of,
    shown,
    text,
)
from services.admin.rotation import MAX_OVERLAP_MS
from services.admin.rules import MAX_SECRET_CHARS
from services.vault.references import SECRET_NAME

_SECRET: Final = {
    "name": TEXT,
    "version": count(1),
    "createdAt": TIME,
    "revealedAt": nullable(TIME) | {"description": "Null where this version was never shown."},
}

SCHEMAS: Final[dict[str, Any]] = {
    "NewSecret": asked({"value": text(most=MAX_SECRET_CHARS, pattern=ONE_LINE)}, required=("value",)),
    "Secret": shown(_SECRET),
    "Secrets": page_of("Secret"),
    "RevealedSecret": shown({"name": TEXT, "version": count(1), "value": TEXT}, description="Shown this once."),
    "Rotate": {
        **asked(
            {"now": nullable(FLAG), "overlapMs": nullable(number(1, MAX_OVERLAP_MS))},
            description="How long the old secret stays valid: a day where it does not say. Not both.",
        ),
        "type": ["object", "null"],
    },
    "Rotated": shown(
        {
            "signingSecret": {"type": "string", "pattern": "^whsec_", "description": "Shown this once."},
            "version": count(1),
            "previousValidUntil": nullable(TIME),
        }
    ),
}

PARAMETERS: Final[dict[str, Any]] = {
    "name": {"description": "The secret's name.", "schema": {"type": "string", "pattern": f"^{SECRET_NAME.pattern}$"}},
}
