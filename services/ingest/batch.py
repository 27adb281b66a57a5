"""
A batch of events: its bytes taken apart, its answer put together.

Pure. A batch is a JSON array, or NDJSON: one event a line. Which of the two tells its first byte, since senders that
may name no type of their own (beacons) send both as text/plain. The bytes of each event stay as they are.
"""

import re
from collections.abc import Iterable
from itertools import islice
from typing import Final

import msgspec

from services.ingest.accept import NESTED_TOO_DEEPLY, invalid_json, not_utf8
from services.runtime import kinds
from services.runtime.problems import Problem, too_large

#: Events of one batch, and its bytes. Source: contract, "Ingest".
MAX_EVENTS: Final = 500
MAX_BATCH_BYTES: Final = 4 * 1024 * 1024

_BLANK: Final = b" \t\r\n"
#: A line that is not blank, without the blanks before it. Each byte is looked at once, however many lines are blank.
_LINE: Final = re.compile(rb"[^ \t\r\n][^\n]*")

#: An array as a struct with a field for each item. A list with a greatest length would be decoded whole before it is
#: refused: two million items of 4 MiB take seconds and 130 MB; of this, the item that is too many ends it.
_Array: Final = msgspec.defstruct(
    "_Array",
    [(f"item_{number}", msgspec.Raw, msgspec.UNSET) for number in range(MAX_EVENTS)],
    array_like=True,
    forbid_unknown_fields=True,
)
_decode_array: Final = msgspec.json.Decoder(_Array).decode


def split(body: bytes) -> list[bytes]:
    """
    The bytes of each event, in order. Of NDJSON nothing is known of them; items of an array are JSON values.

    Raises:
        Problem: 400 `invalid_json` (of an array alone: a broken line is its own affair) or `empty_batch`,
            413 `request_too_large` or `too_many_events`.
    """
    if len(body) > MAX_BATCH_BYTES:
        raise batch_too_large()
    first = _LINE.search(body)
    if first is None:
        raise _empty()
    items = _items(body) if body.startswith(b"[", first.start()) else _lines(body)
    if not items:
        raise _empty()
    return items


def _items(body: bytes) -> list[bytes]:
    if (reason := not_utf8(body)) is not None:
        raise _broken(reason)
    try:
        array = _decode_array(body)
    except msgspec.ValidationError:
        raise _too_many() from None
    except RecursionError:
        raise _broken(NESTED_TOO_DEEPLY) from None
    except msgspec.DecodeError as error:
        raise _broken(str(error)) from None
    return [bytes(item) for item in msgspec.structs.astuple(array) if item is not msgspec.UNSET]


def _lines(body: bytes) -> list[bytes]:
    lines = [line.group() for line in islice(_LINE.finditer(body), MAX_EVENTS + 1)]
    if len(lines) > MAX_EVENTS:
        raise _too_many()
    return lines


def answer(items: Iterable[bytes | Problem]) -> bytes:
    """
    What the sender of a batch gets, as JSON: for each event, in order, its status and what a single post would tell.

    Args:
        items: of an event that was accepted, the answer to a single post; of another, why not.
    """
    return b'{"items":[%b]}' % b",".join(_told(item) for item in items)


def _told(item: bytes | Problem) -> bytes:
    if isinstance(item, bytes):
        return b'{"status":202,%b' % item[1:]
    told = item.as_json()
    if (wait_s := item.headers.get("Retry-After")) is not None:
        # An item has no headers of its own.
        told["retryAfter"] = int(wait_s)
    return msgspec.json.encode(told)


def batch_too_large() -> Problem:
    """The batch as a whole is above the limit."""
    return too_large(MAX_BATCH_BYTES)


def _too_many() -> Problem:
    return Problem(
        kinds.TOO_MANY_EVENTS,
        f"The batch has more than {MAX_EVENTS} events. Send it in parts.",
        maxEvents=MAX_EVENTS,
    )


def _empty() -> Problem:
    return Problem(
        kinds.EMPTY_BATCH,
        "There is no event in the batch. Send a JSON array of events, or one event a line.",
        field="body",
    )


def _broken(reason: str) -> Problem:
    return invalid_json(reason, send="a JSON array of events in UTF-8, or one event a line")
