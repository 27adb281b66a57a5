"""
Who is signed in: a sealed value in a cookie, and the token of its forms. Pure; randomness and time come in.

The value holds the SHA-256 of the token that signed in, when the session ends, and an id. Nothing of it is kept on our
side, so any process takes it; every request looks the hash up among the tokens that there are then, so a token that is
taken away ends its sessions. The keys are derived from the KEK: replacing that signs everybody out.
"""

import hmac
import struct
from dataclasses import dataclass
from hashlib import sha256
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

#: A working day: signed out over night, not over lunch.
SESSION_MS: Final = 12 * 3_600_000

NONCE_BYTES: Final = 12
ID_BYTES: Final = 16

#: Version of the form, hash of the token, end in milliseconds since 1970 UTC, id.
_FORM: Final = struct.Struct(f">B32sQ{ID_BYTES}s")
_VERSION: Final = 1


@dataclass(frozen=True, slots=True)
class Session:
    """Somebody who is signed in."""

    #: SHA-256 of the token.
    token_hash: bytes
    #: When it ends; milliseconds since 1970 UTC.
    until_ms: int
    #: Tells sessions of one token apart; forms of one are not those of another.
    id: bytes


class Sessions:
    """Seals sessions, opens them, and knows the token of their forms."""

    def __init__(self, kek: bytes) -> None:
        """
        Args:
            kek: the key-encryption key of the installation, the same in every process.
        """
        self._cipher = AESGCM(_derived(kek, b"tenterhook.console.session"))
        self._form_key = _derived(kek, b"tenterhook.console.form")

    def __repr__(self) -> str:
        return "Sessions()"

    def sealed(self, session: Session, nonce: bytes) -> str:
        """The cookie's value; *nonce*: random, another each time."""
        plain = _FORM.pack(_VERSION, session.token_hash, session.until_ms, session.id)
        return (nonce + self._cipher.encrypt(nonce, plain, None)).hex()

    def opened(self, value: str, now_ms: int) -> Session | None:
        """The session of a cookie; None where it is none of ours, or has ended."""
        try:
            sealed = bytes.fromhex(value)
            plain = self._cipher.decrypt(sealed[:NONCE_BYTES], sealed[NONCE_BYTES:], None)
            version, token_hash, until_ms, session_id = _FORM.unpack(plain)
        except (ValueError, InvalidTag, struct.error):
            return None
        if version != _VERSION or now_ms >= until_ms:
            return None
        return Session(token_hash, until_ms, session_id)

    def form_token(self, session: Session) -> str:
        """What every form of the session carries: another site cannot know it."""
        return hmac.new(self._form_key, session.id + session.token_hash, sha256).hexdigest()

    def is_own_form(self, session: Session, given: str) -> bool:
        """Whether a form came from a page of this session."""
        return hmac.compare_digest(self.form_token(session).encode(), given.encode("utf-8", "replace"))


def _derived(kek: bytes, purpose: bytes) -> bytes:
    return HKDF(SHA256(), 32, salt=None, info=purpose).derive(kek)
