"""
Whether a URL may be delivered to, as far as its text tells. Pure.

The addresses behind the name are checked where they are dialled, at every attempt; this is what can be
told when it is configured. The parser is yarl's, which the sender uses: two that disagree are a hole.
"""

import re
from ipaddress import IPv6Address
from typing import Final

from yarl import URL

from services.vault.references import misspelt

#: Longer than any URL met in the wild (browsers and proxies stop at 2,000 to 8,000), short enough to show.
MAX_URL_CHARS: Final = 2_048

_LABEL: Final = re.compile(r"[A-Za-z0-9_-]{1,63}")
_MAX_HOST_CHARS: Final = 253

_AUTHORITY: Final = re.compile(r"(https?)://([^/?#]*)", re.IGNORECASE)
#: Stands for a secret while the rest is looked at; a letter that is itself in any part of a URL.
_REFERENCE: Final = re.compile(r"\{secret\.[A-Za-z0-9_-]{1,64}\}")


def url_fault(url: str, *, allow_http: bool) -> str | None:
    """
    Why this URL cannot be delivered to and what to do, or None. *url* may hold `{secret.name}` references.

    Messages show no part of it: a URL may carry a key in its query.
    """
    found = _AUTHORITY.match(url)
    if found is None:
        return "must start with https://"
    if found[1].lower() == "http" and not allow_http:
        return "must start with https://: this app does not allow http (its setting allowHttp)"
    return _authority_fault(found[2]) or _rest_fault(url)


def _authority_fault(authority: str) -> str | None:
    if "@" in authority:
        return "must not carry a user or password: send it in a header, for example Authorization"
    if "{" in authority or "}" in authority:
        return "must name its host in plain: a secret may stand in the path and the query"
    return None


def _rest_fault(url: str) -> str | None:
    if "\\" in url or any(letter.isspace() or not letter.isprintable() for letter in url):
        return "must not contain spaces, backslashes or control characters: percent-encode them"
    if misspelt(url) or set("{}") & set(_REFERENCE.sub("", url)):
        return "has braces that are no {secret.name} reference: correct them, or percent-encode them"
    if "#" in url:
        return "must not have a fragment (#...): it is never sent"
    try:
        parsed = URL(_REFERENCE.sub("x", url))
        host, port = parsed.raw_host, parsed.port
    except ValueError:
        return "is not a valid URL: check its host and port"
    if not port or host is None or not _is_host(host):
        return "is not a valid URL: it needs the name or address of a host, and a port from 1 to 65535 if any"
    return None


def _is_host(host: str) -> bool:
    """Whether it is a name of DNS (in its ASCII form), an IPv4 or an IPv6 address."""
    if ":" in host:
        return _is_ipv6(host)
    return len(host) <= _MAX_HOST_CHARS and all(map(_LABEL.fullmatch, host.removesuffix(".").split(".")))


def _is_ipv6(host: str) -> bool:
    """Whether it is an IPv6 address, without brackets and without a zone, which only this machine could resolve."""
    try:
        IPv6Address(host)
    except ValueError:
        return False
    return "%" not in host
