"""
While a topic is silent, its consumer does less to find that out.

Apache Kafka answers a fetch as soon as a record comes, so that a long wait costs nothing. The embedded broker looks for
records each half of the wait: short waits are its latency, and were most of what an idle `tenterhook up` used; there,
fetches of a silent topic wait for longer.

aiokafka's fetching task looks around five times a second beside that, whatever it waits for. Whatever it waits for
wakes it, so that this finds nothing; twenty consumers on one machine pay for it all the same.
"""

import time
from collections.abc import Callable
from typing import Final

from aiokafka import AIOKafkaConsumer

from streams.features import Features

#: So long after its last record a topic counts as silent. Who tries things out at a terminal is quicker than that.
SILENT_S: Final = 10.0

#: A topic to which something comes rarely is looked at by so much more seldom.
_RARELY: Final = 5

#: How often the fetching task of a silent topic's consumer looks around.
_LOOK_S: Final = 5.0


class FetchWaits:
    """How long the fetches of one consumer wait, and how often it looks around, by what they have brought."""

    def __init__(
        self,
        consumer: "AIOKafkaConsumer[bytes | None, bytes | None]",
        features: Features,
        *,
        rarely: bool = False,
        now_s: Callable[[], float] = time.monotonic,
    ) -> None:
        """
        Args:
            consumer: just started; there is one of these for the life of each.
            rarely: something comes with a new release at most, and nobody waits for it.
            now_s: seconds on a clock that never goes back.
        """
        self._fetcher = consumer._fetcher  # noqa: SLF001 - aiokafka takes the wait once; each fetch reads it
        self._short_ms: int = self._fetcher._fetch_max_wait_ms  # noqa: SLF001
        self._long_ms = max(self._short_ms, (features.silent_fetch_wait_ms or 0) * (_RARELY if rarely else 1))
        self._look_s: float = self._fetcher._fetcher_timeout  # noqa: SLF001
        self._now_s = now_s
        self._last_s = now_s()

    def saw(self, *, has_records: bool) -> None:
        """Call it after every look for records, before the next one."""
        now_s = self._now_s()
        if has_records:
            self._last_s = now_s
        is_silent = now_s - self._last_s > SILENT_S
        self._fetcher._fetch_max_wait_ms = self._long_ms if is_silent else self._short_ms  # noqa: SLF001
        self._fetcher._fetcher_timeout = _LOOK_S if is_silent else self._look_s  # noqa: SLF001
