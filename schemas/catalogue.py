"""The event types that every app knows, and how a record may be named. Data only."""

import re
from typing import Final

MAX_TYPE_LENGTH: Final = 128

#: What a type may be called.
TYPE_NAME: Final = re.compile(rf"[A-Za-z0-9][A-Za-z0-9_.-]{{0,{MAX_TYPE_LENGTH - 1}}}")

#: Types of bookings start so: they need a secret key and a booking.
BOOKING_PREFIX: Final = "scheduled."
#: Types that tenterhook itself emits start so; nobody else may, or a page could report a pause that never was.
OWN_PREFIX: Final = "tenterhook."

#: A booking's life. Source: product/booking-webhooks.txt, "Events".
BOOKING_TYPES: Final = frozenset(
    {
        "scheduled.created",
        "scheduled.rescheduled",
        "scheduled.cancelled",
        "scheduled.confirmed",
        "scheduled.no_show",
    }
)

#: What the widget emits. Source: product/integrations.txt names the last two; an app adds its own.
WIDGET_TYPES: Final = frozenset(
    {
        "widget_opened",
        "widget_closed",
        "call_requested",
        "call_started",
        "call_ended",
    }
)

CATALOGUE: Final = BOOKING_TYPES | WIDGET_TYPES

#: What tenterhook itself tells an app about its integrations: they can select these, and nobody can send them.
FAILING_TYPE: Final = "tenterhook.integration.failing"
PAUSED_TYPE: Final = "tenterhook.integration.paused"
ACTIVATED_TYPE: Final = "tenterhook.integration.activated"
OWN_TYPES: Final = frozenset({FAILING_TYPE, PAUSED_TYPE, ACTIVATED_TYPE})

#: Selects every type, where it stands alone in an integration's `events`.
ALL_TYPES: Final = "*"
