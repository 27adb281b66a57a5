"""Sample events: of each type of the catalogue, and one for types that only an app knows. Pure."""

from typing import Final

import msgspec

from schemas.samples import sample_payload
from streams.records import Event

#: 2026-01-02T03:04:05.678Z.
SAMPLE_AT_MS: Final = 1_767_323_045_678


def sample_event(app: str, event_type: str) -> Event:
    """An event of this type as it may come."""
    return Event(
        record_id="rec_sample",
        app=app,
        event_id="evt_sample",
        id_space="secret",
        id_supplied=True,
        type=event_type,
        payload=msgspec.json.encode(sample_payload(event_type)),
        occurred_at_ms=SAMPLE_AT_MS,
        accepted_at_ms=SAMPLE_AT_MS,
    )
