"""
Why a request's signatures do not fit: which check fails, and what has happened to secret or body. Pure.

It tries what goes wrong in practice (a secret with a line end, JSON that a framework has parsed and written again) and
says so only where the signature then fits: a guess that is proven.
"""

import base64
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

from services.cli.findings import Finding
from services.cli.verify import TOLERANCE_S, verified

_BRAND: Final = "sha256 signature"
_STANDARD: Final = "webhook-signature"

_TOGETHER: Final = ("webhook-id", "webhook-timestamp")
_SECONDS: Final = re.compile(r"[0-9]{1,12}")
#: Bytes of a signing secret.
_SECRET_BYTES: Final = 32


class Unreadable(ValueError):
    """It is no captured request; the message says what is missing."""


@dataclass(frozen=True, slots=True)
class Sample:
    """A request as somebody has captured it."""

    #: Names in lower case.
    headers: Mapping[str, str]
    body: bytes
    #: The body's JSON was kept, and not its bytes.
    is_parsed: bool = False


def sample_of(captured: bytes, body: bytes | None = None) -> Sample:
    """
    A line of `tenterhook sink --json`, JSON with `headers` and `body`, or a request as it went over the wire.

    Args:
        body: where it was kept elsewhere.

    Raises:
        Unreadable: it is none of these.
    """
    try:
        given: Any = json.loads(captured)
    except ValueError:
        headers, found = _of_wire(captured)
        return Sample(headers, found if body is None else body)
    if not isinstance(given, dict) or not isinstance(given.get("headers"), dict):
        raise Unreadable("it is JSON, and has no headers")
    headers = {str(name).lower(): str(value) for name, value in given["headers"].items()}
    if body is not None:
        return Sample(headers, body)
    if isinstance(given.get("base64"), str):
        return Sample(headers, base64.b64decode(given["base64"]))
    for name in ("text", "body"):
        if isinstance(given.get(name), str):
            return Sample(headers, given[name].encode())
    if "body" not in given:
        raise Unreadable("it has headers, and no body: name the body's file with --body")
    return Sample(headers, json.dumps(given["body"], ensure_ascii=False, separators=(",", ":")).encode(), True)


def _of_wire(captured: bytes) -> tuple[dict[str, str], bytes]:
    head, _, body = captured.replace(b"\r\n", b"\n", 1_000).partition(b"\n\n")
    if b"\r\n\r\n" in captured:
        # The body's own line ends are part of what was signed.
        head, _, body = captured.partition(b"\r\n\r\n")
    pairs = [line.partition(":") for line in head.decode("latin-1").splitlines()]
    headers = {name.strip().lower(): value.strip() for name, colon, value in pairs if colon and " " not in name.strip()}
    if not headers:
        raise Unreadable("it has no headers: give JSON with headers and body, or the request as it came")
    return headers, body


def examined(sample: Sample, secret: str, *, brand: str, now_s: float) -> list[Finding]:
    """What is found, in the order in which a receiver checks. *secret*: never said."""
    found = [*_of_headers(sample.headers, brand), *_of_secret(secret), *_of_time(sample.headers, now_s)]
    # Of the time was spoken already: here it is the signature's own.
    sent = sample.headers.get("webhook-timestamp", "")
    at_s = float(sent) if _SECONDS.fullmatch(sent) else now_s

    def fits(tried: Sample, key: str) -> tuple[str, str]:
        seen = verified(_Names(tried.headers), tried.body, key, brand=brand, now_s=at_s)
        return seen.brand, seen.standard

    verdicts = fits(sample, secret)
    names = [name for name, verdict in zip((_BRAND, _STANDARD), verdicts, strict=True) if verdict == "no"]
    found += [
        Finding(name, "ok", "it fits the body and the secret")
        for name, verdict in zip((_BRAND, _STANDARD), verdicts, strict=True)
        if verdict == "yes"
    ]
    if not names:
        return found
    for tried, key, said, remedy in _guesses(sample, secret):
        if "yes" in fits(tried, key):
            return [*found, *(Finding(name, "wrong", said, remedy) for name in names)]
    said, remedy = _unknown(sample, verdicts)
    return [*found, *(Finding(name, "wrong", said, remedy) for name in names)]


def _of_headers(headers: Mapping[str, str], brand: str) -> Iterator[Finding]:
    ours = f"{brand}-Signature"
    missing = [name for name in (ours, "webhook-signature") if name.lower() not in headers]
    if len(missing) > 1:
        said = f"neither {ours} nor webhook-signature came"
        remedy = "switch signing on (`tenterhook integrations set ID --signing`), and see that no proxy drops headers"
        yield Finding("signature headers", "wrong", said, remedy)
        return
    if missing:
        yield Finding("signature headers", "warning", f"{missing[0]} did not come", "see what drops it on the way")
    if "webhook-signature" in headers and (lost := [name for name in _TOGETHER if name not in headers]):
        said = f"{' and '.join(lost)} did not come, and {'is' if len(lost) == 1 else 'are'} part of what was signed"
        yield Finding("signature headers", "wrong", said, "see what drops it on the way")


