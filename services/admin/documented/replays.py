"""Replays: past events, sent to an integration again."""

from typing import Any, Final, get_args

from services.admin.documented.words import (
    FLAG,
    NOT_BLANK,
    TEXT,
    TIME,
    all_nullable,
    asked,
    count,
    nullable,
    number,
    page_of,
    ref,
    shown,
    text,
)
from services.admin.replays import DEFAULT_RATE, MAX_EVENT_IDS, MAX_RATE, MAX_TYPES
from services.dispatcher.dry_run import MAX_SAMPLE, SAMPLE
from streams.records import ReplayState

_TEXT: Final = text(most=200, pattern=NOT_BLANK)

SCHEMAS: Final[dict[str, Any]] = {
    "NewReplay": asked(
        {"from": TIME}
        | all_nullable(
            {
                "until": {**TIME, "description": "Now, where it is absent."},
                "types": {"type": "array", "items": _TEXT, "maxItems": MAX_TYPES},
                "eventIds": {"type": "array", "items": _TEXT, "maxItems": MAX_EVENT_IDS},
                "rate": {**number(1, MAX_RATE), "default": DEFAULT_RATE, "description": "Events a second."},
                "dryRun": {**FLAG, "description": "Send nothing, and say what would be sent."},
                "sample": {
                    **number(0, MAX_SAMPLE),
                    "default": SAMPLE,
                    "description": "Requests that are shown; of a dry run alone.",
                },
            }
        ),
        required=("from",),
    )
    | {
        "dependentSchemas": {
            "sample": {
                "anyOf": [
                    {"properties": {"sample": {"type": "null"}}},
                    {"properties": {"dryRun": {"const": True}}, "required": ["dryRun"]},
                ]
            }
        }
    },
    "Replay": shown(
        {
            "id": {"type": "string", "pattern": "^rpl_"},
            "integration": TEXT,
            "from": TIME,
            "until": TIME,
            "types": nullable({"type": "array", "items": TEXT}),
            "eventIds": nullable({"type": "array", "items": TEXT}),
            "rate": number(1, MAX_RATE),
            "status": {"type": "string", "enum": list(get_args(ReplayState))},
            "reason": nullable(TEXT),
            "progress": shown(
                {
                    "share": {"type": "number", "minimum": 0, "maximum": 1},
                    "ended": count(),
                    "outcomes": {"type": "object", "additionalProperties": count()},
                    "reachedAt": nullable(TIME),
                }
            ),
            "createdBy": TEXT,
            "createdAt": TIME,
            "updatedAt": TIME,
        }
    ),
    "Replays": page_of("Replay"),
    "DryRun": shown(
        {
            "dryRun": {"const": True},
            "events": count(),
            "byType": {"type": "object", "additionalProperties": count()},
            "repeatsLeftOut": count(),
            "seconds": {"type": "number", "minimum": 0},
            "sample": {"type": "array", "items": ref("DryRunRequest")},
        }
    ),
    "DryRunRequest": shown(
        {
            "eventId": TEXT,
            "event": TEXT,
            "acceptedAt": TIME,
            "deliveredLive": FLAG,
            "url": nullable(TEXT),
            "headers": {"type": "array", "items": shown({"name": TEXT, "value": TEXT})},
            "body": TEXT,
            "refusal": nullable(shown({"code": TEXT, "detail": TEXT})),
        }
    ),
}

PARAMETERS: Final[dict[str, Any]] = {
    "replay": {"description": "The replay's id.", "schema": {"type": "string", "pattern": "^[A-Za-z0-9_-]{1,128}$"}},
}
