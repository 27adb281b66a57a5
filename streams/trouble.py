"""
Log lines of what fails again and again: a line when it begins, a line when it is over.

Whoever tries again every second would say so every second, each time with a traceback, and the log of an outage would
hold nothing else.
"""

import re
import time
from collections.abc import Callable
from typing import Any, Final, Literal

from aiokafka.errors import KafkaConnectionError, KafkaTimeoutError, NodeNotReadyError
from structlog.typing import FilteringBoundLogger

#: As long as it lasts, it is said again so often.
REMIND_S: Final = 300.0

#: What comes back so soon after its end has not ended: it is said to be back, and to be over when it was quiet for as
#: long. So what fails every other time is three lines, and not two each time.
QUIET_S: Final = 30.0

#: An error of another kind is said at once; of so many kinds at most, since a message may differ each time.
MOST_KINDS: Final = 5

#: Who asks a broker that is away meets these one after the other. It is one thing that has happened all the same.
_AWAY: Final = (ConnectionError, TimeoutError, KafkaConnectionError, KafkaTimeoutError, NodeNotReadyError)

_NUMBERS: Final = re.compile(r"\d+")


class Trouble:
    """
    What one loop meets, or every request of a kind, for as long as it lasts.

    Errors are of one kind that have their event, type and message in common, but for numbers in it, or that say that
    there is no answer. A kind that was met before is counted and said at level debug. The first line of `raised` has
    the traceback, and no other one.
    """

    def __init__(
        self,
        log: FilteringBoundLogger,
        *,
        over: str = "trouble.over",
        now_s: Callable[[], float] = time.monotonic,
        **about: Any,
    ) -> None:
        """
        Args:
            log: of whoever meets it.
            over: the event that tells that it is over; `of` says what was.
            now_s: seconds on a clock that never goes back.
            about: what each line says, the end's too: which topic, which agent.
        """
        self._log = log
        self._about = about
        self._over = over
        self._now_s = now_s
        #: When it began, was met last, and was said last; the first is None while there is none.
        self._began_s: float | None = None
        self._met_s = 0.0
        self._said_s = 0.0
        #: When the last one was said to be over.
        self._ended_s: float | None = None
        self._is_back = False
        self._times = 0
        self._is_traced = False
        self._kinds: set[tuple[str, type, str]] = set()

    def met(
        self,
        event: str,
        error: BaseException | str,
        *,
        level: Literal["warning", "error"] = "warning",
        **told: Any,
    ) -> None:
        """
        It was met (again).

        Args:
            error: or the reason, where it is no exception.
            told: what else the line says.
        """
        self._meet(event, error, level, None, told)

    def raised(self, event: str, error: BaseException, **told: Any) -> None:
        """As `met`, for what nobody foresaw: an error, with its traceback."""
        self._meet(event, error, "error", error, told)

    def over(self) -> None:
        """It works: to be called each time, and nothing else where there was no trouble."""
        if self._began_s is None:
            return
        now_s = self._now_s()
        if self._is_back and now_s - self._met_s < QUIET_S:
            return
        of = ", ".join(sorted({event for event, _, _ in self._kinds}))
        self._log.warning(self._over, of=of, **self._about, **self._lasted(self._began_s))
        self._began_s, self._ended_s = None, now_s

    def _meet(
        self, event: str, error: BaseException | str, level: str, traceback: BaseException | None, told: dict[str, Any]
    ) -> None:
        now_s = self._now_s()
        if self._began_s is None:
            self._is_back = self._ended_s is not None and now_s - self._ended_s < QUIET_S
            self._is_traced = self._is_traced and self._is_back
            self._began_s, self._times = now_s, 0
            self._kinds.clear()
        self._times += 1
        self._met_s = now_s
        told |= self._about | {"reason": error if isinstance(error, str) else repr(error)}
        if self._times > 1:
            told |= self._lasted(self._began_s)
        if not self._is_news(event, error) and now_s - self._said_s < REMIND_S:
            self._log.debug(event, **told)
            return
        self._said_s = now_s
        if traceback is not None and not self._is_traced:
            self._is_traced = True
            told["exc_info"] = traceback
        getattr(self._log, level)(event, **told)

    def _is_news(self, event: str, error: BaseException | str) -> bool:
        message = _NUMBERS.sub("", str(error))
        kind = (event, TimeoutError, "") if isinstance(error, _AWAY) else (event, type(error), message)
        if kind in self._kinds or len(self._kinds) == MOST_KINDS:
            return False
        self._kinds.add(kind)
        return True

    def _lasted(self, began_s: float) -> dict[str, float]:
        """How often it was met, and in how many seconds from the first time to the last."""
        return {"times": self._times, "for_s": round(self._met_s - began_s, 1)}
