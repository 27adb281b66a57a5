"""What `tenterhook doctor` says of one thing that it has looked at."""

from dataclasses import dataclass
from typing import Literal

Verdict = Literal["ok", "warning", "wrong"]


@dataclass(frozen=True, slots=True)
class Finding:
    """What one look has found."""

    check: str
    verdict: Verdict
    said: str
    #: What to do; None where nothing has to be done.
    remedy: str | None = None
