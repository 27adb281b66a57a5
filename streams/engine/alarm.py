"""
When failures of our own are so many that they are a release's fault and not a record's.

Pure. A record that raises is put aside, so that it does not stop those behind it. A release that raises for every
second record would drain the log that way; so work stops when too large a share of the last records raised.
"""

from collections import deque
from collections.abc import Hashable
from typing import Final

#: Looked at: the newest so many records.
WINDOW: Final = 20

#: Fewer than so many that raised say nothing.
LEAST: Final = 5


class Alarm:
    """Counts what raised among the newest records of a partition. Once it rings it goes on."""

    def __init__(self, *, window: int = WINDOW, least: int = LEAST, keys: int = 1) -> None:
        """
        Args:
            window: how many of the newest records count.
            least: rings when so many of them raised, and they are half or more.
            keys: and when they are of so many keys (integrations, for example): one alone is its own trouble.
        """
        self._least = least
        self._keys = keys
        #: The key of each that raised, (False, None) for those that did not.
        self._newest: deque[tuple[bool, Hashable]] = deque(maxlen=window)
        #: Whether too many raised. Stays true: only a better release helps.
        self.rings = False

    def passed(self) -> None:
        """A record did not raise."""
        self._newest.append((False, None))

    def raised(self, key: Hashable = None) -> bool:
        """A record of this key raised; whether work has to stop. What is put aside only when it does not is safe."""
        self._newest.append((True, key))
        keys = [each for is_raised, each in self._newest if is_raised]
        if len(keys) >= self._least and 2 * len(keys) >= len(self._newest) and len(set(keys)) >= self._keys:
            self.rings = True
        return self.rings
