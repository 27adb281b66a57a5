"""The two profiles of the product pages, as data, and the limits that every integration keeps."""

from dataclasses import dataclass
from typing import Final, Literal

RetryPolicy = Literal["transient", "any_failure"]
Ordering = Literal["integration", "strict", "key", "none"]
WhilePaused = Literal["hold", "discard"]
ProfileName = Literal["integration", "booking"]

#: Source: product/integrations.txt, "Timeouts": up to 10 seconds.
MAX_TIMEOUT_MS: Final = 10_000
DEFAULT_TIMEOUT_MS: Final = 5_000

#: Source: product/integrations.txt, "Body size cap": 64 KB; CONTRACT: no request body is larger.
MAX_BODY_BYTES: Final = 65_536

#: The text of an integration's template, in UTF-8. It is part of a record that every worker keeps in memory.
MAX_TEMPLATE_BYTES: Final = 16_384

#: What is read and kept of an answer, at most. Source: contract, "What a receiver gets".
MAX_RESPONSE_BYTES: Final = 16_384

#: Requests of one integration at once, at most: what one endpoint may hold of a worker's sockets and memory.
MAX_IN_FLIGHT: Final = 100

#: Source: product/integrations.txt, "up to 3 active integrations per app".
MAX_ACTIVE_INTEGRATIONS: Final = 3

#: Failed attempts in a row that pause. Source: product/integrations.txt, "circuit breaker"; contract, "Profiles".
PAUSED_AFTER: Final = 20


@dataclass(frozen=True, slots=True)
class Profile:
    """Defaults of an integration; each is a setting of its own within the limits above."""

    name: ProfileName
    #: Prefix of the ids of its integrations.
    id_prefix: str
    retry_policy: RetryPolicy
    max_attempts: int
    #: Wait after attempt 1, 2, ... in milliseconds, before the jitter of 20 % either way.
    delays_ms: tuple[int, ...]
    signing: bool
    #: Whether MAX_ACTIVE_INTEGRATIONS counts it.
    quota: bool
    #: Failed attempts in a row after which it shows as failing; None: it is active until it is paused.
    failing_after: int | None


INTEGRATION: Final = Profile(
    name="integration",
    id_prefix="int_",
    retry_policy="transient",
    max_attempts=3,
    delays_ms=(5_000, 20_000),
    signing=False,
    quota=True,
    failing_after=None,
)
BOOKING: Final = Profile(
    name="booking",
    id_prefix="sub_",
    retry_policy="any_failure",
    max_attempts=8,
    delays_ms=(5_000, 20_000, 80_000, 320_000, 1_280_000, 5_120_000, 20_480_000),
    signing=True,
    quota=False,
    failing_after=3,
)
PROFILES: Final[dict[ProfileName, Profile]] = {"integration": INTEGRATION, "booking": BOOKING}
