"""
How fast a line that is behind catches up: quickly while it is alone, slowly beside others.

A delivery that is days late is none the worse for another minute; one that has just come is. So while deliveries come
and go on other lines, one that catches up leaves them the machine, and takes no more of it than it needs to get there.

The same holds for the result of a request that took seconds: it is written together with others, and not in the middle
of what comes and goes at once. A thousand endpoints that are slow would otherwise have their turns among those.
"""

from typing import Final

#: Requests a second of a line that catches up, while no other line of the worker has anything to send.
ALONE_PER_S: Final = 2_000
#: The same beside others, for a line with one request at a time (each result is a write of its own) and with several.
SINGLE_PER_S: Final = 360
SEVERAL_PER_S: Final = 1_050

#: Others are there when one of them has started a request so lately.
BESIDE_S: Final = 1.0

#: A line that could not start in time makes good for at most so much: with one request at a time, and with several.
CREDIT_S: Final = 0.012
SEVERAL_CREDIT_S: Final = 0.003


#: Others are in the middle of it when one of them has started a request so lately.
AMIDST_S: Final = 0.01

#: A line that catches up one by one waits behind that for at most so long: what it can make good for, less what timers
#: are late. One with several at once does not: what it makes good for then is a burst of its own, which costs more.
STEPS_ASIDE_S: Final = 0.008

#: The result of a request that took long waits for others to be written with: for at most a hundredth of what the
#: request took, until the next time that such results are written. These are milliseconds of each other's multiples, so
#: that whoever waits for one of them meets the others.
TIMES_MS: Final = (40, 20, 10)
TOGETHER_SHARE: Final = 0.01

#: And while others are in the middle of it, for at most this share, and so long.
YIELDS_SHARE: Final = 0.05
YIELDS_MS: Final = 200


def every_ms(took_s: float) -> int:
    """At which times the result of a request that took so long is written: all multiples of this; 0: at once."""
    return next((each for each in TIMES_MS if each <= took_s * 1_000 * TOGETHER_SHARE), 0)


def yields_ms(took_s: float) -> int:
    """How long it waits, beyond that, for those who are in the middle of it."""
    return min(YIELDS_MS, int(took_s * 1_000 * YIELDS_SHARE))


class Pacing:
    """Of one worker. Times are seconds of the monotonic clock."""

    def __init__(self, alone_per_s: float = ALONE_PER_S) -> None:
        self._alone_s = 1 / alone_per_s
        self._live_s = float("-inf")

    def saw_live(self, now_s: float) -> None:
        """A line that is not behind starts a request."""
        self._live_s = now_s

    def next_start_s(self, before_s: float, now_s: float, *, is_single: bool) -> float:
        """When a line that starts one now may start the next; *before_s* is what this was for the one before."""
        if now_s - self._live_s > BESIDE_S:
            step_s = self._alone_s
        else:
            step_s = 1 / (SINGLE_PER_S if is_single else SEVERAL_PER_S)
        return max(before_s, now_s - (CREDIT_S if is_single else SEVERAL_CREDIT_S)) + step_s

    def may_start_s(self, next_s: float, now_s: float, *, is_single: bool) -> float:
        """When a line that may start one at *next_s* does: behind what others are in the middle of, within a bound."""
        if next_s > now_s or not is_single:
            return next_s
        return min(self._live_s + AMIDST_S, next_s + STEPS_ASIDE_S)

    def is_amidst(self, now_s: float) -> bool:
        """Whether others are in the middle of it."""
        return now_s - self._live_s < AMIDST_S
