"""Sample events: of each type of the catalogue, and one for types that only an app knows. Data, and no more."""

from typing import Any, Final

import msgspec

from schemas.catalogue import ACTIVATED_TYPE, BOOKING_TYPES, FAILING_TYPE, PAUSED_TYPE
from streams.records import Event

#: 2026-01-02T03:04:05.678Z.
SAMPLE_AT_MS: Final = 1_767_323_045_678

_BOOKING: Final = {
    "id": "sc_sample",
    "status": "confirmed",
    "scheduled_at": "2026-01-05T10:00:00Z",
    "duration_minutes": 30,
    "timezone": "Europe/Berlin",
    "guest": {"name": "Ada Example", "email": "ada@example.com", "phone": "+49 30 000000"},
    "agent": {"id": "agt_sample", "name": "Grace Example"},
    "created_at": "2026-01-02T03:04:05Z",
}
_OWN: Final = {"integration": "int_sample", "name": "CRM", "profile": "integration", "epoch": 1}
_FAILED: Final = {
    "consecutiveFailures": 20,
    "reason": "timeout",
    "since": "2026-01-02T03:04:05.678Z",
    "delivery": "dlv_sample",
    "attempt": 3,
}
_CALL: Final = {"callId": "call_sample", "page": "https://shop.example/checkout"}

_PAYLOADS: Final[dict[str, Any]] = {
    **{name: {"scheduled_call": _BOOKING} for name in BOOKING_TYPES},
    "widget_opened": {"page": "https://shop.example/checkout"},
    "widget_closed": {"page": "https://shop.example/checkout", "openS": 12},
    "call_requested": _CALL,
    "call_started": _CALL,
    "call_ended": {**_CALL, "durationS": 42},
    FAILING_TYPE: {**_OWN, **_FAILED, "status": "failing"},
    PAUSED_TYPE: {**_OWN, **_FAILED, "status": "paused"},
    ACTIVATED_TYPE: {**_OWN, "status": "active", "held": "drain", "by": "ops"},
}


def sample_event(app: str, event_type: str) -> Event:
    """An event of this type as it may come; one without a payload where only the app knows what it holds."""
    return Event(
        record_id="rec_sample",
        app=app,
        event_id="evt_sample",
        id_space="secret",
        id_supplied=True,
        type=event_type,
        payload=msgspec.json.encode(_PAYLOADS.get(event_type)),
        occurred_at_ms=SAMPLE_AT_MS,
        accepted_at_ms=SAMPLE_AT_MS,
    )
