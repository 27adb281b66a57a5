"""
The body that a receiver gets of an event, or why there is none.

Pure: times come in as arguments. What is rendered is sent as it is, so signatures are over these bytes.
"""

import re
from bisect import bisect_right
from typing import Final

import msgspec
from liquid.exceptions import (
    LiquidError,
    LiquidSyntaxError,
    LiquidTypeError,
    OutputStreamLimitError,
    ResourceLimitError,
)

from schemas.profiles import MAX_BODY_BYTES, ProfileName
from services.body.envelope import envelope, iso_ms
from services.body.metering import JsonText, Meter, Unrenderable
from services.body.template import Fault, Template, parsed
from streams.records import Delivery, Event

_read: Final = msgspec.json.Decoder().decode
_BYTE: Final = re.compile(r" \(byte (\d+)\)$")
_TOO_DEEP: Final = "the payload is nested too deeply for a template"
#: The first that fits.
_IN_WORDS: Final = (
    (OutputStreamLimitError, f"more than {MAX_BODY_BYTES} bytes are written"),
    (ResourceLimitError, "loops are nested too deeply"),
    (RecursionError, _TOO_DEEP),
    (LiquidTypeError, "values of different kinds are compared"),
    (LiquidSyntaxError, "break or continue stands outside a loop"),
    (LiquidError, "a value cannot be used like this"),
)


def body(
    event: Event | Delivery, profile: ProfileName, template: str | None, *, attempt: int, at: str
) -> bytes | Fault:
    """
    What a receiver gets: the profile's envelope, or what the template makes of the event.

    Args:
        template: its text; None: the profile's own body.
        attempt: its number, counted from 1.
        at: when it is made, as `iso_ms` gives it.
    """
    if template is None:
        return envelope(event, profile, attempt=attempt, at=at)
    made = parsed(template)
    return made if isinstance(made, Fault) else rendered(made, event, attempt=attempt, at=at)


def preview(event: Event | Delivery, profile: ProfileName, template: str | None, *, at_ms: int) -> bytes | Fault:
    """The body that a first attempt at *at_ms* would send, or why its outcome would be `blocked`. Sends nothing."""
    made = body(event, profile, template, attempt=1, at=iso_ms(at_ms))
    if isinstance(made, bytes) and len(made) > MAX_BODY_BYTES:
        return Fault(None, f"the body would have {len(made)} bytes: {MAX_BODY_BYTES} at most")
    return made


def rendered(
    template: Template, event: Event | Delivery, *, attempt: int, at: str, missing: object = None
) -> bytes | Fault:
    """
    What the template makes of the event: JSON of at most 65,536 bytes, white space around it left out.

    Args:
        missing: what stands for everything that the payload does not have; nil, but for trying a template out.
    """
    try:
        payload = _read(event.payload or b"null")
    except RecursionError:
        return Fault(None, _TOO_DEEP)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return Fault(None, "the payload holds a number or a text that no template can read")
    names = {
        "event": event.type,
        "id": event.event_id,
        "appId": event.app,
        "occurredAt": iso_ms(event.occurred_at_ms),
        "deliveredAt": at,
        "attempt": attempt,
        "payload": payload,
    }
    meter = Meter(template.parsed, names, missing)
    written = JsonText()
    try:
        template.parsed.render_with_context(meter, written)
    except Exception as error:  # noqa: BLE001  # whatever a filter makes of a value, it is the template's fault
        return Fault(None if meter.at is None else template.line(meter.at.start_index), _why(error, meter.doing))
    return _json(template, written)


def _json(template: Template, written: JsonText) -> bytes | Fault:
    text = written.getvalue().encode()
    try:
        _read(text)
    except RecursionError:
        return Fault(None, _TOO_DEEP)
    except msgspec.DecodeError as error:
        if not text.strip():
            return Fault(None, "nothing is written for this event")
        found = _BYTE.search(str(error))
        at = len(text) if found is None else int(found[1])
        return Fault(_origin(template, written, text, at), "what is written is not JSON (anymore) from here on")
    return text.strip()


def _origin(template: Template, written: JsonText, text: bytes, at: int) -> int:
    """The line of the template that wrote the byte at this position."""
    place = bisect_right(written.places, at, key=lambda place: place[0]) - 1
    size, start = written.places[max(place, 0)] if written.places else (0, 0)
    is_value = template.source.startswith("{{", start)
    return template.line(start) + (0 if is_value else text.count(b"\n", size, at))


def _why(error: Exception, filter_name: str | None) -> str:
    """An exception for people. Those of the library are put in other words: theirs can show an event's values."""
    if isinstance(error, Unrenderable):
        return str(error)
    in_words = [words for kind, words in _IN_WORDS if isinstance(error, kind)]
    if filter_name is not None and not isinstance(error, ResourceLimitError | RecursionError):
        return f"the filter {filter_name} cannot work with what it is given"
    return in_words[0] if in_words else f"it cannot be rendered ({type(error).__name__})"
