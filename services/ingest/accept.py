"""
The decision whether bytes that came in over HTTP are an event, and which.

Pure: clock and ids come in as arguments. Payload bytes are kept as they are; nothing is parsed twice and nothing is
rendered again, because receivers check signatures over the very bytes that the sender chose.
"""

import re
from datetime import UTC, datetime, timedelta
from typing import Annotated, Final

import msgspec

from schemas.catalogue import BOOKING_PREFIX, CATALOGUE, MAX_TYPE_LENGTH, OWN_PREFIX, TYPE_NAME
from schemas.profiles import MAX_BODY_BYTES
from services.runtime.problems import Problem
from streams.records import AppConfig, Event, KeyKind

#: The whole request, in bytes. Source: contract, "Ingest".
MAX_REQUEST_BYTES: Final = MAX_BODY_BYTES

MAX_ID_LENGTH: Final = 128
MAX_ORDERING_KEY_LENGTH: Final = 256

_ID: Final = re.compile(rf"[A-Za-z0-9_-]{{1,{MAX_ID_LENGTH}}}")
_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f]")

#: What stands around type, id, app and payload in the larger of the two bodies that a receiver may get, times and
#: attempt at their longest. `services/dispatcher/plan.py` writes it; a test holds the two together.
_ENVELOPE_BYTES: Final = len(
    '{"event":"","id":"","appId":"","occurredAt":"9999-12-31T23:59:59.999Z",'
    '"deliveredAt":"9999-12-31T23:59:59.999Z","attempt":2147483647,"payload":}'
)

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MILLISECOND: Final = timedelta(milliseconds=1)
#: 9999-12-31T23:59:59.999Z: later has no four-digit year to be written with.
_LAST_MS: Final = 253_402_300_799_999


class _Body(msgspec.Struct, forbid_unknown_fields=True):
    type: str
    payload: msgspec.Raw = msgspec.Raw(b"null")
    id: str | None = None
    occurredAt: Annotated[datetime, msgspec.Meta(tz=True)] | None = None  # noqa: N815 (the name in JSON)
    orderingKey: str | None = None  # noqa: N815


class _Booking(msgspec.Struct):
    scheduled_call: msgspec.Raw


_decode_body: Final = msgspec.json.Decoder(_Body).decode
_decode_booking: Final = msgspec.json.Decoder(_Booking).decode
#: How msgspec names the field that it did not like.
_PATH: Final = re.compile(r" - at `\$\.?(?P<at>[^`]*)`$")
_NAMED: Final = re.compile(r"(?P<what>missing required|contains unknown) field `(?P<field>.*)`", re.DOTALL)


def accept(
    body: bytes, *, app: AppConfig, key_kind: KeyKind, now_ms: int, record_id: str, minted_event_id: str
) -> Event:
    """
    The event that the body is, or why it is none.

    Args:
        app: whose event it is.
        key_kind: of the key that the sender has shown.
        now_ms: when it is accepted; `occurredAt` where the body names none.
        record_id: the event's identity on the log.
        minted_event_id: its id where the body brings none.

    Raises:
        Problem: 400 `invalid_json` or `invalid_event`, 403 `secret_key_required`, 413 `request_too_large`
            or `event_too_large`, 422 `unknown_type` or `reserved_type`.
    """
    if len(body) > MAX_REQUEST_BYTES:
        raise request_too_large()
    decoded = _decode(body)
    event_type = decoded.type
    payload = bytes(decoded.payload)
    _check_type(event_type, app, key_kind)
    if event_type.startswith(BOOKING_PREFIX):
        _check_booking(payload)
    event_id, id_supplied = (minted_event_id, False) if decoded.id is None else (_check_id(decoded.id), True)
    _check_envelope(event_type, event_id, app.app, payload)
    return Event(
        record_id=record_id,
        app=app.app,
        event_id=event_id,
        id_space=key_kind,
        id_supplied=id_supplied,
        type=event_type,
        payload=payload,
        occurred_at_ms=now_ms if decoded.occurredAt is None else _milliseconds(decoded.occurredAt),
        accepted_at_ms=now_ms,
        ordering_key=None if decoded.orderingKey is None else _check_ordering_key(decoded.orderingKey),
    )


def answer(event: Event) -> bytes:
    """What the sender of an accepted event gets, as JSON."""
    accepted_at = (_EPOCH + event.accepted_at_ms * _MILLISECOND).isoformat(timespec="milliseconds")
    return b'{"id":"%b","acceptedAt":"%bZ"}' % (event.event_id.encode(), accepted_at[:-6].encode())


def request_too_large() -> Problem:
    """The request as a whole is above the limit."""
    return Problem(
        413,
        "request_too_large",
        "Request too large",
        f"The request's body is larger than {MAX_REQUEST_BYTES:,} bytes. Send less, or send a reference to what is "
        "large.",
        maxBytes=MAX_REQUEST_BYTES,
    )


