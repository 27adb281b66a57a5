"""
`Idempotency-Key`: a create that is repeated gives the same answer and creates nothing.

What was created under a key stands in its audit record (`Chains.created`), so that every process knows it, after a
restart too. Pure.
"""

import hashlib
from typing import Any, Final

import msgspec

from services.admin.audit import BODY_DETAIL, KEY_DETAIL, Created
from services.runtime import kinds
from services.runtime.problems import Problem

MAX_KEY_CHARS: Final = 255


def scope(token_hash: bytes, app: str, kind: str, key: str) -> str:
    """What a key is remembered as: it means nothing to another token, in another app, of another kind of thing."""
    return _hex([token_hash.hex(), app, kind, key])


def fingerprint(key: str, body: Any) -> str:
    """
    Tells whether two JSON bodies under one key say the same, in whatever order and spacing.

    The key, which is nowhere kept in plain, salts it: a body may hold secrets that could be guessed and tried.
    """
    return _hex([key, body])


def details(key: str | None, used: str | None, body: Any) -> dict[str, str]:
    """What the audit record of a create says of its key, *used* its `scope`; nothing where it came without."""
    return {} if key is None or used is None else {KEY_DETAIL: used, BODY_DETAIL: fingerprint(key, body)}


def check_same(created: Created, key: str, body: Any) -> None:
    """
    Hold a repeated create to the first one's body.

    Raises:
        Problem: 409 `idempotency_key_reused`.
    """
    if created.body != fingerprint(key, body):
        raise Problem(
            kinds.IDEMPOTENCY_KEY_REUSED,
            "This Idempotency-Key came with another body before. Take a new key for a new create.",
        )


def gone(created: Created) -> Problem:
    """What was created under the key has been deleted since."""
    return Problem(
        kinds.IDEMPOTENCY_KEY_SPENT,
        f"Under this Idempotency-Key {created.target} was created, and has been deleted since. Take a new key for a "
        "new create.",
    )


def shown_once(created: Created) -> Problem:
    """What was created under the key opens something, and nobody can show that again: only its hash is kept."""
    return Problem(
        kinds.SHOWN_ONCE,
        f"Under this Idempotency-Key {created.target} was created, and the answer to that request alone showed it in "
        "plain. If the answer was lost, delete it and create another under a new key.",
        created=created.target,
    )


def key_fault(key: str) -> str | None:
    """Why this cannot be an `Idempotency-Key`, or None."""
    if not 1 <= len(key) <= MAX_KEY_CHARS or not key.isascii() or not key.isprintable():
        return f"must be 1 to {MAX_KEY_CHARS} printable ASCII characters"
    return None


def _hex(value: Any) -> str:
    return hashlib.sha256(msgspec.json.encode(value, order="deterministic")).hexdigest()
