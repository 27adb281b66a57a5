"""What a receiver for trying out answers: well, or badly on purpose. Pure; the draw comes in as an argument."""

from dataclasses import dataclass
from typing import Final

from services.cli.errors import WrongUsage

OK: Final = 200
DEFAULT_FAILURE: Final = 500

_LEAST_STATUS: Final = 200
_MOST_STATUS: Final = 599


@dataclass(frozen=True, slots=True, kw_only=True)
class Faults:
    """
    How to answer.

    Raises:
        WrongUsage: the options contradict each other or are out of range.
    """

    #: What a failure answers; alone, every request fails.
    status: int | None = None
    #: Share of requests that fail, 0 to 1.
    fail_rate: float | None = None
    #: Requests that fail in a row, then as many that do not, and so on.
    flap: int | None = None
    #: Take the request and never answer.
    hang: bool = False

    def __post_init__(self) -> None:
        if sum((self.fail_rate is not None, self.flap is not None, self.hang)) > 1:
            raise WrongUsage("choose one of --fail-rate, --flap and --hang")
        if self.hang and self.status is not None:
            raise WrongUsage("--hang never answers, so --status says nothing: leave one out")
        if self.status is not None and not _LEAST_STATUS <= self.status <= _MOST_STATUS:
            raise WrongUsage(f"--status must be from {_LEAST_STATUS} to {_MOST_STATUS}")
        if self.fail_rate is not None and not 0 <= self.fail_rate <= 1:
            raise WrongUsage("--fail-rate must be from 0 to 1")
        if self.flap is not None and self.flap < 1:
            raise WrongUsage("--flap must be at least 1")

    def answer(self, count: int, draw: float) -> int | None:
        """
        Status to answer a request with; None: never answer.

        Args:
            count: requests before this one.
            draw: from [0, 1).
        """
        if self.hang:
            return None
        failure = self.status or DEFAULT_FAILURE
        if self.flap is not None:
            return failure if count // self.flap % 2 == 0 else OK
        if self.fail_rate is not None:
            return failure if draw < self.fail_rate else OK
        return self.status or OK
