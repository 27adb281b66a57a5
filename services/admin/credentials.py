"""
Keys of ingest and tokens of the admin API: made, listed, taken away.

Pure. A plain key or token is in the answer to its create and nowhere else: a record has its SHA-256 (`hash_of`), which
is enough to recognise it and no help to make it.
"""

import base64
import re
from typing import Any, Final, get_args

import msgspec

from services.admin.apps import fields_of, limit_reached, refuse_the_rest
from services.admin.fields import shortened
from services.admin.tokens import EVERY_APP, hash_of
from services.runtime import kinds
from services.runtime.problems import Problem
from services.runtime.times import iso
from streams.records import AppConfig, IngestKey, KeyKind, Role, Token

#: 192 bits, so that guessing is no matter, and 32 letters in base64.
RANDOM_BYTES: Final = 24

#: Each request at ingest is compared with all of them.
MAX_KEYS: Final = 100
MAX_TOKENS: Final = 100

#: What a token may be called: it is the "who" of every record, and stands in addresses. Fits an email address.
TOKEN_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.@+-]{0,63}")

TOKEN_PREFIX: Final = "tok_"  # noqa: S105  # what tokens begin with
KEY_PREFIXES: Final[dict[KeyKind, str]] = {"public": "pk_", "secret": "sk_"}

_KINDS: Final[tuple[KeyKind, ...]] = get_args(KeyKind)
_ROLES: Final[tuple[Role, ...]] = get_args(Role)


def minted(prefix: str, random: bytes) -> str:
    """A key or token as it is shown: its prefix, and 24 random bytes in base64 that fits an address."""
    if len(random) != RANDOM_BYTES:
        raise ValueError(f"a key takes {RANDOM_BYTES} random bytes, not {len(random)}")
    return prefix + base64.urlsafe_b64encode(random).decode()


# -- keys --------------------------------------------------------------------------------------------------


def wanted_kind(body: Any) -> KeyKind:
    """
    The kind of key that `{"kind": "public" | "secret"}` asks for.

    Raises:
        Refused: it does not say, or says more.
    """
    fields = fields_of(body)
    if not fields.has("kind"):
        fields.refuse("kind", "is required: public for web pages, secret for servers")
    wanted = fields.choice("kind", "public", _KINDS)
    refuse_the_rest(fields)
    return wanted


def new_key(plain: str, kind: KeyKind, *, now_ms: int) -> IngestKey:
    """What is kept of a key. Its id comes from its hash, so that one key has one id wherever it was made."""
    digest = hash_of(plain)
    return IngestKey(id=f"key_{digest.hex()[:16]}", kind=kind, hash=digest, created_at_ms=now_ms)


def with_key(config: AppConfig, key: IngestKey) -> AppConfig:
    """
    The app with one more key.

    Raises:
        Problem: 409 `limit_reached`.
    """
    if len(config.keys) >= MAX_KEYS:
        raise limit_reached(config.app, "keys", MAX_KEYS)
    return msgspec.structs.replace(config, keys=[*config.keys, key])


def without_key(config: AppConfig, key: str) -> AppConfig:
    """
    The app without the key of that id.

    Raises:
        Problem: 404 `no_such_key`.
    """
    left = [each for each in config.keys if each.id != key]
    if len(left) == len(config.keys):
        raise Problem(
            kinds.NO_SUCH_KEY,
            f"The app {config.app} has no key of this id. List its keys to find it; it may have been deleted.",
        )
    return msgspec.structs.replace(config, keys=left)


def key_json(key: IngestKey) -> dict[str, Any]:
    """A key as HTTP shows it: what tells it apart, and nothing that opens anything."""
    return {"id": key.id, "kind": key.kind, "createdAt": iso(key.created_at_ms)}


# -- tokens ------------------------------------------------------------------------------------------------


def wanted_token(body: Any) -> tuple[str, Role]:
    """
    Name and role of the token that `{"name": …, "role": …}` asks for.

    Raises:
        Refused: with the name of every field that has to change.
    """
    fields = fields_of(body)
    name = fields.text("name", most=64)
    if name and not TOKEN_NAME.fullmatch(name):
        fields.refuse("name", "must be 1 to 64 of A-Z a-z 0-9 _ . @ + - and start with a letter or a digit")
    if not fields.has("role"):
        fields.refuse("role", "is required: viewer, operator or admin")
    role = fields.choice("role", "viewer", _ROLES)
    refuse_the_rest(fields)
    return name, role


def new_token(plain: str, name: str, role: Role, *, now_ms: int) -> Token:
    """What is kept of a token."""
    return Token(name=name, role=role, hash=hash_of(plain), created_at_ms=now_ms)


def with_token(config: AppConfig, token: Token) -> AppConfig:
    """
    The app, or the installation (`*`), with one more token.

    Raises:
        Problem: 409 `token_exists` or `limit_reached`.
    """
    if any(each.name == token.name for each in config.tokens):
        raise Problem(
            kinds.TOKEN_EXISTS,
            f"There is a token {token.name!r} already, and the audit log tells tokens apart by name. Choose another "
            "name, or delete that token first.",
        )
    if len(config.tokens) >= MAX_TOKENS:
        raise limit_reached(config.app, "tokens", MAX_TOKENS)
    return msgspec.structs.replace(config, tokens=[*config.tokens, token])


def without_token(config: AppConfig, name: str) -> AppConfig:
    """
    The app, or the installation (`*`), without the token of that name.

    Raises:
        Problem: 404 `no_such_token`; 409 `last_admin_token`: nobody could configure the installation any more.
    """
    left = [each for each in config.tokens if each.name != name]
    if len(left) == len(config.tokens):
        raise Problem(
            kinds.NO_SUCH_TOKEN,
            f"There is no token {shortened(name)!r} here. List the tokens to find it; it may have been deleted.",
        )
    if config.app == EVERY_APP and not any(each.role == "admin" for each in left):
        raise Problem(
            kinds.LAST_ADMIN_TOKEN,
            f"{name!r} is the only token of an admin of the whole installation: without it nobody could make another. "
            "Create its successor first.",
        )
    return msgspec.structs.replace(config, tokens=left)


def token_json(token: Token) -> dict[str, Any]:
    """A token as HTTP shows it, without what it opens things with."""
    return {"name": token.name, "role": token.role, "createdAt": iso(token.created_at_ms)}
