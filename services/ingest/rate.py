"""
How many events an app's public keys may post: a token bucket for each app.

Pure: time comes in as an argument, in seconds of a clock that does not go back. A public key stands in a web page,
where everybody may take it; the bucket bounds what that can cost the app. It is kept by each ingest process for itself.
"""

import math
from typing import Final, NamedTuple

from services.runtime import kinds
from services.runtime.problems import Problem

#: What a bucket holds, in seconds of its rate: what a page may send at once.
BURST_S: Final = 2

#: What is told to who may send nothing at all, since the rate is zero.
NEVER_S: Final = 60


class Bucket(NamedTuple):
    """So many tokens, one an event, at that time."""

    tokens: float
    at_s: float


def take(bucket: Bucket | None, *, wanted: int, rate_per_s: int, now_s: float) -> tuple[Bucket, int]:
    """
    The bucket afterwards, and how many of the wanted tokens were in it; part of them is taken too.

    Args:
        bucket: None for a full one, as an app has that has sent nothing yet.
        rate_per_s: as it is now; a bucket outlives a change of it.
    """
    rate_per_s = max(0, rate_per_s)
    full = float(BURST_S * rate_per_s)
    tokens = full if bucket is None else min(full, bucket.tokens + max(0.0, now_s - bucket.at_s) * rate_per_s)
    taken = min(wanted, int(tokens))
    return Bucket(tokens - taken, now_s), taken


def wait_s(bucket: Bucket, *, wanted: int, rate_per_s: int) -> int:
    """Whole seconds, at least 1, until the bucket has so many tokens, or is full where it never holds them."""
    if rate_per_s <= 0:
        return NEVER_S
    missing = min(wanted, BURST_S * rate_per_s) - bucket.tokens
    return max(1, math.ceil(missing / rate_per_s))


class Rates:
    """The buckets of all apps that public keys have posted to. Only apps that exist have one, so they are few."""

    def __init__(self) -> None:
        self._buckets: dict[str, Bucket] = {}

    def take(self, app: str, *, wanted: int, rate_per_s: int, now_s: float) -> int:
        """How many events of *wanted* the app's public keys may post now; they count as posted."""
        self._buckets[app], taken = take(self._buckets.get(app), wanted=wanted, rate_per_s=rate_per_s, now_s=now_s)
        return taken

    def refusal(self, app: str, *, wanted: int, rate_per_s: int) -> Problem:
        """What is told of *wanted* events that it was too early for, at the time of the last `take`."""
        wait = wait_s(self._buckets[app], wanted=wanted, rate_per_s=rate_per_s)
        return Problem(
            kinds.RATE_LIMITED,
            f"Public keys of this app may post {rate_per_s:,} events a second, and {BURST_S * rate_per_s:,} at once. "
            "Wait as long as `Retry-After` says, and repeat what was refused; servers use a secret key (sk_…), which "
            "has no such limit.",
            headers={"Retry-After": str(wait)},
        )

    def clear(self) -> None:
        """Forget all apps."""
        self._buckets.clear()
