"""
The folder that `tenterhook up` keeps its state in: the KEK, the app's keys, the ready file, the broker's data.

Everything in it is this user's alone. One `up` at a time has it.
"""

import base64
import fcntl
import json
import os
import secrets
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Final

from services.cli.errors import Failed

KEK_BYTES: Final = 32

_KEYS: Final = ("app", "public_key", "secret_key", "token")


class DataDir:
    """One such folder, while it is held."""

    def __init__(self, path: Path) -> None:
        self.path = path
        #: Where the other commands look for a running `up`.
        self.ready_file = path / "ready.json"
        self._keys_file = path / "keys.json"
        self._kek_file = path / "kek"

    def kek_file(self, say: Callable[[str], None]) -> Path:
        """The file with the KEK; made where there is none."""
        if not self._kek_file.exists():
            _write(self._kek_file, base64.b64encode(secrets.token_bytes(KEK_BYTES)) + b"\n")
            say(f"made a key-encryption key in {self._kek_file}: without it no stored secret opens again")
        return self._kek_file

    def keys(self) -> dict[str, str] | None:
        """
        The app and what opens it, as `keep_keys` was given them; None where it never was.

        Raises:
            Failed: the file is there, and unreadable.
        """
        try:
            content = json.loads(self._keys_file.read_text(encoding="utf-8"))
            return {name: str(content[name]) for name in _KEYS}
        except FileNotFoundError:
            return None
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise Failed(
                f"{self._keys_file} cannot be read ({type(error).__name__}): remove it, and `up` makes new keys"
            ) from None

    def keep_keys(self, keys: Mapping[str, str]) -> None:
        """Keep them for the next start, so that it shows the same ones."""
        write_private(self._keys_file, keys)


@contextmanager
def held(path: Path) -> Iterator[DataDir]:
    """
    The folder, made where there is none, and this process's alone.

    Raises:
        Failed: it cannot be made, or another `up` has it.
    """
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        lock = (path / "lock").open("a+")
    except OSError as error:
        raise Failed(f"--data {path}: {error.strerror}. Give a folder that can be written to") from None
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            lock.seek(0)
            owner = lock.read().strip() or "unknown"
            raise Failed(
                f"another `tenterhook up` (process {owner}) has {path}: stop it, or give another --data"
            ) from None
        lock.truncate(0)
        lock.write(f"{os.getpid()}\n")
        lock.flush()
        yield DataDir(path)


def write_private(path: Path, content: Mapping[str, Any]) -> None:
    """
    Put JSON into a file that is either there whole or not at all, and readable for this user alone.

    Raises:
        Failed: it cannot be written.
    """
    _write(path, json.dumps(content, indent=2).encode() + b"\n")


def _write(path: Path, content: bytes) -> None:
    try:
        descriptor, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    except OSError as error:
        raise Failed(f"{path} cannot be written: {error.strerror}") from None
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        Path(name).replace(path)
    except OSError as error:
        with suppress(OSError):
            Path(name).unlink()
        raise Failed(f"{path} cannot be written: {error.strerror}") from None
