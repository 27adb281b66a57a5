"""
A row a delivery, folded from `delivery-results`: how it ended, or how its last attempt went. Pure.

Memory: twice as many rows as are asked for, whatever is read.
"""

from dataclasses import dataclass

from streams.records import Result


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which deliveries are listed; None and empty: all."""

    outcome: str | None = None
    integration: str | None = None
    type: str | None = None
    since_ms: int = 0

    def has(self, result: Result) -> bool:
        """Whether a delivery is listed while this is its last result. The outcome `open`: none yet."""
        return (
            (self.outcome is None or (result.outcome or "open") == self.outcome)
            and (self.integration is None or result.integration == self.integration)
            and (self.type is None or result.type == self.type)
            and result.finished_at_ms >= self.since_ms
        )


class Rows:
    """The last result of each delivery that is wanted, the newest *limit* of them."""

    def __init__(self, wanted: Wanted, limit: int) -> None:
        self._wanted = wanted
        self._limit = limit
        self._by_id: dict[str, Result] = {}
        #: How many were wanted and left out, since there were newer ones.
        self.left_out = 0

    def see(self, result: Result) -> None:
        """One result; those of a delivery in their order. The first outcome counts."""
        before = self._by_id.get(result.delivery_id)
        if before is not None and before.outcome is not None:
            return
        if self._wanted.has(result):
            self._by_id[result.delivery_id] = result
            if len(self._by_id) > 2 * self._limit:
                self._cut()
        elif before is not None:
            del self._by_id[result.delivery_id]

    def newest_last(self) -> list[Result]:
        """The rows, by the time of their last result."""
        self._cut()
        return sorted(self._by_id.values(), key=_finished)

    def _cut(self) -> None:
        newest = sorted(self._by_id.values(), key=_finished)[-self._limit :]
        self.left_out += len(self._by_id) - len(newest)
        self._by_id = {each.delivery_id: each for each in newest}


def _finished(result: Result) -> int:
    return result.finished_at_ms
