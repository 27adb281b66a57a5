"""
An integration's URL with its secrets filled in.

Pure. A secret is one value wherever it stands: it is percent-encoded as a whole, `/` included, so that it can neither
end its path segment nor add a parameter.
"""

import re
from collections.abc import Mapping
from typing import Final
from urllib.parse import quote, urlsplit

import idna

from services.vault.references import names, render

#: Control characters and spaces: never part of a URL, and the way to smuggle a second request.
_NEVER: Final = re.compile(r"[\x00-\x20\x7f]")


class BadUrl(ValueError):
    """A URL that cannot be sent to. The message says why and does not show it."""


def render_url(template: str, secrets: Mapping[str, str]) -> str:
    """
    The URL that a request goes to: secrets filled in, in ASCII, without a fragment.

    Raises:
        UnknownSecret: it refers to a secret that is not there.
        BadUrl: it holds a space or a control character, or its host is no valid name.
    """
    encoded = {name: quote(secrets[name], safe="") for name in names(template) if name in secrets}
    url = render(template, encoded).partition("#")[0]
    if _NEVER.search(url):
        raise BadUrl("the URL holds a space, a line break or another control character: percent-encode it")
    return url if url.isascii() else _in_ascii(url)


def _in_ascii(url: str) -> str:
    """The host by the rules for international names, the rest percent-encoded as UTF-8, as browsers do."""
    try:
        parts = urlsplit(url)
        host = parts.hostname or ""
        if not host.isascii():
            port = f":{parts.port}" if parts.port is not None else ""
            userinfo, at, _ = parts.netloc.rpartition("@")
            parts = parts._replace(netloc=f"{userinfo}{at}{idna.encode(host, uts46=True).decode()}{port}")
    except ValueError:
        # Without the cause, whose message holds the host.
        raise BadUrl("the URL's host is no valid name") from None
    return "".join(char if char.isascii() else quote(char) for char in parts.geturl())
