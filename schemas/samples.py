"""
What the built-in event types mean, with a sample payload of each: for people who choose, and for test deliveries.

Data only. Names and numbers in the samples are made up.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from schemas.catalogue import ACTIVATED_TYPE, FAILING_TYPE, PAUSED_TYPE


@dataclass(frozen=True, slots=True)
class Sample:
    """A built-in type: when it fires, and what an event of it carries."""

    description: str
    #: As JSON takes it.
    payload: Mapping[str, Any]


def _booking(status: str, **changes: Any) -> dict[str, Any]:
    """A booking. What its record has, product/booking-webhooks.txt tells ("Delivery"); the fields' names are ours."""
    call = {
        "id": "sc_4f1d2a",
        "app_id": "demo",
        "status": status,
        "scheduled_at": "2026-03-02T14:00:00.000Z",
        "duration_minutes": 30,
        "timezone": "Europe/Berlin",
        "guest": {"name": "Ada Guest", "email": "ada@guest.example", "phone": "+49 30 5550100"},
        "agent": {"id": "agt_7", "name": "Grace Agent"},
        "created_at": "2026-02-27T09:12:30.000Z",
        "updated_at": "2026-02-27T09:12:30.000Z",
    }
    return {"scheduled_call": call | changes}


_CALL: Final = {
    "callId": "call_81c2",
    "visitorId": "vis_19ab",
    "page": "https://shop.example/pricing",
}
_WIDGET: Final = {"visitorId": "vis_19ab", "page": "https://shop.example/pricing"}
_INTEGRATION: Final = {"integration": "int_0197c0de000070008000000000000001", "name": "CRM", "profile": "integration"}
#: Integrations have no state between active and paused, subscriptions have.
_SUBSCRIPTION: Final = {"integration": "sub_0197c0de000070008000000000000002", "name": "Bookings", "profile": "booking"}
_FAILED: Final = {"reason": "status_503", "since": "2026-03-02T14:00:00.000Z", "epoch": 1}

#: By type: those of the catalogue, and those that tenterhook itself emits.
SAMPLES: Final[Mapping[str, Sample]] = {
    # Source of the five descriptions: product/booking-webhooks.txt, "Events".
    "scheduled.created": Sample("A booking was created (through any surface).", _booking("scheduled")),
    "scheduled.rescheduled": Sample(
        "The scheduled_at of an existing booking changed.",
        _booking(
            "scheduled",
            scheduled_at="2026-03-03T10:30:00.000Z",
            previous_scheduled_at="2026-03-02T14:00:00.000Z",
            updated_at="2026-02-28T16:40:00.000Z",
        ),
    ),
    "scheduled.cancelled": Sample(
        "A booking transitioned to cancelled.",
        _booking("cancelled", cancelled_at="2026-02-28T16:40:00.000Z", updated_at="2026-02-28T16:40:00.000Z"),
    ),
    "scheduled.confirmed": Sample(
        "A pending_confirmation booking was confirmed by the customer.",
        _booking("confirmed", confirmed_at="2026-02-28T16:40:00.000Z", updated_at="2026-02-28T16:40:00.000Z"),
    ),
    "scheduled.no_show": Sample(
        "The grace window passed without anyone joining.",
        _booking("no_show", updated_at="2026-03-02T14:15:00.000Z"),
    ),
    "widget_opened": Sample("A visitor opened the widget.", _WIDGET),
    "widget_closed": Sample("A visitor closed the widget.", _WIDGET | {"openForMs": 48_210}),
    "call_requested": Sample("A visitor asked for a call.", _CALL),
    "call_started": Sample("A call began: visitor and agent are connected.", _CALL | {"agentId": "agt_7"}),
    "call_ended": Sample("A call ended.", _CALL | {"agentId": "agt_7", "durationS": 312}),
    FAILING_TYPE: Sample(
        "Attempts of an integration fail one after another.",
        _SUBSCRIPTION | _FAILED | {"status": "failing", "consecutiveFailures": 3, "delivery": None, "attempt": None},
    ),
    PAUSED_TYPE: Sample(
        "The breaker paused an integration, since its attempts kept failing, or somebody did.",
        _INTEGRATION
        | _FAILED
        | {"status": "paused", "by": None, "consecutiveFailures": 20, "delivery": "dlv_5d1f0c2b9a7e4f63", "attempt": 3},
    ),
    ACTIVATED_TYPE: Sample(
        "Somebody activated an integration that was paused.",
        _INTEGRATION | {"status": "active", "held": "drain", "by": "ops", "epoch": 2},
    ),
}

#: What an event of an app's own type carries where somebody asks for a sample: tenterhook does not know its fields.
OWN_PAYLOAD: Final[Mapping[str, Any]] = {"sample": True}


def sample_payload(event_type: str) -> Mapping[str, Any]:
    """A payload for a test event of this type."""
    known = SAMPLES.get(event_type)
    return OWN_PAYLOAD if known is None else known.payload
