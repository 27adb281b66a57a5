"""Whether and when a child process of `tenterhook up` that ended is started again. Pure."""

import signal
from dataclasses import dataclass
from typing import Final

#: So many starts in a row that never became ready end `up`: what fails three times at once fails a fourth time,
#: and its reason should be the last thing on the screen.
MOST_FAILED_STARTS: Final = 3

#: A child that was ready for this long has recovered; what happens to it then is a new story.
SETTLED_AFTER_S: Final = 30.0

#: Wait before each restart in a row. The first is at once: a single crash should cost as little time as possible.
WAITS_S: Final = (0.0, 0.5, 1.0, 2.0, 4.0, 8.0)


@dataclass(frozen=True, slots=True)
class History:
    """What has happened to a child since it was last settled."""

    #: Restarts in a row.
    restarts: int = 0
    #: Starts in a row that ended before the child was ready.
    failed_starts: int = 0


@dataclass(frozen=True, slots=True)
class Life:
    """One process, from its start to its end."""

    #: As the system tells it; negative is a signal.
    exit_code: int
    #: Seconds from its start to its end.
    lived_s: float
    #: Seconds of them that it was ready; None when it never was.
    ready_s: float | None

    @property
    def ending(self) -> str:
        """How it ended, for people: `exit code 1`, `killed by SIGKILL`."""
        if self.exit_code >= 0:
            return f"exit code {self.exit_code}"
        try:
            return f"killed by {signal.Signals(-self.exit_code).name}"
        except ValueError:
            return f"killed by signal {-self.exit_code}"


def after(life: Life, history: History) -> tuple[History, float | None]:
    """The history with this life in it, and the seconds to wait before the next; None when there should be none."""
    if life.ready_s is None:
        history = History(history.restarts + 1, history.failed_starts + 1)
        if history.failed_starts >= MOST_FAILED_STARTS:
            return history, None
    elif life.ready_s >= SETTLED_AFTER_S:
        history = History(restarts=1)
    else:
        history = History(history.restarts + 1)
    return history, WAITS_S[min(history.restarts, len(WAITS_S)) - 1]
