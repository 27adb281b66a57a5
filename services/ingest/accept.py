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
from services.runtime import kinds
from services.runtime.problems import Problem
from streams.records import AppConfig, Event, KeyKind

#: One event as it was sent, in bytes: a whole request, or an item of a batch. Source: contract, "Ingest".
MAX_REQUEST_BYTES: Final = MAX_BODY_BYTES

MAX_ID_LENGTH: Final = 128
MAX_ORDERING_KEY_LENGTH: Final = 256

_ID: Final = re.compile(rf"[A-Za-z0-9_-]{{1,{MAX_ID_LENGTH}}}")
_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f]")

#: What stands around type, id, app and payload in the larger of the two bodies that a receiver may get, times and
#: attempt at their longest. `services/body/envelope.py` writes it; a test holds the two together.
_ENVELOPE_BYTES: Final = len(
    '{"event":"","id":"","appId":"","occurredAt":"9999-12-31T23:59:59.999Z",'
    '"deliveredAt":"9999-12-31T23:59:59.999Z","attempt":2147483647,"payload":}'
)

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MILLISECOND: Final = timedelta(milliseconds=1)
#: 9999-12-31T23:59:59.999Z: later has no four-digit year to be written with.
_LAST_MS: Final = 253_402_300_799_999


class Sent(msgspec.Struct, forbid_unknown_fields=True):
    """An event as its sender wrote it: of the right shape, and no more than that is known of it."""

    type: str
    payload: msgspec.Raw = msgspec.Raw(b"null")
    id: str | None = None
    occurredAt: Annotated[datetime, msgspec.Meta(tz=True)] | None = None  # noqa: N815 (the name in JSON)
    orderingKey: str | None = None  # noqa: N815


class _Booking(msgspec.Struct):
    scheduled_call: msgspec.Raw


_decode_sent: Final = msgspec.json.Decoder(Sent).decode
_decode_booking: Final = msgspec.json.Decoder(_Booking).decode
NESTED_TOO_DEEPLY: Final = "it is nested too deeply, some hundred levels are taken"

#: How msgspec names the field that it did not like.
_PATH: Final = re.compile(r" - at `\$\.?(?P<at>[^`]*)`$")
_NAMED: Final = re.compile(r"(?P<what>missing required|contains unknown) field `(?P<field>.*)`", re.DOTALL)


def read(body: bytes) -> Sent:
    """
    What the bytes say; nothing of it depends on who sends it.

    Raises:
        Problem: 400 `invalid_json` or `invalid_event`, 413 `request_too_large`.
    """
    if len(body) > MAX_REQUEST_BYTES:
        raise request_too_large()
    if (reason := not_utf8(body)) is not None:
        raise invalid_json(reason)
    try:
        return _decode_sent(body)
    except msgspec.ValidationError as error:
        raise _wrong_shape(str(error)) from None
    except RecursionError:
        raise invalid_json(NESTED_TOO_DEEPLY) from None
    except msgspec.DecodeError as error:
        raise invalid_json("it is empty" if not body else str(error)) from None


def accept(
    sent: Sent, *, app: AppConfig, key_kind: KeyKind, now_ms: int, record_id: str, minted_event_id: str
) -> Event:
    """
    The event that was sent, or why it is none.

    Args:
        app: whose event it is.
        key_kind: of the key that the sender has shown.
        now_ms: when it is accepted; `occurredAt` where the body names none.
        record_id: the event's identity on the log.
        minted_event_id: its id where the body brings none.

    Raises:
        Problem: 400 `invalid_event`, 403 `secret_key_required`, 413 `event_too_large`, 422 `unknown_type` or
            `reserved_type`.
    """
    event_type = sent.type
    payload = bytes(sent.payload)
    _check_type(event_type, app, key_kind)
    if event_type.startswith(BOOKING_PREFIX):
        _check_booking(payload)
    event_id, id_supplied = (minted_event_id, False) if sent.id is None else (_check_id(sent.id), True)
    _check_envelope(event_type, event_id, app.app, payload)
    return Event(
        record_id=record_id,
        app=app.app,
        event_id=event_id,
        id_space=key_kind,
        id_supplied=id_supplied,
        type=event_type,
        payload=payload,
        occurred_at_ms=now_ms if sent.occurredAt is None else _milliseconds(sent.occurredAt),
        accepted_at_ms=now_ms,
        ordering_key=None if sent.orderingKey is None else _check_ordering_key(sent.orderingKey),
    )


def answer(event_id: str, accepted_at_ms: int, *, duplicate: bool = False) -> bytes:
    """What the sender of an accepted event gets, as JSON; a repeat is told as such."""
    accepted_at = (_EPOCH + accepted_at_ms * _MILLISECOND).isoformat(timespec="milliseconds")
    return b'{"id":"%b","acceptedAt":"%bZ"%b}' % (
        event_id.encode(),
        accepted_at[:-6].encode(),
        b',"duplicate":true' if duplicate else b"",
    )


def request_too_large() -> Problem:
    """An event as it was sent is above the limit."""
    return Problem(
        kinds.REQUEST_TOO_LARGE,
        f"The event as it was sent is larger than {MAX_REQUEST_BYTES:,} bytes, alone or in a batch. Send less, or send "
        "a reference to what is large.",
        maxBytes=MAX_REQUEST_BYTES,
    )


def invalid_json(reason: str, *, send: str = "one JSON object in UTF-8") -> Problem:
    """What was sent is not JSON."""
    return Problem(kinds.INVALID_JSON, f"The body is not JSON ({reason}). Send {send}.", field="body")


def not_utf8(body: bytes) -> str | None:
    """Where it is no UTF-8. msgspec takes payloads as they are, and so does not see such bytes in them."""
    try:
        if not body.isascii():
            body.decode()
    except UnicodeDecodeError as error:
        return f"byte {error.start} is not UTF-8"
    return None


def _check_type(event_type: str, app: AppConfig, key_kind: KeyKind) -> None:
    if not TYPE_NAME.fullmatch(event_type):
        raise _invalid(
            "type",
            f"`type` must be 1 to {MAX_TYPE_LENGTH} of A-Z a-z 0-9 _ . - and start with a letter or a digit, for "
            "example call_started.",
        )
    if event_type.startswith(OWN_PREFIX):
        raise Problem(
            kinds.RESERVED_TYPE,
            f"Types that start with `{OWN_PREFIX}` are emitted by tenterhook alone. Choose another type.",
            field="type",
        )
    if key_kind == "secret":
        return
    if event_type.startswith(BOOKING_PREFIX):
        raise Problem(
            kinds.SECRET_KEY_REQUIRED,
            f"Types that start with `{BOOKING_PREFIX}` are bookings, which need a secret key (sk_…). Send them from a "
            "server, not from a page.",
            field="type",
        )
    if event_type not in CATALOGUE and event_type not in app.event_types:
        raise Problem(
            kinds.UNKNOWN_TYPE,
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
            kinds.EVENT_TOO_LARGE,
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
        known = ", ".join(f"`{name}`" for name in Sent.__struct_fields__)
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


def _invalid(field: str, detail: str) -> Problem:
    return Problem(kinds.INVALID_EVENT, detail, field=field)
