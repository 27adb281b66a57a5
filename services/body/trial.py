"""
The decision whether a template may be configured: it has to give a body for every type that is selected.

Pure. Tried with sample events. What a sample does not have may still be in the app's own payloads, so a template is
refused only where it gives no body whatever stands for that: nothing, a number, a text.
"""

from collections.abc import Iterable
from typing import Final

from schemas.catalogue import ALL_TYPES, BOOKING_TYPES, CATALOGUE, OWN_TYPES
from schemas.profiles import ProfileName
from services.body.envelope import iso_ms
from services.body.rendering import rendered
from services.body.samples import SAMPLE_AT_MS, sample_event
from services.body.template import Fault, Template, parsed
from services.vault.references import misspelt, names

#: Stand for what a sample's payload does not have, one after the other.
_STAND_INS: Final = (None, 1, "text")
#: Of all types that are an app's own: their samples differ in nothing else.
_OWN_TYPE: Final = "your_own_type"


def template_fault(source: str, profile: ProfileName, app: str, events: Iterable[str]) -> str | None:
    """
    Why an integration cannot have this template, or None.

    Args:
        events: that it selects; `*` is all.
    """
    template = parsed(source)
    if names(source) or misspelt(source):
        return "refers to a secret, and a body has none: put it into the URL or a header"
    if isinstance(template, Fault):
        return str(template)
    for event_type in _tried(profile, events):
        fault = _fault(template, app, event_type)
        if fault is not None:
            return f"{fault} (for a sample of {event_type})"
    return None


def _tried(profile: ProfileName, events: Iterable[str]) -> list[str]:
    """The types to try: a handful, however many are selected."""
    known = BOOKING_TYPES if profile == "booking" else CATALOGUE | OWN_TYPES
    selected = set(events)
    if ALL_TYPES in selected:
        selected |= known
    found = sorted(selected & known)
    is_any_own = profile != "booking" and (ALL_TYPES in selected or selected - known - {ALL_TYPES})
    return [*found, *([_OWN_TYPE] if is_any_own or not found else [])]


def _fault(template: Template, app: str, event_type: str) -> Fault | None:
    event = sample_event(app, event_type)
    first: Fault | None = None
    for stand_in in _STAND_INS:
        made = rendered(template, event, attempt=1, at=iso_ms(SAMPLE_AT_MS), missing=stand_in)
        if not isinstance(made, Fault):
            return None
        first = first or made
    return first
