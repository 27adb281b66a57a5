"""
What is fuzzed: for each target a function that takes any bytes and raises where a law does not hold.

The laws are those of `tests/properties`, asked of bytes alone, so that a fuzzer which sees what code an input reaches
can look for inputs that no strategy would draw. No clock, no randomness: an input that is kept does the same for ever.
"""

import ipaddress
import json
import struct
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any, Final
from urllib.parse import urlsplit

import httptools
import msgspec
from yarl import URL

from schemas.profiles import MAX_BODY_BYTES, MAX_RESPONSE_BYTES
from services.body.rendering import body
from services.body.template import Fault
from services.body.trial import template_fault
from services.dispatcher.guard import address_refusal, url_refusal
from services.dispatcher.sender import MAX_HEAD_BYTES
from services.dispatcher.target import BadUrl, render_url
from services.dispatcher.wire import _target
from services.dispatcher.wire_answer import AnswerReader
from services.ingest import batch
from services.ingest.accept import Sent, accept, read
from services.runtime.problems import Problem
from services.vault.references import UnknownSecret
from streams import codec
from streams.records import Event
from tests.apps import make_app
from tests.records import make_delivery

_APP: Final = make_app()
_SCHEMA_IDS: Final = sorted(codec.released())
_NAT64: Final = ipaddress.IPv6Network("64:ff9b::/96")
_AT: Final = "1970-01-01T00:00:00.000Z"
#: What could end a header or a line of a log; in no id, type or key that is taken.
_BREAKS: Final = frozenset(map(chr, [*range(0x20), 0x7F]))


def accepting(data: bytes) -> None:
    """Whatever is sent is an event or a problem of its sender; an event reads back, and none breaks a line."""
    for kind in ("public", "secret"):
        try:
            event = accept(read(data), app=_APP, key_kind=kind, now_ms=1, record_id="rec_1", minted_event_id="evt_1")
        except Problem as refused:
            _check_problem(refused)
            continue
        assert event.payload in data or event.payload == bytes(Sent(type="").payload)
        assert not _BREAKS & {*event.type, *event.event_id, *(event.ordering_key or "")}
        assert codec.decode(codec.encode(event)) == event
        assert len(body(event, "integration", None, attempt=2**31 - 1, at=_AT)) <= MAX_BODY_BYTES
    try:
        items = batch.split(data)
    except Problem as refused:
        _check_problem(refused)
    else:
        assert 1 <= len(items) <= batch.MAX_EVENTS
        assert all(item in data for item in items)


def _check_problem(refused: Problem) -> None:
    assert 400 <= refused.status < 500
    msgspec.json.encode(refused.as_json())


def decoding(data: bytes) -> None:
    """
    Bytes of a topic are unreadable, or a record that is written and read again as the same.

    Asked of the bytes, and of the rest of them under the schema that the first one chooses.
    """
    _check_record(data)
    if data:
        _check_record(struct.pack(">bI", 0, _SCHEMA_IDS[data[0] % len(_SCHEMA_IDS)]) + data[1:])


def _check_record(data: bytes) -> None:
    try:
        record = codec.decode(data)
    except codec.Unreadable:
        return
    again = codec.encode(record)
    assert codec.encode(codec.decode(again)) == again
    if isinstance(record, Event):
        assert codec.decode(again) == record


def templating(data: bytes) -> None:
    """A template and an event (the first NUL is between them) make JSON within the limit, or a fault."""
    before, _, after = data.partition(b"\0")
    source = before.decode("utf-8", "replace")
    if len(source) <= MAX_BODY_BYTES:
        refused = template_fault(source, "integration", "demo", ["call_ended"])
        assert refused is None or refused
    delivery = make_delivery(payload=after or b"null")
    made = body(delivery, "integration", source, attempt=1, at=_AT)
    assert body(delivery, "integration", source, attempt=1, at=_AT) == made
    if isinstance(made, Fault):
        assert made.detail
        return
    assert len(made) <= MAX_BODY_BYTES
    json.loads(made, parse_constant=_not_json)


def _not_json(constant: str) -> Any:
    raise AssertionError(constant)


