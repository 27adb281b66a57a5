"""
What is done to whom, and when: drawn from a seed. Pure: the same seed and plan give the same schedule.

Times are seconds since the load began. A fault whose target is still busy with the one before waits for it, so that
what happens may lag behind what was planned; what happened is recorded (`observed.Happened`).
"""

import random
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Literal

#: `kill` is SIGKILL, `stop` SIGTERM; both are followed by a start, as `tenterhook up` does it. `freeze` is SIGSTOP for
#: longer than a session and then SIGCONT. `join` is one process more, which leaves later by SIGTERM where it has a
#: time; `leave` is SIGTERM for good. `update` is SIGTERM and a start of the newer release, `back` of the older one.
#: `node` is SIGKILL of a broker node, which comes back with its data.
Kind = Literal["kill", "stop", "freeze", "join", "leave", "update", "back", "node"]

#: A group's session lasts 6 s.
FREEZE_S: Final = 8.0
#: How long another worker stays.
STAY_S: Final = 10.0
#: For how long a broker node is away, at least; it takes some seconds more to start.
AWAY_S: Final = 1.0

#: Nothing is done before all is well under way, and at the end all gets so long in peace.
CALM_S: Final = 3.0


@dataclass(frozen=True, slots=True)
class Fault:
    """One thing that is done."""

    at_s: float
    kind: Kind
    #: A service, `dispatcher-1` for one of several, or `node-1`.
    target: str
    #: How long it lasts, for those that last.
    for_s: float = 0.0

    def __str__(self) -> str:
        lasts = f" for {self.for_s:g} s" if self.for_s else ""
        return f"{self.at_s:6.1f} s  {self.kind} {self.target}{lasts}"


@dataclass(frozen=True, slots=True)
class Plan:
    """What a schedule is drawn from: how many faults of each kind, on what, within what time."""

    load_s: float
    #: By kind and service: how many. `dispatcher` is any of the workers, `node` any of the broker's.
    counts: Mapping[tuple[Kind, str], int]
    workers: int
    nodes: int
    #: In how much of its part of the time a fault falls; the rest of it is calm.
    spread: float = 0.8


def schedule(seed: int, plan: Plan) -> tuple[Fault, ...]:
    """The faults, in their order: spread evenly over the time, each somewhere in its own part of it."""
    chance = random.Random(seed)
    drawn = [which for which, count in sorted(plan.counts.items()) for _ in range(count)]
    chance.shuffle(drawn)
    # Each node in turn, from any of them on: with three, every one is killed.
    first_node = chance.randrange(plan.nodes)
    part_s = max(plan.load_s - 2 * CALM_S, 1.0) / max(len(drawn), 1)
    faults: list[Fault] = []
    for number, (kind, service) in enumerate(drawn):
        at_s = CALM_S + part_s * (number + chance.random() * plan.spread)
        target = service
        if service == "dispatcher" and kind != "join":
            target = f"dispatcher-{chance.randrange(plan.workers) + 1}"
        elif service == "node":
            killed = sum(fault.kind == "node" for fault in faults)
            target = f"node-{(first_node + killed) % plan.nodes + 1}"
        lasts = {"freeze": FREEZE_S, "join": STAY_S, "node": AWAY_S}
        faults.append(Fault(round(at_s, 2), kind, target, lasts.get(kind, 0.0)))
    return tuple(faults)
