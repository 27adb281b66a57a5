"""
Seals secrets for the log, and opens them: AES-256-GCM.

A sealed value is `format (1 byte) | key id (8) | nonce (12) | ciphertext and tag (16 more than the plain)`:

- format 1: sealed under a key-encryption key (KEK). An app's data keys are kept so, and what was sealed before the
  app had one.
- format 2: sealed under a data key of the app (`data_keys.py`).

A key's id is the beginning of its SHA-256: it tells which key is wanted, without telling the key. The tag also covers
format, key id and where the value belongs (`Context`), so that a ciphertext copied to another app, integration, name
or version does not open there. Nonces are random: at 2³² values under one key the chance of a repeated one is still
below 2⁻³² (NIST SP 800-38D, 8.3).
"""

import hashlib
import os
import struct
from dataclasses import dataclass
from typing import Final, Literal, Protocol

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

KEK_BYTES: Final = 32
#: Of a data key: AES-256, as the KEK.
DATA_KEY_BYTES: Final = 32

Format = Literal[1, 2]

UNDER_KEK: Final = 1
UNDER_DATA_KEY: Final = 2

_KEY_ID_BYTES: Final = 8
_NONCE_BYTES: Final = 12
_TAG_BYTES: Final = 16
_HEADER: Final = struct.Struct(f">B{_KEY_ID_BYTES}s{_NONCE_BYTES}s")
_DOMAIN: Final = b"tenterhook.sealed"


class Unsealable(ValueError):
    """A sealed value does not open. The message says why and what to do; it holds nothing of the value."""


class SealedUnderOtherKey(Unsealable):
    """It was sealed under a KEK that this process does not have. Start it with that one."""


class DataKeyUnknown(Unsealable):
    """It was sealed under a data key that is not known here. The app's record may be still to come: ask again."""


class DataKeyErased(Unsealable):
    """The app's data key was erased, and the value with it: it never opens again. Store it anew."""


class Opener(Protocol):
    """Opens what was sealed for its place."""

    def open(self, sealed: bytes, context: "Context") -> bytes:
        """The plain value. Raises `Unsealable`."""


class Sealer(Opener, Protocol):
    """Opens, and seals what is new."""

    def seal(self, plain: bytes, context: "Context") -> bytes:
        """The plain value, sealed for this context."""


@dataclass(frozen=True, slots=True)
class SealedUnder:
    """Which key a sealed value wants."""

    #: `UNDER_KEK` or `UNDER_DATA_KEY`.
    format: int
    key_id: bytes


def sealed_under(sealed: bytes) -> SealedUnder:
    """
    Which key this value was sealed under, as it says itself; whether that is true, opening it tells.

    Raises:
        Unsealable: it is none, or of a later release.
    """
    if len(sealed) < _HEADER.size + _TAG_BYTES:
        raise Unsealable(f"a sealed value has at least {_HEADER.size + _TAG_BYTES} bytes, this has {len(sealed)}")
    form, key_id, _ = _HEADER.unpack_from(sealed)
    if form not in (UNDER_KEK, UNDER_DATA_KEY):
        raise Unsealable(f"sealed in format {form}; this release reads formats {UNDER_KEK} and {UNDER_DATA_KEY}")
    return SealedUnder(form, key_id)


@dataclass(frozen=True, slots=True)
class Context:
    """Where a sealed value belongs. It opens there and nowhere else."""

    app: str
    integration: str
    #: `secret:<name>`, `header:<name>`, `signing`, or `data-key:<id>`, which belongs to no integration.
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

    @classmethod
    def of_data_key(cls, app: str, data_key: str) -> "Context":
        """Of an app's data key with this id; no integration has an empty id, so nothing else has this context."""
        return cls(app, "", f"data-key:{data_key}", 0)

    def encoded(self) -> bytes:
        """As bytes, no two contexts alike: each text is preceded by its length."""
        texts = [text.encode() for text in (self.app, self.integration, self.name)]
        return b"".join(struct.pack(">I", len(text)) + text for text in texts) + struct.pack(">Q", self.version)


class Key:
    """A plain key in memory. Nothing prints it."""

    def __init__(self, key: bytes, form: Format) -> None:
        self._cipher = AESGCM(key)
        self._form = form
        #: Tells which key sealed a value, without telling the key.
        self.id: Final = hashlib.sha256(key).digest()[:_KEY_ID_BYTES]

    def __repr__(self) -> str:
        return f"Key(id={self.id.hex()})"

    def seal(self, plain: bytes, context: Context) -> bytes:
        """The plain value, sealed for this context. Twice the same value gives two different results."""
        header = _HEADER.pack(self._form, self.id, os.urandom(_NONCE_BYTES))
        return header + self._cipher.encrypt(header[-_NONCE_BYTES:], plain, _associated(header, context))

    def open(self, sealed: bytes, context: Context) -> bytes:
        """
        The plain value of what names this key.

        Raises:
            Unsealable: it was changed, or sealed for another context.
        """
        header, ciphertext = sealed[: _HEADER.size], sealed[_HEADER.size :]
        try:
            return self._cipher.decrypt(header[-_NONCE_BYTES:], ciphertext, _associated(header, context))
        except InvalidTag:
            raise Unsealable(
                f"the sealed value of {context.name!r} was changed, or belongs to another integration: store it anew"
            ) from None


class Keyring:
    """
    The KEKs of this process: the current one, which seals, and previous ones, which only open.

    By itself it opens format 1; what an app's data keys sealed opens with a `Vault`.
    """

    def __init__(self, kek: bytes, *previous: bytes) -> None:
        for each in (kek, *previous):
            if len(each) != KEK_BYTES:
                raise ValueError(f"a KEK has {KEK_BYTES} bytes, this one has {len(each)}")
        self._current = Key(kek, UNDER_KEK)
        self._keys = {key.id: key for key in (self._current, *(Key(each, UNDER_KEK) for each in previous))}

    def __repr__(self) -> str:
        return f"Keyring(key_id={self.key_id.hex()})"

    @property
    def key_id(self) -> bytes:
        """Of the current KEK."""
        return self._current.id

    @property
    def key_ids(self) -> tuple[bytes, ...]:
        """Of every KEK that this process has, the current one first."""
        return tuple(self._keys)

    def seal(self, plain: bytes, context: Context) -> bytes:
        """The plain value, sealed for this context under the current KEK."""
        return self._current.seal(plain, context)

    def open(self, sealed: bytes, context: Context) -> bytes:
        """
        The plain value.

        Raises:
            SealedUnderOtherKey: a KEK sealed it that this process does not have.
            DataKeyUnknown: a data key sealed it.
            Unsealable: it was changed, cut short, or sealed for another context.
        """
        under = sealed_under(sealed)
        if under.format == UNDER_DATA_KEY:
            raise DataKeyUnknown(
                f"the value of {context.name!r} was sealed under the data key {under.key_id.hex()}, "
                "and the app has none of that id here"
            )
        key = self._keys.get(under.key_id)
        if key is None:
            raise SealedUnderOtherKey(
                f"sealed under the KEK {under.key_id.hex()}, this process has "
                f"{', '.join(each.hex() for each in self.key_ids)}: "
                "start it with the KEK that sealed it, or store the secret anew"
            )
        return key.open(sealed, context)


def _associated(header: bytes, context: Context) -> bytes:
    """What the tag covers beside the plain value: our name, format and key id, and the context."""
    return _DOMAIN + header[:-_NONCE_BYTES] + context.encoded()
