"""
How fast a line that is behind catches up: quickly while it is alone, slowly beside others.

A delivery that is days late is none the worse for another minute; one that has just come is. So while deliveries come
and go on other lines, one that catches up leaves them the machine, and takes no more of it than it needs to get there.
"""

from typing import Final

#: Requests a second of a line that catches up, while no other line of the worker has anything to send.
ALONE_PER_S: Final = 2_000
#: The same beside others, for a line with one request at a time (each result is a write of its own) and with several.
SINGLE_PER_S: Final = 360
SEVERAL_PER_S: Final = 1_200

#: Others are there when one of them has started a request so lately.
BESIDE_S: Final = 1.0

#: A line that could not start in time makes good for at most so much.
CREDIT_S: Final = 0.008


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
        return max(before_s, now_s - CREDIT_S) + step_s
