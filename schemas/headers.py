"""
Which headers an integration may set of its own: data and one rule, for config writes and for the moment of sending.

Pure. The brand of our own header names is a setting, so it comes in as an argument.
"""

import re
from typing import Final

DEFAULT_BRAND: Final = "X-ApifyCloud"

#: Own headers of one integration, at most: with our ten, well under what common servers take (100 in nginx's and
#: Apache's default, 2,000 in Node's).
MAX_HEADERS: Final = 50
MAX_NAME_CHARS: Final = 128
#: Characters of one value. Common servers refuse a line above 8 KiB (Apache, nginx, aiohttp).
MAX_VALUE_CHARS: Final = 4_096

#: About one connection, so never an integration's to set. Source: RFC 9110, section 7.6.1, and RFC 9113, 8.2.2.
HOP_BY_HOP: Final = frozenset(
    {
        "connection",
        "http2-settings",
        "keep-alive",
        "proxy-authenticate",
        "proxy-authorization",
        "proxy-connection",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
    }
)
#: Set by tenterhook, or describing a body that tenterhook writes. `Expect` would make a receiver hold the body back.
OWNED: Final = frozenset(
    {
        "content-encoding",
        "content-length",
        "content-range",
        "content-type",
        "expect",
        "host",
        "user-agent",
        "webhook-id",
        "webhook-signature",
        "webhook-timestamp",
    }
)

#: Set by tenterhook where the integration has `sendTraceparent`. Else it may have them as any other.
OF_A_TRACE: Final = frozenset({"traceparent", "tracestate"})

#: A field name. Source: RFC 9110, section 5.6.2, `token`.
_NAME: Final = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
#: What a field value may not hold: control characters but the tab. Source: RFC 9110, section 5.5.
_CONTROL: Final = re.compile(r"[\x00-\x08\x0a-\x1f\x7f]")


def refused_header(name: str, value: str, brand: str = DEFAULT_BRAND, *, sends_traceparent: bool = False) -> str | None:
    """
    Why an integration may not set this header, for people; None where it may.

    The value may be a template or a rendered value. The answer names the header and never shows the value.

    Args:
        sends_traceparent: whether we set `traceparent` for the integration.
    """
    if sends_traceparent and name.lower() in OF_A_TRACE:
        return f"{name} is set by tenterhook itself where sendTraceparent is on: remove it, or turn that off"
    return refused_name(name, brand) or refused_value(name, value)


def refused_name(name: str, brand: str = DEFAULT_BRAND) -> str | None:
    """Why no header of an integration may have this name; None where one may."""
    if not _NAME.fullmatch(name):
        return f"{name[:MAX_NAME_CHARS]!r} is no header name: use letters, digits and !#$%&'*+.^_`|~- only"
    if len(name) > MAX_NAME_CHARS:
        return f"a header name of {len(name)} characters is too long: {MAX_NAME_CHARS} at most"
    lower = name.lower()
    if lower in HOP_BY_HOP:
        return f"{name} belongs to the connection, not to the request: remove it"
    if lower in OWNED or lower.startswith(f"{brand.lower()}-"):
        return f"{name} is set by tenterhook itself: use another name"
    return None


def refused_value(name: str, value: str) -> str | None:
    """Why the header called *name* may not have this value; None where it may. The value is not shown."""
    if len(value) > MAX_VALUE_CHARS:
        return f"the value of {name} has {len(value)} characters: {MAX_VALUE_CHARS} at most"
    if _CONTROL.search(value):
        return f"the value of {name} holds a line break or another control character: save it again without"
    if not value.isascii():
        # Receivers read such bytes as Latin-1 or as UTF-8, each as it likes. Source: RFC 9110, section 5.5.
        return (
            f"the value of {name} holds a character beyond ASCII: receivers disagree on those, so encode or remove it"
        )
    return None
