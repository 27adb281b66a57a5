"""
Which bodies are taken, by what their headers say of them.

Pure. `text/plain` is JSON here, and so is a body that names no type: pages send these without a CORS preflight.
"""

from collections.abc import Mapping
from typing import Final

from services.runtime.problems import Problem

_UTF8: Final = frozenset({"utf-8", "utf8", "us-ascii"})
_MEDIA_TYPES: Final = frozenset({"application/json", "text/plain", ""})


def check_headers(headers: Mapping[str, str]) -> None:
    """
    Refuse a body that says it is something other than plain JSON in UTF-8.

    Compressed bodies are not taken: what 64 KiB can unfold to has no bound.

    Raises:
        Problem: 415 `unsupported_media_type`.
    """
    if headers.get("Content-Encoding", "identity").lower() != "identity":
        raise _unsupported("a Content-Encoding")
    content_type = headers.get("Content-Type")
    if content_type is None or content_type == "application/json":
        return
    media_type, _, parameters = content_type.partition(";")
    if media_type.strip().lower() not in _MEDIA_TYPES:
        raise _unsupported("this Content-Type")
    for parameter in parameters.split(";"):
        name, _, value = parameter.partition("=")
        if name.strip().lower() == "charset" and value.strip().strip('"').lower() not in _UTF8:
            raise _unsupported("a charset other than utf-8")


def _unsupported(what: str) -> Problem:
    return Problem(
        415,
        "unsupported_media_type",
        "Unsupported media type",
        f"Bodies with {what} are not taken. Send application/json or text/plain, in utf-8 and not compressed.",
    )