def guarding(data: bytes) -> None:
    """
    A URL that is let through means the same host to every parser, and no secret changes which, nor adds a segment or
    a parameter; an address that is let through is nobody's own.
    """
    text = data.decode("utf-8", "replace")
    _check_url(text)
    _check_address(text)
    _check_rendered(text)


def _check_url(url: str) -> None:
    reason = url_refusal(url, allow_http=True)
    if reason is not None:
        assert len(url) < 8 or url not in reason
        return
    parts = urlsplit(url)
    host = parts.hostname or ""
    seen = URL(url, encoded=True)
    assert ((seen.raw_host or "").lower(), seen.explicit_port) == (host, parts.port)
    with suppress(httptools.HttpParserInvalidURLError):  # it takes no underscore in a name
        parsed = httptools.parse_url(url.encode())
        assert (parsed.host.decode().strip("[]").lower(), parsed.port, parsed.userinfo) == (host, parts.port, None)
    target = _target(url)
    assert not isinstance(target, str)
    assert (target.host.lower(), target.is_tls) == (host, parts.scheme == "https")
    assert target.port == (parts.port or (443 if target.is_tls else 80))
    try:
        ipaddress.ip_address(host)
    except ValueError:
        last = host.rstrip(".").rpartition(".")[2]
        # What the system's resolver would take for a number in one of its forms is no name.
        assert not last.isdigit()
        assert not last.lower().startswith("0x") or not set(last[2:].lower()) <= set("0123456789abcdef")


def _check_address(text: str) -> None:
    if address_refusal(text, allow_private=False) is not None:
        return
    address = ipaddress.ip_address(text.partition("%")[0])
    if isinstance(address, ipaddress.IPv6Address):
        behind = ipaddress.IPv4Address(int(address) & 0xFFFF_FFFF) if address in _NAT64 else None
        address = address.ipv4_mapped or address.sixtofour or behind or address
    assert address.is_global
    assert not any((address.is_multicast, address.is_loopback, address.is_link_local, address.is_reserved))


def _check_rendered(template: str) -> None:
    def rendered(secret: str) -> str | None:
        try:
            return render_url(template, {"a": secret})
        except (BadUrl, UnknownSecret):
            return None

    plain, hostile = rendered("s"), rendered("@evil.example:1/?a&b#\r\n\\..%2e")
    for url in (plain, hostile):
        assert url is None or (url.isascii() and not _BREAKS & set(url) and "#" not in url)
    if hostile is None or url_refusal(hostile, allow_http=True) is not None:
        return
    assert plain is not None
    assert _shape(hostile) == _shape(plain)


def _shape(url: str) -> tuple[str, str, int, bool, int]:
    """Where it goes, and how many segments and parameters it has."""
    parts = urlsplit(url)
    return parts.scheme, parts.netloc, parts.path.count("/"), bool(parts.query), parts.query.count("&")


def answering(data: bytes) -> None:
    """However an answer is cut, it is read as the same, within bounds. The first byte says where it is cut."""
    first, rest = data[:1], data[1:]
    step = max(1, int.from_bytes(first))
    whole, pieces = _read([rest]), _read([rest[at : at + step] for at in range(0, len(rest), step)])
    # Past the bounds it matters what came together: the rest of a piece is not unread.
    if len(rest) <= MAX_HEAD_BYTES and not whole.is_truncated and not pieces.is_truncated:
        assert _told(whole) == _told(pieces)
    for reader in (whole, pieces):
        assert reader.fault is not None or reader.has_head
        assert len(reader.body) <= MAX_RESPONSE_BYTES
        assert not (reader.fault and reader.may_go_on)
        for name, value in reader.headers:
            assert not {"\r", "\n", "\0"} & {*name, *value}


def _read(pieces: list[bytes]) -> AnswerReader:
    reader = AnswerReader()
    if not any(reader.feed(piece) for piece in pieces):
        reader.end()
    return reader


def _told(reader: AnswerReader) -> tuple[Any, ...]:
    return reader.fault and reader.fault[0], reader.status if reader.has_head else None, reader.headers, reader.body


TARGETS: Final[Mapping[str, Callable[[bytes], None]]] = {
    "accept": accepting,
    "codec": decoding,
    "template": templating,
    "url": guarding,
    "answer": answering,
}