def _decode(body: bytes) -> _Body:
    try:
        if not body.isascii():
            # msgspec takes the payload as it is, and so would not see bytes in it that are no UTF-8.
            body.decode()
        return _decode_body(body)
    except msgspec.ValidationError as error:
        raise _wrong_shape(str(error)) from None
    except UnicodeDecodeError as error:
        raise _invalid_json(f"byte {error.start} is not UTF-8") from None
    except RecursionError:
        raise _invalid_json("it is nested too deeply, some hundred levels are taken") from None
    except msgspec.DecodeError as error:
        raise _invalid_json("it is empty" if not body else str(error)) from None


def _check_type(event_type: str, app: AppConfig, key_kind: KeyKind) -> None:
    if not TYPE_NAME.fullmatch(event_type):
        raise _invalid(
            "type",
            f"`type` must be 1 to {MAX_TYPE_LENGTH} of A-Z a-z 0-9 _ . - and start with a letter or a digit, for "
            "example call_started.",
        )
    if event_type.startswith(OWN_PREFIX):
        raise Problem(
            422,
            "reserved_type",
            "Reserved event type",
            f"Types that start with `{OWN_PREFIX}` are emitted by tenterhook alone. Choose another type.",
            field="type",
        )
    if key_kind == "secret":
        return
    if event_type.startswith(BOOKING_PREFIX):
        raise Problem(
            403,
            "secret_key_required",
            "Secret key required",
            f"Types that start with `{BOOKING_PREFIX}` are bookings, which need a secret key (sk_…). Send them from a "
            "server, not from a page.",
            field="type",
        )
    if event_type not in CATALOGUE and event_type not in app.event_types:
        raise Problem(
            422,
            "unknown_type",
            "Unknown event type",
            f"`{event_type}` is neither in the catalogue nor one of the app's own types, and a public key sends no "
            "other. Correct `type`, or add it to the app's event types.",
            field="type",
        )


def _check_id(event_id: str) -> str:
    if not _ID.fullmatch(event_id):
        raise _invalid("id", f"`id` must be 1 to {MAX_ID_LENGTH} of A-Z a-z 0-9 _ -. Leave it out to have one minted.")
    return event_id


def _check_ordering_key(key: str) -> str:
    if not 1 <= len(key) <= MAX_ORDERING_KEY_LENGTH or _CONTROL.search(key):
        raise _invalid(
            "orderingKey",
            f"`orderingKey` must be 1 to {MAX_ORDERING_KEY_LENGTH} characters without control characters.",
        )
    return key


def _check_booking(payload: bytes) -> None:
    try:
        booking = bytes(_decode_booking(payload).scheduled_call)
    except msgspec.DecodeError:
        booking = b""
    if not booking.startswith(b"{"):
        raise _invalid(
            "payload.scheduled_call",
            f"Types that start with `{BOOKING_PREFIX}` carry the booking: `payload` must be an object with "
            "`scheduled_call`, an object too.",
        )


def _check_envelope(event_type: str, event_id: str, app: str, payload: bytes) -> None:
    largest = _ENVELOPE_BYTES + len(event_type) + len(event_id) + len(app.encode()) + len(payload)
    if largest > MAX_BODY_BYTES:
        raise Problem(
            413,
            "event_too_large",
            "Event too large",
            f"`payload` is {len(payload):,} bytes; with what receivers get around it, the body sent to them could be "
            f"{largest:,} bytes, and {MAX_BODY_BYTES:,} are the limit. Send less, or a reference to what is large.",
            field="payload",
            maxBytes=MAX_BODY_BYTES,
        )


def _milliseconds(instant: datetime) -> int:
    since_1970_ms = (instant - _EPOCH) // _MILLISECOND
    if not 0 <= since_1970_ms <= _LAST_MS:
        raise _invalid("occurredAt", "`occurredAt` must lie between the years 1970 and 9999, in UTC.")
    return since_1970_ms


def _wrong_shape(message: str) -> Problem:
    """What msgspec says of a body that is JSON and no event, as a problem that names the field."""
    named = _NAMED.search(message)
    if named and named["what"] == "missing required":
        return _invalid(named["field"], f"`{named['field']}` is missing. Every event has one.")
    if named:
        # The name is the sender's own text, so it is repeated only where it looks like a name.
        field = named["field"] if _ID.fullmatch(named["field"]) else "body"
        known = ", ".join(f"`{name}`" for name in _Body.__struct_fields__)
        return _invalid(
            field,
            f"There is a field that an event does not have; it has {known}. What belongs to the event itself goes "
            "into `payload`.",
        )
    at = _PATH.search(message)
    if at is None:
        return _invalid("body", 'The body must be a JSON object, for example {"type": "call_started", "payload": {}}.')
    field = at["at"]
    if field == "occurredAt":
        return _invalid(field, "`occurredAt` must be an RFC 3339 time with its offset, as 2026-01-31T12:00:00.000Z.")
    return _invalid(field, f"`{field}` must be a JSON string.")


def _invalid_json(reason: str) -> Problem:
    return Problem(
        400,
        "invalid_json",
        "Not JSON",
        f"The body is not JSON ({reason}). Send one JSON object in UTF-8.",
        field="body",
    )


def _invalid(field: str, detail: str) -> Problem:
    return Problem(400, "invalid_event", "Not an event", detail, field=field)
