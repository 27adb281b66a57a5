"""
The integrations that a run delivers to, and how their endpoints behave. Pure: what an endpoint does with a request
follows from the seed, the integration, the event and the attempt, so that a repeated request is treated like the first.
"""

import random
from dataclasses import dataclass, field
from typing import Any, Final, Literal, NamedTuple

#: Types of events: every integration selects the first; those that are fast enough select the second too.
RARE, COMMON = "call_ended", "call_started"

#: Of the ordering keys, the one whose requests take long.
SLOW_KEY: Final = "k0"

#: Longer than the timeout of any integration here.
_HANGS_S: Final = 30.0


class Answer(NamedTuple):
    """What an endpoint does with a request."""

    after_s: float
    #: None: it resets the connection.
    status: int | None = 200


@dataclass(frozen=True, slots=True)
class Destination:
    """One integration."""

    name: str
    #: Of those that select both types.
    is_common: bool = True
    takes_s: float = 0.002
    slow_key_takes_s: float | None = None
    #: By attempt, from the first: the share of requests that are answered 503. The last one is for all that follow.
    fails: tuple[float, ...] = (0.0,)
    #: The share that is refused for good, reset, or left without an answer; of first attempts alone.
    refuses: float = 0.0
    resets: float = 0.0
    hangs: float = 0.0
    #: Whether it goes well from the moment that the run heals it.
    heals: bool = False
    #: Whether it is paused and activated again, all the time.
    is_paused_at_times: bool = False
    #: Changes of its configuration.
    config: dict[str, Any] = field(default_factory=dict)
    #: Whether it is paused in the middle of the load, and left so: at the end it holds what has come since.
    is_left_paused: bool = False

    @property
    def ordering(self) -> Literal["integration", "strict", "key", "none"]:
        """Of its configuration."""
        return self.config.get("ordering", "integration")  # type: ignore[no-any-return]

    @property
    def types(self) -> tuple[str, ...]:
        """The types of events that it selects."""
        return (RARE, COMMON) if self.is_common else (RARE,)

    def answer(self, seed: int, number: int, key: str | None, attempt: int, *, is_healed: bool = False) -> Answer:
        """What it does with this attempt of this event."""
        takes_s = self.takes_s if self.slow_key_takes_s is None or key != SLOW_KEY else self.slow_key_takes_s
        if self.heals and is_healed:
            return Answer(takes_s)
        drawn = random.Random(f"{seed}/{self.name}/{number}/{attempt}").random()
        if drawn < (fails := self.fails[min(attempt, len(self.fails)) - 1]):
            return Answer(takes_s, 503)
        if attempt == 1:
            if drawn < (refuses := fails + self.refuses):
                return Answer(takes_s, 410)
            if drawn < (resets := refuses + self.resets):
                return Answer(takes_s, None)
            if drawn < resets + self.hangs:
                return Answer(_HANGS_S)
        return Answer(takes_s)


def _retried(*delays_ms: int, **others: Any) -> dict[str, Any]:
    return {"delays_ms": list(delays_ms), "max_attempts": len(delays_ms) + 1, **others}


#: Every ordering, and every way to behave.
MIXED: Final = (
    Destination("int_fast"),
    Destination("int_flapping", fails=(0.15, 0.4, 0.3), refuses=0.01, config=_retried(1_000, 2_000)),
    Destination("int_slow_key", slow_key_takes_s=0.1, config={"ordering": "key", "max_in_flight": 8}),
    Destination("int_none", takes_s=0.005, resets=0.03, config=_retried(1_000, ordering="none", max_in_flight=5)),
    Destination("int_strict", is_common=False, fails=(0.03, 0.2, 0.0), config=_retried(400, 800, ordering="strict")),
    Destination(
        "int_key", is_common=False, fails=(0.05, 0.2, 0.0), config=_retried(600, 3_000, ordering="key", max_in_flight=8)
    ),
    Destination("int_hanging", is_common=False, hangs=0.02, config=_retried(1_000, timeout_ms=1_000)),
    Destination("int_paused_at_times", is_common=False, is_paused_at_times=True),
    Destination("int_held", is_common=False, fails=(0.1, 0.0), is_left_paused=True, config=_retried(1_000)),
    Destination("int_dead", is_common=False, fails=(1.0,), heals=True, config=_retried(1_000)),
    Destination("int_dead_on", is_common=False, fails=(1.0,), config=_retried(1_000, auto_pause=False)),
)

#: For repeats and order alone: nothing fails, and one key is slow. A line that has one request in flight at a time is
#: given what it can take on a busy machine: a quarter of the events.
KILLS: Final = (
    Destination("int_slow_key", slow_key_takes_s=0.06, config={"ordering": "key", "max_in_flight": 8}),
    Destination("int_1", is_common=False),
    Destination("int_2", is_common=False),
    Destination("int_strict", is_common=False, config={"ordering": "strict"}),
)

#: Beside three that are well, one that never answers.
RECOVERY: Final = (
    Destination("int_1"),
    Destination("int_2"),
    Destination("int_3"),
    Destination(
        "int_hanging",
        is_common=False,
        hangs=1.0,
        heals=True,
        config={"max_attempts": 1, "timeout_ms": 10_000, "auto_pause": False},
    ),
)
