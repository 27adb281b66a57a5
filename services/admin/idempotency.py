"""
What was created under which `Idempotency-Key`, so that a repeated create gives the same answer and creates nothing.

Kept in memory for 24 hours, the newest 10,000: a restart forgets it, and so does another process. No plain
secret is kept: a repeat opens the sealed one again. The clock comes in with every call.
"""

from collections import OrderedDict
from dataclasses import dataclass
from typing import Any, Final

import msgspec

from services.admin.tokens import hash_of
from streams.records import IntegrationConfig

KEEP_MS: Final = 24 * 3_600_000
MAX_KEPT: Final = 10_000
MAX_KEY_CHARS: Final = 255

#: (token hash, app, profile, key): a key means nothing to another token.
Scope = tuple[bytes, str, str, str]


@dataclass(slots=True)
class Remembered:
    """One create that came with a key."""

    fingerprint: bytes
    #: Taken before the first try, so that a try whose end is not known is repeated under the same id.
    integration: str
    at_ms: int
    #: As it was written, secrets sealed; None until it is known to be on the log.
    stored: IntegrationConfig | None = None


class Creates:
    """The creates of the last 24 hours that came with a key."""

    def __init__(self) -> None:
        self._by_scope: OrderedDict[Scope, Remembered] = OrderedDict()

    def find(self, scope: Scope, now_ms: int) -> Remembered | None:
        """The create that came with this key, or None; it may have been another body's."""
        self._forget(now_ms)
        return self._by_scope.get(scope)

    def remember(self, scope: Scope, create: Remembered) -> None:
        """Keep it; the oldest leaves when there are too many."""
        self._by_scope[scope] = create
        self._forget(create.at_ms)

    def _forget(self, now_ms: int) -> None:
        while self._by_scope:
            oldest = next(iter(self._by_scope.values()))
            if len(self._by_scope) <= MAX_KEPT and now_ms - oldest.at_ms < KEEP_MS:
                return
            self._by_scope.popitem(last=False)


def fingerprint(body: Any) -> bytes:
    """Tells whether two JSON bodies say the same, in whatever order and spacing."""
    return hash_of(msgspec.json.encode(body, order="deterministic").decode())


def key_fault(key: str) -> str | None:
    """Why this cannot be an `Idempotency-Key`, or None."""
    if not 1 <= len(key) <= MAX_KEY_CHARS or not key.isascii() or not key.isprintable():
        return f"must be 1 to {MAX_KEY_CHARS} printable ASCII characters"
    return None
