"""
Who sends: the key that a request shows, whether it is the app's, and from where a page may use it.

Pure. Keys are kept as SHA-256 and compared in constant time. No refusal says whether the app exists.
"""

import hashlib
import hmac
from collections.abc import Mapping
from typing import Final

from services.runtime import kinds
from services.runtime.problems import Problem
from streams.records import AppConfig, KeyKind

KEY_HEADER: Final = "X-Tenterhook-Key"
PUBLIC_PREFIX: Final = "pk_"

#: Stands for every origin in an app's list.
ANY_ORIGIN: Final = "*"

#: A 401 names the scheme that is wanted. Source: RFC 9110, section 11.6.1.
_CHALLENGE: Final = {"WWW-Authenticate": "Bearer"}


def presented_key(headers: Mapping[str, str], query: Mapping[str, str]) -> str:
    """
    The key that a request shows: `Authorization: Bearer`, else `X-Tenterhook-Key`, else `?key=` (public keys only).

    Args:
        headers: with names looked up regardless of case.

    Raises:
        Problem: 401 `key_missing` or `secret_key_in_address`.
    """
    authorization = headers.get("Authorization")
    if authorization is not None:
        scheme, _, key = authorization.partition(" ")
        if scheme.lower() == "bearer" and key:
            return key.strip()
        raise _key_missing("`Authorization` must be `Bearer` and the app's key.")
    key = headers.get(KEY_HEADER) or query.get("key") or ""
    if not key:
        raise _key_missing(
            f"Send the app's key as `Authorization: Bearer …` or `{KEY_HEADER}: …`; a public key may also stand in "
            "the address as `?key=pk_…`.",
        )
    if KEY_HEADER not in headers and not key.startswith(PUBLIC_PREFIX):
        raise Problem(
            kinds.SECRET_KEY_IN_ADDRESS,
            "Only public keys (pk_…) are taken from `?key=`, because addresses end in logs. Send it as "
            "`Authorization: Bearer …`; if it is a secret key, it has been seen: replace it.",
            headers=_CHALLENGE,
        )
    return key


def kind_of_key(key: str, app: AppConfig) -> KeyKind:
    """
    Whether the key is a public or a secret one of this app.

    Raises:
        Problem: 401 `key_unknown`.
    """
    digest = hashlib.sha256(key.encode("utf-8", "surrogateescape")).digest()
    found: KeyKind | None = None
    for known in app.keys:
        # All are compared, whichever fits.
        if hmac.compare_digest(known.hash, digest):
            found = known.kind
    if found is None:
        raise key_unknown()
    return found


def allows_origin(app: AppConfig, origin: str) -> bool:
    """Whether pages of this origin (`https://shop.example`, as browsers send it) may use the app's public keys."""
    return any(allowed in (ANY_ORIGIN, origin) for allowed in app.origins)


def check_origin(kind: KeyKind, origin: str | None, app: AppConfig) -> None:
    """
    Hold a public key to the app's origins. A secret key is used by servers, which have none.

    Raises:
        Problem: 403 `origin_missing` or `origin_not_allowed`.
    """
    if kind == "secret":
        return
    if origin is None:
        raise Problem(
            kinds.ORIGIN_MISSING,
            "A public key (pk_…) is for pages, whose browser sends `Origin`. From a server, use a secret key (sk_…).",
        )
    if not allows_origin(app, origin):
        raise origin_not_allowed()


def origin_not_allowed() -> Problem:
    """Pages of this origin may not use the app's public keys."""
    return Problem(
        kinds.ORIGIN_NOT_ALLOWED,
        "This page's origin is not one of the app's allowed origins. Add it to the app, scheme and port included, or "
        "`*` for any.",
    )


def config_unreadable() -> Problem:
    """The app's record cannot be read: whether the key is one of its keys is not known, so nobody is refused for it."""
    return Problem(
        kinds.CONFIG_UNREADABLE,
        "What is configured of the app cannot be read at the moment. The event was not stored; repeat it.",
        headers={"Retry-After": "30"},
    )


def key_unknown() -> Problem:
    """The same for an app that does not exist as for a key of another app."""
    return Problem(
        kinds.KEY_UNKNOWN,
        "There is no such app, or the key is not one of its keys. Check both.",
        headers=_CHALLENGE,
    )


def _key_missing(detail: str) -> Problem:
    return Problem(kinds.KEY_MISSING, detail, headers=_CHALLENGE)
