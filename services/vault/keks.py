"""
The key-encryption keys (KEKs), from the settings, and whether they are those that the stored secrets want.

`TENTERHOOK_KEK`, or the file `TENTERHOOK_KEK_FILE`, is the current one; `TENTERHOOK_KEK_PREVIOUS`, or its file, names
those that it replaces, while secrets are still sealed under them.
"""

import base64
import binascii
from collections.abc import Iterable
from pathlib import Path
from typing import Final, Protocol

from pydantic import SecretStr

from services.vault.places import sealed_values
from services.vault.seal import KEK_BYTES, UNDER_KEK, Keyring, Unsealable, sealed_under
from streams.records import AppConfig, IntegrationConfig

_HOW: Final = (
    "Make one with `openssl rand -base64 32`, give every service the same, and keep it: "
    "without it no stored secret opens again."
)


class KekSettings(Protocol):
    """The settings that say where the KEKs are; `services.runtime.settings.Settings` has them."""

    @property
    def kek(self) -> SecretStr | None: ...
    @property
    def kek_file(self) -> Path | None: ...
    @property
    def kek_previous(self) -> SecretStr | None: ...
    @property
    def kek_previous_file(self) -> Path | None: ...


class KekError(Exception):
    """No service starts on it. The message says what to do, and holds nothing of the key."""


class KekMissing(KekError):
    """There is no KEK."""


class KekUnusable(KekError):
    """There is something, and it is no KEK."""


class KekUnknown(KekError):
    """Stored secrets want a KEK that this process does not have."""


def load_keyring(settings: KekSettings) -> Keyring:
    """
    The current KEK and the previous ones.

    Raises:
        KekMissing: no setting names a current one.
        KekUnusable: a key is named twice, a file cannot be read, or one is not base64 of 32 bytes.
    """
    return Keyring(load_kek(settings), *_previous(settings))


def check_keks(keyring: Keyring, apps: Iterable[AppConfig], integrations: Iterable[IntegrationConfig]) -> None:
    """
    Hold the keyring to what is stored: before a service opens the first secret, with all of its configuration read.

    Raises:
        KekUnknown: something wants a KEK that is not in it; the message names the ids wanted and those it has.
    """
    used = keks_in_use(apps, integrations)
    missing = {key_id: count for key_id, count in used.items() if key_id not in keyring.key_ids}
    if missing:
        wanted = ", ".join(f"{key_id.hex()} ({count})" for key_id, count in sorted(missing.items()))
        raise KekUnknown(
            f"stored secrets want the KEK with the id {wanted}; this process has "
            f"{', '.join(key_id.hex() for key_id in keyring.key_ids)}. Set TENTERHOOK_KEK to the one that sealed them, "
            "or, while you replace it, TENTERHOOK_KEK_PREVIOUS"
        )


def keks_in_use(apps: Iterable[AppConfig], integrations: Iterable[IntegrationConfig]) -> dict[bytes, int]:
    """How many data keys and secrets are sealed under each KEK, by its id; no service may be without one of these."""
    wrapped = (each.wrapped for app in apps for each in app.data_keys)
    sealed = (value for config in integrations for value, _ in sealed_values(config))
    found: dict[bytes, int] = {}
    for value in (*wrapped, *sealed):
        try:
            under = sealed_under(value)
        except Unsealable:
            continue  # erased, or damaged: no KEK opens it, which is no reason to stop all others
        if under.format == UNDER_KEK:
            found[under.key_id] = found.get(under.key_id, 0) + 1
    return found


def load_kek(settings: KekSettings) -> bytes:
    """
    The current KEK's 32 bytes.

    Raises:
        KekMissing: neither setting names one.
        KekUnusable: both do, the file cannot be read, or it is not base64 of 32 bytes.
    """
    if settings.kek is not None and settings.kek_file is not None:
        raise KekUnusable("both TENTERHOOK_KEK and TENTERHOOK_KEK_FILE are set: keep one of them")
    if settings.kek is not None:
        return _decoded(settings.kek.get_secret_value(), "TENTERHOOK_KEK")
    if settings.kek_file is not None:
        return _decoded(_read(settings.kek_file, "TENTERHOOK_KEK_FILE"), f"the file {settings.kek_file}")
    raise KekMissing(f"no key-encryption key: set TENTERHOOK_KEK, or TENTERHOOK_KEK_FILE to a file with it. {_HOW}")


def _previous(settings: KekSettings) -> list[bytes]:
    """The KEKs before the current one, with spaces, commas or line ends between them."""
    text, path = settings.kek_previous, settings.kek_previous_file
    if text is not None and path is not None:
        raise KekUnusable("both TENTERHOOK_KEK_PREVIOUS and TENTERHOOK_KEK_PREVIOUS_FILE are set: keep one of them")
    if text is not None:
        given, source = text.get_secret_value(), "TENTERHOOK_KEK_PREVIOUS"
    elif path is not None:
        given, source = _read(path, "TENTERHOOK_KEK_PREVIOUS_FILE"), f"the file {path}"
    else:
        return []
    return [_decoded(each, source) for each in given.replace(",", " ").split()]


def _read(path: Path, variable: str) -> str:
    try:
        return path.read_text(encoding="ascii")
    except UnicodeDecodeError:
        raise KekUnusable(f"the file {path} is no text: it must hold base64 of {KEK_BYTES} bytes. {_HOW}") from None
    except OSError as error:
        raise KekUnusable(f"the file {path} ({variable}) cannot be read: {error.strerror}") from None


def _decoded(text: str, source: str) -> bytes:
    try:
        kek = base64.b64decode(text.strip(), validate=True)
    except (binascii.Error, ValueError):
        raise KekUnusable(f"{source} is not base64. {_HOW}") from None
    if len(kek) != KEK_BYTES:
        raise KekUnusable(f"{source} holds {len(kek)} bytes as base64, a KEK has {KEK_BYTES}. {_HOW}")
    return kek
