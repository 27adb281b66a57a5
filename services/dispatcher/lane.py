"""
The line of one integration: which of its waiting deliveries may start now.

Pure. Deliveries come in the order of the app's events; what may start beside what is the integration's
`ordering`. A lane never looks at another one.
"""

from collections import deque
from typing import Final, Generic, TypeVar

from schemas.profiles import Ordering

T = TypeVar("T")

#: Orderings that have one request in flight for the whole integration.
ONE_AT_A_TIME: Final = frozenset({"integration", "strict"})


class Lane(Generic[T]):
    """Waiting and running deliveries of one integration, with the key that each is ordered by."""

    def __init__(self) -> None:
        self._waiting: deque[tuple[str, T]] = deque()
        #: Passed over because their key is running, by key, in order.
        self._parked: dict[str, deque[T]] = {}
        #: Parked, and free to go since their key has ended.
        self._freed: deque[str] = deque()
        self._running_keys: set[str] = set()
        self.running = 0

    def add(self, item: T, ordering_key: str | None) -> None:
        """Put it at the end of the line. Deliveries without a key are one key among themselves."""
        self._waiting.append((ordering_key or "", item))

    @property
    def waiting(self) -> int:
        """How many have not started."""
        return len(self._waiting) + sum(len(parked) for parked in self._parked.values())

    def start(self, ordering: Ordering, max_in_flight: int) -> tuple[str, T] | None:
        """The next one that may start, as (key, item), counted as running from now on; None where none may."""
        if self.running >= (1 if ordering in ONE_AT_A_TIME else max_in_flight):
            return None
        started = self._next_by_key() if ordering == "key" or self._parked else self._next()
        if started is not None:
            self.running += 1
        return started

    def end(self, key: str) -> None:
        """One that was started under this key is finished."""
        self.running -= 1
        if key in self._running_keys:
            self._running_keys.discard(key)
            if key in self._parked:
                self._freed.append(key)

    def _next(self) -> tuple[str, T] | None:
        return self._waiting.popleft() if self._waiting else None

    def _next_by_key(self) -> tuple[str, T] | None:
        if self._freed:
            key = self._freed.popleft()
            parked = self._parked[key]
            item = parked.popleft()
            if not parked:
                del self._parked[key]
            self._running_keys.add(key)
            return key, item
        while self._waiting:
            key, item = self._waiting.popleft()
            if key in self._running_keys or key in self._parked:
                self._parked.setdefault(key, deque()).append(item)
                continue
            self._running_keys.add(key)
            return key, item
        return None
