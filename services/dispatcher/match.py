"""
Fan-out's decision: who selected an event.

Pure: records in, records and ids out.
"""

from collections.abc import Iterable

from schemas.catalogue import ALL_TYPES, BOOKING_TYPES
from streams.records import IntegrationConfig


def selects(integration: IntegrationConfig, event_type: str) -> bool:
    """
    Whether the integration wants events of this type.

    `*` is every type, no type at all is none; anything else is compared as a whole, so `scheduled.*` is no pattern.
    A booking subscription only ever gets bookings: its body is defined for nothing else.

    Source: product/integrations.txt, "By default no events are selected"; product/booking-webhooks.txt, "Events".
    """
    if integration.profile == "booking" and event_type not in BOOKING_TYPES:
        return False
    return event_type in integration.events or ALL_TYPES in integration.events


def selected(integrations: Iterable[IntegrationConfig], event_type: str) -> list[IntegrationConfig]:
    """
    Those that want events of this type, sorted by id, so that the same config always gives the same receipt.

    Paused ones are among them: whether to hold or to discard is decided when their turn comes.
    """
    return sorted((each for each in integrations if selects(each, event_type)), key=lambda each: each.id)
