"""
Which bodies are taken, by what their headers say of them.

Pure. `text/plain` is JSON here, and so is a body that names no type: pages send these without a CORS preflight.
"""

from collections.abc import Mapping
from collections.abc import Set as AbstractSet
from typing import Final

from services.runtime import kinds
from services.runtime.problems import Problem

_UTF8: Final = frozenset({"utf-8", "utf8", "us-ascii"})
#: What a single event may be said to be, and what a batch.
EVENT_TYPES: Final = frozenset({"application/json", "text/plain", ""})
BATCH_TYPES: Final = EVENT_TYPES | {"application/x-ndjson"}


def check_headers(headers: Mapping[str, str], media_types: AbstractSet[str] = EVENT_TYPES) -> None:
    """
    Refuse a body that says it is something other than plain JSON in UTF-8.

    Compressed bodies are not taken: what 64 KiB can unfold to has no bound.

    Args:
        headers: with names looked up regardless of case.
        media_types: that are taken here; the empty one stands for a header that names none.

    Raises:
        Problem: 415 `unsupported_media_type`.
    """
    if headers.get("Content-Encoding", "identity").lower() != "identity":
        raise _unsupported("a Content-Encoding", media_types)
    content_type = headers.get("Content-Type")
    if content_type is None or content_type == "application/json":
        return
    media_type, _, parameters = content_type.partition(";")
    if media_type.strip().lower() not in media_types:
        raise _unsupported("this Content-Type", media_types)
    for parameter in parameters.split(";"):
        name, _, value = parameter.partition("=")
        if name.strip().lower() == "charset" and value.strip().strip('"').lower() not in _UTF8:
            raise _unsupported("a charset other than utf-8", media_types)


def _unsupported(what: str, media_types: AbstractSet[str]) -> Problem:
    taken = " or ".join(sorted(media_types - {""}))
    return Problem(
        kinds.UNSUPPORTED_MEDIA_TYPE,
        f"Bodies with {what} are not taken. Send {taken}, in utf-8 and not compressed.",
    )
