"""When an event that was not accepted is sent again. Pure: the draw comes in."""

from http import HTTPStatus
from typing import Final

import msgspec

from tenterhook.problems import NoAnswer, Refused, TenterhookError

#: Not the event's fault. 502 and 504 are what a proxy says whose service restarts.
_LATER: Final = frozenset(
    {
        HTTPStatus.TOO_MANY_REQUESTS,
        HTTPStatus.BAD_GATEWAY,
        HTTPStatus.SERVICE_UNAVAILABLE,
        HTTPStatus.GATEWAY_TIMEOUT,
    }
)


class Retries(msgspec.Struct, frozen=True, kw_only=True):
    """
    How often and how long an event is tried.

    The wait before the second attempt is `first_s`, and doubles from one to the next up to `most_s`; of that a random
    part between a half and all. Never shorter than `Retry-After`; where that is more than `most_s`, it is given up.
    """

    #: 1: never again.
    attempts: int = 5
    first_s: float = 0.5
    most_s: float = 30.0
    #: Whether it is tried again when nobody answers. It may have been accepted then; its id makes that harmless.
    when_unanswered: bool = True

    def wait_s(self, attempt: int, error: TenterhookError, draw: float) -> float | None:
        """
        Seconds until the next attempt; None where there is none.

        Args:
            attempt: the one that has failed, from 1.
            draw: random, from 0 to 1.
        """
        if attempt >= self.attempts or not self._is_for_later(error):
            return None
        backoff_s = min(self.first_s * 2.0 ** (attempt - 1), self.most_s)
        told_s = (error.retry_after_s if isinstance(error, Refused) else None) or 0.0
        if told_s > self.most_s:
            return None
        # Of those that were told the same time, not all may come back in the same instant.
        return max(backoff_s * (1 + draw) / 2, told_s + draw * min(backoff_s, told_s) / 2)

    def _is_for_later(self, error: TenterhookError) -> bool:
        if isinstance(error, Refused):
            return error.status in _LATER
        return isinstance(error, NoAnswer) and self.when_unanswered
