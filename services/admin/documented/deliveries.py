"""Deliveries and their attempts, those that a person asks for, and how an integration's ended by hour."""

from typing import Any, Final, get_args

from schemas.catalogue import BOOKING_TYPES, MAX_TYPE_LENGTH
from services.admin.delivery_commands import DEFAULT_RETRIED, MAX_RETRIED
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
    ref,
    shown,
    text,
)
from services.history.cursor import CURSOR_CHARS
from streams.records import Cause, Outcome

_OUTCOMES: Final = get_args(Outcome)
_OUTCOME: Final = {
    **choice(*_OUTCOMES, "open"),
    "description": "`open`: another attempt follows.",
}
_CAUSE: Final = choice(*get_args(Cause))
_CURSOR: Final = {"type": "string", "pattern": f"^[A-Za-z0-9_-]{{{CURSOR_CHARS}}}$"}
_HEADERS: Final = {"type": "object", "additionalProperties": TEXT, "description": "Secrets are masked."}
_STATUS: Final = nullable(count(100)) | {"description": "Of HTTP; null where no answer came."}
_DUE: Final = nullable(TIME) | {"description": "When the next attempt is due; null where none follows."}
_TOOK: Final = {"type": ["number", "null"], "minimum": 0}

_ROW: Final = {
    "id": TEXT,
    "app": TEXT,
    "integration": TEXT,
    "event": {**TEXT, "description": "The event's type."},
    "eventId": TEXT,
    "recordId": TEXT,
    "cause": _CAUSE,
    "of": nullable(TEXT) | {"description": "The delivery that it repeats."},
    "outcome": _OUTCOME,
    "attempt": {**count(), "description": "Number of the last one; 0: it ended without one."},
    "repeats": {**count(), "description": "Requests that were made twice, around a crash."},
    "status": _STATUS,
    "reason": TEXT,
    "acceptedAt": TIME,
    "beganAt": TIME,
    "lastAt": TIME,
    "endedAt": nullable(TIME),
    "nextDueAt": _DUE,
}

_MADE: Final = {
    "id": TEXT,
    "of": nullable(TEXT) | {"description": "The delivery that it repeats."},
    "integration": TEXT,
    "attempt": count(1),
}

SCHEMAS: Final[dict[str, Any]] = {
    "ListedDelivery": shown(_ROW),
    "Deliveries": page_of("ListedDelivery"),
    "Attempt": shown(
        {
            "number": {**count(), "description": "0: the delivery ended without one, and `reason` says why."},
            "isRepeat": {**FLAG, "description": "Its request was made twice, around a crash."},
            "outcome": nullable(choice(*_OUTCOMES)) | {"description": "Null where another attempt follows."},
            "reason": TEXT,
            "detail": nullable(TEXT),
            "startedAt": TIME,
            "finishedAt": TIME,
            "url": {**TEXT, "description": "Secrets are masked."},
            "requestHeaders": _HEADERS,
            "status": _STATUS,
            "responseHeaders": _HEADERS,
            "responseBody": TEXT,
            "responseBodyIsBase64": {**FLAG, "description": "The body was not UTF-8."},
            "truncated": {**FLAG, "description": "The body went on."},
            "timing": shown(
                {
                    "dnsMs": _TOOK,
                    "connectMs": _TOOK,
                    "tlsMs": _TOOK,
                    "waitMs": _TOOK,
                    "readMs": _TOOK,
                    "totalMs": {"type": "integer"},
                }
            ),
            "nextDueAt": _DUE,
            "configVersion": count(),
            "epoch": count(),
        }
    ),
    "Delivery": shown(
        _ROW
        | {
            "attempts": {"type": "array", "items": ref("Attempt")},
            "repeatedBy": {"type": "array", "items": ref("ListedDelivery"), "description": "Newest first."},
        }
    ),
    "MadeDelivery": shown(_MADE),
    "RetryFilter": asked(
        {"outcome": choice(*_OUTCOMES)}
        | all_nullable(
            {
                "integration": text(most=200),
                "type": text(most=200),
                "since": {**TIME, "description": "Those that ended then or later."},
                "until": {**TIME, "description": "Those that ended before."},
                "limit": {**number(1, MAX_RETRIED), "default": DEFAULT_RETRIED},
                "cursor": {**_CURSOR, "description": "`next` of the answer before, with the same filter."},
            }
        ),
        required=("outcome",),
    ),
    "Retried": shown(
        {
            "items": {"type": "array", "items": ref("MadeDelivery")},
            "refused": {
                "type": "array",
                "items": shown({"of": TEXT, "code": choice("integration_deleted", "payload_expired")}),
                "description": "They count towards `limit`.",
            },
            "more": {**FLAG, "description": "Others may fit the filter: there is a `next`."},
            "next": nullable(TEXT) | {"description": "The `cursor` to go on with; null where nothing is left."},
        },
        optional=("next",),
    ),
    "Test": {
        **asked(
            {
                "type": nullable(text(most=MAX_TYPE_LENGTH))
                | {"description": "Of the catalogue or the app's own; the first that it selects, where it is absent."}
            }
        ),
        "type": ["object", "null"],
    },
    "BookingTest": {
        **asked(
            {
                "type": nullable(choice(*sorted(BOOKING_TYPES)))
                | {"description": "The first that it selects, where it is absent."}
            }
        ),
        "type": ["object", "null"],
    },
    "SampleDelivery": shown(_MADE | {"event": {**TEXT, "description": "The event's type."}, "eventId": TEXT}),
    "Hour": shown(
        {
            "startAt": TIME,
            **{outcome: count() for outcome in _OUTCOMES},
            "successRate": {
                "type": ["number", "null"],
                "minimum": 0,
                "maximum": 1,
                "description": "`delivered` among what ended, `discarded` aside; null where nothing did.",
            },
        }
    ),
    "Rates": page_of("Hour"),
}

PARAMETERS: Final[dict[str, Any]] = {
    "delivery": {
        "description": "The delivery's id.",
        "schema": {"type": "string", "pattern": "^[A-Za-z0-9_-]{1,128}$"},
    },
    "integration": {"description": "Only deliveries to this one.", "schema": TEXT},
    "outcome": {"description": "Only those that ended so; `open`: not yet.", "schema": choice(*_OUTCOMES, "open")},
    "type": {"description": "Only of events of this type.", "schema": TEXT},
    "event": {"description": "Only of the event of this id.", "schema": TEXT},
    "cause": {"description": "Only those that came about so.", "schema": _CAUSE},
    "Deliveries.since": {
        "description": "That ended at that time or later; without an `outcome`, or with `open`, that began then.",
        "schema": TIME,
    },
    "Deliveries.until": {
        "description": "That ended before that time; without an `outcome`, or with `open`, that began.",
        "schema": TIME,
    },
    "Deliveries.cursor": {
        "description": "`next` of the page before, with the same filters.",
        "schema": _CURSOR,
    },
}
