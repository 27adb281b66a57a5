"""
Checks the two signatures of a request, as a receiver does. Pure.

Written from the product page and the Standard Webhooks specification alone, not from the code that signs, so that
`tenterhook sink` is a second opinion.
"""

import base64
import binascii
import hashlib
import hmac
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Literal

#: `unsigned`: no such header came. `unchecked`: one came, and there is no secret to check it with.
Verdict = Literal["yes", "no", "unsigned", "unchecked"]

#: How far a request's time may be from ours, either way: what the libraries of Standard Webhooks take.
TOLERANCE_S: Final = 300

_SECONDS: Final = re.compile(r"[0-9]{1,12}")


@dataclass(frozen=True, slots=True)
class Verified:
    """What a receiver makes of a request's signatures."""

    #: Of the `sha256=` header.
    brand: Verdict
    #: Of `webhook-signature`, its time included.
    standard: Verdict


def verified(headers: Mapping[str, str], body: bytes, secret: str | None, *, brand: str, now_s: float) -> Verified:
    """Both verdicts. *headers*: looked up regardless of case. *secret*: `whsec_...`, as it was shown."""
    return Verified(_brand(headers.get(f"{brand}-Signature"), body, secret), _standard(headers, body, secret, now_s))


def _brand(signature: str | None, body: bytes, secret: str | None) -> Verdict:
    if signature is None:
        return "unsigned"
    if secret is None:
        return "unchecked"
    expected = "sha256=" + hmac.new(secret.encode(), body, hashlib.sha256).hexdigest()
    return "yes" if hmac.compare_digest(signature.encode(), expected.encode()) else "no"


def _standard(headers: Mapping[str, str], body: bytes, secret: str | None, now_s: float) -> Verdict:
    signatures = headers.get("webhook-signature")
    if signatures is None:
        return "unsigned"
    if secret is None:
        return "unchecked"
    sent, stamp = headers.get("webhook-id", ""), headers.get("webhook-timestamp", "")
    if not _SECONDS.fullmatch(stamp) or abs(now_s - int(stamp)) > TOLERANCE_S:
        return "no"
    try:
        key = base64.b64decode(secret.removeprefix("whsec_"), validate=True)
    except (binascii.Error, ValueError):
        return "no"
    digest = hmac.new(key, f"{sent}.{stamp}.".encode() + body, hashlib.sha256).digest()
    expected = b"v1," + base64.b64encode(digest)
    return "yes" if any(hmac.compare_digest(each.encode(), expected) for each in signatures.split()) else "no"
