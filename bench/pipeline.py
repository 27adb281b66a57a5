"""
The whole way of an event, `tenterhook bench` in a few scenarios: each run with a tenterhook and a broker of its own.

A round runs every scenario once, one after the other, so that a disturbance of the machine does not fall on one alone.
"""

import json
import subprocess
import sys
from collections.abc import Callable
from typing import Any

SCENARIOS = {
    "none": ("--ordering", "none"),
    "integration": ("--ordering", "integration"),
    "one connection": ("--ordering", "integration", "--connections", "1", "--events", "3000"),
    "100/s": ("--ordering", "none", "--rate", "100", "--events", "2000"),
    "100/s in order": ("--ordering", "integration", "--rate", "100", "--events", "2000"),
}

FIGURES = (
    ("deliveries/s", ",.0f", lambda run: run["deliveriesPerS"]),
    ("events/s", ",.0f", lambda run: run["acceptedPerS"]),
    ("CPU ms a delivery", ".3f", lambda run: run["cpuMsPerDelivery"]),
    ("p50 ms", ".1f", lambda run: run["latencyMs"]["p50"]),
    ("p99 ms", ".1f", lambda run: run["latencyMs"]["p99"]),
    ("cores of others", ".2f", lambda run: run["othersCores"]),
    ("memory MB", ".0f", lambda run: run["pssBytes"] / 2**20),
)

Run = dict[str, Any]


def run_scenario(name: str, broker: str) -> Run:
    """
    The JSON of one run. A run with faults is a result too, and is shown as such.

    Raises:
        RuntimeError: it could not be measured.
    """
    command = [sys.executable, "-m", "services.cli", "bench", "--start", "--broker", broker, "--json", *SCENARIOS[name]]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    try:
        return json.loads(done.stdout.splitlines()[-1])
    except (IndexError, ValueError):
        raise RuntimeError(f"{name}: exit code {done.returncode}: {done.stderr[-2000:]}") from None


def measure(broker: str, rounds: int, say: Callable[[str], None] | None) -> list[dict[str, Run]]:
    found = []
    for number in range(1, rounds + 1):
        this = {}
        for name in SCENARIOS:
            this[name] = run = run_scenario(name, broker)
            if say:
                figures = ", ".join(f"{form_of(form, of(run))} {label}" for label, form, of in FIGURES)
                say(f"round {number}, {name}: {figures}{faults_of(run)}")
        found.append(this)
    return found


def summary(found: list[dict[str, Run]], spread: Callable[[list[float], str], str]) -> list[str]:
    lines = [f"{len(found)} round{'s' if len(found) > 1 else ''}, median (least to greatest):"]
    for name, options in SCENARIOS.items():
        runs = [each[name] for each in found]
        lines.append(f"  {name}")
        lines += [f"    {label:18} {spread([of(run) for run in runs], form)}" for label, form, of in FIGURES]
        counted = [
            ("lost", sum(run["lost"] for run in runs)),
            ("repeated", sum(run["repeated"] for run in runs)),
            (
                f"out of order{'' if 'none' not in options else ' (as it may be)'}",
                sum(sum(run["outOfOrder"] or ()) for run in runs),
            ),
        ]
        lines.append("    " + ", ".join(f"{count} {label}" for label, count in counted))
    return lines


def form_of(form: str, value: float) -> str:
    return format(value, form)


def faults_of(run: Run) -> str:
    return f"; FAULTS: {'; '.join(run['faults'])}" if run["faults"] else ""
