"""
The bytes of the bench: the events that the load posts, and how they are found again wherever they come out.

Pure. Each payload starts with a stamp: the time its request started and its number. Both have a fixed width, so that a
request is three joins and a receiver needs no JSON.
"""

import hashlib
from dataclasses import dataclass
from typing import Final, Literal
from urllib.parse import quote

#: Before the time in every payload.
STAMP: Final = b'{"sentNs":'
_BETWEEN: Final = b',"n":'
#: Digits of nanoseconds since 1970, from 2001 until 2286.
_NS_DIGITS: Final = 19
#: Added to a number, so that it has ten digits and, as JSON asks, no leading zero.
_NUMBER_BASE: Final = 1_000_000_000
_NUMBER_AT: Final = len(STAMP) + _NS_DIGITS + len(_BETWEEN)
_NUMBER_DIGITS: Final = 10

#: With `ordering: key`, events go round this many keys.
ORDERING_KEYS: Final = 100

Profile = Literal["integration", "booking"]

#: The type of the load's events. A booking subscription takes no others than bookings.
TYPES: Final[dict[Profile, str]] = {"integration": "call_ended", "booking": "scheduled.created"}


@dataclass(frozen=True, slots=True)
class RequestParts:
    """A request around its two stamps; `repr` would show the key, so it shows nothing."""

    before: bytes
    after: bytes
    keyed: bool

    def __repr__(self) -> str:
        return "RequestParts(...)"

    def request(self, number: int, sent_ns: int) -> bytes:
        """The whole request of event *number*."""
        key = b'"k%02d"' % (number % ORDERING_KEYS) if self.keyed else b""
        return b"%b%b%d%b%d%b" % (
            self.before.replace(b"@KEY@", key, 1) if key else self.before,
            STAMP,
            sent_ns,
            _BETWEEN,
            _NUMBER_BASE + number,
            self.after,
        )


def request_parts(
    *, host: str, path: str, key: str, profile: Profile, payload_bytes: int, keyed: bool = False
) -> RequestParts:
    """
    What is the same in every request.

    Args:
        payload_bytes: of each event's payload, exactly.
        keyed: whether events have an `orderingKey`.
    """
    booking = profile == "booking"
    ordering_key = b'"orderingKey":@KEY@,' if keyed else b""
    body_before = b'{"type":"%b",%b"payload":%b' % (
        TYPES[profile].encode(),
        ordering_key,
        b'{"scheduled_call":' if booking else b"",
    )
    body_after = b',"fill":"%b"}%b}' % (_fill(payload_bytes, booking=booking), b"}" if booking else b"")
    length = len(body_before) + _NUMBER_AT + _NUMBER_DIGITS + len(body_after)
    if keyed:
        length += len('"k00"') - len("@KEY@")
    head = (
        f"POST {path} HTTP/1.1\r\nHost: {host}\r\nAuthorization: Bearer {key}\r\n"
        f"Content-Type: application/json\r\nContent-Length: {length}\r\n\r\n"
    ).encode()
    return RequestParts(before=head + body_before, after=body_after, keyed=keyed)


def events_path(app: str) -> str:
    """The path that events of the app are posted to."""
    return f"/v1/apps/{quote(app, safe='')}/events"


def least_payload_bytes(profile: Profile) -> int:
    """The smallest payload that has room for a stamp."""
    return len(_without_fill(booking=profile == "booking"))


def _without_fill(*, booking: bool) -> bytes:
    bare = STAMP + b"0" * _NS_DIGITS + _BETWEEN + b"0" * _NUMBER_DIGITS + b',"fill":""}'
    return b'{"scheduled_call":%b}' % bare if booking else bare


def _fill(payload_bytes: int, *, booking: bool) -> bytes:
    """Letters that do not compress to nothing, the same in every run."""
    length = payload_bytes - len(_without_fill(booking=booking))
    if length < 0:
        raise ValueError(f"a payload of {payload_bytes} bytes has no room for its stamp")
    return hashlib.shake_128(b"tenterhook bench").hexdigest(length // 2 + 1)[:length].encode()


def stamp_of(data: bytes, start: int = 0) -> tuple[int, int] | None:
    """Number of the event in *data* and the time its request started; None where there is no stamp."""
    at = data.find(STAMP, start)
    if at < 0:
        return None
    at += len(STAMP)
    number_at = at + _NS_DIGITS + len(_BETWEEN)
    try:
        return int(data[number_at : number_at + _NUMBER_DIGITS]) - _NUMBER_BASE, int(data[at : at + _NS_DIGITS])
    except ValueError:
        return None


def body_length(data: bytes, head_end: int) -> int | None:
    """The `Content-Length` of the head that ends at *head_end*; None where there is none."""
    at = data.find(b"\r\nContent-Length:", 0, head_end)
    if at < 0:
        at = data[:head_end].lower().find(b"\r\ncontent-length:")
        if at < 0:
            return None
    start = at + len(b"\r\nContent-Length:")
    end = data.find(b"\r\n", start, head_end + 2)
    try:
        return int(data[start:end])
    except ValueError:
        return None