def _of_secret(secret: str) -> Iterator[Finding]:
    try:
        key = base64.b64decode(secret.strip().removeprefix("whsec_"), validate=True)
    except ValueError:
        key = b""
    if not secret.strip().startswith("whsec_") or len(key) != _SECRET_BYTES:
        said = "it does not look as it was shown: whsec_ and 44 characters"
        yield Finding("secret", "warning", said, "copy it whole; `tenterhook secrets rotate` makes a new one")


def _of_time(headers: Mapping[str, str], now_s: float) -> Iterator[Finding]:
    sent = headers.get("webhook-timestamp")
    if sent is None:
        return
    if not _SECONDS.fullmatch(sent):
        yield Finding("time", "wrong", "webhook-timestamp is no number of seconds", "see what changes it on the way")
        return
    off_s = now_s - int(sent)
    if off_s > TOLERANCE_S:
        said = f"it was sent {off_s:.0f} s ago: receivers refuse more than {TOLERANCE_S} s"
        remedy = "for a sample from before, nothing; else check it when it arrives, not behind a queue, and keep NTP"
        yield Finding("time", "warning", said, remedy)
    elif off_s < -TOLERANCE_S:
        said = f"it will be sent in {-off_s:.0f} s, by this clock: receivers refuse more than {TOLERANCE_S} s"
        yield Finding("time", "wrong", said, "set the clock that is wrong: keep both machines with NTP")
    else:
        yield Finding("time", "ok", f"sent {off_s:.0f} s ago")


def _guesses(sample: Sample, secret: str) -> Iterator[tuple[Sample, str, str, str]]:
    """Sample and secret that may be meant, what has happened then, and what to do."""
    whole = "take the secret whole, as it was shown: with whsec_, without quotes, blanks and line ends"
    for key in dict.fromkeys((secret.strip(), secret.strip().strip("\"'"), f"whsec_{secret.strip()}")):
        if key != secret:
            yield sample, key, "the secret is the right one, and has lost or gained characters", whole
    raw = "check the raw body, byte for byte, before anything parses it"
    for body in (sample.body.strip(), sample.body.removeprefix(b"\xef\xbb\xbf"), sample.body + b"\n"):
        if body != sample.body:
            yield replace(sample, body=body), secret, "blanks or a line end around the body were changed", raw
    for body in (sample.body.replace(b"\r\n", b"\n"), sample.body.replace(b"\n", b"\r\n")):
        if body != sample.body:
            yield replace(sample, body=body), secret, "the body's line ends were changed", raw
    for body in _written_again(sample.body):
        yield replace(sample, body=body), secret, "the body's JSON was parsed and written again", raw


def _written_again(body: bytes) -> Iterator[bytes]:
    """The same JSON as others write it: with and without blanks, and non-ASCII characters."""
    try:
        value = json.loads(body)
    except (ValueError, RecursionError):
        return
    for separators in ((",", ":"), (", ", ": ")):
        for ensure_ascii in (False, True):
            text = json.dumps(value, separators=separators, ensure_ascii=ensure_ascii)
            try:
                written = text.encode()
            except UnicodeEncodeError:
                continue
            if written != body:
                yield written


def _unknown(sample: Sample, verdicts: tuple[str, str]) -> tuple[str, str]:
    """What can be said where no guess fits."""
    raw = "check the raw body, byte for byte, before anything parses it"
    if "yes" in verdicts:
        return "the other signature fits, so secret and body are right: this header was changed", "see what changes it"
    length = sample.headers.get("content-length", "")
    if length.isdecimal() and int(length) != len(sample.body):
        said = f"the body was changed: {len(sample.body):,} bytes, and content-length says {int(length):,}"
        return said, raw
    if sample.is_parsed:
        said = "the sample has the body's JSON and not its bytes, or the secret is another one"
        return said, "capture the raw body (`text` of `tenterhook sink --json`, or --body FILE)"
    try:
        json.loads(sample.body)
    except (ValueError, RecursionError):
        return "the body is not the JSON that was sent, or not all of it", raw
    said = "the secret is another one, or a value in the body was changed"
    remedy = "compare the integration; after a rotation the sha256 signature stays on the old secret for the overlap"
    return said, remedy


class _Names(dict[str, str]):
    """Headers that are found in any case."""

    def get(self, name: str, default: Any = None) -> Any:
        return super().get(name.lower(), default)
