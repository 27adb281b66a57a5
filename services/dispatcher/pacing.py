"""
How fast a line that is behind catches up: quickly while it is alone, slowly beside others.

A delivery that is days late is none the worse for another minute; one that has just come is. So while deliveries come
and go on other lines, one that catches up leaves them the machine, and takes no more of it than it needs to get there.

Nor does it start anything in the middle of what comes and goes at once, within a bound, but right after; what it missed
meanwhile it makes good for, no faster than it would go alone. The same holds for the result of a request that took
seconds: it is written together with others, and not in the middle of that. A thousand endpoints that are slow would
otherwise have their turns there.
"""

from typing import Final, NamedTuple

#: Requests a second of a line that catches up, while no other line of the worker has anything to send.
ALONE_PER_S: Final = 2_000
#: The same beside others, for a line with one request at a time (each result is a write of its own) and with several.
SINGLE_PER_S: Final = 360
SEVERAL_PER_S: Final = 1_050

#: Others are there when one of them has started a request so lately.
BESIDE_S: Final = 1.0

#: Others are in the middle of it when one of them has started a request so lately, or an event has been fanned out
#: here. Whose that is nobody looks up, so it counts only where others are there.
AMIDST_S: Final = 0.01

#: A line that catches up waits behind that until it is late by so much: with one request at a time, and with several.
STEPS_ASIDE_S: Final = 0.008
SEVERAL_STEP_ASIDE_S: Final = 0.016

#: A line that could not start in time makes good for at most so much: for stepping aside, and for timers and a loop
#: that are late.
CREDIT_S: Final = 0.012
SEVERAL_CREDIT_S: Final = 0.030

#: Beside others it does so at the pace of one that is alone, in bursts of at most so long: timers have whole
#: milliseconds. One with several requests at once would otherwise start a dozen of them together. One with a single
#: request cannot.
BURST_S: Final = 0.002

#: The result of a request that took long waits for others to be written with: for at most a hundredth of what the
#: request took, until the next time that such results are written. These are milliseconds of each other's multiples, so
#: that whoever waits for one of them meets the others.
TIMES_MS: Final = (40, 20, 10)
TOGETHER_SHARE: Final = 0.01

#: And while others are in the middle of it, for at most this share, and so long. So does the next request of its line.
YIELDS_SHARE: Final = 0.05
YIELDS_MS: Final = 200


def every_ms(took_s: float) -> int:
    """At which times the result of a request that took so long is written: all multiples of this; 0: at once."""
    return next((each for each in TIMES_MS if each <= took_s * 1_000 * TOGETHER_SHARE), 0)


def yields_ms(took_s: float) -> int:
    """How long it waits, beyond that, for those who are in the middle of it."""
    return min(YIELDS_MS, int(took_s * 1_000 * YIELDS_SHARE))


class NextStart(NamedTuple):
    """When a line that catches up may start its next request, on the monotonic clock."""

    #: So that it keeps its pace.
    due_s: float = float("-inf")
    #: So that it does not make good for more at once than it may.
    burst_s: float = float("-inf")
    #: Until when it steps aside at most, since a request of it has ended that took long.
    aside_s: float = float("-inf")


class Pacing:
    """Of one worker. Times are seconds of the monotonic clock."""

    def __init__(self, alone_per_s: float = ALONE_PER_S) -> None:
        self._alone_s = 1 / alone_per_s
        #: When a line that is not behind started a request, and when it or an event before it was in the middle of it.
        self._live_s = self._amidst_s = float("-inf")

    def saw_live(self, now_s: float) -> None:
        """A line that is not behind starts a request."""
        self._live_s = self._amidst_s = now_s

    def saw_event(self, now_s: float) -> None:
        """An event is being fanned out: requests follow, as a rule."""
        self._amidst_s = now_s

    def after(self, this: NextStart, now_s: float, *, is_single: bool) -> NextStart:
        """When a line that starts one now may start the next; *this* is what this was for the one that it starts."""
        beside_s, credit_s = (1 / SINGLE_PER_S, CREDIT_S) if is_single else (1 / SEVERAL_PER_S, SEVERAL_CREDIT_S)
        return NextStart(
            max(this.due_s, now_s - credit_s) + (self._alone_s if self._is_alone(now_s) else beside_s),
            max(this.burst_s, now_s - BURST_S) + self._alone_s,
        )

    @staticmethod
    def ended(this: NextStart, now_s: float, took_s: float) -> NextStart:
        """
        What that is when a request of the line has ended that took so long.

        It steps aside once for each that it starts: where several go on ending, it would start none otherwise.
        """
        for_ms = yields_ms(took_s)
        if not for_ms or this.aside_s > float("-inf"):
            return this
        return this._replace(aside_s=now_s + for_ms / 1_000)

    def may_start_s(self, this: NextStart, now_s: float, *, is_single: bool) -> float:
        """When a line that may start one then does: behind what others are in the middle of, unless it is late."""
        if this.due_s > now_s or self._is_alone(now_s):
            return this.due_s
        if now_s < this.aside_s:
            start_s = min(self._amidst_s + AMIDST_S, this.aside_s)
            return start_s if is_single else max(start_s, this.burst_s)
        if is_single:
            # Not for events: with one request at a time it could not make good for that.
            return min(self._live_s + AMIDST_S, this.due_s + STEPS_ASIDE_S)
        return max(min(self._amidst_s + AMIDST_S, this.due_s + SEVERAL_STEP_ASIDE_S), this.burst_s)

    def is_amidst(self, now_s: float) -> bool:
        """Whether others are in the middle of it."""
        return now_s - self._amidst_s < AMIDST_S and not self._is_alone(now_s)

    def _is_alone(self, now_s: float) -> bool:
        return now_s - self._live_s > BESIDE_S
