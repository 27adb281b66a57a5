"""
The two signatures of a request: the product's own and Standard Webhooks.

Pure: text and bytes in, text out. Tests verify both with `openssl` and the `standardwebhooks` packages of PyPI and npm.
"""

import base64
import hmac
from collections.abc import Sequence
from typing import Final

SECRET_PREFIX: Final = "whsec_"  # noqa: S105  # the public mark before a secret
SECRET_BYTES: Final = 32


class UnusableSecret(ValueError):
    """A signing secret that encodes no bytes. Rotate it. The message does not show it."""


def brand_signature(secret_text: str, body: bytes) -> str:
    """
    `sha256=` and the hex HMAC-SHA256 of the body, keyed with the secret's text as shown to people.

    Source: product/booking-webhooks.txt, "Signature verification".
    """
    return "sha256=" + hmac.digest(secret_text.encode(), body, "sha256").hex()


def standard_signature(secrets: Sequence[str], msg_id: str, timestamp_s: int, body: bytes) -> str:
    """
    `v1,<base64>` for each secret, in the order given, separated by spaces.

    Keyed with the bytes that each secret encodes after `whsec_`.

    Raises:
        UnusableSecret: one of them encodes no bytes.

    Source: Standard Webhooks 1.0, "Signature scheme": HMAC-SHA256 of `id.timestamp.body`.
    """
    signed = f"{msg_id}.{timestamp_s}.".encode() + body
    return " ".join(
        "v1," + base64.b64encode(hmac.digest(_key(secret), signed, "sha256")).decode() for secret in secrets
    )


def new_signing_secret(random32: bytes) -> str:
    """
    A signing secret as shown to people, of 32 random bytes that the caller draws.

    Raises:
        ValueError: not 32 bytes.
    """
    if len(random32) != SECRET_BYTES:
        raise ValueError(f"a signing secret takes {SECRET_BYTES} random bytes, not {len(random32)}")
    return SECRET_PREFIX + base64.b64encode(random32).decode()


def _key(secret: str) -> bytes:
    try:
        key = base64.b64decode(secret.removeprefix(SECRET_PREFIX), validate=True)
    except ValueError:
        key = b""
    if not key:
        raise UnusableSecret("a signing secret is not base64 after whsec_: rotate it")
    return key
