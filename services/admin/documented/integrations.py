"""Integrations and subscriptions: what is asked for, and what is shown."""

from typing import Any, Final, get_args

from schemas.catalogue import ALL_TYPES, BOOKING_TYPES
from schemas.headers import MAX_HEADERS, MAX_NAME_CHARS, MAX_VALUE_CHARS
from schemas.profiles import (
    MAX_IN_FLIGHT,
    MAX_TEMPLATE_BYTES,
    MAX_TIMEOUT_MS,
    Ordering,
    ProfileName,
    RetryPolicy,
    WhilePaused,
)
from services.admin.documented.words import (
    BLANK,
    FLAG,
    NOT_BLANK,
    ONE_LINE,
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
from services.admin.rules import (
    MAX_ATTEMPTS,
    MAX_DELAY_MS,
    MAX_EVENTS,
    MAX_SECRET_CHARS,
    MAX_SECRETS,
    MAX_VERSION,
)
from services.admin.rules import MAX_NAME_CHARS as MAX_NAME
from services.admin.urls import MAX_URL_CHARS
from services.vault.references import SECRET_NAME
from streams.records import Outcome

#: What every URL has to look like; that its host is one, its braces are references and its secrets are there, is said
#: in a refusal.
_URL: Final = rf"^[Hh][Tt][Tt][Pp][Ss]?://[^{BLANK}/?#@{{}}\\]+([/?][^{BLANK}#\\]*)?$"
_HEADER_NAME: Final = rf"^[!#$%&'*+.^_`|~0-9A-Za-z-]{{1,{MAX_NAME_CHARS}}}$"
_HEADER_VALUE: Final = r"^[\u0009\u0020-\u007e]*$"
_TYPE: Final = r"^(\*|[A-Za-z0-9][A-Za-z0-9_.-]*)$"

_NAME: Final = text(most=MAX_NAME)
_POLICY: Final = choice(*get_args(RetryPolicy))
_ATTEMPTS: Final = number(1, MAX_ATTEMPTS)
_DELAY: Final = number(1, MAX_DELAY_MS)
_ORDERING: Final = choice(*get_args(Ordering))
_WHILE_PAUSED: Final = choice(*get_args(WhilePaused))
_VERSION: Final = number(1, MAX_VERSION)


def _map(key: str, value: dict[str, Any], *, most: int, description: str) -> dict[str, Any]:
    return {
        "type": "object",
        "propertyNames": {"pattern": key},
        "additionalProperties": value,
        "maxProperties": most,
        "description": description,
    }


def _settings(profile: ProfileName, *, is_patch: bool) -> dict[str, Any]:
    """The settings that a request may give, by name; without those that it must."""
    within = nullable if is_patch else dict
    event = choice(ALL_TYPES, *sorted(BOOKING_TYPES)) if profile == "booking" else text(most=128, pattern=_TYPE)
    retry = all_nullable(
        {
            "policy": _POLICY,
            "maxAttempts": _ATTEMPTS,
            "delaysMs": {"type": "array", "items": _DELAY, "maxItems": MAX_ATTEMPTS - 1},
            "on429": FLAG,
        }
    )
    return {
        "events": {
            "type": "array",
            "items": event,
            "maxItems": MAX_EVENTS,
            "description": "Types of the catalogue or the app's own; `*` stands alone and selects all.",
        },
        "headers": _map(
            _HEADER_NAME,
            within(text(least=0, most=MAX_VALUE_CHARS, pattern=_HEADER_VALUE)),
            most=MAX_HEADERS,
            description="`{secret.name}` is filled in. None of the connection's, none that tenterhook itself sets.",
        ),
        "secrets": _map(
            f"^{SECRET_NAME.pattern}$",
            within(text(most=MAX_SECRET_CHARS, pattern=ONE_LINE)),
            most=MAX_SECRETS,
            description="They are sealed, and no answer has them.",
        )
        | {"writeOnly": True},
        "template": {
            "type": "string",
            "maxLength": MAX_TEMPLATE_BYTES,
            "description": "Of the body, in Liquid; null is the profile's own body.",
        },
        "timeoutMs": number(1, MAX_TIMEOUT_MS),
        "retry": asked(retry, description="`delaysMs` has one wait less than `maxAttempts` says."),
        "ordering": _ORDERING,
        "maxInFlight": number(1, MAX_IN_FLIGHT),
        "whilePaused": _WHILE_PAUSED,
        "autoPause": FLAG,
        "signing": {**FLAG, "enum": [True]} if profile == "booking" else FLAG,
        "sendTraceparent": {
            **FLAG,
            "description": "Requests of traced events carry `traceparent`; false by default.",
        },
        "profile": choice(profile),
    }


_REQUIRED: Final = {
    "name": _NAME,
    "url": {
        **text(most=MAX_URL_CHARS, pattern=_URL),
        "description": "`https`, or `http` where the app allows it; `{secret.name}` in path and query is filled in.",
    },
}


def _new(profile: ProfileName) -> dict[str, Any]:
    return asked(_REQUIRED | all_nullable(_settings(profile, is_patch=False)), required=tuple(_REQUIRED))


def _patch(profile: ProfileName) -> dict[str, Any]:
    return asked(
        _REQUIRED | all_nullable(_settings(profile, is_patch=True)),
        description="A merge patch (RFC 7396): what is null falls back to its default, headers and secrets go away.",
    )


#: What an integration is configured as.
_CONFIGURED: Final = {
    "id": {"type": "string", "pattern": "^(int|sub)_"},
    "profile": choice(*get_args(ProfileName)),
    "name": TEXT,
    "url": TEXT,
    "events": {"type": "array", "items": TEXT},
    "headers": {"type": "object", "additionalProperties": TEXT, "description": "Values are masked."},
    "template": nullable(TEXT),
    "timeoutMs": number(1, MAX_TIMEOUT_MS),
    "retry": shown(
        {
            "policy": _POLICY,
            "maxAttempts": _ATTEMPTS,
            "delaysMs": {"type": "array", "items": _DELAY},
            "on429": FLAG,
        }
    ),
    "ordering": _ORDERING,
    "maxInFlight": number(1, MAX_IN_FLIGHT),
    "whilePaused": _WHILE_PAUSED,
    "autoPause": FLAG,
    "signing": FLAG,
    "sendTraceparent": FLAG,
    "status": choice("active", "failing", "paused"),
    "statusReason": nullable(TEXT),
    "version": _VERSION,
    "epoch": count(1),
    "createdAt": TIME,
    "updatedAt": TIME,
}

#: What it is doing now.
_OF_NOW: Final = {
    "consecutiveFailures": count(),
    "successRate": {
        "type": ["number", "null"],
        "minimum": 0,
        "maximum": 1,
        "description": "`delivered` among what ended in the last 24 hours, `discarded` aside; null where nothing did.",
    },
    "queueAgeMs": nullable(count()) | {"description": "How long the oldest delivery has waited for its turn."},
    "lastDelivery": nullable(
        shown(
            {
                "id": TEXT,
                "event": nullable(TEXT),
                "outcome": nullable(choice(*get_args(Outcome))),
                "status": nullable(count(100)),
                "attempt": nullable(count()),
                "at": TIME,
            }
        )
    ),
}

SCHEMAS: Final[dict[str, Any]] = {
    "NewIntegration": _new("integration"),
    "NewSubscription": _new("booking"),
    "IntegrationPatch": _patch("integration"),
    "SubscriptionPatch": _patch("booking"),
    "Integration": shown(
        _CONFIGURED
        | _OF_NOW
        | {
            "signingSecret": {
                "type": "string",
                "pattern": "^whsec_",
                "description": "Only in the answer to the request that made it.",
            }
        },
        optional=("signingSecret",),
        description="An integration, or a booking subscription, which is one of the profile `booking`.",
    ),
    "Integrations": page_of("Integration"),
    "Held": {
        "type": ["object", "null"],
        "properties": {
            "held": {
                "anyOf": [
                    choice("drain", "skip"),
                    asked({"from": TIME}, required=("from",), description="A time that has passed."),
                    {"type": "null"},
                ],
                "description": "What becomes of the deliveries that are held: required when there are any.",
            }
        },
        "additionalProperties": False,
    },
    "RollBack": asked({"version": _VERSION}, required=("version",)),
    "Version": shown(_CONFIGURED | {"updatedBy": TEXT}),
    "VersionInHistory": shown(
        {
            "version": _VERSION,
            "updatedAt": TIME,
            "updatedBy": TEXT,
            "changes": {
                "type": ["array", "null"],
                "items": ref("Difference"),
                "description": "What it changed; null where the version before is not kept.",
            },
        }
    ),
    "Versions": page_of("VersionInHistory"),
    "Difference": shown(
        {
            "field": {"type": "string", "pattern": NOT_BLANK, "description": "Nested with dots."},
            "from": {"description": "Null where it was absent; `***` where it is secret."},
            "to": {"description": "As `from`."},
        }
    ),
    "Differences": shown({"from": _VERSION, "to": _VERSION, "changes": {"type": "array", "items": ref("Difference")}}),
}

PARAMETERS: Final[dict[str, Any]] = {
    "version": {"description": "The version's number.", "schema": _VERSION},
    "Differences.from": {"description": "The version before.", "required": True, "schema": _VERSION},
    "Differences.to": {"description": "The version after; the newest, where it is absent.", "schema": _VERSION},
}
