"""What to measure, and what came of it: data."""

from collections.abc import Mapping
from dataclasses import dataclass

from schemas.profiles import Ordering
from services.cli.bench.findings import Findings, Spread
from services.cli.bench.processes import Process
from services.cli.bench.wire import Profile


@dataclass(frozen=True, slots=True)
class Plan:
    """What to measure."""

    events: int
    integrations: int
    #: Of each event's payload.
    payload_bytes: int
    connections: int
    #: Events per second; None: as fast as the connections go.
    rate_per_s: float | None
    profile: Profile
    ordering: Ordering
    max_in_flight: int
    #: Events before those that are measured.
    warm_up: int
    #: Where deliveries go; None: the built-in receiver.
    receiver: str | None
    topic_prefix: str
    #: Whether to read from the log how long each step took.
    stages: bool


@dataclass(frozen=True, slots=True)
class Cost:
    """What one process used."""

    process: Process
    cpu_ms: float
    pss_bytes: int
    #: Whether it belongs to tenterhook; the load and the receiver do not.
    counts: bool


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of a run."""

    findings: Findings
    costs: tuple[Cost, ...]
    #: Processors that everything else on the machine kept busy meanwhile: above some tenths, the run was disturbed.
    others_cores: float
    #: How long each step of a delivery took, by its name; None where nobody asked, or the log is not ours to read.
    stages: Mapping[str, Spread] | None
