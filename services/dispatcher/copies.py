"""
Retries that came by in one line, in the order of the log: a record that was written again is the second copy of one.

A retry reader that dies between appending to the next line and committing leaves both; they come back within what it
takes to miss it. By then a worker has the first in mind (`retried.py`), or a takeover finds its result. But a line that
is read from the log again may get from the first to the second in hours, through any number of owners: so it takes over
what the worker has in mind of it when that begins, and its row names those that came by. Pure.
"""

from collections.abc import Iterable, Mapping
from hashlib import blake2b
from typing import Final

from services.dispatcher.retried import Came
from streams.records import Delivery

#: Of one line at most: a row of so many is 20 KB.
MOST: Final = 2_000


class Copies:
    """What came by lately, by the time on the log of what is read now. Attempts are told by 64 bits."""

    def __init__(self, before: Iterable[int] = ()) -> None:
        """
        Args:
            before: as a row says, below where it is read from.
        """
        #: Offset on `deliveries`, and when it came onto the log, by digest; the oldest first. Those of a row have an
        #: offset below all, and count as if they had come with what is read first.
        self._came: dict[int, tuple[int, int | None]] = dict.fromkeys(before, (-1, None))
        #: Whether any has no time yet.
        self._has_row = bool(self._came)

    def learn(self, came: Mapping[tuple[str, int], Came]) -> None:
        """What came by before, as `Retried` says it."""
        for (delivery_id, attempt), each in list(came.items())[-MOST:]:
            self._came.setdefault(_digest(delivery_id, attempt), (each.offset, each.at_ms))
        while len(self._came) > MOST:
            del self._came[next(iter(self._came))]

    def is_repeated(self, delivery: Delivery, offset: int, at_ms: int, window_ms: int) -> bool:
        """
        Whether this attempt came by already, elsewhere.

        Args:
            at_ms: when its record came onto the log.
            window_ms: a second copy comes within this time of the first.
        """
        if delivery.attempt == 1:
            return False
        if self._has_row:
            self._has_row = False
            for digest in [each for each, (_, came_ms) in self._came.items() if came_ms is None]:
                self._came[digest] = -1, at_ms
        self._forget(at_ms - window_ms)
        digest = _digest(delivery.delivery_id, delivery.attempt)
        first, _ = self._came.pop(digest, (offset, at_ms))
        self._came[digest] = first, at_ms  # from the newest on: a third one may come
        return first != offset

    def below(self, frontier: int) -> list[int]:
        """What a successor has to know that reads on from there."""
        return [digest for digest, (offset, _) in self._came.items() if offset < frontier]

    def _forget(self, before_ms: int) -> None:
        while self._came:
            digest, (_, came_ms) = next(iter(self._came.items()))
            if len(self._came) < MOST and (came_ms is None or came_ms >= before_ms):
                return
            del self._came[digest]


def _digest(delivery_id: str, attempt: int) -> int:
    told = blake2b(f"{delivery_id}/{attempt}".encode(), digest_size=8)
    return int.from_bytes(told.digest(), signed=True)
