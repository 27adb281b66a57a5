"""
When a failed delivery is tried again.

Pure: no clock, no randomness of its own. Jitter is a slot drawn from a hash, so that a retry record that is written
again after a crash shares slot and due time with the first one.
"""

import email.utils
import hashlib
from collections.abc import Iterable
from datetime import UTC
from typing import Final, NamedTuple

from schemas.profiles import PROFILES
from streams.records import IntegrationConfig
from streams.topics import SLOT_TENTHS

#: Statuses whose `Retry-After` is honoured. Source: contract, "Profiles"; RFC 9110, 10.2.3 (503), RFC 6585, 4 (429).
ASKING_TO_WAIT: Final = frozenset({429, 503})

#: An endpoint may ask for a longer wait than the policy's own, up to this or the policy's longest delay, whichever is
#: more. An hour covers the quota windows that APIs state; without a cap one answer could park a delivery for a year.
RETRY_AFTER_CAP_MS: Final = 3_600_000

#: More digits than any wait has: a longer number is no number of seconds that anybody means.
_SECONDS_DIGITS: Final = 12


class Next(NamedTuple):
    """The attempt that follows a failed one."""

    #: Its number, counted from 1.
    attempt: int
    #: Not before this time, milliseconds since 1970 UTC.
    due_at_ms: int
    #: Index into `topics.SLOT_TENTHS`, and partition of the retry topic.
    slot: int


def next_attempt(
    delivery_id: str, attempt: int, integration: IntegrationConfig, failed_at_ms: int, retry_after_ms: int | None
) -> Next:
    """
    What follows failed attempt number *attempt*: the same for the same arguments, in every process.

    The wait is the policy's delay after this attempt (its last one where it names fewer), times 0.8 to 1.2 by slot:
    deliveries that failed together do not come back together.

    Args:
        attempt: the one that has just failed, counted from 1; that another may follow is `verdict`'s decision.
        retry_after_ms: what the endpoint asked for (`retry_after_ms`). The wait is never shorter, up to the cap.

    Source: product/integrations.txt and product/booking-webhooks.txt, "Retries"; contract, "Profiles".
    """
    delays_ms = integration.delays_ms or PROFILES[integration.profile].delays_ms
    slot = slot_of(delivery_id, attempt)
    step_ms = delays_ms[min(attempt, len(delays_ms)) - 1]
    wait_ms = -(-step_ms * SLOT_TENTHS[slot] // 10)  # rounded up: never early
    if retry_after_ms is not None:
        wait_ms = max(wait_ms, min(retry_after_ms, max(RETRY_AFTER_CAP_MS, *delays_ms)))
    return Next(attempt + 1, failed_at_ms + wait_ms, slot)


def slot_of(delivery_id: str, attempt: int) -> int:
    """The slot of the wait after this attempt: each of them equally often, over deliveries and over attempts."""
    digest = hashlib.sha256(f"{delivery_id}:{attempt}".encode()).digest()
    return int.from_bytes(digest[:8]) % len(SLOT_TENTHS)


def retry_after_ms(status: int | None, headers: Iterable[tuple[str, str]], now_ms: int) -> int | None:
    """
    How long the endpoint asks to be left alone, in milliseconds from now; None where it does not ask.

    Seconds or an HTTP date (a past one is no wait), and only with a 429 or a 503; what is neither is passed over.

    Source: RFC 9110, 10.2.3.
    """
    if status not in ASKING_TO_WAIT:
        return None
    for name, value in headers:
        if name.lower() == "retry-after" and (asked := _asked_ms(value.strip(), now_ms)) is not None:
            return asked
    return None


def _asked_ms(value: str, now_ms: int) -> int | None:
    if value.isascii() and value.isdigit() and len(value) <= _SECONDS_DIGITS:
        return int(value) * 1_000
    try:
        at = email.utils.parsedate_to_datetime(value)
        if at.tzinfo is None:  # "-0000": no zone is named, and HTTP dates are UTC
            at = at.replace(tzinfo=UTC)
        return max(0, round(at.timestamp() * 1_000) - now_ms)
    except (ValueError, OverflowError, IndexError, TypeError):
        return None
