"""
What everything together costs while nothing happens: `tenterhook up`, left alone, its CPU time and memory by process.

CPU time is what Linux charges each process with, so what else the machine does changes little of it. Memory is PSS:
what processes share is counted once, in equal parts. The broker's share stands apart.
"""

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Final

from services.cli.bench.processes import cpu_ms, machine_ms, pss_bytes
from services.cli.bench.stack import own_stack

#: After it is ready: what a start leaves to do (a group settles, tables are read, Java compiles) is not idling.
SETTLE_S: Final = 30.0

KINDS: Final = ("embedded", "kafka")

#: As `services.cli.bench.processes` names it.
BROKER: Final = "broker"


@dataclass(frozen=True, slots=True)
class Idle:
    """One process, or several together."""

    name: str
    #: Of one core.
    share: float
    pss_bytes: int


def measure(kind: str, seconds: float, say: Callable[[str], object]) -> dict[str, Any]:
    """
    One `tenterhook up` of its own with this kind of broker, as JSON.

    Raises:
        Failed: it does not become ready.
    """
    with own_stack(kind) as stack:
        say(f"{kind}: settling for {SETTLE_S:.0f} s, then looking for {seconds:.0f} s")
        time.sleep(SETTLE_S)
        processes = stack.processes()
        began_s, busy_ms = time.monotonic(), machine_ms()
        before = [cpu_ms(each.pid) for each in processes]
        time.sleep(seconds)
        used = [cpu_ms(each.pid) - had for each, had in zip(processes, before, strict=True)]
        took_s, others_ms = time.monotonic() - began_s, machine_ms() - busy_ms - sum(used)
        found = [
            Idle(each.name, ms / 1000 / took_s, pss_bytes(each.pid)) for each, ms in zip(processes, used, strict=True)
        ]
    return {
        "broker": kind,
        "seconds": round(took_s, 1),
        "othersCores": round(others_ms / 1000 / took_s, 2),
        "processes": [_as_json(each) for each in found],
        "services": _as_json(together("services", (each for each in found if each.name != BROKER))),
        "withBroker": _as_json(together("with the broker", found)),
    }


def together(name: str, several: Iterable[Idle]) -> Idle:
    """Their sum."""
    all_ = list(several)
    return Idle(name, sum(each.share for each in all_), sum(each.pss_bytes for each in all_))


def summary(found: dict[str, Any]) -> list[str]:
    """For people."""
    return [
        f"{found['broker']} broker, {found['seconds']} s, others {found['othersCores']} cores",
        *(
            f"  {each['name']:16} {each['cpuPercent']:6.2f} % of a core {each['pssMb']:6.0f} MB"
            for each in (*found["processes"], found["services"], found["withBroker"])
        ),
    ]


def _as_json(idle: Idle) -> dict[str, Any]:
    return {
        "name": idle.name,
        "cpuPercent": round(idle.share * 100, 2),
        "pssMb": round(idle.pss_bytes / 1_000_000, 1),
    }
