"""
Fan-out's decisions: who selected an event, and what its delivery is called.

Pure: records in, records and ids out.
"""

import hashlib
from collections.abc import Iterable
from typing import Final

from schemas.catalogue import ALL_TYPES, BOOKING_TYPES
from streams.records import IntegrationConfig

#: Run of the deliveries that fan-out makes; a retry, replay or test has its command's id instead.
LIVE_RUN: Final = "0"

_PREFIX: Final = "dlv_"
#: Hex digits kept of the hash: 128 bits, so that two of 2**50 deliveries share an id with a chance of 2**-29.
_DIGITS: Final = 32


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


def delivery_id(record_id: str, integration_id: str, run: str) -> str:
    """
    The id of the delivery of one event to one integration in one run: the same on every replay, in every process.

    Each part is preceded by its length, so that no two triples hash the same text.
    """
    text = "".join(f"{len(part)}:{part}" for part in (record_id, integration_id, run))
    return _PREFIX + hashlib.sha256(text.encode()).hexdigest()[:_DIGITS]
