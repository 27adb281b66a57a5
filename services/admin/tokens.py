"""
Who asks, and whether they may: bearer tokens and their roles.

Pure. Tokens are kept as SHA-256 and compared in constant time. A token is of one app, or, kept under `*`,
of the whole installation. A viewer reads; an operator also pauses, activates, retries and replays; an admin
also creates, changes and deletes.
"""

import hashlib
import hmac
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from services.runtime import kinds
from services.runtime.problems import Problem
from streams.records import AppConfig, Role, Token

#: The key under which `app-config` holds what belongs to no single app.
EVERY_APP: Final = "*"

_RANK: Final[dict[Role, int]] = {"viewer": 0, "operator": 1, "admin": 2}

#: A 401 names the scheme that is wanted. Source: RFC 9110, section 11.6.1.
_CHALLENGE: Final = {"WWW-Authenticate": "Bearer"}


@dataclass(frozen=True, slots=True)
class Caller:
    """Who sent a request, as far as the token tells."""

    #: The token's name: the "who" of every record that is written for it.
    name: str
    role: Role
    #: SHA-256 of the token, to tell callers apart whose tokens have one name.
    token_hash: bytes
    #: The app whose token it is; `*`: the whole installation's.
    app: str = ""
    #: Where the request came from, for the audit log; None where that is not known.
    ip: str | None = None


def hash_of(token: str) -> bytes:
    """What is kept of a token or a key. Both are random and long, so that no slow hash is needed."""
    return hashlib.sha256(token.encode("utf-8", "surrogateescape")).digest()


def presented_token(authorization: str | None) -> str:
    """
    The token in the `Authorization` header.

    Raises:
        Problem: 401 `token_missing`.
    """
    scheme, _, token = (authorization or "").partition(" ")
    if scheme.lower() != "bearer" or not token.strip():
        raise Problem(
            kinds.TOKEN_MISSING,
            "Send a token of the admin API as `Authorization: Bearer …`. Keys of ingest (pk_…, sk_…) are none.",
            headers=_CHALLENGE,
        )
    return token.strip()


def caller_of(token: str, configs: Iterable[AppConfig | None]) -> Caller:
    """
    Whose token it is, among those of the app asked for and of the installation.

    Raises:
        Problem: 401 `token_unknown`, the same for an unknown app as for a token of another app.
    """
    caller = holder_of(hash_of(token), configs)
    if caller is None:
        raise Problem(
            kinds.TOKEN_UNKNOWN,
            "There is no such token, or it is one of another app. Check it, or have a new one made.",
            headers=_CHALLENGE,
        )
    return caller


def holder_of(digest: bytes, configs: Iterable[AppConfig | None]) -> Caller | None:
    """Whose token has this SHA-256, among those of *configs*; None where there is none."""
    found: tuple[str, Token] | None = None
    for app, known in [(config.app, each) for config in configs if config is not None for each in config.tokens]:
        # All are compared, whichever fits.
        if hmac.compare_digest(known.hash, digest):
            found = app, known
    if found is None:
        return None
    app, token_of = found
    return Caller(token_of.name, token_of.role, digest, app)


def require(caller: Caller, least: Role) -> None:
    """
    Hold a caller to its role.

    Raises:
        Problem: 403 `role_insufficient`.
    """
    if _RANK[caller.role] < _RANK[least]:
        raise Problem(
            kinds.ROLE_INSUFFICIENT,
            f"The token {caller.name!r} has the role {caller.role}, and this needs {least}. Use another token.",
            role=caller.role,
            needed=least,
        )


def require_installation(caller: Caller, what: str) -> None:
    """
    Hold back a token of one app from what concerns the whole installation.

    Args:
        what: begins the sentence that tells it, for example "Creating an app".

    Raises:
        Problem: 403 `installation_token_required`.
    """
    if caller.app != EVERY_APP:
        raise Problem(
            kinds.INSTALLATION_TOKEN_REQUIRED,
            f"{what} takes a token of the whole installation, and {caller.name!r} is one of a single app. Use another "
            "token.",
        )
