"""What a run showed, as JSON for programs and as text for people. Pure, but for the printing."""

import os
from collections.abc import Mapping
from typing import Any, Final

from rich.console import Console
from rich.table import Column, Table

from services.cli.bench.findings import Findings, Spread
from services.cli.bench.outcome import Cost, Outcome, Plan
from services.cli.bench.recording import UNANSWERED
from services.cli.bench.stack import Stack
from services.cli.tables import print_table

#: Orderings under which a later event must not arrive first.
_ORDERED: Final = frozenset({"integration", "strict", "key"})


def faults(plan: Plan, findings: Findings) -> list[str]:
    """What must not be, for people; none in a good run."""
    found = []
    if findings.refused:
        found.append(
            f"not accepted: {', '.join(f'{count} x {_answer(each)}' for each, count in findings.refused.items())}"
        )
    if findings.lost:
        found.append(f"lost: {findings.lost}")
    if findings.repeated:
        found.append(f"repeated: {findings.repeated}")
    if findings.out_of_order and plan.ordering in _ORDERED and any(findings.out_of_order):
        found.append(f"out of order: {sum(findings.out_of_order)}")
    return found


def as_json(plan: Plan, stack: Stack, outcome: Outcome) -> dict[str, Any]:
    """The whole outcome."""
    found, costs = outcome.findings, outcome.costs
    return {
        "events": plan.events,
        "integrations": plan.integrations,
        "payloadBytes": plan.payload_bytes,
        "connections": plan.connections,
        "ratePerS": plan.rate_per_s,
        "profile": plan.profile,
        "ordering": plan.ordering,
        "maxInFlight": plan.max_in_flight,
        "warmUp": plan.warm_up,
        "receiver": plan.receiver or "built-in",
        "accepted": found.accepted,
        "refused": {str(status): count for status, count in found.refused.items()},
        "acceptedPerS": round(found.accepted_per_s, 1),
        "deliveries": found.deliveries,
        "deliveriesPerS": round(found.deliveries_per_s, 1),
        "tookS": round(found.took_s, 3),
        "cpuMsPerDelivery": round(_cpu_ms(costs) / max(found.deliveries, 1), 4),
        "pssBytes": sum(each.pss_bytes for each in costs if each.counts),
        "latencyMs": _spread(found.latency_ms),
        "answerMs": _spread(found.answer_ms),
        "lost": found.lost,
        "repeated": found.repeated,
        "outOfOrder": found.out_of_order and list(found.out_of_order),
        "cores": os.cpu_count(),
        "othersCores": round(outcome.others_cores, 2),
        "broker": stack.broker_kind,
        "processes": [
            {
                "name": each.process.name,
                "pid": each.process.pid,
                "counts": each.counts,
                "cpuMs": round(each.cpu_ms, 1),
                "cpuMsPerDelivery": round(each.cpu_ms / max(found.deliveries, 1), 4),
                "pssBytes": each.pss_bytes,
            }
            for each in costs
        ],
        "stagesMs": outcome.stages and {name: _spread(spread) for name, spread in outcome.stages.items()},
        "faults": faults(plan, found),
    }


def show(plan: Plan, stack: Stack, outcome: Outcome) -> None:
    """Print it for people."""
    found = outcome.findings
    total_ms = _cpu_ms(outcome.costs)
    pace = f"{plan.rate_per_s:g} events/s" if plan.rate_per_s else "as fast as they go"
    line = Console(highlight=False, soft_wrap=True).print
    line(
        f"{plan.events:,} events of {plan.payload_bytes:,} bytes to {plan.integrations} integrations "
        f"(ordering {plan.ordering}, {plan.max_in_flight} in flight), {plan.connections} connections, {pace}"
        f"{f', broker {stack.broker_kind}' if stack.broker_kind else ''}"
    )
    line(f"accepted   {found.accepted_per_s:10,.0f} events/s")
    line(
        f"delivered  {found.deliveries_per_s:10,.0f} deliveries/s end to end: "
        f"{found.deliveries:,} in {found.took_s:.2f} s"
    )
    line(f"CPU        {total_ms / max(found.deliveries, 1):10.3f} ms a delivery, load and receiver not counted")
    line(f"latency    {_line(found.latency_ms)}, request to arrival")
    line(f"answer     {_line(found.answer_ms)}, request to 202")
    line(f"lost {found.lost}, repeated {found.repeated}, out of order {_order(plan, found)}")
    print_table(_costs(outcome.costs, found.deliveries, total_ms))
    if outcome.stages:
        print_table(_stages(outcome.stages))
    line(f"Everything else on this machine used {outcome.others_cores:.2f} of its {os.cpu_count()} cores meanwhile.")
    for fault in faults(plan, found):
        line(f"[bold red]{fault}[/]")


def _costs(costs: tuple[Cost, ...], deliveries: int, total_ms: float) -> Table:
    numbers = ("CPU s", "ms a delivery", "share", "memory MB (PSS)")
    table = Table("process", *(Column(name, justify="right") for name in numbers))
    for each in costs:
        table.add_row(
            each.process.name,
            f"{each.cpu_ms / 1000:.2f}",
            f"{each.cpu_ms / max(deliveries, 1):.4f}",
            f"{each.cpu_ms / total_ms:.0%}" if each.counts and total_ms else "",
            f"{each.pss_bytes / 2**20:.0f}",
        )
    return table


def _stages(stages: Mapping[str, Spread]) -> Table:
    table = Table("stage", *(Column(name, justify="right") for name in ("p50 ms", "p99 ms", "max ms")))
    for name, spread in stages.items():
        table.add_row(name, *(f"{each:,.1f}" for each in (spread.p50, spread.p99, spread.max)))
    return table


def _cpu_ms(costs: tuple[Cost, ...]) -> float:
    return sum(each.cpu_ms for each in costs if each.counts)


def _spread(spread: Spread) -> Mapping[str, float]:
    return {"p50": round(spread.p50, 3), "p99": round(spread.p99, 3), "max": round(spread.max, 3)}


def _line(spread: Spread) -> str:
    return f"p50 {spread.p50:,.1f} ms, p99 {spread.p99:,.1f} ms, max {spread.max:,.1f} ms"


def _order(plan: Plan, found: Findings) -> str:
    if found.out_of_order is None:
        return "not checked: the log cannot be read without --broker"
    counts = f"{sum(found.out_of_order)} ({', '.join(str(count) for count in found.out_of_order)} by integration)"
    return counts if plan.ordering in _ORDERED else f"{counts}, which {plan.ordering} allows"


def _answer(status: int) -> str:
    return "no answer" if status == UNANSWERED else str(status)
