"""
Fan-out's decision: who selected an event.

Records in, records out.
"""

from collections.abc import Iterable
from typing import Final

from schemas.catalogue import ALL_TYPES, BOOKING_TYPES
from streams.records import IntegrationConfig

#: Of so many types of all apps it is remembered who selected them: clients make up their own.
REMEMBERED: Final = 1_000


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


class Selections:
    """Who selected a type, remembered until the app's integrations change: asking a thousand takes 0.3 ms an event."""

    def __init__(self) -> None:
        #: By app and type: the app's integrations when they were asked, and who selected it.
        self._known: dict[tuple[str, str], tuple[tuple[IntegrationConfig, ...], list[IntegrationConfig]]] = {}

    def of(self, app: str, integrations: tuple[IntegrationConfig, ...], event_type: str) -> list[IntegrationConfig]:
        """
        As `selected`; not to be changed.

        Args:
            integrations: the app's; the very same tuple for as long as none of them changes.
        """
        asked, found = self._known.get((app, event_type), (None, []))
        if asked is not integrations:
            if len(self._known) >= REMEMBERED:
                self._known.clear()
            found = selected(integrations, event_type)
            self._known[app, event_type] = integrations, found
        return found
