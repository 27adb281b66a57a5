"""What the delivery of an event to an integration is called: the same in every process, on every replay. Pure."""

import hashlib
from typing import Final

#: Run of the deliveries that fan-out makes; a retry, replay or test has its command's id instead.
LIVE_RUN: Final = "0"

_PREFIX: Final = "dlv_"
#: Hex digits kept of the hash: 128 bits, so that two of 2**50 deliveries share an id with a chance of 2**-29.
_DIGITS: Final = 32


def delivery_id(record_id: str, integration_id: str, run: str) -> str:
    """
    The id of the delivery of one event to one integration in one run: the same on every replay, in every process.

    Each part is preceded by its length, so that no two triples hash the same text.
    """
    text = "".join(f"{len(part)}:{part}" for part in (record_id, integration_id, run))
    return _PREFIX + hashlib.sha256(text.encode()).hexdigest()[:_DIGITS]
