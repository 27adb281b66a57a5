"""The key-encryption key (KEK), from the settings: `TENTERHOOK_KEK`, or the file `TENTERHOOK_KEK_FILE`."""

import base64
import binascii
from pathlib import Path
from typing import Final, Protocol

from pydantic import SecretStr

from services.vault.seal import KEK_BYTES

_HOW: Final = (
    "Make one with `openssl rand -base64 32`, give every service the same, and keep it: "
    "without it no stored secret opens again."
)


class KekSettings(Protocol):
    """The two settings that say where the KEK is; `services.runtime.settings.Settings` has them."""

    @property
    def kek(self) -> SecretStr | None: ...
    @property
    def kek_file(self) -> Path | None: ...


class KekError(Exception):
    """No service starts on it. The message says what to do, and holds nothing of the key."""


class KekMissing(KekError):
    """There is no KEK."""


class KekUnusable(KekError):
    """There is something, and it is no KEK."""


def load_kek(settings: KekSettings) -> bytes:
    """
    The KEK's 32 bytes.

    Raises:
        KekMissing: neither setting names one.
        KekUnusable: both do, the file cannot be read, or it is not base64 of 32 bytes.
    """
    if settings.kek is not None and settings.kek_file is not None:
        raise KekUnusable("both TENTERHOOK_KEK and TENTERHOOK_KEK_FILE are set: keep one of them")
    if settings.kek is not None:
        return _decoded(settings.kek.get_secret_value(), "TENTERHOOK_KEK")
    if settings.kek_file is not None:
        return _decoded(_read(settings.kek_file), f"the file {settings.kek_file}")
    raise KekMissing(f"no key-encryption key: set TENTERHOOK_KEK, or TENTERHOOK_KEK_FILE to a file with it. {_HOW}")


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="ascii")
    except UnicodeDecodeError:
        raise KekUnusable(f"the file {path} is no text: it must hold base64 of {KEK_BYTES} bytes. {_HOW}") from None
    except OSError as error:
        raise KekUnusable(f"the file {path} (TENTERHOOK_KEK_FILE) cannot be read: {error.strerror}") from None


def _decoded(text: str, source: str) -> bytes:
    try:
        kek = base64.b64decode(text.strip(), validate=True)
    except (binascii.Error, ValueError):
        raise KekUnusable(f"{source} is not base64. {_HOW}") from None
    if len(kek) != KEK_BYTES:
        raise KekUnusable(f"{source} holds {len(kek)} bytes as base64, a KEK has {KEK_BYTES}. {_HOW}")
    return kek
