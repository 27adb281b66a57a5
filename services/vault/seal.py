"""
Seals secrets for the log, and opens them: AES-256-GCM under the key-encryption key (KEK).

A sealed value is `version (1 byte) | key id (8) | nonce (12) | ciphertext and tag (16 more than the plain)`.
The tag also covers where the value belongs (`Context`), so that a ciphertext copied to another app,
integration, name or version does not open there. Nonces are random: at 2³² values under one KEK the
chance of a repeated one is still below 2⁻³² (NIST SP 800-38D, 8.3).
"""

import hashlib
import os
import struct
from dataclasses import dataclass
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

KEK_BYTES: Final = 32

_FORMAT: Final = 1
_KEY_ID_BYTES: Final = 8
_NONCE_BYTES: Final = 12
_TAG_BYTES: Final = 16
_HEADER: Final = struct.Struct(f">B{_KEY_ID_BYTES}s{_NONCE_BYTES}s")
_DOMAIN: Final = b"tenterhook.sealed"


class Unsealable(ValueError):
    """A sealed value does not open. The message says why and what to do; it holds nothing of the value."""


class SealedUnderOtherKey(Unsealable):
    """It was sealed under another KEK than the one that this process has."""


@dataclass(frozen=True, slots=True)
class Context:
    """Where a sealed value belongs. It opens there and nowhere else."""

    app: str
    integration: str
    #: `secret:<name>`, `header:<name>` or `signing`.
    name: str
    #: Of the secret, from 1; 0 for header values, which have none of their own.
    version: int

    @classmethod
    def of_secret(cls, app: str, integration: str, name: str, version: int) -> "Context":
        """Of a named secret."""
        return cls(app, integration, f"secret:{name}", version)

    @classmethod
    def of_header(cls, app: str, integration: str, name: str) -> "Context":
        """Of a header's value; *name* as it is written in the configuration."""
        return cls(app, integration, f"header:{name}", 0)

    @classmethod
    def of_signing(cls, app: str, integration: str, version: int) -> "Context":
        """Of a signing secret."""
        return cls(app, integration, "signing", version)

    def encoded(self) -> bytes:
        """As bytes, no two contexts alike: each text is preceded by its length."""
        texts = [text.encode() for text in (self.app, self.integration, self.name)]
        return b"".join(struct.pack(">I", len(text)) + text for text in texts) + struct.pack(">Q", self.version)


class Keyring:
    """The KEK of this process. Holds the only plain key; nothing prints it."""

    def __init__(self, kek: bytes) -> None:
        if len(kek) != KEK_BYTES:
            raise ValueError(f"a KEK has {KEK_BYTES} bytes, this one has {len(kek)}")
        self._cipher = AESGCM(kek)
        #: Tells which KEK sealed a value, without telling the KEK.
        self.key_id: Final = hashlib.sha256(kek).digest()[:_KEY_ID_BYTES]

    def __repr__(self) -> str:
        return f"Keyring(key_id={self.key_id.hex()})"

    def seal(self, plain: bytes, context: Context) -> bytes:
        """The plain value, sealed for this context. Twice the same value gives two different results."""
        header = _HEADER.pack(_FORMAT, self.key_id, os.urandom(_NONCE_BYTES))
        return header + self._cipher.encrypt(header[-_NONCE_BYTES:], plain, _associated(header, context))

    def open(self, sealed: bytes, context: Context) -> bytes:
        """
        The plain value.

        Raises:
            SealedUnderOtherKey: another KEK sealed it.
            Unsealable: it was changed, cut short, or sealed for another context.
        """
        if len(sealed) < _HEADER.size + _TAG_BYTES:
            raise Unsealable(f"a sealed value has at least {_HEADER.size + _TAG_BYTES} bytes, this has {len(sealed)}")
        version, key_id, nonce = _HEADER.unpack_from(sealed)
        if version != _FORMAT:
            raise Unsealable(f"sealed in format {version}; this release reads format {_FORMAT}")
        if key_id != self.key_id:
            raise SealedUnderOtherKey(
                f"sealed under the KEK {key_id.hex()}, this process has {self.key_id.hex()}: "
                "start it with the KEK that sealed it, or store the secret anew"
            )
        header, ciphertext = sealed[: _HEADER.size], sealed[_HEADER.size :]
        try:
            return self._cipher.decrypt(nonce, ciphertext, _associated(header, context))
        except InvalidTag:
            raise Unsealable(
                f"the sealed value of {context.name!r} was changed, or belongs to another integration: store it anew"
            ) from None


def _associated(header: bytes, context: Context) -> bytes:
    """What the tag covers beside the plain value: our name, format and key id, and the context."""
    return _DOMAIN + header[:-_NONCE_BYTES] + context.encoded()
